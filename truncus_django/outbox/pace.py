"""The account's limits, its pauses and its dialect, shared by all workers through one row.

No service besides the database is needed: whoever wants to make a request locks the row, sees the
moments of the latest requests of all workers, and adds its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db import connections, transaction

from truncus_django.api.pacing import free_at, limits_of
from truncus_django.conf import Settings
from truncus_django.models import OutboxAccount, database
from truncus_django.outbox.clock import Clock, unix_of
from truncus_django.outbox.commit import committed

SPANS = 1.0
"""How many seconds a second of the limits has; another number where the pace is measured faster."""
MARGIN = 1.01
"""Requests reach Truncus a little sooner or later than they were counted here."""


def locked_account(account: str, *, using: str) -> OutboxAccount:
    """Return the row of an account, locked until the transaction ends.

    The write comes first: SQLite, which has no locks for rows, is locked by it as a whole, and a
    transaction that has read before it writes cannot wait for the lock.
    """
    rows = OutboxAccount.objects.using(using).filter(account=account)
    if connections[using].features.has_select_for_update:
        row = rows.select_for_update().first()
        if row is not None:
            return row
    elif rows.update(account=account):
        return rows.get()
    with transaction.atomic(using=using):
        OutboxAccount.objects.using(using).bulk_create(
            [OutboxAccount(account=account)], ignore_conflicts=True
        )
    return rows.select_for_update().get()


def limits(settings: Settings) -> list[tuple[float, int]]:
    """Return the account's limits as pairs of a span in seconds and a number of requests."""
    found = limits_of(
        per_second=settings.requests_per_second, per_minute=settings.requests_per_minute
    )
    return [(span * SPANS * MARGIN, count) for span, count in found]


def next_request_at(account: OutboxAccount, settings: Settings, *, now: float) -> float:
    """Return when the account may make its next request, in unix seconds; ``now`` or later."""
    # A clock that was set back must not stop everything until it is where it was.
    recent = [min(moment, now) for moment in recent_requests(account)]
    return max(now, free_at(recent, limits(settings), now=now))


def paused_until(account: OutboxAccount, *, now: float) -> float:
    """Return until when the account rests, in unix seconds; ``now`` where it does not."""
    return now if account.paused_until is None else max(now, unix_of(account.paused_until))


def with_request(account: OutboxAccount, settings: Settings, *, now: float) -> Sequence[float]:
    """Return the account's latest requests with one more, as many as its limits look back."""
    most = max((count for _, count in limits(settings)), default=0)
    return [*recent_requests(account), round(now, 6)][-most:] if most else []


def recent_requests(account: OutboxAccount) -> list[float]:
    """Return the moments of an account's latest requests, whatever somebody wrote into its row."""
    stored = account.recent_requests
    if not isinstance(stored, list):
        return []
    return [
        float(moment)
        for moment in stored
        if isinstance(moment, int | float) and not isinstance(moment, bool)
    ]


def dialect_of(account: OutboxAccount) -> Mapping[str, Any]:
    """Return what an account's row knows of its dialect, whatever somebody wrote into it."""
    return account.dialect if isinstance(account.dialect, dict) else {}


class SharedPacer:
    """Paces requests that send nothing, counted together with those of the outbox's workers.

    It has the methods of :class:`~truncus_django.api.pacing.Pacer`. It takes half of the limits, so
    that questions about e-mails never keep others from being sent.

    Args:
        account: whose limits.
        settings: of a mailer that sends through it.
        sleep: how to wait.
    """

    def __init__(
        self, account: str, settings: Settings, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._account = account
        self._settings = settings
        self._limits = [(span, max(1, count // 2)) for span, count in limits(settings)]
        self._using = database()
        self._clock = Clock(self._using)
        self._sleep = sleep

    def pause_s(self) -> float:
        """Return the seconds until the next request may go; 0 for now."""
        row = OutboxAccount.objects.filter(account=self._account).first()
        return 0.0 if row is None else self._wait_s(row, self._clock.now())

    def wait(self) -> float:
        """Wait until the next request may go, count it, and return the seconds waited."""
        waited_s = 0.0
        while True:
            with committed(self._using):
                row = locked_account(self._account, using=self._using)
                now = self._clock.now()
                wait_s = self._wait_s(row, now)
                if wait_s <= 0:
                    row.recent_requests = with_request(row, self._settings, now=now)
                    row.save(using=self._using, update_fields=["recent_requests"])
                    return waited_s
            self._sleep(wait_s)
            waited_s += wait_s

    def _wait_s(self, row: OutboxAccount, now: float) -> float:
        recent = [min(moment, now) for moment in recent_requests(row)]
        return max(free_at(recent, self._limits, now=now), paused_until(row, now=now)) - now
