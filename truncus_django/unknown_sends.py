"""Sends whose outcome is unknown: noted on the message, so that a repetition is recognised."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from truncus_django.payload import Payload

if TYPE_CHECKING:
    from truncus_django.sending import Batch, Parcel

_ATTRIBUTE = "_truncus_unknown_sends"


@dataclass(frozen=True, slots=True)
class UnknownSend:
    """A request that may have been accepted, and a message's place in it.

    Attributes:
        idempotency_key: of the request whose answer was lost.
        fingerprint: digest of the e-mail as it was sent.
        index, batch_size: the message's place in the batch.
        since: unix seconds of the first try; Truncus forgets keys after 24 hours.
    """

    idempotency_key: str = field(repr=False)
    fingerprint: str
    index: int
    batch_size: int
    since: float


def remember(batch: "Batch", *, now: float) -> None:
    """Note on the messages of ``batch`` that it may have been accepted."""
    for index, parcel in enumerate(batch.parcels):
        payload = parcel.payload
        if payload is None or payload.idempotency_key is not None:
            continue  # the message's own key does the same
        notes = parcel.message.__dict__.setdefault(_ATTRIBUTE, {})
        notes[parcel.occurrence] = UnknownSend(
            idempotency_key=batch.key,
            fingerprint=parcel.fingerprint or fingerprint(payload),
            index=index,
            batch_size=len(batch.parcels),
            since=parcel.unknown_send.since if parcel.unknown_send else now,
        )


def has_notes(parcel: "Parcel") -> bool:
    """Return whether :func:`remember` noted anything on the message."""
    return bool(parcel.message.__dict__.get(_ATTRIBUTE))


def recall(parcel: "Parcel", payload: Payload) -> UnknownSend | None:
    """Return what :func:`remember` noted, if the message has not changed since."""
    notes: dict[int, UnknownSend] = parcel.message.__dict__.get(_ATTRIBUTE, {})
    note = notes.get(parcel.occurrence)
    if note is None or note.fingerprint != (parcel.fingerprint or fingerprint(payload)):
        return None
    return note


def forget(parcel: "Parcel") -> None:
    """Take away what :func:`remember` noted: the outcome is known."""
    notes = parcel.message.__dict__.get(_ATTRIBUTE)
    if notes is not None:
        notes.pop(parcel.occurrence, None)


def fingerprint(payload: Payload) -> str:
    """Return a digest of what is sent."""
    text = json.dumps([payload.email, payload.is_sandbox], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
