"""Writes what was sent and what came back.

Called by the backend for each request, with its messages: one insert for all of them, and one look
for events that came before. Nothing that fails here reaches the sender.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from truncus_django.api import contract
from truncus_django.api.errors import EmailRefused, TruncusError
from truncus_django.api.results import SendResult, read_moment
from truncus_django.conf import Settings
from truncus_django.db.bulk import insert_new, new_row
from truncus_django.db.retry import PASSING, is_in_transaction, over_a_live_connection
from truncus_django.db.tables import lacks_tables
from truncus_django.db.text import storable_text
from truncus_django.db.timestamps import storable_moment
from truncus_django.event_loop import off_the_event_loop
from truncus_django.log.ingest import attach
from truncus_django.log.search_text import search_text
from truncus_django.log.suppression import suppress, suppressions_from_answer
from truncus_django.log.transitions import EmailUpdate, advance_emails, next_sync_at
from truncus_django.message import TruncusStatus
from truncus_django.models import SENT_BY_LENGTH, Email, SuppressedAddress, database
from truncus_django.sending.addresses import listed
from truncus_django.sending.ambiguous import note_records
from truncus_django.sending.guard import current_guard
from truncus_django.sending.outgoing import OutgoingMessage, SendOutcome, Sent
from truncus_django.sending.screening import LIST_FIELD, as_screened
from truncus_django.states import State, state_of
from truncus_django.trouble_log import TroubleLog

_trouble = TroubleLog()
_trouble_with_events = TroubleLog()


def record(sent: Sequence[Sent], *, alias: str | None, settings: Settings) -> bool:
    """Record the emails of one request; return whether any were. Two queries for up to 100.

    One more for a message with a key of its own, and two where the send under that key was
    ambiguous.

    Inside a transaction of the caller's, a savepoint keeps it whole if recording fails. In a
    coroutine, another thread records while this one waits. Nothing that fails is raised.
    """
    emails = [(outgoing, outcome) for outgoing, outcome in sent if not outcome.is_cancelled]
    if not emails:
        return False  # which proves nothing about the database
    try:
        off_the_event_loop(lambda: _record_together_or_alone(emails, alias, settings))
    except Exception as exc:  # noqa: BLE001  the emails are sent; this must not tell otherwise
        _report(exc, _trouble, "Emails were sent and could not be recorded", "email_not_recorded")
        return False
    _trouble.clear()
    return True


def _record_together_or_alone(sent: Sequence[Sent], alias: str | None, settings: Settings) -> None:
    """Record emails together; where that fails, each alone, for one must not cost the others."""
    connection = connections[database()]
    try:
        over_a_live_connection(
            partial(_record, sent, connection, alias, settings), using=connection.alias
        )
    except Exception as exc:
        is_transaction_broken = is_in_transaction(connection) and isinstance(exc, PASSING)
        if len(sent) == 1 or is_transaction_broken or not _connects(connection):
            raise
        _record_each_alone(sent, connection, alias, settings)


def _record_each_alone(
    sent: Sequence[Sent], connection: BaseDatabaseWrapper, alias: str | None, settings: Settings
) -> None:
    trouble: Exception | None = None
    for one in sent:
        try:
            over_a_live_connection(
                partial(_record, [one], connection, alias, settings), using=connection.alias
            )
        except Exception as exc:  # noqa: BLE001  the others are tried, too
            trouble = exc
    if trouble is not None:
        raise trouble


def _connects(connection: BaseDatabaseWrapper) -> bool:
    try:
        connection.ensure_connection()
    except Exception:  # noqa: BLE001  whatever it is, there is no connection
        return False
    return True


def _report(exc: Exception, trouble: TroubleLog, what: str, event: str) -> None:
    hint = " Run manage.py migrate, if you have not." if lacks_tables(exc) else ""
    trouble.failed(exc, f"{what}: %s.{hint} Further ones are not logged.", event=event)


def _attach(message_ids: Sequence[str]) -> None:
    """Apply events that came before; without Django's own log line, which has no end by email."""
    try:
        attach(message_ids)
    except Exception as exc:  # noqa: BLE001  the emails are sent and recorded
        what = "Events that came early could not be applied"
        _report(exc, _trouble_with_events, what, "early_events_not_applied")
    else:
        _trouble_with_events.clear()


