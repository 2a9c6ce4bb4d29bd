"""Moments as the database stores them."""

from collections.abc import Callable
from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone


def storable_moment(moment: datetime) -> datetime:
    """Return ``moment`` with a time zone, or without one where ``USE_TZ`` is off."""
    if timezone.is_aware(moment) == settings.USE_TZ:
        return moment
    return (
        timezone.make_aware(moment, UTC)
        if settings.USE_TZ
        else timezone.make_naive(moment, timezone.get_default_timezone())
    )


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the earliest of the moments that are known."""
    return _choose(min, moments)


def latest(*moments: datetime | None) -> datetime | None:
    """Return the latest of the moments that are known."""
    return _choose(max, moments)


def _choose(
    choose: Callable[[list[datetime]], datetime], moments: tuple[datetime | None, ...]
) -> datetime | None:
    known = [moment for moment in moments if moment is not None]
    return choose(known) if known else None
