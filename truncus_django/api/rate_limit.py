"""Keeping a long job under the account's request limits, ahead of time."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager


class Pacer:
    """Lets requests go so that no second and no minute holds more than the account allows.

    They count when they arrive, which may be as late as their answer comes. For one request at a
    time: each is waited for with :meth:`wait`, and then said to be :meth:`answered`.

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
        self._limits = limits_of(per_second=per_second, per_minute=per_minute)
        self._recent: deque[float] = deque(maxlen=max((c for _, c in self._limits), default=1))
        self._clock = clock
        self._sleep = sleep

    @contextmanager
    def request(self) -> Iterator[float]:
        """Wait until a request may go, and let the block make it; yield the seconds waited.

        It counts from the end of the block: it may have arrived only then.
        """
        pause = self.pause_s()
        if pause > 0:
            self._sleep(pause)
        self._recent.append(self._clock())
        try:
            yield pause
        finally:
            self._recent[-1] = self._clock()

    def pause_s(self) -> float:
        """Return the seconds until the next request may go; 0 for now."""
        now = self._clock()
        return max(0.0, free_at(self._recent, self._limits, now=now) - now)


def limits_of(*, per_second: int, per_minute: int) -> list[tuple[float, int]]:
    """Return the limits that there are, as pairs of a span in seconds and a number."""
    return [(span, count) for span, count in ((1.0, per_second), (60.0, per_minute)) if count]


def free_at(recent: Sequence[float], limits: Iterable[tuple[float, int]], *, now: float) -> float:
    """Return the moment from which one more request keeps within ``limits``.

    Args:
        recent: the moments of the latest requests, oldest first.
        limits: pairs of a span in seconds and how many requests it may hold.
        now: the present, on the same clock.
    """
    moments = [recent[-count] + span for span, count in limits if len(recent) >= count]
    return max(moments, default=now)
