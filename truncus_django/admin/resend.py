"""Sending a recorded email again, as a new email with the same content."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from uuid import UUID

from django.utils.translation import gettext as _

from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.api import contract
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import SendCancelled
from truncus_django.backend import TruncusBackend
from truncus_django.conf import ConfigurationError
from truncus_django.db.locks import take_write_lock
from truncus_django.mailers import get_mailer
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox.operations import VERSION_FIELDS, FindChanged
from truncus_django.outbox.stored_payload import UnreadablePayload, read_payload
from truncus_django.sending.forgotten import FORGOTTEN
from truncus_django.states import NEVER_SENT_STATES, UNSENT_STATES, State


class Outcome(Enum):
    """Whether a resend was sent."""

    SENT = "sent"
    SENT_BEFORE = "sent before"
    """It was already sent, by somebody else or by the same click; nothing was sent now."""
    AMBIGUOUS = "ambiguous"
    """An earlier resend may have been accepted; nothing was sent now."""
    CHANGED = "changed"
    """The email is no longer as the question showed it; nothing was sent now."""


@dataclass(frozen=True, slots=True)
class Resend:
    """The result of sending an email again.

    Attributes:
        outcome: whether it was sent.
        record: the new email; ``None`` if ``RECORD`` is off, or if the old one has changed.
    """

    outcome: Outcome
    record: Email | None


def why_not_resendable(email: Email, *, is_stored: bool) -> str:
    """Return why an email cannot be sent again; the empty string if it can.

    Args:
        is_stored: whether the outbox stores its payload.
    """
    if email.state in UNSENT_STATES - {State.UNKNOWN}:
        return _("It has not been sent yet.")
    if not email.to:
        return _("It has no recipient.")
    if FORGOTTEN in {email.from_email, *email.recipients}:
        return _("One of its recipients, or its sender, was forgotten.")
    if is_stored and (why_not := why_not_readable(email)):
        return why_not
    return "" if is_stored or email.template_id else why_no_text(email, is_stored=is_stored)


def why_not_readable(email: Email) -> str:
    """Return why what the outbox stores of an email cannot be sent; the empty string if it can."""
    if email.error_code == UnreadablePayload.CODE:
        return _("What the outbox stores of it cannot be read.")
    return ""


def why_no_text(email: Email, *, is_stored: bool) -> str:
    """Return why the log has no text of an email; the empty string if it has.

    Args:
        is_stored: whether the outbox stores its payload.
    """
    if email.text_body is not None or email.html_body is not None:
        return ""
    if email.template_id:
        return _("Truncus makes its text from the template.")
    if email.forgotten_at is not None:
        return _("Its text is not stored, as somebody was forgotten.")
    if is_stored:
        return _(
            "Its text is not shown: it may hold a reset link that still works. "
            "TRUNCUS['STORE_BODIES'] stores and shows texts."
        )
    if not _stores_bodies(email.mailer):
        return _(
            "Its text is not stored, or truncus_purge has dropped it since. "
            "TRUNCUS['STORE_BODIES'] stores the texts of later emails, which may hold reset links."
        )
    if email.state in {State.FAILED, State.REJECTED} and not email.attempts:
        return _("Its text is not stored, as it was refused before any request.")
    return _(
        "Its text is not stored: STORE_BODIES was off when it was sent, or truncus_purge has "
        "dropped it since."
    )


def _stores_bodies(mailer: str) -> bool:
    try:
        return get_mailer(mailer).settings.store_bodies
    except ConfigurationError:  # such as of a mailer that is gone
        return False


def what_is_lost(email: Email) -> list[str]:
    """Return what the new email lacks if the outbox does not store the payload of the old one."""
    lost = []
    if email.attachment_count:
        lost.append(_("its attachments (%(count)d)") % {"count": email.attachment_count})
    if email.template_id and email.html_body is None:
        lost.append(_("the variables of its template"))
    # The log does not know whether it had any.
    lost.append(_("Reply-To and headers of its own, if it had any"))
    return lost


def _build_message(email: Email, payload: str | None, *, key: str) -> TruncusMessage:
    """Return a new message with the same content for the same recipients.

    Args:
        payload: what the outbox stores of the email, which the message carries unchanged, with
            attachments. If ``None``, the message is made from what the log stores.
        key: the idempotency key, the same for all who confirm at once.

    Raises:
        UnreadablePayload: the payload cannot be read.
    """
    if payload is None:
        message = _from_log(email)
    elif (fields := read_payload(payload)) is not None:
        message = _from_payload(fields)
    else:
        raise UnreadablePayload
    message.sandbox = True if email.is_sandbox else None  # else as the settings say today
    message.idempotency_key = key
    message.truncus_resend_of = email.pk
    return message


def _from_payload(fields: EmailFields) -> TruncusMessage:
    to = fields["to"]
    carried = {name: value for name, value in fields.items() if name != "send_at"}
    return TruncusMessage(
        str(fields.get("subject") or ""),
        str(fields.get("text") or ""),
        fields.get("from"),
        to if isinstance(to, list) else [to],
        esp_extra=carried,
    )


def _from_log(email: Email) -> TruncusMessage:
    return TruncusMessage(
        email.subject,
        email.text_body or "",
        email.from_email or None,
        list(email.to),
        cc=list(email.cc),
        bcc=list(email.bcc),
        html=email.html_body,
        tenant_id=email.tenant_id or None,
        template_id=(email.template_id or None) if email.html_body is None else None,
        metadata=dict(email.metadata),
        track_opens=email.track_opens,
        track_clicks=email.track_clicks,
        unsubscribe=email.unsubscribe_list or None,
        inline_css=False,  # the HTML is as it was sent
    )


def resends_of(emails: Sequence[Email]) -> list[Email]:
    """Return the earlier resends of emails, oldest first, without their content."""
    resends = Email.objects.filter(resend_of__in=emails).order_by("created_at", "pk")
    return list(resends.only("id", "message_id", "state", "resend_of_id"))


class _Stopped(Exception):
    """Nothing is sent, though all was prepared."""

    def __init__(self, result: Resend) -> None:
        self.result = result


def resend(
    email: Email,
    *,
    click: UUID,
    known: Collection[UUID] = (),
    find_changed: FindChanged | None = None,
) -> Resend:
    """Send ``email`` again, unless it was sent again since the question was asked.

    Args:
        click: identifies the confirmation, if ``RECORD`` is off.
        known: the ids of the resends before the question was asked. The user wants one more.
        find_changed: as :func:`~truncus_django.outbox.operations.retry` takes it; not asked for a
            direct send.

    Raises:
        TruncusError: it was not sent.
        Email.DoesNotExist: it was deleted in the meantime.
    """
    earlier = resends_of([email])
    if (before := _sent_since(earlier, known)) is not None:
        return before
    payload = OutboxEntry.objects.filter(pk=email.pk).values_list("payload", flat=True).first()
    backend = TruncusBackend(**get_mailer(email.mailer).options)
    backend.alias = email.mailer or None  # the new record names it, too
    key = _key(email, earlier) if backend.settings.record else f"resend-{click.hex}-{email.pk.hex}"
    message = _build_message(email, payload, key=key)
    backend.check_in_outbox = partial(_check, email, known, find_changed)
    try:
        count = backend.send_messages([message])
    except _Stopped as stopped:
        return stopped.result
    if not count:
        raise SendCancelled  # by a receiver, which may have removed all recipients
    records = Email.objects.filter(resend_of=email, idempotency_key=key)
    record = records.exclude(state__in=NEVER_SENT_STATES).order_by("-created_at").first()
    status = message.truncus_status
    is_repeat = status is not None and status.status == contract.DUPLICATE
    return Resend(Outcome.SENT_BEFORE if is_repeat else Outcome.SENT, record)


def _sent_since(earlier: Sequence[Email], known: Collection[UUID]) -> Resend | None:
    """Return the result if an email was sent again, or may have been, after the question."""
    since = [
        each for each in earlier if each.pk not in known and each.state not in NEVER_SENT_STATES
    ]
    for each in since:
        if each.state != State.UNKNOWN:
            return Resend(Outcome.SENT_BEFORE, each)
    return Resend(Outcome.AMBIGUOUS, since[-1]) if since else None


def _check(email: Email, known: Collection[UUID], find_changed: FindChanged | None) -> None:
    """Keep others from trying an email again, or resending it, until the new one is written.

    Receivers have run by now, so that a slow one holds up nobody, unless the request is one
    transaction (``ATOMIC_REQUESTS``).

    Raises:
        _Stopped: it has changed, or was sent again.
        Email.DoesNotExist: it was deleted.
    """
    same = Email.objects.filter(pk=email.pk)
    take_write_lock(same)
    present = same.only(*VERSION_FIELDS).select_for_update().get()
    if find_changed is not None and find_changed([present], outbox_entries([present])):
        raise _Stopped(Resend(Outcome.CHANGED, None))
    if (before := _sent_since(resends_of([present]), known)) is not None:
        raise _Stopped(before)


def _key(email: Email, earlier: Sequence[Email]) -> str:
    """Return the idempotency key of the next resend, the same for all who confirm it at once.

    It changes with every resend that Truncus accepted. A resend that failed or may have been lost
    is repeated under its key, so that it is not sent twice.
    """
    taken = [each.pk.hex for each in earlier if each.message_id]
    return f"resend-{email.pk.hex}-{taken[-1] if taken else 'first'}"
