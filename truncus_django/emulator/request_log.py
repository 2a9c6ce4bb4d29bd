"""What was asked of the emulator and what it answered; without API keys."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

KEPT_BYTES = 256 * 1024 * 1024
"""The bodies of all kept requests together; older ones are forgotten before memory runs out."""

_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request to the API."""

    method: str
    path: str
    endpoint: str
    """``send``, ``batch``, ``validate``, ``email``, ``cancel``, ``events``, ``replay`` or empty."""
    status: int
    """HTTP status of the answer; 0 when the connection was reset instead."""
    headers: Mapping[str, str]
    """Of the request, without ``Authorization``. Names are in lower case."""
    body: Any
    """The parsed JSON; None without a body or when it was no JSON."""
    answer: Any
    """The JSON that was answered, or that would have been if the connection had lived."""
    fault: str
    """The name of the fault that struck, or empty."""
    at: float
    """Unix seconds, when the answer was ready."""


class RequestLog:
    """The newest requests, and counts of all. Safe to use from any thread."""

    def __init__(self, *, keep: int) -> None:
        """Begin empty; keep the newest ``keep`` records."""
        self._lock = Lock()
        self._keep = keep
        self._records: deque[tuple[RequestRecord, int]] = deque()
        self._kept_bytes = 0
        self._counts: Counter[tuple[str, str, int]] = Counter()

    def add(self, record: RequestRecord, size_bytes: int) -> None:
        """Remember one request with a body of ``size_bytes``."""
        with self._lock:
            self._records.append((record, size_bytes))
            self._kept_bytes += size_bytes
            while len(self._records) > self._keep or self._kept_bytes > KEPT_BYTES:
                _, old_bytes = self._records.popleft()
                self._kept_bytes -= old_bytes
            self._counts[record.method, record.endpoint, record.status] += 1

    def records(self) -> list[RequestRecord]:
        """Return the kept records, oldest first."""
        with self._lock:
            return [record for record, _ in self._records]

    def counts(self) -> dict[tuple[str, str, int], int]:
        """Return how many requests there were by method, endpoint and status."""
        with self._lock:
            return dict(self._counts)


def harmless_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return ``headers`` with lower-case names and without secrets."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() not in _SECRET_HEADERS
    }
