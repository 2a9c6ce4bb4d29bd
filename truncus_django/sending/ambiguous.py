"""Sends whose outcome is unknown: noted on the message, so that a repetition is recognised."""

import hashlib
import json
from collections.abc import Mapping
from email.message import Message
from threading import Lock
from typing import Any

from django.core.mail import EmailMessage
from django.utils import translation

from truncus_django.api.client import TruncusClient
from truncus_django.api.dialect import Form
from truncus_django.message import MERGE_NAMES, OPTION_NAMES, UNSUPPORTED_ANYMAIL_NAMES
from truncus_django.sending.outgoing import Batch, Parcel, UnknownSend

_ATTRIBUTE = "_truncus_unknown_sends"
_NAMES = sorted({"encoding", *OPTION_NAMES, *UNSUPPORTED_ANYMAIL_NAMES, *MERGE_NAMES})
_lock = Lock()


def remember(
    batch: Batch,
    client: TruncusClient,
    *,
    now: float,
    is_ambiguous: bool,
    form: Form | None = None,
) -> None:
    """Note on the messages of ``batch`` that it may have been accepted, in ``form`` if known."""
    for index, parcel in enumerate(batch.parcels):
        payload, earlier = parcel.payload, parcel.unknown_send
        if payload is None:
            continue
        note = UnknownSend(
            idempotency_key=batch.key,
            account=client.account,
            email=payload.email,
            is_sandbox=payload.is_sandbox,
            size=payload.size,
            form=form or (earlier.form if earlier else parcel.form or client.form),
            fingerprint=fingerprint(parcel.message),
            index=index,
            batch_size=len(batch.parcels),
            since=earlier.since if earlier else now,
            is_ambiguous=is_ambiguous or parcel.is_in_doubt,
        )
        _replace(parcel, batch.key, note)


def recall(parcel: Parcel, client: TruncusClient, *, is_sandbox: bool) -> UnknownSend | None:
    """Return what :func:`remember` noted, if it is about this message as it is now.

    A message that has changed since is another email, and so is one that goes to another
    account, or is a rehearsal where the other was none.
    """
    notes = [
        note
        for note in parcel.message.__dict__.get(_ATTRIBUTE, {}).get(parcel.occurrence, ())
        if note.account == client.account and note.is_sandbox == is_sandbox
    ]
    if not notes:
        return None
    present = fingerprint(parcel.message)
    same = [note for note in notes if note.fingerprint == present]
    # A request that surely failed may have been followed by one that was perhaps accepted.
    return next((note for note in same if note.is_ambiguous), same[0] if same else None)


def forget(parcel: Parcel) -> None:
    """Take away what :func:`remember` noted of the parcel's request: its outcome is known."""
    if parcel.key is not None and _ATTRIBUTE in parcel.message.__dict__:
        _replace(parcel, parcel.key, None)


def _replace(parcel: Parcel, key: str, note: UnknownSend | None) -> None:
    """Put ``note`` in the place of the one with ``key``.

    What is there is never changed in place: a shallow copy of the message shares it, and another
    thread may be sending the same message.
    """
    with _lock:
        noted = parcel.message.__dict__.get(_ATTRIBUTE, {})
        others = [one for one in noted.get(parcel.occurrence, ()) if one.idempotency_key != key]
        notes = (*others, note) if note is not None else tuple(others)
        parcel.message.__dict__[_ATTRIBUTE] = {**noted, parcel.occurrence: notes}


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
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return str(value)
