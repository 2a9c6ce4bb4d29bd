"""The account's limits, its pauses and its dialect, shared by all workers through one row.

No service besides the database is needed: whoever wants to make a request locks the row, sees the
moments of the latest requests of all workers, and adds its own.

Truncus counts a request when it arrives, which nobody here can see: after it was claimed, and
before its answer came. So a request counts from its answer. Until then it counts as one that is
just arriving, whenever that is looked at; and where no answer comes, because it is slow or the
worker died, as one that arrived :data:`ARRIVES_WITHIN_S` after its claim. Then no window of any
start holds more than the limits when its requests arrive, however long each was on its way; and
windows that start at whole seconds or minutes hold no more either. It costs each window the time
of one answer.

Direct sends and others who use the key are not seen. What they use up shows in a 429, and all
workers wait until it allows the next request.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.db import DatabaseError, InterfaceError

from truncus_django.api.rate_limit import free_at, limits_of
from truncus_django.conf import Settings
from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.db.locks import take_write_lock
from truncus_django.db.transactions import committed
from truncus_django.models import OutboxAccount, database

TIME_SCALE = 1.0
"""Scales the limits' spans; a benchmark changes it to measure the pace faster."""
MARGIN = 1.01
"""The clocks of this side's machines differ a little, and so does that of Truncus."""
ARRIVES_WITHIN_S = 5.0
"""A request that is not answered has arrived by then, if it was made at all."""
ASKS = 3
"""How often those who share the pace ask the database for the time, to know it well enough."""


def locked_account(account_name: str) -> OutboxAccount:
    """Return an account, its row locked until the transaction ends; made where there is none."""
    accounts = OutboxAccount.objects.all()
    take_write_lock(accounts)
    locked = accounts.filter(account=account_name).select_for_update()
    account = locked.first()
    if account is None:
        accounts.bulk_create([OutboxAccount(account=account_name)], ignore_conflicts=True)
        account = locked.get()
    return account


def limits(settings: Settings) -> list[tuple[float, int]]:
    """Return the account's limits as pairs of a span in seconds and a number of requests."""
    found = limits_of(
        per_second=settings.requests_per_second, per_minute=settings.requests_per_minute
    )
    return [(span * TIME_SCALE * MARGIN, count) for span, count in found]


def next_request_at(
    account: OutboxAccount, limits: Iterable[tuple[float, int]], *, now: float
) -> float:
    """Return when the account may make its next request, in unix seconds; ``now`` or later."""
    recent = [min(moment, now) for moment in recent_requests(account, now=now)]
    return max(now, free_at(recent, limits, now=now))


def paused_until(account: OutboxAccount, *, now: float) -> float:
    """Return until when the account is paused, in unix seconds; ``now`` where it is not."""
    return now if account.paused_until is None else max(now, unix_of(account.paused_until))


def note_request(account: OutboxAccount, settings: Settings, *, now: float) -> float | None:
    """Count one more request in an account's row, which is locked.

    Returns:
        The moment by which it has arrived, in unix seconds, for :func:`note_answer`; ``None``
        without limits.
    """
    most = max((count for _, count in limits(settings)), default=0)
    arrived_by = round(now + ARRIVES_WITHIN_S, 6) if most else None
    recent = [*recent_requests(account, now=now), arrived_by] if arrived_by else []
    recent = sorted(recent)[-most:]  # no more than the limits look back
    if recent != account.recent_requests:
        _write_requests(account, recent, settings, now=now)
    return arrived_by


def take_back_request(
    account_name: str, arrived_by: float | None, settings: Settings, clock: Clock
) -> None:
    """Let a request not count that was not made after all.

    Where the database fails, it counts all the same.

    Args:
        account_name: whose request it was to be.
        arrived_by: what :func:`note_request` returned.
        settings: as for :func:`note_request`.
        clock: of the outbox's database.
    """
    if arrived_by is None:
        return
    with suppress(DatabaseError, InterfaceError), committed(clock.using):
        account = locked_account(account_name)
        now = clock.now()
        recent = recent_requests(account, now=now)
        if arrived_by in recent:
            recent.remove(arrived_by)
            _write_requests(account, recent, settings, now=now)


