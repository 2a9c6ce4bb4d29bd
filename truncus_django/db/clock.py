"""One clock for all machines: the database's."""

import logging
import math
import time
from datetime import UTC, datetime

from django.db import connections
from django.utils import timezone

from truncus_django.db.timestamps import storable_moment

logger = logging.getLogger("truncus_django")

REFRESH_S = 30.0

_SQL = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    # UNIX_TIMESTAMP() would go by the session's time zone, whose clock strikes two o'clock twice.
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6",
}
"""Others run on this machine (SQLite), or are trusted to have its time."""


class Clock:
    """Unix seconds as the database counts them, asked for now and then.

    Leases and paces are written by one machine and read by another, whose own clocks differ.

    Attributes:
        using: the alias of the outbox's database.

    Args:
        asks: how often it is asked each time; the promptest answer counts. On a busy machine an
            answer may take so long that the clocks of two workers differ by more than a pace
            allows for.
    """

    def __init__(self, using: str, *, asks: int = 1) -> None:
        self.using = using
        self._asks = asks
        self._ahead_s = 0.0
        self._asked_at: float | None = None
        self._wall_minus_monotonic_s = 0.0

    def now(self) -> float:
        """Return unix seconds."""
        sql = _SQL.get(connections[self.using].vendor)
        if sql is None:
            return time.time()
        here = time.monotonic()
        # The monotonic clock stands still while a machine sleeps, the other one does not.
        steps_s = time.time() - here
        has_slept = abs(steps_s - self._wall_minus_monotonic_s) > 1.0
        if self._asked_at is None or has_slept or here - self._asked_at > REFRESH_S:
            self._ahead_s = self._ask(sql)
            self._asked_at, self._wall_minus_monotonic_s = time.monotonic(), steps_s
        return time.monotonic() + self._ahead_s

    def _ask(self, sql: str) -> float:
        """Return by how many seconds the database's clock is ahead of the monotonic one here."""
        best_took_s, ahead_s = math.inf, 0.0
        with connections[self.using].cursor() as cursor:
            for _ in range(self._asks):
                asked = time.monotonic()
                cursor.execute(sql)
                there = float(cursor.fetchone()[0])
                took_s = time.monotonic() - asked
                if took_s < best_took_s:
                    # The answer is as old as its way back: half of the way there and back.
                    best_took_s, ahead_s = took_s, there - (asked + took_s / 2)
        return ahead_s


def moment_of(unix_s: float) -> datetime:
    """Return unix seconds as the database stores moments."""
    return storable_moment(datetime.fromtimestamp(unix_s, UTC))


def unix_of(moment: datetime) -> float:
    """Return a stored moment as unix seconds."""
    if timezone.is_naive(moment):  # USE_TZ is off
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return moment.timestamp()