def _record(
    sent: Sequence[Sent], connection: BaseDatabaseWrapper, alias: str | None, settings: Settings
) -> None:
    using = connection.alias
    rows = [_row(outgoing, outcome, alias, settings) for outgoing, outcome in sent]
    # A savepoint in the caller's transaction, if there is one. Otherwise, one statement needs none;
    # where another follows it that fails, whoever records all again must not find the first done.
    has_suppressions = bool(_suppressions(sent, rows))
    is_atomic = has_suppressions or is_in_transaction(connection)
    with transaction.atomic(using=using) if is_atomic else nullcontext():
        written = _update_earlier_records(sent, rows, using)
        new = [row for row in rows if row.pk not in written]
        if new and insert_new(new, using=using) < len(new):
            # A message that Truncus recognised by its key has its record already.
            _name_earlier_records(new, using)
        if has_suppressions:
            suppress(_suppressions(sent, rows))  # by the primary keys that the records have now
    for (outgoing, _), row in zip(sent, rows, strict=True):
        _note_row(outgoing, row)
    note_records(
        (outgoing, outcome.idempotency_key, row.pk)
        for (outgoing, outcome), row in zip(sent, rows, strict=True)
        if outcome.idempotency_key and (row.state == State.UNKNOWN or outgoing.original is not None)
    )
    accepted = [row.message_id for row in rows if row.message_id]
    # Without a secret, every webhook is refused: no event can have come before its email.
    # After set_autocommit(False) nobody tells of the commit: truncus_sync applies such events.
    is_told = connection.in_atomic_block or connection.get_autocommit()
    if accepted and settings.webhook_secrets and is_told:
        transaction.on_commit(lambda: _attach(accepted), using=using)


def _suppressions(sent: Sequence[Sent], rows: Sequence[Email]) -> list[SuppressedAddress]:
    now = timezone.now()
    return [
        entry
        for (_, outcome), row in zip(sent, rows, strict=True)
        for entry in suppressions_from_answer(row, outcome, at=now)
    ]


def _update_earlier_records(
    sent: Sequence[Sent], rows: Sequence[Email], using: str
) -> Collection[UUID]:
    """Write what became of emails to the records of their earlier, ambiguous sends.

    Returns:
        the primary keys of the rows that have such a record, and are not to be inserted.
    """
    repeated = []
    written = set()
    for (outgoing, outcome), row in zip(sent, rows, strict=True):
        if _earlier_pk(outgoing) is not None:
            repeated.append(row)
        elif _complete_ambiguous_record(outgoing, outcome, row, using):
            written.add(row.pk)
    if repeated:
        # Not all may be found: the first record was rolled back, or could not be written.
        written |= advance_emails(repeated, ANSWER_FIELDS, emails=Email.objects.using(using))
    return written


def _complete_ambiguous_record(
    outgoing: OutgoingMessage, outcome: SendOutcome, row: Email, using: str
) -> bool:
    """Write the answer to the record of an ambiguous send under the same own key, if there is one.

    The same key is the same email, though the message object is another: a task that is tried
    again makes its message anew. A refusal without an answer about the email leaves it ambiguous.
    Returns whether there was one, which ``row`` is then.
    """
    payload = outgoing.payload
    if payload is None or payload.idempotency_key is None:
        return False
    if outcome.result is None and row.state != State.UNKNOWN:
        return False
    ambiguous = Email.objects.using(using).filter(
        idempotency_key=row.idempotency_key,
        mailer=row.mailer,
        is_sandbox=payload.is_sandbox,
        state=State.UNKNOWN,
        message_id=None,
        created_at__gte=row.created_at - timedelta(seconds=contract.IDEMPOTENCY_LIFE_S),
    )
    pk = ambiguous.order_by("created_at").values_list("pk", flat=True).first()
    if pk is None:
        return False
    if row.message_id and Email.objects.using(using).filter(message_id=row.message_id).exists():
        # A third one was recorded in between, and is the one that events will find.
        row.message_id = None
    new_pk, row.pk = row.pk, pk
    if not advance_emails([row], ANSWER_FIELDS, emails=ambiguous):
        row.pk = new_pk  # another process was faster
        return False
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
    "suppressed",
    "sent_by",
]


