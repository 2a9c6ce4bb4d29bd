"""One clock for all machines: the database's."""

import time
from datetime import UTC, datetime

from django.db import connections
from django.utils import timezone

from truncus_django.tracking import storable_moment

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

    Args:
        using: the alias of the outbox's database.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._ahead_s = 0.0
        self._asked_at: float | None = None
        self._steps_s = 0.0

    def now(self) -> float:
        """Return unix seconds."""
        sql = _SQL.get(connections[self._using].vendor)
        if sql is None:
            return time.time()
        here = time.monotonic()
        # The monotonic clock stands still while a machine sleeps, the other one does not.
        steps_s = time.time() - here
        has_slept = abs(steps_s - self._steps_s) > 1.0
        if self._asked_at is None or has_slept or here - self._asked_at > REFRESH_S:
            with connections[self._using].cursor() as cursor:
                cursor.execute(sql)
                there = float(cursor.fetchone()[0])
            # The answer is as old as its way back: half of the way there and back.
            self._asked_at, self._steps_s = time.monotonic(), steps_s
            self._ahead_s = there - (here + self._asked_at) / 2
        return time.monotonic() + self._ahead_s


def moment_of(unix_s: float) -> datetime:
    """Return unix seconds as the database stores moments."""
    return storable_moment(datetime.fromtimestamp(unix_s, UTC))


def unix_of(moment: datetime) -> float:
    """Return a stored moment as unix seconds."""
    if timezone.is_naive(moment):  # USE_TZ is off
        moment = timezone.make_aware(moment, timezone.get_default_timezone())
    return moment.timestamp()
