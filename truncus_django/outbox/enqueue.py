"""Messages → rows, in the caller's own transaction. No request is made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone

from truncus_django import telemetry
from truncus_django.api.errors import MessageError, OutcomeUnknown, TruncusError
from truncus_django.api.results import LATEST
from truncus_django.awaited_send import current_awaited_send
from truncus_django.conf import ACCOUNT_SETTINGS, ConfigurationError, Settings
from truncus_django.db.bulk import insert, new_row
from truncus_django.db.timestamps import storable_moment
from truncus_django.log.recording import content_row
from truncus_django.models import Email, OutboxEntry, Priority, database
from truncus_django.outbox.notify import notify_after_commit
from truncus_django.outbox.stored_payload import payload_json
from truncus_django.sending.outgoing import OutgoingMessage
from truncus_django.sending.payload import moment_in_utc
from truncus_django.states import State
from truncus_django.validation import did_you_mean

MAX_INSERT_BYTES = 8 * 1024 * 1024
"""Rows go to the database in statements of about so many bytes: MariaDB takes 16 MB of each."""
MAX_INSERT_ROWS = 100


def check_options(options: Sequence[str]) -> None:
    """Refuse keywords of a backend that whoever sends later could not know.

    Raises:
        ConfigurationError: there are such keywords.
    """
    lost = sorted(ACCOUNT_SETTINGS.intersection(options))
    if lost:
        raise ConfigurationError(
            f"A worker cannot know {', '.join(lost)} of a backend made by hand. Put them into "
            "TRUNCUS or into a mailer of MAILERS, or send with delivery='direct'."
        )


@dataclass(frozen=True, slots=True)
class Row:
    """An email as it is written: its record, and what is to be sent."""

    email: Email = field(repr=False)
    entry: OutboxEntry = field(repr=False)


def row_or_error(
    outgoing: OutgoingMessage, alias: str | None, settings: Settings
) -> Row | TruncusError:
    """Return what is written of a message that has a payload, or why it cannot be."""
    try:
        return row_of(outgoing, alias=alias, settings=settings)
    except TruncusError as error:
        return error


def row_of(outgoing: OutgoingMessage, *, alias: str | None, settings: Settings) -> Row:
    """Return what is written of a message that has become a payload.

    Raises:
        OutcomeUnknown: an earlier direct send may have been accepted, and its key is not the
            message's own, so that the outbox would send it as another email.
        MessageError: its priority or expiry is none, or a field of its payload has another type
            than the API documents, or is no JSON.
    """
    payload = outgoing.payload
    if payload is None:
        raise TypeError("An outgoing message without its payload cannot be written.")
    if outgoing.is_ambiguous and payload.idempotency_key is None:
        raise OutcomeUnknown(
            "An earlier direct send of this message may have been accepted. Send it again "
            "directly, which cannot send it twice, or a new message object if you know that it "
            "was not."
        )
    stored = payload_json(payload.email)
    email = content_row(outgoing, alias, settings)
    email.state = State.PENDING
    email.redirected_to = []  # the guard decides at the request
    email.idempotency_key = payload.idempotency_key or ""
    # Those of a list go out in its order.
    email.created_at = timezone.now() + timedelta(microseconds=outgoing.position)
    entry = new_row(
        OutboxEntry,
        email_id=email.pk,
        payload=stored.decode(),
        size=len(stored),
        mailer=email.mailer,
        tenant=outgoing.tenant,
        is_sandbox=payload.is_sandbox,
        own_key=email.idempotency_key,
        priority=priority_of(outgoing.message),
        expires_at=expiry_of(outgoing.message),
        created_at=email.created_at,
        is_retained=settings.store_bodies,
    )
    return Row(email, entry)


def enqueue(
    rows: Sequence[Row], settings: Settings, *, check: Callable[[], None] | None = None
) -> None:
    """Write emails into the outbox, and notify whoever sends them after the commit.

    Two inserts for up to 100 emails, both in the transaction that is open, or in one of their own.

    Args:
        rows: the emails.
        settings: those of their mailer.
        check: called first, in that transaction; what it raises keeps them from being written.

    Raises:
        django.db.DatabaseError: nothing was written; so the caller's transaction says.
        asyncio.CancelledError: nothing was written, because nobody awaits the send any more.
        Exception: nothing was written, because ``check`` raised it.
    """
    using = database()
    # Without a savepoint, a check would break the caller's transaction. Others are spared its time.
    atomic = transaction.atomic(using=using, savepoint=check is not None)
    with telemetry.enqueuing(len(rows)), atomic:
        if check is not None:
            check()
        traceparent = telemetry.current_traceparent()
        for row in rows:
            row.entry.traceparent = traceparent
        for chunk in _chunks(rows):
            insert([row.email for row in chunk], using=using)
            insert([row.entry for row in chunk], using=using)
        notify_after_commit(using, settings)
        awaited = current_awaited_send()
        if awaited is not None:
            awaited.stop_if_cancelled()


def _chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if chunk and (len(chunk) == MAX_INSERT_ROWS or size + row.entry.size > MAX_INSERT_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row.entry.size
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
    """Return the moment at which a message expires, as the database stores moments.

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
        moment = LATEST
    if moment >= LATEST:
        return None  # never
    if moment <= present:
        raise MessageError("expires_at is in the past: it is too late to send the email.")
    return storable_moment(moment)


def _moment_of(given: datetime | date | float | str) -> datetime:
    try:
        return moment_in_utc(given)
    except (ValueError, OverflowError, OSError, TypeError):
        raise MessageError(
            "expires_at must be a datetime, a timedelta, unix seconds or an ISO 8601 string."
        ) from None