def _row(
    outgoing: OutgoingMessage, outcome: SendOutcome, alias: str | None, settings: Settings
) -> Email:
    """Return the record of a message: a new one, or that of its earlier, ambiguous send."""
    row = content_row(outgoing, alias, settings)
    row.pk = _earlier_pk(outgoing) or row.pk
    apply_outcome(row, outcome)
    if row.redirected_to and outgoing.payload is not None:
        row.redirected_to = redirected_to(outgoing.payload.email, outcome.error)
    return row


def content_row(outgoing: OutgoingMessage, alias: str | None, settings: Settings) -> Email:
    """Return a record of what is sent; what comes back is still to be added."""
    payload = outgoing.payload
    email: dict[str, Any] = payload.email if payload else _what_can_be_read(outgoing.message)
    to, cc, bcc = (_addresses(email.get(name)) for name in ("to", "cc", "bcc"))
    subject = storable_text(email.get("subject"))[:998]
    metadata = _strings(email.get("metadata"))
    files = _dicts(email.get("attachments"))
    sizes = [_decoded_size(file.get("content")) for file in files]
    attachments = [
        {
            "filename": storable_text(file.get("filename")),
            "content_type": storable_text(file.get("content_type")),
            "size": size,
        }
        for file, size in zip(files, sizes, strict=True)
    ]
    return new_row(
        Email,
        mailer=(alias or "")[:100],
        from_email=storable_text(email.get("from"))[:500],
        to=to,
        cc=cc,
        bcc=bcc,
        subject=subject,
        search_text=search_text([*to, *cc, *bcc], subject, metadata),
        tenant_id=storable_text(email.get("tenant_id"))[:255],
        template_id=storable_text(email.get("template_id"))[:255],
        metadata=metadata,
        is_sandbox=payload.is_sandbox if payload else settings.sandbox,
        track_opens=_flag(email.get("track_opens")),
        track_clicks=_flag(email.get("track_clicks")),
        attachments=attachments,
        attachment_count=len(attachments),
        attachment_bytes=sum(sizes),
        text_body=_body(email.get("text"), settings),
        html_body=_body(email.get("html"), settings),
        send_at=_moment(email.get("send_at")),
        redirected_to=redirected_to(email),
        unsubscribe_list=storable_text(email.get(LIST_FIELD))[:100],
        resend_of_id=getattr(outgoing.message, "truncus_resend_of", None),
    )


def redirected_to(email: Mapping[str, Any], error: TruncusError | None = None) -> list[str]:
    """Return who gets an email instead of its recipients, by the guard of a staging site.

    Args:
        email: the API's fields, and this package's own: nobody gets it instead of those who are
            suppressed.
        error: why it was not sent.
    """
    guard = current_guard()
    if guard is None or _is_own_refusal(error):
        return []
    screened = as_screened(email)
    try:
        guarded = guard(screened)
    except EmailRefused:  # nobody
        return []
    if guarded is screened:
        return []
    return [each for name in ("to", "cc", "bcc") for each in _addresses(guarded.get(name))]


