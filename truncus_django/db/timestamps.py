"""Moments as the database stores them."""

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
