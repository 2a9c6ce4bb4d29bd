"""Ambiguous sends: noted on the message, so that sending it again is recognised.

The notes are the one thing of ours on Django's message objects besides ``truncus_status``.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from threading import Lock
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.awaited_send import once_answer_is_learned
from truncus_django.sending.fingerprint import fingerprint
from truncus_django.sending.outgoing import AmbiguousSend, Batch, OutgoingMessage

_ATTRIBUTE = "_truncus_ambiguous_sends"
"""By what :attr:`OutgoingMessage.noted_on` says: a tuple of :class:`AmbiguousSend`."""
_lock = Lock()


def remember(
    batch: Batch, client: TruncusClient, *, now: float, is_ambiguous: bool, wire_format: WireFormat
) -> None:
    """Note on the messages of ``batch`` that it may have been accepted, and how it was sent.

    Args:
        now: unix seconds.
        is_ambiguous: as :attr:`AmbiguousSend.is_ambiguous`.
        wire_format: the form in which the emails went out.
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
        )
        changes.append((*outgoing.noted_on[0], batch.key, note))
        if outgoing.original is not None:
            of_original = replace(note, fingerprint=outgoing.original.fingerprint)
            changes.append((*outgoing.noted_on[-1], batch.key, of_original))
    _change(changes)


class AcceptedBatch:
    """A request whose emails, all made of a message with merge data, were accepted.

    It holds what is to be noted if others of that message may have been, too, and not the
    messages: they are many, and others are seldom in doubt.
    """

    def __init__(self, batch: Batch, wire_format: WireFormat) -> None:
        self._key = batch.key
        self._wire_format = wire_format
        self._emails = [
            (
                outgoing.original,
                outgoing.noted_on[-1],
                outgoing.payload,
                outgoing.ambiguous_send,
                outgoing.message.truncus_status,  # type: ignore[attr-defined]
            )
            for outgoing in batch.messages
        ]

    @property
    def original(self) -> EmailMessage | None:
        """The message with merge data."""
        original = self._emails[0][0]
        return original.message if original is not None else None

    def notes(self, client: TruncusClient, *, now: float) -> "Iterator[_Change]":
        """Yield the notes; ``now`` is in unix seconds."""
        for index, (original, place, payload, earlier, status) in enumerate(self._emails):
            if original is None or payload is None:
                continue
            note = AmbiguousSend(
                idempotency_key=self._key,
                account=client.account,
                email=payload.email,
                is_sandbox=payload.is_sandbox,
                size=payload.size,
                wire_format=self._wire_format,
                fingerprint=original.fingerprint,
                index=index,
                batch_size=len(self._emails),
                since=earlier.since if earlier else now,
                is_ambiguous=True,
                email_pk=status.email_pk if status else None,
            )
            yield (*place, self._key, note)


class MergedSends:
    """The requests of one call that carry emails of messages with merge data.

    If some of a message's emails may have been accepted, whoever sends it again as a whole, as its
    error says they may, must reach nobody twice. So what became of the others is noted, too. It is
    told by this call's answers, as another thread may be sending the same message.
    """

    def __init__(self) -> None:
        self._accepted: list[AcceptedBatch] = []
        self._keys: dict[int, tuple[EmailMessage, set[str]]] = {}
        self._ambiguous: set[int] = set()

    def add(
        self, batch: Batch, *, wire_format: WireFormat | None, ambiguous: Iterable[OutgoingMessage]
    ) -> None:
        """Take in what became of a batch.

        Args:
            wire_format: the form in which it was accepted; ``None`` if it was not.
            ambiguous: those of its messages that may have been accepted.
        """
        for original in {outgoing.original for outgoing in batch.messages}:
            if original is not None:
                message = original.message
                _, keys = self._keys.setdefault(id(message), (message, set()))
                keys.add(batch.key)
        for outgoing in ambiguous:
            if outgoing.original is not None:
                self._ambiguous.add(id(outgoing.original.message))
        if wire_format is not None and batch.messages[0].original is not None:
            self._accepted.append(AcceptedBatch(batch, wire_format))

    def break_off(self, client: TruncusClient, *, now: float) -> None:
        """Note all that was accepted: the call ended too soon. ``now`` is in unix seconds."""
        _change(change for batch in self._accepted for change in batch.notes(client, now=now))

    def finish(self, client: TruncusClient, *, now: float) -> None:
        """Note what was accepted of messages that are in doubt, and forget the requests of others.

        To send these again is another send. ``now`` is in unix seconds.
        """
        in_doubt = [each for each in self._accepted if id(each.original) in self._ambiguous]
        _change(change for batch in in_doubt for change in batch.notes(client, now=now))
        for place, (message, keys) in self._keys.items():
            if place not in self._ambiguous:
                once_answer_is_learned(partial(_forget_requests, message, keys))


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


def forget(outgoing: OutgoingMessage, key: str) -> None:
    """Take away what :func:`remember` noted on a message of the request with this key.

    It was answered. What is noted on the original of a message with merge data stays, until all of
    its recipients' emails are: :class:`MergedSends`.
    """
    message, place = outgoing.noted_on[0]
    if _ATTRIBUTE in message.__dict__:
        _change([(message, place, key, None)])


def _forget_requests(message: EmailMessage, keys: Collection[str]) -> None:
    """Take away the notes on a message that are of requests with these keys."""
    noted: Mapping[Hashable, tuple[AmbiguousSend, ...]] = message.__dict__.get(_ATTRIBUTE, {})
    _change(
        (message, place, note.idempotency_key, None)
        for place, notes in noted.items()
        for note in notes
        if note.idempotency_key in keys
    )


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
    changes = list(changes)  # may take long, and be broken off
    with _lock:
        noted: dict[int, tuple[EmailMessage, dict[Hashable, tuple[AmbiguousSend, ...]]]] = {}
        for message, place, key, note in changes:
            if id(message) not in noted:
                noted[id(message)] = message, dict(message.__dict__.get(_ATTRIBUTE, {}))
            _, notes = noted[id(message)]
            others = [other for other in notes.get(place, ()) if other.idempotency_key != key]
            if note is not None:
                others.append(note)
            if others:
                notes[place] = tuple(others)
            else:
                notes.pop(place, None)
        for message, notes in noted.values():  # all of them, or none
            if notes:
                message.__dict__[_ATTRIBUTE] = notes
            else:
                message.__dict__.pop(_ATTRIBUTE, None)
