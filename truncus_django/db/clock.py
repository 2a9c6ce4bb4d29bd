"""One clock for all machines: the database's."""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from django.db import connections
from django.db.models import F, Max
from django.utils import timezone

from truncus_django.db.transactions import committed
from truncus_django.log.transitions import storable_moment, take_write_lock
from truncus_django.models import OutboxAccount, OutboxBatch, database
from truncus_django.outbox.waiting import HELD_BACK

logger = logging.getLogger("truncus_django")

REFRESH_S = 30.0
SET_BACK_S = 60.0
"""A clock that was set back by no more than this delays what waits by no more either."""
LEASE_AFTER_SET_BACK_S = 300.0
"""A worker may be alive: what it has taken is not taken over at once."""
_OLDEST_CLOCK_S = 100 * 365 * 24 * 60 * 60.0
"""One that was set back by more has not told the moments that are read."""

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
        asks: how often it is asked each time; the promptest answer counts. On a busy machine an
            answer may take so long that the clocks of two workers differ by more than a pace
            allows for.
    """

    def __init__(self, using: str, *, asks: int = 1) -> None:
        self._using = using
        self._asks = asks
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
            self._ahead_s = self._ask(sql)
            self._asked_at, self._steps_s = time.monotonic(), steps_s
        return time.monotonic() + self._ahead_s

    def _ask(self, sql: str) -> float:
        """Return by how many seconds the database's clock is ahead of the monotonic one here."""
        best_took_s, ahead_s = math.inf, 0.0
        with connections[self._using].cursor() as cursor:
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


# A clock that was set back ------------------------------------------------------------------------


def adjust_to_clock_set_back(clock: Clock) -> None:
    """Move what was noted before the clock was set back to when it would be noted now.

    On SQLite the clock is the machine's, and is set back now and then. All that waits for a next
    try, for a pause to end or for a lease to run out would wait until the clock is where it was;
    and keys would seem younger than they are to Truncus. By how much, the latest request tells: its
    moment lies ahead. ``send_at`` and ``expires_at`` are moments that people named, and stay.

    Raises:
        django.db.DatabaseError: nothing was moved.
    """
    if _ahead_s(clock.now(), OutboxAccount.objects.all()) <= SET_BACK_S:
        return
    using = database()
    skips = connections[using].features.has_select_for_update_skip_locked
    with committed(using):
        take_write_lock()
        accounts = list(OutboxAccount.objects.select_for_update().order_by("pk"))
        now = clock.now()
        ahead_s = _ahead_s(now, accounts)
        if ahead_s <= SET_BACK_S:
            return  # another worker was quicker
        back, present = timedelta(seconds=ahead_s), moment_of(now)
        # What is locked has a worker who is writing down when it is due, by the new clock.
        free = OutboxBatch.objects.select_for_update(skip_locked=skips).order_by("pk")
        batches = OutboxBatch.objects.filter(pk__in=list(free.values_list("pk", flat=True)))
        # created_at as well, or the next dispatcher would find it ahead and move them all again.
        batches.update(
            created_at=F("created_at") - back,
            first_request_at=F("first_request_at") - back,
            failing_since=F("failing_since") - back,
        )
        ahead = batches.filter(due_at__gt=present)
        ahead.filter(lease=None).exclude(error_code=HELD_BACK).update(due_at=present)
        soon = moment_of(now + LEASE_AFTER_SET_BACK_S)
        ahead.filter(lease__isnull=False, due_at__gt=soon).update(due_at=soon)
        for account in accounts:
            account.recent_requests = [
                moment if moment <= now else moment - ahead_s for moment in _requests_of(account)
            ]
            if account.paused_until is not None:
                account.paused_until -= back
            account.save(using=using, update_fields=["recent_requests", "paused_until"])
    logger.warning(
        "The clock of the outbox was set back by %.0f s or more; its own times were moved with it.",
        ahead_s,
    )


def _ahead_s(now: float, accounts: Iterable[OutboxAccount]) -> float:
    """Return by how many seconds the latest request lies ahead; below 0 where it does not."""
    batches = OutboxBatch.objects.aggregate(Max("created_at"), Max("first_request_at"))
    moments = [unix_of(moment) for moment in batches.values() if moment is not None]
    for account in accounts:
        moments += _requests_of(account)
    return max((moment - now for moment in moments if moment < now + _OLDEST_CLOCK_S), default=0.0)


def _requests_of(account: OutboxAccount) -> Iterator[float]:
    """Yield the moments of an account's latest requests, whatever somebody wrote into its row."""
    stored = account.recent_requests if isinstance(account.recent_requests, list) else []
    return (moment for moment in stored if isinstance(moment, int | float))
