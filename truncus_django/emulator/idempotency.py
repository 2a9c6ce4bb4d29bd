"""Idempotency keys: what was answered to a key is remembered for 24 hours."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from truncus_django.api import contract

_Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The answer that a key got when it was first used."""

    body: dict[str, Any]
    message_id: str
    """Of the email; empty for a batch."""
    at: float
    """Unix seconds."""


class IdempotencyStore:
    """First answers by (API key, path, idempotency key). Used under the service's lock.

    The lock is held from looking a key up to remembering its answer, so that of two requests
    with one key at the same time the second waits and finds the first one's answer.
    """

    def __init__(self, *, life_s: float = contract.IDEMPOTENCY_LIFE_S) -> None:
        """Begin empty; each answer is forgotten after ``life_s`` seconds."""
        self._life_s = life_s
        self._answers: OrderedDict[_Name, FirstAnswer] = OrderedDict()

    def find(self, api_key: str, path: str, key: str, *, now: float) -> FirstAnswer | None:
        """Return the first answer under ``key``, or None when it was never used or is forgotten."""
        self._forget_old(now)
        answer = self._answers.get((api_key, path, key))
        return answer if answer and now - answer.at < self._life_s else None

    def remember(self, api_key: str, path: str, key: str, answer: FirstAnswer) -> None:
        """Keep ``answer`` for the next request with ``key``."""
        name = (api_key, path, key)
        self._answers[name] = answer
        self._answers.move_to_end(name)

    def _forget_old(self, now: float) -> None:
        while self._answers:
            name, oldest = next(iter(self._answers.items()))
            if now - oldest.at < self._life_s:
                return
            del self._answers[name]
