"""What can be wrong around a worker: nothing is lost, the row says what, and the worker lives."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from tests.log.conftest import other_database, shared_database
from tests.waiting import until
from truncus_django.db.clock import unix_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.health import health
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.worker import Worker
from truncus_django.states import State

__all__ = ["other_database", "shared_database"]

SENT = {State.SENT, State.DELIVERED}


def _pass_time() -> None:
    """Let all waits and pauses be over."""
    OutboxBatch.objects.update(due_at=timezone.now() - timedelta(seconds=1))
    OutboxAccount.objects.update(paused_until=None)


@contextmanager
def _working(count: int = 1) -> Iterator[Worker]:
    """Let a worker run in threads of this process; it must be alive at the end."""
    worker = Worker(concurrency=count, poll_s=0.05)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
        assert thread.is_alive(), "the worker gave up"
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive()


# The database -------------------------------------------------------------------------------------


@pytest.mark.processes  # starts none, but takes as long
def test_database_that_is_gone_for_a_while(
    shared_database: str, emulator: Any, put: Any, tmp_path: Path
) -> None:
    """Before, while and after it is gone requests are under way; all answers are written down."""
    alias = database()
    with _working(2), _gone(alias) as gone:
        put(3)
        until(lambda: emulator.accepted == 3)
        emulator.faults.next("delay_after", seconds=0.5)
        put(3)
        until(lambda: emulator.accepted == 6)
        gone()  # while the answer is on its way
        put(3)
        until(lambda: emulator.accepted == 9)
        until(lambda: not OutboxBatch.objects.exists())
    assert set(Email.objects.values_list("state", flat=True)) <= SENT
    assert Email.objects.count() == emulator.accepted == 9
    assert not OutboxEntry.objects.exists()


@contextmanager
def _gone(alias: str) -> Iterator[Callable[[], None]]:
    """Yield a function that takes the database away, and returns when it is back."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        yield lambda: _locked_for_long(connection.settings_dict["NAME"])
        return
    yield lambda: _disconnected_for_long(alias)


LONG_S = 10.0


