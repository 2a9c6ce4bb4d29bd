"""Numbers as the dashboard writes them, and the notice of the staging guard."""

from django import template
from django.utils import formats
from django.utils.translation import gettext as _

from truncus_django.conf import ConfigurationError, get_settings

register = template.Library()


@register.filter
def thousands(number: int) -> str:
    """Return a whole number with its thousands apart, as the language writes them."""
    return str(formats.number_format(number, use_l10n=True, force_grouping=True))


@register.simple_tag
def guard_notice() -> str:
    """Return what to say on each page about the guard of a staging site; empty without one."""
    try:
        settings = get_settings()
    except ConfigurationError:  # which the checks tell
        return ""
    if settings.redirect_to:
        to = ", ".join(settings.redirect_to)
        return _("The staging guard is on: emails go to %(to)s instead of their recipients.") % {
            "to": to
        }
    if settings.allow_recipients:
        return _("The staging guard is on: emails to others than ALLOW_RECIPIENTS are refused.")
    return ""


@register.filter
def percent(share: float) -> str:
    """Return a share, 0 to 1, as a percentage with one decimal place; below 1 %, with two."""
    places = 2 if 0 < share < 0.00995 else 1
    rounded = round(share * 100, places)  # number_format() cuts off
    return f"{formats.number_format(rounded, decimal_pos=places)} %"
