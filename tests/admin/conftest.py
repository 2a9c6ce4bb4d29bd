"""The admin's pages show the log: what its tests share."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.log.conftest import (
    count_queries,
    emulator,
    in_threads,
    messages,
    other_database,
    recording,
    sent,
    shared_database,
)
from tests.people import may
from truncus_django.message import TruncusMessage
from truncus_django.models import Email

__all__ = [
    "count_queries",
    "emulator",
    "in_threads",
    "may",
    "messages",
    "other_database",
    "recording",
    "sent",
    "shared_database",
]


@pytest.fixture
def scheduled(emulator: Any) -> Email:
    """An email that Truncus is to send tomorrow."""
    TruncusMessage(
        "Tomorrow",
        "Soon.",
        "shop@example.com",
        ["ann@example.org"],
        send_at=timezone.now() + timedelta(days=1),
    ).send()
    return Email.objects.get()
