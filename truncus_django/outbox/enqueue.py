"""Messages → rows, in the caller's own transaction. No request is made."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone

from truncus_django.api.errors import ConfigurationError, MessageError
from truncus_django.api.fields import encode
from truncus_django.bulk import insert
from truncus_django.conf import Settings
from truncus_django.log import content_row
from truncus_django.models import Email, OutboxEntry, Priority, database
from truncus_django.outbox.wake import wake_after_commit
from truncus_django.parcels import Parcel
from truncus_django.payload import moment_in_utc
from truncus_django.states import State
from truncus_django.texts import did_you_mean
from truncus_django.tracking import storable_moment

MAX_INSERT_BYTES = 8 * 1024 * 1024
"""Rows go to the database in statements of about so many bytes: MariaDB takes 16 MB of each."""
MAX_INSERT_ROWS = 100

WORKERS_OPTIONS = frozenset({"api_key", "base_url", "dialect", "plain_http_hosts", "timeout"})
"""Settings that a worker goes by; it knows those of mailers, not those of a backend's keywords."""


def check_options(options: Sequence[str]) -> None:
    """Refuse keywords of a backend that whoever sends later could not know.

    Raises:
        ConfigurationError: there are such keywords.
    """
    lost = sorted(WORKERS_OPTIONS & set(options))
    if lost:
        raise ConfigurationError(
            f"A worker cannot know {', '.join(lost)} of a backend made by hand. Put them into "
            "TRUNCUS or into a mailer of MAILERS, or send with delivery='direct'."
        )


def check_message(message: EmailMessage) -> None:
    """Refuse a priority or an expiry that is none.

    Raises:
        MessageError: it says what is wrong.
    """
    priority_of(message)
    expiry_of(message)


def enqueue(parcels: Sequence[Parcel], *, alias: str | None, settings: Settings) -> None:
    """Write the e-mails of ``parcels``, which have their payloads, into the outbox.

    Two inserts for up to 100 e-mails, both in the transaction that is open, or in one of their own.
    Sets ``parcel.email_id`` of each.

    Raises:
        django.db.DatabaseError: nothing was written; so the caller's transaction says.
    """
    using = database()
    now = timezone.now()
    with transaction.atomic(using=using, savepoint=False):
        for chunk in _chunks(parcels):
            emails, entries = [], []
            for parcel in chunk:
                # Those of a list go out in its order.
                written_at = now + timedelta(microseconds=parcel.index)
                email, entry = _rows(parcel, alias, settings, written_at)
                emails.append(email)
                entries.append(entry)
                parcel.email_id = email.pk
            insert(emails, using=using)
            insert(entries, using=using)
        wake_after_commit(using, settings)


def _rows(
    parcel: Parcel, alias: str | None, settings: Settings, written_at: datetime
) -> tuple[Email, OutboxEntry]:
    payload = parcel.payload
    if payload is None:
        raise TypeError("A parcel without its payload cannot be written.")
    email = content_row(parcel, alias, settings)
    email.state = State.PENDING
    email.created_at = written_at
    text = encode(payload.email).decode()
    entry = OutboxEntry(
        email_id=email.pk,
        payload=text,
        size=len(text),
        mailer=email.mailer,
        is_sandbox=payload.is_sandbox,
        own_key=payload.idempotency_key or "",
        priority=priority_of(parcel.message),
        expires_at=expiry_of(parcel.message),
        created_at=written_at,
    )
    email.idempotency_key = entry.own_key
    return email, entry


def _chunks(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    chunk: list[Parcel] = []
    size = 0
    for parcel in parcels:
        own_size = parcel.payload.size if parcel.payload else 0
        if chunk and (len(chunk) == MAX_INSERT_ROWS or size + own_size > MAX_INSERT_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(parcel)
        size += own_size
    if chunk:
        yield chunk


# Options of the outbox ----------------------------------------------------------------------------

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def priority_of(message: EmailMessage) -> Priority:
    """Return a message's priority; normal where it has none.

    Raises:
        MessageError: there is no such priority.
    """
    given: Any = getattr(message, "priority", None)
    if given is None:
        return Priority.NORMAL
    priority = _PRIORITIES.get(given) if isinstance(given, str) else None
    if priority is None:
        hint = did_you_mean(given, _PRIORITIES) if isinstance(given, str) else ""
        raise MessageError(f"priority must be 'high', 'normal' or 'low'{hint or '.'}")
    return priority


def expiry_of(message: EmailMessage) -> datetime | None:
    """Return the moment from which a message is worth nothing, as the database stores moments.

    Raises:
        MessageError: it is no moment, or over already.
    """
    given: Any = getattr(message, "expires_at", None)
    if given is None:
        return None
    present = datetime.now(UTC)
    try:
        moment = present + given if isinstance(given, timedelta) else _moment_of(given)
    except OverflowError:
        return None  # never
    if moment <= present:
        raise MessageError("expires_at is in the past: the e-mail is worth nothing any more.")
    return storable_moment(moment)


def _moment_of(given: datetime | date | float | str) -> datetime:
    try:
        return moment_in_utc(given)
    except (ValueError, OverflowError, OSError, TypeError):
        raise MessageError(
            "expires_at must be a datetime, a timedelta, unix seconds or an ISO 8601 string."
        ) from None