def _write_requests(
    account: OutboxAccount, recent: list[float], settings: Settings, *, now: float
) -> None:
    account.recent_requests = recent
    changes: dict[str, Any] = {"recent_requests": recent}
    if account.tenant:
        # Whatever comes of those under way, none goes sooner. So others need not look.
        free_at = next_request_at(account, limits(settings), now=now)
        changes["free_at"] = moment_of(free_at) if free_at > now else None
    rows = OutboxAccount.objects.filter(pk=account.pk)
    rows.update(**changes)


def note_answer(account_name: str, arrived_by: float | None, clock: Clock) -> None:
    """Let a request count from now on: it may have arrived only now.

    Where the database fails, it counts from ``arrived_by``.

    Args:
        account_name: whose request it was.
        arrived_by: what :func:`note_request` returned.
        clock: of the outbox's database.
    """
    if arrived_by is None:
        return
    with suppress(DatabaseError, InterfaceError):
        now = clock.now()
        if now >= arrived_by:
            return
        with committed(clock.using):
            account = locked_account(account_name)
            recent = recent_requests(account, now=now)
            if arrived_by in recent:
                recent.remove(arrived_by)
                account.recent_requests = sorted([*recent, round(now, 6)])
                account.save(using=clock.using, update_fields=["recent_requests"])


def recent_requests(account: OutboxAccount, *, now: float) -> list[float]:
    """Return the moments by which an account's latest requests have arrived, in unix seconds.

    Whatever somebody wrote into its row. A clock that was set back must not stop everything until
    it is where it was: what lies too far ahead for a request under way is left out.
    """
    stored = account.recent_requests
    if not isinstance(stored, list):
        return []
    return [
        float(moment)
        for moment in stored
        if isinstance(moment, int | float)
        and not isinstance(moment, bool)
        and moment < now + 2 * ARRIVES_WITHIN_S
    ]


def capabilities_of(account: OutboxAccount) -> Mapping[str, Any]:
    """Return what an account's row knows of its dialect, whatever somebody wrote into it."""
    return account.capabilities if isinstance(account.capabilities, dict) else {}


class SharedPacer:
    """Paces requests that send nothing, counted together with those of the outbox's workers.

    It is used as :class:`~truncus_django.api.rate_limit.Pacer` is. It takes half of the
    limits, so that questions about emails never keep others from being sent.

    Args:
        account_name: whose limits.
        settings: of a mailer that sends through it.
        sleep: how to wait.
    """

    def __init__(
        self,
        account_name: str,
        settings: Settings,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._account_name = account_name
        self._settings = settings
        self._limits = [(span, max(1, count // 2)) for span, count in limits(settings)]
        self._clock = Clock(database(), asks=ASKS)
        self._sleep = sleep
        self._arrived_by: float | None = None

    def pause_s(self) -> float:
        """Return the seconds until the next request may go; 0 for now."""
        account = OutboxAccount.objects.filter(account=self._account_name).first()
        return 0.0 if account is None else self._wait_s(account, self._clock.now())

    @contextmanager
    def request(self) -> Iterator[float]:
        """Wait until a request may go, and let the block make it; yield the seconds waited."""
        waited_s = self._wait()
        try:
            yield waited_s
        finally:
            note_answer(self._account_name, self._arrived_by, self._clock)

    def _wait(self) -> float:
        """Wait until the next request may go, count it, and return the seconds waited."""
        waited_s = 0.0
        while True:
            with committed(self._clock.using):
                account = locked_account(self._account_name)
                now = self._clock.now()
                wait_s = self._wait_s(account, now)
                if wait_s <= 0:
                    self._arrived_by = note_request(account, self._settings, now=now)
                    return waited_s
            self._sleep(wait_s)
            waited_s += wait_s

    def _wait_s(self, account: OutboxAccount, now: float) -> float:
        allowed_at = next_request_at(account, self._limits, now=now)
        return max(allowed_at, paused_until(account, now=now)) - now
