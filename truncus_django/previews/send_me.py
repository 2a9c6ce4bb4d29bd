"""“Send me this”: one email of a preview, to the person who looks at it and to nobody else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import django
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

_RECIPIENTS = ("to", "cc", "bcc")
# The real email has its idempotency key once, and would not be sent any more.
_OF_THE_REAL_EMAIL = ("idempotency_key", "send_at", "expires_at")


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of an email that somebody had sent to themselves."""

    is_sent: bool
    text: str


def send_to(message: EmailMessage, address: str) -> Trial:
    """Send a message now, to one address, by the project's default mailer."""
    message.to, message.cc, message.bcc = [address], [], []
    message.extra_headers = {
        name: value
        for name, value in message.extra_headers.items()
        if str(name).lower() not in _RECIPIENTS
    }
    for name in _OF_THE_REAL_EMAIL:
        if getattr(message, name, None) is not None:
            setattr(message, name, None)
    extra: Any = getattr(message, "esp_extra", None)
    if isinstance(extra, Mapping):
        left_out = {*_RECIPIENTS, *_OF_THE_REAL_EMAIL}
        kept = {name: value for name, value in extra.items() if name not in left_out}
        message.esp_extra = kept  # type: ignore[attr-defined]
    try:
        # Not message.send(): the message may have a connection of its own.
        accepted = _default_mailer().send_messages([message])
    except Exception as error:  # noqa: BLE001  whatever a mailer raises, the page says it
        return Trial(False, f"It was not sent. {type(error).__name__}: {error}")
    return _trial(message, address, is_accepted=bool(accepted))


def _default_mailer() -> BaseEmailBackend:
    return mail.mailers.default if django.VERSION >= (6, 1) else mail.get_connection()


def _trial(message: EmailMessage, address: str, *, is_accepted: bool) -> Trial:
    status = getattr(message, "truncus_status", None)
    if not is_accepted:
        is_cancelled = status is not None and status.status == "cancelled"
        cause = "A receiver of pre_send cancelled it." if is_cancelled else "The mailer skipped it."
        return Trial(False, f"It was not sent. {cause}")
    if status is not None and status.status == "pending":
        return Trial(True, f"It is in the outbox. A worker sends it to {address}.")
    if status is not None and status.answer is not None and status.answer.is_sandbox:
        return Trial(True, "Truncus checked it in the sandbox, and delivers nothing.")
    return Trial(True, f"It was sent to {address}.")
