"""Sends whose outcome is unknown: noted on the message, so that a repetition is recognised."""

import hashlib
import json
from collections.abc import Mapping
from email.message import Message
from typing import Any

from django.core.mail import EmailMessage

from truncus_django.message import OPTION_NAMES
from truncus_django.parcels import Batch, Parcel, UnknownSend

_ATTRIBUTE = "_truncus_unknown_sends"


def remember(batch: Batch, *, now: float) -> None:
    """Note on the messages of ``batch`` that it may have been accepted."""
    for index, parcel in enumerate(batch.parcels):
        payload = parcel.payload
        if payload is None or payload.idempotency_key is not None:
            continue  # the message's own key does the same
        notes = parcel.message.__dict__.setdefault(_ATTRIBUTE, {})
        notes[parcel.occurrence] = UnknownSend(
            idempotency_key=batch.key,
            email=payload.email,
            is_sandbox=payload.is_sandbox,
            fingerprint=fingerprint(parcel.message),
            index=index,
            batch_size=len(batch.parcels),
            since=parcel.unknown_send.since if parcel.unknown_send else now,
        )


def recall(parcel: Parcel) -> UnknownSend | None:
    """Return what :func:`remember` noted, if the message has not changed since."""
    notes: dict[int, UnknownSend] = parcel.message.__dict__.get(_ATTRIBUTE) or {}
    note = notes.get(parcel.occurrence)
    if note is None or note.fingerprint != fingerprint(parcel.message):
        return None
    return note


def forget(parcel: Parcel) -> None:
    """Take away what :func:`remember` noted: the outcome is known."""
    notes = parcel.message.__dict__.get(_ATTRIBUTE)
    if notes is not None:
        notes.pop(parcel.occurrence, None)


def fingerprint(message: EmailMessage) -> str:
    """Return a digest of what the message holds itself.

    Not of its payload: settings, receivers, the time zone and the dates and boundaries of
    attached messages may differ at the second send of what is still the same message.
    """
    text = json.dumps(_content(message), default=_plain, skipkeys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(message: EmailMessage) -> list[Any]:
    options = {name: getattr(message, name, None) for name in sorted(OPTION_NAMES)}
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
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return str(value)
