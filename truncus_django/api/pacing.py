"""Keeping a long job under the account's request limits, ahead of time."""

import time
from collections import deque
from collections.abc import Callable


class Pacer:
    """Lets requests go so that no second and no minute holds more than the account allows.

    Args:
        per_second, per_minute: the account's limits; 0 for none.
        clock, sleep: monotonic seconds and how to wait, for tests.
    """

    def __init__(
        self,
        *,
        per_second: int,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limits = [
            (span, count) for span, count in ((1.0, per_second), (60.0, per_minute)) if count
        ]
        self._recent: deque[float] = deque(maxlen=max((c for _, c in self._limits), default=1))
        self._clock = clock
        self._sleep = sleep

    def wait(self) -> float:
        """Wait until the next request may go, note it, and return the seconds waited."""
        pause = self.pause_s()
        if pause > 0:
            self._sleep(pause)
        self._recent.append(self._clock())
        return max(pause, 0.0)

    def pause_s(self) -> float:
        """Return the seconds until the next request may go; 0 for now."""
        now = self._clock()
        free_at = [
            self._recent[-count] + span
            for span, count in self._limits
            if len(self._recent) >= count
        ]
        return max(0.0, max(free_at, default=now) - now)
