"""Ambiguous sends: noted on the message, so that sending it again is recognised.

The notes are the one thing of ours on Django's message objects besides ``truncus_status``.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import replace
from email.message import Message
from threading import Lock
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage
from django.db.models import Model
from django.utils import translation

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.message import OPTION_NAMES, UNSUPPORTED_ANYMAIL_NAMES
from truncus_django.sending.outgoing import AmbiguousSend, Batch, OutgoingMessage

_ATTRIBUTE = "_truncus_ambiguous_sends"
"""By what :attr:`OutgoingMessage.noted_on` says: a tuple of :class:`AmbiguousSend`."""
_NAMES = sorted({"encoding", *OPTION_NAMES, *UNSUPPORTED_ANYMAIL_NAMES})
_lock = Lock()


def remember(
    batch: Batch,
    client: TruncusClient,
    *,
    now: float,
    is_ambiguous: bool,
    wire_format: WireFormat,
    is_handed_over: bool = False,
) -> None:
    """Note on the messages of ``batch`` that it may have been accepted, and how it was sent.

    Args:
        now: unix seconds.
        is_ambiguous: as :attr:`AmbiguousSend.is_ambiguous`.
        wire_format: the form in which the emails went out.
        is_handed_over: as :attr:`AmbiguousSend.is_handed_over`.
    """
    for index, outgoing in enumerate(batch.messages):
        payload, earlier = outgoing.payload, outgoing.ambiguous_send
        if payload is None:
            continue
        note = AmbiguousSend(
            idempotency_key=batch.key,
            account=client.account,
            email=payload.email,
            is_sandbox=payload.is_sandbox,
            size=payload.size,
            wire_format=wire_format,
            fingerprint=fingerprint(outgoing.message),
            index=index,
            batch_size=len(batch.messages),
            since=earlier.since if earlier else now,
            is_ambiguous=is_ambiguous or outgoing.is_ambiguous,
            email_pk=earlier.email_pk if earlier else None,
            is_handed_over=is_handed_over,
        )
        for message, place in outgoing.noted_on:
            _replace(message, place, batch.key, note)


def recall(
    outgoing: OutgoingMessage, client: TruncusClient, *, is_sandbox: bool
) -> AmbiguousSend | None:
    """Return what :func:`remember` noted, if it is about this message as it is now.

    A message that has changed since is another email, and so is one that goes to another
    account, or is a rehearsal where the other was none.
    """
    notes = [
        note
        for note in _notes(*outgoing.noted_on[-1])
        if note.account == client.account and note.is_sandbox == is_sandbox
    ]
    if not notes:
        return None
    present = fingerprint(outgoing.message)
    same = [note for note in notes if note.fingerprint == present]
    # A request that surely failed may have been followed by one that was perhaps accepted.
    return next((note for note in same if note.is_ambiguous), same[0] if same else None)


def forget(outgoing: OutgoingMessage, key: str) -> None:
    """Take away what :func:`remember` noted of the request with this key: it was answered."""
    for message, place in outgoing.noted_on:
        if _ATTRIBUTE in message.__dict__:
            _replace(message, place, key, None)


def note_record(outgoing: OutgoingMessage, key: str, email_pk: UUID) -> None:
    """Add to the note with this key which record is the email's, for when it is sent again."""
    for message, place in outgoing.noted_on:
        notes = _notes(message, place)
        note = next((note for note in notes if note.idempotency_key == key), None)
        if note is not None:
            _replace(message, place, key, replace(note, email_pk=email_pk))


def without_notes(message: EmailMessage) -> EmailMessage:
    """Return the message, which is a copy, without the notes and the status of its original."""
    message.__dict__.pop(_ATTRIBUTE, None)
    message.truncus_status = None  # type: ignore[attr-defined]
    return message


def _notes(message: EmailMessage, place: Hashable) -> tuple[AmbiguousSend, ...]:
    notes: Mapping[Hashable, tuple[AmbiguousSend, ...]] = message.__dict__.get(_ATTRIBUTE, {})
    return notes.get(place, ())


def _replace(message: EmailMessage, place: Hashable, key: str, note: AmbiguousSend | None) -> None:
    """Put ``note`` in the place of the one with ``key``.

    What is there is never changed in place: a shallow copy of the message shares it, and another
    thread may be sending the same message.
    """
    with _lock:
        noted = message.__dict__.get(_ATTRIBUTE, {})
        known = _notes(message, place)
        others = [other for other in known if other.idempotency_key != key]
        notes = (*others, note) if note is not None else tuple(others)
        message.__dict__[_ATTRIBUTE] = {**noted, place: notes}


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
