"""Digests of messages: whether one is still the same as at an earlier send."""

import hashlib
import json
from collections.abc import Mapping
from email.message import Message
from typing import Any

from django.core.mail import EmailMessage
from django.db.models import Model
from django.utils import translation

from truncus_django.message import OPTION_NAMES, UNSUPPORTED_ANYMAIL_NAMES

_NAMES = sorted({"encoding", *OPTION_NAMES, *UNSUPPORTED_ANYMAIL_NAMES})


def fingerprint(message: EmailMessage) -> str:
    """Return a digest of what the message holds itself.

    Not of its payload: settings, receivers, the time zone and the dates and boundaries of
    attached messages may differ at the second send of what is still the same message.
    """
    with translation.override(None):  # lazy texts are the same message in any language
        text = json.dumps(_content(message), default=_plain, skipkeys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(message: EmailMessage) -> list[Any]:
    options = {name: getattr(message, name, None) for name in _NAMES}
    return [
        [message.subject, message.body, message.content_subtype, message.from_email],
        [message.to, message.cc, message.bcc, message.reply_to],
        [[name, value] for name, value in message.extra_headers.items()],
        getattr(message, "alternatives", None) or [],
        message.attachments,
        {name: value for name, value in options.items() if value is not None},
    ]


def _plain(value: Any) -> Any:
    """Return what JSON does not know as something that it knows."""
    if isinstance(value, EmailMessage):
        return _content(value)
    if isinstance(value, Message):
        value = value.as_bytes()
    if isinstance(value, bytes | bytearray | memoryview):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Model):
        return str(value.pk)  # what it says of itself may change
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return str(value)
