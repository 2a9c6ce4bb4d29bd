"""The monthly quotas in the admin: what is used, what is left, and for how long that lasts."""

from collections.abc import Sequence
from typing import Any

from django.utils.timesince import timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from truncus_django.admin import display
from truncus_django.outbox.reserve import HeldBack
from truncus_django.quota.overview import Quota, quotas

MAX_TENANTS = 20


def quota_rows(found: Sequence[Quota] | None = None) -> list[dict[str, Any]]:
    """Return what the dashboard shows about each account; of tenants', about the most used ones.

    Args:
        found: what is known; looked up, by one query, if ``None``.
    """
    shown = quotas() if found is None else found
    of_tenants = sorted(
        (quota for quota in shown if quota.tenant), key=lambda quota: -(quota.share or 0.0)
    )
    return [
        {"quota": quota, "lasts": _lasts(quota), "reported": _reported(quota), "cap": _cap(quota)}
        for quota in [*(each for each in shown if not each.tenant), *of_tenants[:MAX_TENANTS]]
    ]


def _lasts(quota: Quota) -> str:
    """Return for how long the quota lasts at the present rate."""
    renewed = timeuntil(quota.renewed_at, quota.at, depth=1)
    if quota.is_used_up:
        return _("used up; renewed in %(time)s") % {"time": renewed}
    if quota.left is None:
        return _("not reported this month")
    if quota.is_stale:
        return _("not known: reported too long ago")
    if quota.runs_out_at is None:
        return _("until it is renewed in %(time)s") % {"time": renewed}
    return _("%(time)s; renewed in %(renewed)s") % {
        "time": timeuntil(quota.runs_out_at, quota.at, depth=1),
        "renewed": renewed,
    }


def _reported(quota: Quota) -> Any:
    return "" if quota.told_at is None else display.moment(quota.told_at)


def _cap(quota: Quota) -> str:
    if quota.capped_until is None:
        return ""
    return _(
        "Emails from %(domains)s were refused today. It seems that a daily cap of the warm-up is "
        "used up; it is renewed in %(time)s. Truncus does not report these caps."
    ) % {
        "domains": ", ".join(quota.capped_domains),
        "time": timeuntil(quota.capped_until, quota.at, depth=1),
    }


def held_back_text(held: HeldBack) -> str:
    """Return why emails of low priority wait, and until when."""
    text = ngettext(
        "%(count)d email of low priority is held back: %(why)s",
        "%(count)d emails of low priority are held back: %(why)s",
        held.emails,
    )
    return text % {"count": held.emails, "why": why_held_back(held)}


def why_held_back(held: HeldBack) -> str:
    """Return the reason, and what ends it."""
    text = ngettext(
        "%(left)d email is left of this month's quota, and QUOTA_RESERVE keeps %(kept)d. Those "
        "held back are sent when the month ends or the quota grows.",
        "%(left)d emails are left of this month's quota, and QUOTA_RESERVE keeps %(kept)d. Those "
        "held back are sent when the month ends or the quota grows.",
        held.left,
    )
    return text % {"left": held.left, "kept": held.reserved}
