"""Messages → batches: which of them share a request."""

from collections.abc import Iterable, Iterator, Sequence

from truncus_django.api import contract
from truncus_django.api.errors import OutcomeUnknown
from truncus_django.api.keys import new_idempotency_key
from truncus_django.sending.outgoing import Batch, Original, OutgoingMessage
from truncus_django.sending.requests import MAX_BATCH_BYTES


def make_batches(messages: Iterable[OutgoingMessage], *, now: float) -> Iterator[Batch]:
    """Yield the batches that the messages go in, each as soon as it is full.

    * A message with a key of its own goes alone, so that its key stands for this message alone.
    * Messages whose earlier request may have been accepted make up that very request again.
    * The others share requests: up to 100, all sandbox or none, within a bound of bytes. Those of a
      message with merge data share theirs with no other, so that it can be sent again alone. They
      come one after the other, and their last batch as soon as another message follows.

    Messages that cannot be sent come together, up to 100, without a key, before the next batch.
    They include those whose earlier request cannot be repeated, with an :class:`OutcomeUnknown`.

    Args:
        now: unix seconds.
    """
    filling: dict[tuple[bool, bool], list[OutgoingMessage]] = {}
    sizes: dict[tuple[bool, bool], int] = {}
    original: Original | None = None
    repeated: dict[str, list[OutgoingMessage]] = {}
    unsendable: list[OutgoingMessage] = []

    def after_unsendable(batch: Batch) -> Iterator[Batch]:
        if unsendable:
            yield Batch("", tuple(unsendable))
            unsendable.clear()
        yield batch

    for outgoing in messages:
        if outgoing.original is not original:
            original = outgoing.original
            for kind in [each for each in filling if each[1]]:
                yield from after_unsendable(Batch(new_idempotency_key(), filling.pop(kind)))
        payload = outgoing.payload
        if payload is None:
            unsendable.append(outgoing)
            if len(unsendable) == contract.MAX_BATCH_SIZE:
                yield Batch("", tuple(unsendable))
                unsendable.clear()
            continue
        if payload.idempotency_key is not None:
            yield from after_unsendable(Batch(payload.idempotency_key, [outgoing]))
            continue
        if outgoing.ambiguous_send is not None:
            repeated.setdefault(outgoing.ambiguous_send.idempotency_key, []).append(outgoing)
            continue
        kind = payload.is_sandbox, original is not None
        members = filling.setdefault(kind, [])
        if members and sizes[kind] + payload.size > MAX_BATCH_BYTES:
            yield from after_unsendable(Batch(new_idempotency_key(), filling.pop(kind)))
            members = filling[kind] = []
        sizes[kind] = payload.size + (sizes[kind] if members else 0)
        members.append(outgoing)
        if len(members) == contract.MAX_BATCH_SIZE:
            yield from after_unsendable(Batch(new_idempotency_key(), filling.pop(kind)))
    for members in filling.values():
        yield from after_unsendable(Batch(new_idempotency_key(), members))
    for key, members in repeated.items():
        for batch in _repeated_batches(key, members, now=now):
            yield from after_unsendable(batch)
    if unsendable:
        yield Batch("", tuple(unsendable))


def _repeated_batches(
    key: str, members: Sequence[OutgoingMessage], *, now: float
) -> Iterator[Batch]:
    """Yield the earlier request of ``members`` again; where that cannot be, what else to do."""
    why_not = _why_not_repeatable(members, now=now)
    if why_not is None:
        yield Batch(key, sorted(members, key=_place_in_batch))
        return
    ambiguous = [
        outgoing._replace(error=OutcomeUnknown(why_not))
        for outgoing in members
        if outgoing.is_ambiguous
    ]
    if ambiguous:
        yield Batch("", ambiguous)
    # Where Truncus said that it failed, the messages may as well go anew.
    for outgoing in members:
        if not outgoing.is_ambiguous:
            yield Batch(new_idempotency_key(), [outgoing._replace(ambiguous_send=None)])


def _why_not_repeatable(members: Sequence[OutgoingMessage], *, now: float) -> str | None:
    """Return why ``members`` cannot make up their earlier request again, or ``None``."""
    first = members[0].ambiguous_send
    if first is not None and first.is_handed_over:
        return (
            "An earlier send of this message was handed to the fallback mailer, which has sent "
            "it or may have. Find out there; if it did not, send a new message object."
        )
    if first is not None and now - first.since >= contract.IDEMPOTENCY_LIFE_S:
        return (
            "An earlier send of this message may have been accepted, over 24 hours ago; Truncus "
            "no longer knows its key. Find out in Truncus, then send a new message object, or set "
            "idempotency_key on this one."
        )
    size = first.batch_size if first is not None else 0
    if sorted(map(_place_in_batch, members)) != list(range(size)):
        return (
            f"An earlier send of this message went out in a batch of {size} that may have been "
            "accepted. Send all messages of that batch again in one call, which cannot send them "
            "twice, or a new message object if you know that it was not accepted."
        )
    return None


def _place_in_batch(outgoing: OutgoingMessage) -> int:
    return outgoing.ambiguous_send.index if outgoing.ambiguous_send else 0
