"""Numbers as the dashboard writes them."""

from django import template
from django.utils import formats

register = template.Library()


@register.filter
def thousands(number: int) -> str:
    """Return a whole number with its thousands apart, as the language writes them."""
    return str(formats.number_format(number, use_l10n=True, force_grouping=True))


@register.filter
def percent(share: float) -> str:
    """Return a share, 0 to 1, as a percentage with one decimal place."""
    rounded = round(share * 100, 1)  # number_format() cuts off
    return f"{formats.number_format(rounded, decimal_pos=1)} %"
