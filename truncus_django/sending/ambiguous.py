"""Ambiguous sends: noted on the message, so that sending it again is recognised.

The notes are the one thing of ours on Django's message objects besides ``truncus_status``.
"""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping
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
    on_originals_alone: bool = False,
) -> None:
    """Note on the messages of ``batch`` that it may have been accepted, and how it was sent.

    Args:
        now: unix seconds.
        is_ambiguous: as :attr:`AmbiguousSend.is_ambiguous`.
        wire_format: the form in which the emails went out.
        is_handed_over: as :attr:`AmbiguousSend.is_handed_over`.
        on_originals_alone: note nothing on those without merge data: their answer is known.
    """
    changes: list[_Change] = []
    for index, outgoing in enumerate(batch.messages):
        payload, earlier = outgoing.payload, outgoing.ambiguous_send
        if payload is None or (on_originals_alone and outgoing.original is None):
            continue
        note = AmbiguousSend(
            idempotency_key=batch.key,
            account=client.account,
            email=payload.email,
            is_sandbox=payload.is_sandbox,
            size=payload.size,
            wire_format=wire_format,
            fingerprint=outgoing.original_fingerprint,
            index=index,
            batch_size=len(batch.messages),
            since=earlier.since if earlier else now,
            is_ambiguous=is_ambiguous or outgoing.is_ambiguous,
            email_pk=earlier.email_pk if earlier else None,
            is_handed_over=is_handed_over,
        )
        if outgoing.original is not None:
            changes.append((*outgoing.noted_on[-1], batch.key, note))
        if not on_originals_alone:
            own = replace(note, fingerprint=fingerprint(outgoing.message))
            changes.append((*outgoing.noted_on[0], batch.key, own))
    _change(changes)


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
    present = outgoing.original_fingerprint or fingerprint(outgoing.message)
    same = [note for note in notes if note.fingerprint == present]
    # A request that surely failed may have been followed by one that was perhaps accepted.
    return next((note for note in same if note.is_ambiguous), same[0] if same else None)


def forget(outgoing: OutgoingMessage, key: str, *, on_original: bool = False) -> None:
    """Take away what :func:`remember` noted on a message of the request with this key.

    It was answered. What is noted on the original of a message with merge data stays, until all of
    its recipients' emails are: :func:`forget_original`.

    Args:
        on_original: take it away there, too: the email was certainly not sent.
    """
    for message, place in outgoing.noted_on if on_original else outgoing.noted_on[:1]:
        if _ATTRIBUTE in message.__dict__:
            _change([(message, place, key, None)])


def forget_original(message: EmailMessage) -> None:
    """Take away all notes on a message with merge data: a further send is another one."""
    message.__dict__.pop(_ATTRIBUTE, None)


def note_records(records: Iterable[tuple[OutgoingMessage, str, UUID]]) -> None:
    """Add to notes which record is the email's, for when it is sent again.

    Args:
        records: messages, the key of the request, and the record's primary key.
    """
    changes: list[_Change] = []
    for outgoing, key, email_pk in records:
        for message, place in outgoing.noted_on:
            notes = _notes(message, place)
            note = next((note for note in notes if note.idempotency_key == key), None)
            if note is not None:
                changes.append((message, place, key, replace(note, email_pk=email_pk)))
    _change(changes)


def without_notes(message: EmailMessage) -> EmailMessage:
    """Return the message, which is a copy, without the notes and the status of its original."""
    message.__dict__.pop(_ATTRIBUTE, None)
    message.truncus_status = None  # type: ignore[attr-defined]
    return message


_Change = tuple[EmailMessage, Hashable, str, AmbiguousSend | None]
"""A message, the place of a note on it, the note's key, and what stands there from now on."""


def _notes(message: EmailMessage, place: Hashable) -> tuple[AmbiguousSend, ...]:
    notes: Mapping[Hashable, tuple[AmbiguousSend, ...]] = message.__dict__.get(_ATTRIBUTE, {})
    return notes.get(place, ())


def _change(changes: Iterable[_Change]) -> None:
    """Replace notes by others with the same keys, or take them away.

    What is there is never changed in place: a shallow copy of the message shares it, and another
    thread may be sending the same message.
    """
    with _lock:
        noted: dict[int, dict[Hashable, tuple[AmbiguousSend, ...]]] = {}
        for message, place, key, note in changes:
            notes = noted.get(id(message))
            if notes is None:
                notes = noted[id(message)] = dict(message.__dict__.get(_ATTRIBUTE, {}))
                message.__dict__[_ATTRIBUTE] = notes
            others = [other for other in notes.get(place, ()) if other.idempotency_key != key]
            notes[place] = (*others, note) if note is not None else tuple(others)


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
