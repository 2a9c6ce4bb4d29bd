"""Ambiguous sends: noted on the message, so that sending it again is recognised.

The notes are the one thing of ours on Django's message objects besides ``truncus_status``.
"""

from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.api.encoding import EmailFields
from truncus_django.awaited_send import after_answer
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


def remember_merged(
    sent_batches: Iterable[Sequence[Sent]],
    client_of: Callable[[OutgoingMessage], TruncusClient],
    *,
    now: float,
) -> Generator[Sequence[Sent]]:
    """Yield what became of messages, and note what became of those with merge data.

    If some emails of such a message may have been accepted, whoever sends it again as a whole, as
    its error says they may, must reach nobody twice. So what became of the others is noted, too;
    also where the caller breaks off.

    Args:
        sent_batches: what became of them.
        client_of: the account that a message went to.
        now: unix seconds.
    """
    merged = MergedSends()
    is_whole = False
    try:
        for sent in sent_batches:
            try:
                yield sent
            finally:  # once it is recorded
                merged.add(sent, client_of)
        merged.finish(now=now)
        is_whole = True
    finally:
        if not is_whole:
            merged.break_off(now=now)


class MergedSends:
    """What became in one call of the emails of messages with merge data.

    It is told by this call's answers, as another thread may be sending the same message.
    """

    def __init__(self) -> None:
        self._accepted: list[_Accepted] = []
        self._keys: dict[int, tuple[EmailMessage, set[str]]] = {}
        self._ambiguous: set[int] = set()

    def add(
        self, sent: Sequence[Sent], client_of: Callable[[OutgoingMessage], TruncusClient]
    ) -> None:
        """Take in what became of a batch, and the account that its messages went to."""
        client: TruncusClient | None = None  # one for all whose answers came together
        for outgoing, outcome in sent:
            original = outgoing.original
            if original is None:
                continue
            place = id(original.message)
            if place not in self._keys:
                self._keys[place] = original.message, set()
            self._keys[place][1].add(outcome.idempotency_key)
            if outcome.error is not None and outcome.error.ambiguous:
                self._ambiguous.add(place)
            elif outcome.result is not None and outgoing.payload is not None:
                client = client or client_of(outgoing)
                self._accepted.append(
                    _Accepted(outgoing, original, outgoing.payload, outcome, client)
                )

    def break_off(self, *, now: float) -> None:
        """Note all that was accepted: the call ended too soon. ``now`` is in unix seconds."""
        _change(each.change(now=now) for each in self._accepted)

    def finish(self, *, now: float) -> None:
        """Note what was accepted of messages that are in doubt, and forget the requests of others.

        To send these again is another send. ``now`` is in unix seconds.
        """
        _change(
            each.change(now=now) for each in self._accepted if id(each.message) in self._ambiguous
        )
        for place, (message, keys) in self._keys.items():
            if place not in self._ambiguous:
                after_answer(partial(_forget_requests, message, keys))


class _Accepted:
    """What is to be noted of an accepted email made of a message with merge data.

    Not the message that was made for it: there are many, and others are seldom in doubt.
    """

    __slots__ = (
        "_account",
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
        client: TruncusClient,
    ) -> None:
        self._account = client.account
        self._original = original
        self._place = outgoing.noted_on[-1]
        self._payload = payload
        self._earlier = outgoing.ambiguous_send
        self._status = outgoing.message.truncus_status  # type: ignore[attr-defined]
        self._outcome = outcome
        self._wire_format = client.wire_format  # the form that its request had

    @property
    def message(self) -> EmailMessage:
        """The message with merge data."""
        return self._original.message

    def change(self, *, now: float) -> "_Change":
        """Return the note; ``now`` is in unix seconds."""
        payload, earlier, outcome = self._payload, self._earlier, self._outcome
        note = AmbiguousSend(
            idempotency_key=outcome.idempotency_key,
            account=self._account,
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
    outgoing: OutgoingMessage,
    client: TruncusClient | None,
    *,
    is_sandbox: bool,
    account_of: Callable[[EmailFields], str] | None = None,
) -> AmbiguousSend | None:
    """Return what :func:`remember` noted, if it is about this message as it is now.

    A message that has changed since is another email, and so is one that goes to another
    account, or is a rehearsal where the other was none.

    Args:
        client: the account that it goes to, where ``account_of`` is not given.
        is_sandbox: whether it is a rehearsal now.
        account_of: which account an email of its tenant goes to.
    """
    original = outgoing.original
    if _ATTRIBUTE not in (original.message if original else outgoing.message).__dict__:
        return None
    notes = [
        note
        for note in _notes(*outgoing.noted_on[-1])
        if note.is_sandbox == is_sandbox
        and note.account == _present_account(note, client, account_of)
    ]
    if not notes:
        return None
    present = original.fingerprint if original else fingerprint(outgoing.message)
    same = [note for note in notes if note.fingerprint == present]
    # A request that surely failed may have been followed by one that was perhaps accepted.
    return next((note for note in same if note.is_ambiguous), same[0] if same else None)


def _present_account(
    note: AmbiguousSend,
    client: TruncusClient | None,
    account_of: Callable[[EmailFields], str] | None,
) -> str:
    if account_of is not None:
        return account_of(note.email)
    return "" if client is None else client.account


def forget(outgoing: OutgoingMessage, key: str, *, on_original: bool = False) -> None:
    """Take away what :func:`remember` noted on a message of the request with this key.

    It was answered. What is noted on the original of a message with merge data stays, until all of
    its recipients' emails are: :func:`remember_merged`.

    Args:
        on_original: take it away there, too: the email was certainly not sent.
    """
    for message, place in outgoing.noted_on if on_original else outgoing.noted_on[:1]:
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