def _locked_for_long(path: Any) -> None:
    """Hold the lock of an SQLite, as a backup or a hanging process does."""
    import sqlite3

    holder = sqlite3.connect(str(path), isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        time.sleep(LONG_S)
        holder.execute("COMMIT")
    finally:
        holder.close()


def _disconnected_for_long(alias: str) -> None:
    """End all other connections again and again."""
    connection = connections[alias]
    if connection.vendor == "postgresql":
        ids = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        end = "SELECT pg_terminate_backend(%s)"
    else:
        ids = (
            "SELECT id FROM information_schema.processlist"
            " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        end = "KILL %s"
    back_at = time.monotonic() + LONG_S
    while time.monotonic() < back_at:
        with connection.cursor() as cursor:
            cursor.execute(ids)
            for (number,) in cursor.fetchall():
                try:
                    cursor.execute(end, [number])
                except Exception:  # noqa: BLE001  it has ended already
                    continue
        time.sleep(0.01)


# Rows ---------------------------------------------------------------------------------------------


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_mailer_that_is_no_more_keeps_its_emails_until_it_is_back(
    emulator: Any, put: Any, settings: Any
) -> None:
    lost, other = put(1)[0], put(1)[0]
    OutboxEntry.objects.filter(pk=lost.pk).update(mailer="marketing")
    Email.objects.filter(pk=lost.pk).update(mailer="marketing")
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    stats = dispatcher.drain()
    lost.refresh_from_db()
    other.refresh_from_db()
    assert other.state in SENT, "the mailers that are there are not held up"
    assert lost.state == State.PENDING
    assert "MAILERS has no mailer 'marketing'" in lost.error
    assert "marketing" in stats.idle.paused
    backend = {"BACKEND": "truncus_django.backend.TruncusBackend"}
    settings.MAILERS = {**(getattr(settings, "MAILERS", None) or {}), "marketing": backend}
    _pass_time()
    dispatcher.drain()
    lost.refresh_from_db()
    assert lost.state in SENT
    assert not lost.error


@pytest.mark.django_db(transaction=True)
def test_a_mailer_whose_settings_were_corrected_is_as_if_it_never_had_been_wrong(
    emulator: Any, put: Any, settings: Any
) -> None:
    right = settings.TRUNCUS
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    for _ in range(2):
        [email] = put(1)
        settings.TRUNCUS = {**right, "FALLBACK_MAILER": "nothing"}
        assert dispatcher.drain().idle.paused
        [paused] = health().paused
        assert paused.is_misconfigured
        assert unix_of(paused.until) < dispatcher.clock.now() + 20
        settings.TRUNCUS = right
        assert dispatcher.drain().accepted == 1
        assert health().paused == ()
        assert not Email.objects.get(pk=email.pk).error


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("status", ["revoked_keys", "api_keys"])
def test_key_that_is_revoked_half_way_and_replaced(
    emulator: Any, put: Any, settings: Any, status: str
) -> None:
    first, second = "tr_test_first", "tr_test_second"
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": first}
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    put(2)
    dispatcher.drain()
    assert emulator.accepted == 2
    refuses = {"revoked_keys": [first], "api_keys": {second: ["send"]}}
    emulator.reset(**{status: refuses[status]})
    late = [*put(2), *put(1, idempotency_key="own")]
    for _ in range(3):
        dispatcher.drain()
        _pass_time()
    assert emulator.accepted == 0
    assert len(emulator.requests) <= 3, "a key that is refused is tried now and then only"
    waiting = [Email.objects.get(pk=email.pk) for email in late]
    assert {row.state for row in waiting} <= {State.SENDING, State.PENDING}
    told = [row.error for row in waiting if row.error]
    assert told
    assert all("API" in error and first not in error for error in told)
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": second}
    _pass_time()
    dispatcher.drain()
    rows = [Email.objects.get(pk=email.pk) for email in late]
    assert {row.state for row in rows} <= SENT
    assert not any(row.error for row in rows)
    assert emulator.accepted == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("dialect", "text"),
    [("manual", "Monthly limit"), ("sdk", "plan's emails of this month are used up")],
)
def test_quota_that_is_used_up(emulator: Any, put: Any, dialect: str, text: str) -> None:
    emulator.reset(monthly_limit=2, dialect=dialect)
    put(2)
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    dispatcher.drain()
    assert emulator.accepted == 2
    late = put(1)[0]
    dispatcher.drain()
    late.refresh_from_db()
    assert late.state == State.SENDING
    assert text in late.error
    account = OutboxAccount.objects.get()
    assert text in account.error
    assert account.paused_until is not None
    assert unix_of(account.paused_until) - time.time() <= 3601
    emulator.reset()
    _pass_time()
    dispatcher.drain()
    late.refresh_from_db()
    assert late.state in SENT


# Clocks -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_clock_of_one_machine_that_is_ahead_takes_no_lease(
    emulator: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a server all machines go by its clock; an SQLite has one machine only."""
    ahead = Dispatcher(jitter=lambda: 0.0)
    put(2)
    if connections[database()].vendor == "sqlite":
        ahead.clock.now = lambda: time.time() + 600  # type: ignore[method-assign]
    else:
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 600)
    emulator.faults.next("rate_limit", retry_after=5)
    ahead.step()
    behind = Dispatcher(jitter=lambda: 0.0)
    idle = behind.step()
    assert isinstance(idle, Idle)
    assert len(emulator.requests) == 1
    monkeypatch.undo()
    if connections[database()].vendor != "sqlite":
        account = OutboxAccount.objects.get()
        assert account.paused_until is not None
        assert unix_of(account.paused_until) - time.time() < 30
    _pass_time()
    behind.drain()
    assert emulator.accepted == 2
