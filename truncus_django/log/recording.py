"""Writes what was sent and what came back.

Called by the backend for each request, with its messages: one insert for all of them, and one look
for events that came before. Nothing that fails here reaches the sender.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage
from django.db import (
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from truncus_django.api import contract
from truncus_django.api.errors import TruncusError
from truncus_django.api.results import SendResult, read_moment
from truncus_django.conf import Settings
from truncus_django.db.bulk import insert_new
from truncus_django.db.timestamps import storable_moment
from truncus_django.event_loop import off_the_event_loop
from truncus_django.log.ingest import attach
from truncus_django.log.transitions import EmailUpdate
from truncus_django.message import TruncusStatus
from truncus_django.models import Email
from truncus_django.sending.outgoing import OutgoingMessage
from truncus_django.states import State, next_sync, state_of

logger = logging.getLogger("truncus_django")

_RECORDED = "_truncus_recorded"
"""On a message whose send is ambiguous: the ids of its records, by the request's key and its
place in the request."""

_SAVEPOINT = "truncus_log"

_trouble: set[str] = set()
"""What kinds of trouble were logged since recording last worked."""
_trouble_with_events: set[str] = set()
"""The same for events that came before their email was recorded."""


def record(
    outgoing_messages: Sequence[OutgoingMessage], *, alias: str | None, settings: Settings
) -> None:
    """Record the emails of one request. Two queries for any number up to 100.

    One more for a message with a key of its own, and two where the send under that key was
    ambiguous.

    Inside a transaction of the caller's, a savepoint keeps it whole if recording fails. In a
    coroutine, another thread records while this one waits.
    """
    sent = [outgoing for outgoing in outgoing_messages if not outgoing.is_cancelled]
    if not sent:
        return  # which proves nothing about the database
    try:
        off_the_event_loop(lambda: _record_somehow(sent, alias=alias, settings=settings))
    except Exception as exc:  # noqa: BLE001  the emails are sent; this must not tell otherwise
        _report(exc, _trouble, "Emails were sent and could not be recorded")
    else:
        _trouble.clear()


def _record_somehow(
    sent: Sequence[OutgoingMessage], *, alias: str | None, settings: Settings
) -> None:
    """Record ``sent``; over a new connection, or one by one, where that is what it takes."""
    connection = connections[settings.database or router.db_for_write(Email)]
    try:
        _record(sent, alias=alias, settings=settings)
    except (OperationalError, InterfaceError):
        if _is_in_a_transaction(connection):
            raise
        # Outside requests nobody else closes a connection that the server has ended.
        connection.close_if_unusable_or_obsolete()
        _record_again(sent, connection, alias=alias, settings=settings)
    except Exception:
        if len(sent) == 1:
            raise
        _record_one_by_one(sent, alias=alias, settings=settings)


def _record_again(
    sent: Sequence[OutgoingMessage],
    connection: BaseDatabaseWrapper,
    *,
    alias: str | None,
    settings: Settings,
) -> None:
    try:
        _record(sent, alias=alias, settings=settings)
    except (OperationalError, InterfaceError):
        connection.close_if_unusable_or_obsolete()  # the caller has more to do with it
        if len(sent) == 1 or not _connects(connection):
            raise
        # Together they may be more than the server takes in one statement.
        _record_one_by_one(sent, alias=alias, settings=settings)


def _record_one_by_one(
    sent: Sequence[OutgoingMessage], *, alias: str | None, settings: Settings
) -> None:
    """Record each for itself: what is odd about one must not cost the others their records."""
    for outgoing in sent:
        record([outgoing], alias=alias, settings=settings)


def _connects(connection: BaseDatabaseWrapper) -> bool:
    try:
        connection.ensure_connection()
    except Exception:  # noqa: BLE001  whatever it is, there is no connection
        return False
    return True


def _is_in_a_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether the caller has a transaction open, be it one that it commits by hand."""
    return connection.in_atomic_block or not connection.get_autocommit()


