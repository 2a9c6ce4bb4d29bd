"""Which emails share a request: pure decisions, nothing else."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from truncus_django.db.clock import unix_of
from truncus_django.models import Priority
from truncus_django.outbox.retry_policy import KEY_LIFE_S
from truncus_django.sending.requests import MAX_BATCH_BYTES

LIFE_TOLERANCE = 0.1
"""Emails that expire share a request if the longest life left is longer than the shortest by no
more than this part. An ambiguous request ends when its first email expires: none of the others
loses more than that of its time. Equal moments alone would cost a request for each email where
each has a moment of its own, as ``timedelta`` makes them."""


class Candidate(NamedTuple):
    """What the choice of a request's members goes by; see :class:`OutboxEntry`."""

    pk: UUID
    size: int
    is_sandbox: bool
    own_key: str
    priority: int
    expires_at: datetime | None


def same_request(entries: Sequence[Candidate], now: float) -> list[Candidate]:
    """Return those that may share a request with the first.

    A message with a key of its own goes alone, so that its key stands for this message alone. An
    ambiguous request is repeated whole or not at all, and so not after one of its emails has
    expired: emails that expire sooner go apart from those that last longer.
    """
    if not entries:
        return []
    first = entries[0]
    if first.own_key:
        return [first]
    alike, size = [first], first.size
    shortest = longest = _life_left_s(first, now)
    for entry in entries[1:]:
        life = _life_left_s(entry, now)
        is_alike = (
            not entry.own_key
            and entry.is_sandbox == first.is_sandbox
            and max(longest, life) <= (1 + LIFE_TOLERANCE) * min(shortest, life)
        )
        if is_alike and size + entry.size <= MAX_BATCH_BYTES:
            alike.append(entry)
            size += entry.size
            shortest, longest = min(shortest, life), max(longest, life)
    return alike


def allowed(entries: Sequence[Candidate], low_priority_left: int | None) -> list[Candidate]:
    """Return those that may go, of which so many may be of low priority; ``None`` for any."""
    if low_priority_left is None:
        return list(entries)
    urgent = sum(entry.priority < Priority.LOW for entry in entries)
    return list(entries[: urgent + low_priority_left])  # the most urgent are first


def _life_left_s(entry: Candidate, now: float) -> float:
    """Return for how long an email is to be sent; for ever where a key that is new now ends first.

    After its key no ambiguous request is repeated anyway.
    """
    if entry.expires_at is None:
        return math.inf
    left_s = unix_of(entry.expires_at) - now
    return left_s if left_s < KEY_LIFE_S else math.inf


def split_by_lifetime(entries: Sequence[Candidate], now: float) -> list[list[Candidate]]:
    """Part the members of a request that is new now: some may have become of another kind."""
    parts = [same_request(entries, now)]
    taken = set(parts[0])
    rest = [entry for entry in entries if entry not in taken]
    return parts + split_by_lifetime(rest, now) if rest else parts
