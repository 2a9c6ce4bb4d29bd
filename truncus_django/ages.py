"""Moments as people write them on a command line: an age, or a date."""

import re
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,6})([mhdw])")

EXPLANATION = "an age such as 30m, 2h, 90d or 4w, or a date such as 2026-11-01"


def moment_of(text: str, *, now: datetime) -> datetime:
    """Return the moment that ``text`` means: ``2h`` before ``now``, or a date or time in ISO form.

    A date is its midnight, and what names no zone is in the current one.

    Raises:
        ValueError: it is neither, or lies in the future.
    """
    age = _AGE.fullmatch(text.strip().lower())
    try:
        moment = now - timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else _iso(text.strip())
    except OverflowError:
        moment = None
    if moment is None or moment.year < 1970:
        raise ValueError(f"{text!r} is not {EXPLANATION}.")
    if moment > now:
        raise ValueError(f"{text!r} lies in the future.")
    return moment


def _iso(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)  # a date is its midnight
    except ValueError:
        return None
    if settings.USE_TZ and timezone.is_naive(moment):
        return timezone.make_aware(moment)
    if not settings.USE_TZ and timezone.is_aware(moment):
        return timezone.make_naive(moment)
    return moment


def span(seconds: float) -> str:
    """Return a length of time in words of one or two units.

    >>> span(0.42), span(75), span(7260), span(260000)
    ('0.4 s', '1 min 15 s', '2 h 1 min', '3 d 0 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
