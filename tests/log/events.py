"""Events and answers about an email, as the tests of the log make them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from truncus_django.api.results import EmailDetails, ReportedEvent
from truncus_django.log.ingest import IncomingEvent, digest
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
SYNC = EmailEvent.Source.SYNC

A_LITTLE_LATER = 0.05
"""Webhooks and answers report one open with times that are some seconds apart."""

OPENS = [("delivered", 0), ("opened", 1), ("opened", 2), ("clicked", 2)]


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def email(message_id: str = "m-1", state: str = State.SENT, **fields: Any) -> Email:
    return Email.objects.create(message_id=message_id, state=state, **fields)


def incoming(word: str, minute: float = 0, message_id: str = "m-1", **fields: Any) -> IncomingEvent:
    at = START + timedelta(minutes=minute)
    event_id = digest(message_id, word, minute, fields.get("source"))
    return IncomingEvent(message_id, word, at, **{"event_id": event_id, **fields})


def answered(
    status: str = "delivered", *events: tuple[str, float], message_id: str = "m-1", **fields: Any
) -> EmailDetails:
    """What Truncus answers, with events as (type, minute)."""
    reported = tuple(
        ReportedEvent(f"{message_id}-{word}-{minute}", word, START + timedelta(minutes=minute))
        for word, minute in events
    )
    opens = [event.created_at for event in reported if event.type == "opened"]
    counts = {
        "open_count": len(opens),
        "click_count": sum(event.type == "clicked" for event in reported),
        "first_opened_at": min(opens, default=None),
        "last_opened_at": max(opens, default=None),
    }
    return EmailDetails(message_id, status, events=reported, **{**counts, **fields})


def fields_of(row: Email, *more: str) -> dict[str, Any]:
    """Return fields of an email as they are stored now."""
    names = (
        "state", "reason", "sent_at", "delivered_at", "bounced_at", "complained_at",
        "first_opened_at", "last_opened_at", "open_count", "click_count", *more,
    )  # fmt: skip
    row.refresh_from_db()
    return {name: getattr(row, name) for name in names}
