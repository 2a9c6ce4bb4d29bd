"""Ambiguous sends: noted on the message, so that sending it again is recognised.

The notes are the one thing of ours on Django's message objects besides ``truncus_status``.
"""

from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.sending.fingerprint import fingerprint
from truncus_django.sending.outgoing import (
    AmbiguousSend,
    Batch,
    Original,
    OutgoingMessage,
    SendOutcome,
    Sent,
)
from truncus_django.sending.payload import Payload

_ATTRIBUTE = "_truncus_ambiguous_sends"
"""By what :attr:`OutgoingMessage.noted_on` says: a tuple of :class:`AmbiguousSend`."""
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
    changes: list[_Change] = []
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
        changes.append((*outgoing.noted_on[0], batch.key, note))
        if outgoing.original is not None:
            of_original = replace(note, fingerprint=outgoing.original.fingerprint)
            changes.append((*outgoing.noted_on[-1], batch.key, of_original))
    _change(changes)


def remember_accepted(
    sent_batches: Iterable[Sequence[Sent]], client: TruncusClient, *, now: float
) -> Generator[Sequence[Sent]]:
    """Yield what became of messages; note what was accepted of one with merge data.

    That is needed where others of its emails may have been, too, or where the caller breaks off:
    whoever sends such a message again as a whole, as its error says they may, must reach nobody
    twice. ``now`` is in unix seconds.
    """
    accepted: list[_Accepted] = []
    is_any_ambiguous = False
    is_over = False
    try:
        for sent in sent_batches:
            try:
                yield sent
            finally:  # once it is recorded
                accepted += [
                    _Accepted(outgoing, original, payload, outcome, client.wire_format)
                    for outgoing, outcome in sent
                    if (original := outgoing.original) is not None
                    and (payload := outgoing.payload) is not None
                    and outcome.result is not None
                ]
            for _, outcome in sent:
                if outcome.error is not None and outcome.error.ambiguous:
                    is_any_ambiguous = True
        is_over = True
    finally:
        if is_any_ambiguous or not is_over:
            _change(each.change(client, now=now) for each in accepted)


class _Accepted:
    """What is to be noted of an accepted email made of a message with merge data.

    Not the message that was made for it: there are many, and others are seldom in doubt.
    """

    __slots__ = (
        "_earlier",
        "_original",
        "_outcome",
        "_payload",
        "_place",
        "_status",
        "_wire_format",
    )

    def __init__(
        self,
        outgoing: OutgoingMessage,
        original: Original,
        payload: Payload,
        outcome: SendOutcome,
        wire_format: WireFormat,
    ) -> None:
        self._original = original
        self._place = outgoing.noted_on[-1]
        self._payload = payload
        self._earlier = outgoing.ambiguous_send
        self._status = outgoing.message.truncus_status  # type: ignore[attr-defined]
        self._outcome = outcome
        self._wire_format = wire_format

    def change(self, client: TruncusClient, *, now: float) -> "_Change":
        """Return the note; ``now`` is in unix seconds."""
        payload, earlier, outcome = self._payload, self._earlier, self._outcome
        note = AmbiguousSend(
            idempotency_key=outcome.idempotency_key,
            account=client.account,
            email=payload.email,
            is_sandbox=payload.is_sandbox,
            size=payload.size,
            wire_format=earlier.wire_format if earlier else self._wire_format,
            fingerprint=self._original.fingerprint,
            index=outcome.batch_index or 0,
            batch_size=outcome.batch_size,
            since=earlier.since if earlier else now,
            is_ambiguous=True,
            email_pk=self._status.email_pk if self._status else None,
        )
        return (*self._place, outcome.idempotency_key, note)


def recall(
    outgoing: OutgoingMessage, client: TruncusClient, *, is_sandbox: bool
) -> AmbiguousSend | None:
    """Return what :func:`remember` noted, if it is about this message as it is now.

    A message that has changed since is another email, and so is one that goes to another
    account, or is a rehearsal where the other was none.
    """
    original = outgoing.original
    if _ATTRIBUTE not in (original.message if original else outgoing.message).__dict__:
        return None
    notes = [
        note
        for note in _notes(*outgoing.noted_on[-1])
        if note.account == client.account and note.is_sandbox == is_sandbox
    ]
    if not notes:
        return None
    present = original.fingerprint if original else fingerprint(outgoing.message)
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