def apply_outcome(
    row: Email | EmailUpdate, outcome: SendOutcome, *, at: datetime | None = None
) -> None:
    """Write what became of an email to its row: ids, state, times, or the error.

    Args:
        at: when that was known; now if ``None``.
    """
    now = at or timezone.now()
    result, error = outcome.result, outcome.error
    if outcome.redirected_to is not None:
        row.redirected_to = list(outcome.redirected_to)
    row.state = State.SENT if outcome.sent_by and error is None else _state(result, error)
    row.sent_by = outcome.sent_by[:SENT_BY_LENGTH]
    named = () if result is None else result.suppressed_addresses
    row.suppressed = [storable_text(each) for each in (*outcome.left_out, *named)]
    row.idempotency_key = outcome.idempotency_key[:255]
    row.batch_index = outcome.batch_index
    row.attempts = outcome.attempts
    if result is not None:
        row.message_id = storable_text(result.message_id)[:255] or None
        row.global_message_id = storable_text(result.global_message_id)[:255]
        row.provider_message_id = storable_text(result.provider_message_id)[:255]
        row.is_sandbox = row.is_sandbox or result.is_sandbox
        row.reason = storable_text(result.reason or result.error)[:300]
        row.error_code = row.error = ""
    if outcome.reason:
        row.reason = outcome.reason[:300]
        row.error_code = row.error = ""
    if error is not None:
        row.error_code = storable_text(error.code)[:100]
        row.error = storable_text(str(error))
        row.reason = row.reason or storable_text(error.message)[:300]
    if row.state in {State.SENT, State.DELIVERED, State.BOUNCED}:
        row.sent_at = now
    if row.state == State.DELIVERED:
        row.delivered_at = now
    if row.state == State.BOUNCED:
        row.bounced_at = now
    row.next_sync_at = next_sync_at(row, now=now)


def _state(result: SendResult | None, error: TruncusError | None) -> State:
    if result is None:
        if error is not None and error.ambiguous:
            return State.UNKNOWN
        return State.REJECTED if _is_own_refusal(error) else State.FAILED
    return _state_of_result(result)


def _is_own_refusal(error: TruncusError | None) -> bool:
    """Whether this site refused an email, before any request."""
    return isinstance(error, EmailRefused) and not error.is_from_truncus


def _state_of_result(result: SendResult) -> State:
    status = result.email_status if result.status == contract.DUPLICATE else result.status
    return state_of(status) or State.SENT


def _earlier_pk(outgoing: OutgoingMessage) -> UUID | None:
    """Return the primary key of the record of an ambiguous send that this one repeats."""
    return outgoing.ambiguous_send.email_pk if outgoing.ambiguous_send else None


def _name_earlier_records(rows: Sequence[Email], using: str) -> None:
    """Give rows that were not inserted the primary keys of the records that stand in their way."""
    ids = [row.message_id for row in rows]
    recorded = Email.objects.using(using).filter(message_id__in=ids)
    earlier = dict(recorded.values_list("message_id", "pk"))
    for row in rows:
        row.pk = earlier.get(row.message_id, row.pk)


def _note_row(outgoing: OutgoingMessage, row: Email) -> None:
    """Note on a message which record is its own."""
    status: TruncusStatus = outgoing.message.truncus_status  # type: ignore[attr-defined]
    outgoing.message.truncus_status = replace(status, email_pk=row.pk)  # type: ignore[attr-defined]


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
    return [storable_text(address) for address in listed(value)]


def _body(value: Any, settings: Settings) -> str | None:
    """Return a body to store; ``None`` where there is none, or it is not to be stored."""
    return storable_text(value) if settings.store_bodies and value else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    listed = value if isinstance(value, list) else []
    return [item for item in listed if isinstance(item, dict)]


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {storable_text(key): storable_text(text) for key, text in value.items()}


def _moment(value: Any) -> datetime | None:
    moment = read_moment(value)  # esp_extra or a receiver may have put anything there
    return None if moment is None else storable_moment(moment)


def _decoded_size(content: Any) -> int:
    """Return how many bytes a base64 text stands for."""
    return len(content) * 3 // 4 - content[-2:].count("=") if isinstance(content, str) else 0
