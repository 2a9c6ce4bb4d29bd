"""A circuit breaker for each account: whether Truncus is asked, or has just failed too often.

It belongs to the process and needs no database. The outbox has one that its workers share: the
pause of the account.
"""

import copy
import time
from collections.abc import Callable
from threading import Lock

from truncus_django.api.errors import TruncusError

FAILURES = 3
"""So many requests in a row, within :data:`WITHIN_S`, open the breaker."""
WITHIN_S = 60.0
OPEN_S = 30.0
"""For so long Truncus is not asked; then one request is let through, and decides."""


class Breaker:
    """The breaker of one account.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._failed_at: list[float] = []
        self._open_until: float | None = None
        self.last_error: TruncusError | None = None

    def admit(self) -> TruncusError | None:
        """Let a request through, and return ``None``; or return why Truncus is not to be asked now.

        When the time is over, the first request is let through, and the others wait for what
        comes of it.
        """
        with self._lock:
            now = self._clock()
            if self._open_until is None:
                return None
            if now >= self._open_until:
                self._open_until = now + OPEN_S
                return None
            return self.last_error

    def note(self, error: TruncusError | None) -> None:
        """Note what came of a request: an error that it failed with, or ``None``."""
        with self._lock:
            if error is None or not error.is_outage:
                self._failed_at.clear()
                self._open_until = self.last_error = None
                return
            now = self._clock()
            self.last_error = copy.copy(error)  # without its traceback
            recent = [moment for moment in self._failed_at if now - moment < WITHIN_S]
            self._failed_at = [*recent, now][-FAILURES:]
            if self._open_until is not None or len(self._failed_at) == FAILURES:
                self._open_until = now + OPEN_S


_breakers: dict[str, Breaker] = {}


def breaker_of(account: str) -> Breaker:
    """Return the breaker of an account, as its client names it."""
    return _breakers.setdefault(account, Breaker())


def forget_breakers() -> None:
    """Ask every account again; for tests."""
    _breakers.clear()
