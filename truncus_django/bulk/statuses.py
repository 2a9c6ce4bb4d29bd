"""The status of a message, told from the record of its email."""

from uuid import UUID

from truncus_django.api.errors import (
    EmailRefused,
    OutcomeUnknown,
    TruncusError,
    kind_of,
    loggable_code,
)
from truncus_django.api.results import SendResult
from truncus_django.message import TruncusStatus
from truncus_django.models import Email
from truncus_django.states import State

STATUS_FIELDS = (
    "state",
    "reason",
    "error_code",
    "error",
    "message_id",
    "global_message_id",
    "provider_message_id",
    "idempotency_key",
    "attempts",
    "is_sandbox",
    "send_at",
    "sent_by",
)
"""What a status is told from."""

_COUNTED_AS = {
    State.PENDING: "queued",
    State.SENDING: "queued",
    State.UNKNOWN: "unknown",
    State.FAILED: "failed",
    State.REJECTED: "failed",
    State.EXPIRED: "failed",
    State.CANCELLED: "cancelled",
}
_WITHOUT_ANSWER = frozenset(_COUNTED_AS) - {State.REJECTED}


def status_of_record(email: Email) -> TruncusStatus:
    """Return the status of a message whose email the outbox has, or had."""
    return TruncusStatus(
        status=email.state,
        id=email.message_id,
        idempotency_key=email.idempotency_key or None,
        answer=None if email.state in _WITHOUT_ANSWER or email.sent_by else _answer(email),
        error=_error(email),
        attempts=email.attempts,
        email_pk=email.pk,
        sent_by=email.sent_by or None,
    )


def status_of_deleted(pk: UUID) -> TruncusStatus:
    """Return the status of a message whose record somebody has deleted."""
    error = EmailRefused("Its record was deleted before it was sent")
    return TruncusStatus(status="failed", error=error, email_pk=pk)


def counted_as(status: TruncusStatus) -> str:
    """Return the count of a :class:`~.result.BulkResult` that a status belongs to."""
    return _COUNTED_AS.get(State(status.status), "accepted")


def reason_of(status: TruncusStatus) -> str:
    """Return why a message was not sent, as logs may hold it."""
    code = loggable_code(status.error.code) if status.error else None
    if code:
        return code
    is_prepared = status.error is not None and status.email_pk is None
    return type(status.error).__name__ if is_prepared else status.status


def _answer(email: Email) -> SendResult:
    return SendResult(
        status=email.state,
        message_id=email.message_id,
        global_message_id=email.global_message_id or None,
        provider_message_id=email.provider_message_id or None,
        reason=email.reason or None,
        code=email.error_code or None,
        is_sandbox=email.is_sandbox,
        send_at=email.send_at,
        attempts=email.attempts,
    )


def _error(email: Email) -> TruncusError | None:
    if email.state == State.UNKNOWN:
        return OutcomeUnknown(email.error or "It may have been accepted.")
    if _COUNTED_AS.get(State(email.state)) != "failed":
        return None
    kind = kind_of(email.error_code) or EmailRefused
    text = email.reason or f"The email is {email.get_state_display()}"
    return kind(text, code=email.error_code or None)