@contextmanager
def _kept_whole(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Set a savepoint in the caller's transaction, if there is one."""
    if connection.in_atomic_block:
        with transaction.atomic(using=connection.alias):
            yield
    elif connection.get_autocommit() or not connection.features.uses_savepoints:
        yield
    else:  # atomic() would commit all that the caller did, and connection.savepoint() needs it
        with connection.cursor() as cursor:
            cursor.execute(connection.ops.savepoint_create_sql(_SAVEPOINT))
        try:
            yield
        except BaseException:
            with connection.cursor() as cursor:
                cursor.execute(connection.ops.savepoint_rollback_sql(_SAVEPOINT))
            raise
        with connection.cursor() as cursor:
            cursor.execute(connection.ops.savepoint_commit_sql(_SAVEPOINT))


def _report(exc: Exception, known: set[str], what: str) -> None:
    """Log a kind of trouble once: a log handler may send email, which comes here again."""
    kind = type(exc).__name__
    if kind not in known:
        known.add(kind)
        # On SQLite a table that is missing is the same kind of error as one that is locked.
        lacks_tables = isinstance(exc, ProgrammingError) or "no such" in str(exc)
        hint = " Run manage.py migrate, if you have not." if lacks_tables else ""
        logger.error("%s: %s.%s Further ones are not logged.", what, kind, hint)


def _attach(message_ids: Sequence[str]) -> None:
    """Apply events that came before; without Django's own log line, which has no end by email."""
    try:
        attach(message_ids)
    except Exception as exc:  # noqa: BLE001  the emails are sent and recorded
        _report(exc, _trouble_with_events, "Events that came early could not be applied")
    else:
        _trouble_with_events.clear()


def _record(
    outgoing_messages: Sequence[OutgoingMessage], *, alias: str | None, settings: Settings
) -> None:
    rows = [_row(outgoing, alias, settings) for outgoing in outgoing_messages]
    earlier = {key for key in map(_earlier_id, outgoing_messages) if key is not None}
    repeated = [row for row in rows if row.pk in earlier]
    using = settings.database or router.db_for_write(Email)
    connection = connections[using]
    with _kept_whole(connection):
        for outgoing, row in zip(outgoing_messages, rows, strict=True):
            if row.pk not in earlier and _take_over_ambiguous(outgoing, row, using):
                earlier.add(row.pk)
        new = [row for row in rows if row.pk not in earlier]
        if new and insert_new(new, using=using) < len(new):
            # A message that Truncus recognised by its key has its record already.
            _name_earlier_records(new, using)
        if repeated:
            written = Email.objects.using(using).bulk_update(repeated, ANSWER_FIELDS)
            if written < len(repeated):  # the first record was rolled back, or could not be written
                insert_new(repeated, using=using)
    for outgoing, row in zip(outgoing_messages, rows, strict=True):
        _remember_row(outgoing, row)
    accepted = [row.message_id for row in rows if row.message_id]
    # Without a secret, every webhook is refused: no event can have come before its email.
    # Where the caller commits by hand, nobody tells when: truncus_sync applies such events.
    is_told = connection.in_atomic_block or connection.get_autocommit()
    if accepted and settings.webhook_secrets and is_told:
        transaction.on_commit(lambda: _attach(accepted), using=using)


def _take_over_ambiguous(outgoing: OutgoingMessage, row: Email, using: str) -> bool:
    """Write the answer to the record of an ambiguous send under the same own key, if there is one.

    The same key is the same email, though the message object is another: a task that is tried
    again makes its message anew. A refusal without an answer about the email leaves it ambiguous.
    Returns whether there was one, which ``row`` is then.
    """
    payload, result = outgoing.payload, outgoing.result
    if payload is None or payload.idempotency_key is None:
        return False
    if result is None and row.state != State.UNKNOWN:
        return False
    unknown = Email.objects.using(using).filter(
        idempotency_key=row.idempotency_key,
        mailer=row.mailer,
        is_sandbox=payload.is_sandbox,
        state=State.UNKNOWN,
        message_id=None,
        created_at__gte=row.created_at - timedelta(seconds=contract.IDEMPOTENCY_LIFE_S),
    )
    found = unknown.order_by("created_at").values_list("pk", flat=True).first()
    if found is None:
        return False
    if row.message_id and Email.objects.using(using).filter(message_id=row.message_id).exists():
        # A third one was recorded in between, and is the one that events will find.
        row.message_id = row.next_sync_at = None
    if not unknown.filter(pk=found).update(**{name: getattr(row, name) for name in ANSWER_FIELDS}):
        return False  # somebody was faster
    row.pk = found
    return True


# One message → one row --------------------------------------------------------------------------

ANSWER_FIELDS = [
    "message_id",
    "global_message_id",
    "provider_message_id",
    "state",
    "reason",
    "error_code",
    "error",
    "is_sandbox",
    "sent_at",
    "delivered_at",
    "bounced_at",
    "attempts",
    "next_sync_at",
]


def _row(outgoing: OutgoingMessage, alias: str | None, settings: Settings) -> Email:
    """Return the record of a message: a new one, or that of its earlier, ambiguous send."""
    row = content_row(outgoing, alias, settings)
    row.pk = _earlier_id(outgoing) or row.pk
    row.idempotency_key = (outgoing.key or "")[:255]
    row.batch_index = outgoing.batch_index
    add_answer(row, outgoing.result, outgoing.error)
    return row


def content_row(outgoing: OutgoingMessage, alias: str | None, settings: Settings) -> Email:
    """Return a record of what is sent; what comes back is still to be added."""
    payload = outgoing.payload
    email: dict[str, Any] = payload.email if payload else _what_can_be_read(outgoing.message)
    to, cc, bcc = (_addresses(email.get(name)) for name in ("to", "cc", "bcc"))
    subject = _clean(email.get("subject"))[:998]
    files = _dicts(email.get("attachments"))
    sizes = [_decoded_size(file.get("content")) for file in files]
    attachments = [
        {
            "filename": _clean(file.get("filename")),
            "content_type": _clean(file.get("content_type")),
            "size": size,
        }
        for file, size in zip(files, sizes, strict=True)
    ]
    return Email(
        mailer=(alias or "")[:100],
        from_email=_clean(email.get("from"))[:500],
        to=to,
        cc=cc,
        bcc=bcc,
        subject=subject,
        search_text=" ".join([*to, *cc, *bcc, subject]).lower(),
        tenant_id=_clean(email.get("tenant_id"))[:255],
        template_id=_clean(email.get("template_id"))[:255],
        metadata=_clean_strings(email.get("metadata")),
        is_sandbox=payload.is_sandbox if payload else settings.sandbox,
        track_opens=_flag(email.get("track_opens")),
        track_clicks=_flag(email.get("track_clicks")),
        attachments=attachments,
        attachment_count=len(attachments),
        attachment_bytes=sum(sizes),
        text_body=_clean(email["text"]) if settings.store_bodies and email.get("text") else None,
        html_body=_clean(email["html"]) if settings.store_bodies and email.get("html") else None,
        send_at=_moment(email.get("send_at")),
        resend_of_id=getattr(outgoing.message, "truncus_resend_of", None),
    )


def add_answer(
    row: Email | EmailUpdate,
    result: SendResult | None,
    error: TruncusError | None,
    *,
    at: datetime | None = None,
) -> None:
    """Write down what came back, now or ``at`` a moment: ids, state, times, or the error."""
    now = at or timezone.now()
    row.state = _state(result, error)
    if result is not None:
        row.message_id = _clean(result.message_id)[:255] or None
        row.global_message_id = _clean(result.global_message_id)[:255]
        row.provider_message_id = _clean(result.provider_message_id)[:255]
        row.is_sandbox = row.is_sandbox or result.is_sandbox
        row.reason = _clean(result.reason or result.error)[:300]
        row.attempts = result.attempts
        row.error_code = row.error = ""
    if error is not None:
        row.error_code = _clean(error.code)[:100]
        row.error = _clean(str(error))
        row.reason = row.reason or _clean(error.message)[:300]
        row.attempts = row.attempts or error.attempts
    if row.state in {State.SENT, State.DELIVERED, State.BOUNCED}:
        row.sent_at = now
    if row.state == State.DELIVERED:
        row.delivered_at = now
    if row.state == State.BOUNCED:
        row.bounced_at = now
    if row.message_id and not row.is_sandbox:
        row.next_sync_at = next_sync(row.state, sent_at=row.send_at or now, now=now)


def _state(result: SendResult | None, error: TruncusError | None) -> State:
    if result is None:
        return State.UNKNOWN if error is not None and error.ambiguous else State.FAILED
    return _state_of_result(result)


def _state_of_result(result: SendResult) -> State:
    status = result.email_status if result.status == contract.DUPLICATE else result.status
    return state_of(status) or State.SENT


def _earlier_id(outgoing: OutgoingMessage) -> UUID | None:
    """Return the id of the record of an earlier, ambiguous send that this one repeats."""
    recorded: dict[tuple[str, int], UUID] = outgoing.message.__dict__.get(_RECORDED) or {}
    earlier = outgoing.ambiguous_send
    return recorded.get((earlier.idempotency_key, earlier.index)) if earlier else None


def _name_earlier_records(rows: Sequence[Email], using: str) -> None:
    """Give rows that were not inserted the primary keys of the records that stand in their way."""
    ids = [row.message_id for row in rows]
    recorded = Email.objects.using(using).filter(message_id__in=ids)
    earlier = dict(recorded.values_list("message_id", "pk"))
    for row in rows:
        row.pk = earlier.get(row.message_id, row.pk)


def _remember_row(outgoing: OutgoingMessage, row: Email) -> None:
    """Note on a message which record is its own; if ambiguous, for when it is sent again, too.

    That note is replaced and never changed in place: a shallow copy of the message shares it.
    """
    status: TruncusStatus = outgoing.message.truncus_status  # type: ignore[attr-defined]
    outgoing.message.truncus_status = replace(status, email_pk=row.pk)  # type: ignore[attr-defined]
    if row.state == State.UNKNOWN and outgoing.key is not None:
        recorded = outgoing.message.__dict__.get(_RECORDED) or {}
        place = (outgoing.key, outgoing.batch_index or 0)
        outgoing.message.__dict__[_RECORDED] = {**recorded, place: row.pk}


def _what_can_be_read(message: EmailMessage) -> dict[str, Any]:
    """Return what there is of a message that could not become a payload."""
    fields: dict[str, Any] = {}
    for name, attribute in (("from", "from_email"), ("subject", "subject"), ("tenant_id",) * 2):
        fields[name] = _read(message, attribute)
    for name in ("to", "cc", "bcc"):
        addresses = getattr(message, name, None)
        if isinstance(addresses, list | tuple):
            fields[name] = [str(address) for address in addresses if isinstance(address, str)]
    return fields


def _read(message: EmailMessage, attribute: str) -> str:
    try:
        value = getattr(message, attribute, None)
        return "" if value is None else str(value)
    except Exception:  # noqa: BLE001  a lazy text may raise anything, and here it does not matter
        return ""


def _addresses(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    return [_clean(address) for address in listed] if isinstance(listed, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    listed = value if isinstance(value, list) else []
    return [item for item in listed if isinstance(item, dict)]


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _clean(value: Any) -> str:
    """Return text that every database takes: no NUL, no half characters."""
    if value is None:
        return ""
    text = str(value).replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _clean_strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {_clean(key): _clean(text) for key, text in value.items()}


def _moment(value: Any) -> datetime | None:
    moment = read_moment(value)  # esp_extra or a receiver may have put anything there
    return None if moment is None else storable_moment(moment)


def _decoded_size(content: Any) -> int:
    """Return how many bytes a base64 text stands for."""
    return len(content) * 3 // 4 - content[-2:].count("=") if isinstance(content, str) else 0
