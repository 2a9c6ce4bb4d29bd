"""A clock that was set back: the outbox's own times are moved back with it."""

import logging
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db.models import F, Max

from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.db.locks import lock_free_rows, take_write_lock
from truncus_django.db.transactions import committed
from truncus_django.models import OutboxAccount, OutboxBatch
from truncus_django.outbox.waiting import AWAITS_SEND_AT

logger = logging.getLogger("truncus_django")

SET_BACK_S = 60.0
"""A clock that was set back by no more than this delays what waits by no more either."""
LEASE_AFTER_SET_BACK_S = 300.0
"""A worker may be alive: what it has taken is not taken over at once."""
_OLDEST_CLOCK_S = 100 * 365 * 24 * 60 * 60.0
"""A moment that lies further ahead is no clock's."""


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
    with committed(clock.using):
        take_write_lock(OutboxAccount.objects.all())
        accounts = list(OutboxAccount.objects.select_for_update().order_by("pk"))
        now = clock.now()
        ahead_s = _ahead_s(now, accounts)
        if ahead_s <= SET_BACK_S:
            return  # another worker was quicker
        back, present = timedelta(seconds=ahead_s), moment_of(now)
        # What is locked has a worker who is writing down when it is due, by the new clock.
        free = lock_free_rows(OutboxBatch.objects.order_by("pk"))
        batches = OutboxBatch.objects.filter(pk__in=list(free.values_list("pk", flat=True)))
        # created_at as well, or the next dispatcher would find it ahead and move them all again.
        batches.update(
            created_at=F("created_at") - back,
            first_request_at=F("first_request_at") - back,
            failing_since=F("failing_since") - back,
        )
        ahead = batches.filter(due_at__gt=present)
        ahead.filter(lease=None).exclude(error_code=AWAITS_SEND_AT).update(due_at=present)
        soon = moment_of(now + LEASE_AFTER_SET_BACK_S)
        ahead.filter(lease__isnull=False, due_at__gt=soon).update(due_at=soon)
        for account in accounts:
            account.recent_requests = [
                moment if moment <= now else moment - ahead_s for moment in _requests_of(account)
            ]
            if account.paused_until is not None:
                account.paused_until -= back
            account.free_at = None
            changed = ["recent_requests", "paused_until", "free_at"]
            account.save(using=clock.using, update_fields=changed)
    logger.warning(
        "The clock of the outbox was set back by %.0f s or more; its own times were moved with it.",
        ahead_s,
        extra={"truncus_event": "outbox_clock_set_back", "truncus_seconds": ahead_s},
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
