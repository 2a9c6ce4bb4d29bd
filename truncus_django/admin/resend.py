"""Sending a recorded e-mail again: a new e-mail with what the log knows of the old one."""

from uuid import UUID

from django.utils.translation import gettext as _

from truncus_django.accounts import backend_of
from truncus_django.admin.kept import is_kept, kept_fields, message_with
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.states import UNSENT_STATES, State


def why_not_resendable(email: Email) -> str:
    """Return what keeps an e-mail from being sent again; the empty string for nothing."""
    if email.state in UNSENT_STATES - {State.UNKNOWN}:
        return _("It has yet to be sent.")
    if not email.to:
        return _("It has no recipient.")
    is_recorded = email.text_body is not None or email.html_body is not None or email.template_id
    if not is_recorded and not is_kept(email):
        return _("Its text was not kept: STORE_BODIES was off when it was sent.")
    return ""


def what_is_lost(email: Email) -> list[str]:
    """Return what the new e-mail will lack, because the log does not keep it."""
    lost = []
    if email.attachment_count:
        lost.append(_("its attachments (%(count)d)") % {"count": email.attachment_count})
    if email.template_id and email.html_body is None:
        lost.append(_("the variables of its template"))
    return lost if lost and not is_kept(email) else []


def build_message(email: Email, *, key: str) -> TruncusMessage:
    """Return a new message that says the same to the same people.

    Where the outbox has kept what was to be sent, that is what is sent, attachments and all.

    Args:
        key: the idempotency key, so that the same click never sends twice.
    """
    kept = kept_fields(email)
    if kept is not None:
        message = message_with(kept)
        message.sandbox = True if email.is_sandbox else None
        message.idempotency_key = key
        message.truncus_resend_of = email.pk
        return message
    message = TruncusMessage(
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
        sandbox=True if email.is_sandbox else None,  # else as the settings say today
        idempotency_key=key,
    )
    message.truncus_resend_of = email.pk
    return message


def resend(email: Email, *, click: UUID) -> tuple[Email | None, bool]:
    """Send ``email`` again; return the record of the new one and whether it was sent just now.

    Args:
        click: of the confirmation; the same one sends once. There may be no record, as ``RECORD``
            may be off.

    Raises:
        TruncusError: it was not sent.
    """
    key = f"resend-{click.hex}-{email.pk.hex}"
    records = Email.objects.filter(resend_of=email, idempotency_key=key)
    sent_before = records.first()
    if sent_before is not None:
        return sent_before, False
    backend = backend_of(email.mailer)
    backend.alias = email.mailer or None  # the new record names it, too
    backend.send_messages([build_message(email, key=key)])
    return records.first(), True
