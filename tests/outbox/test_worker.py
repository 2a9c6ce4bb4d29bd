"""The worker as a process: it sends, is notified, stops in good order, and stays alive."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections

from tests.outbox.processes import Process, other_database, shared_database, site
from tests.waiting import PATIENCE_S, until
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox import worker as worker_module
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.worker import Watcher, Worker

__all__ = ["other_database", "shared_database", "site"]


def is_all_sent() -> bool:
    return not OutboxEntry.objects.exists()


def put_requests(put: Callable[..., Any], count: int) -> None:
    """Put emails into the outbox, of which each is a request of its own."""
    for number in range(count):
        put(1, idempotency_key=f"key-{number}")


def ready(worker: Process) -> Process:
    """Return a worker that has sent what there was."""
    worker.says("The outbox's worker runs")
    return worker


# One run --------------------------------------------------------------------------------------


def test_once_sends_what_is_due_and_ends(site, emulator, put, states):
    put(250)

    run = site.worker("--once")

    assert run.status() == 0, run.output
    assert run.count("Sent 250 emails in 3 requests, in ")
    assert emulator.accepted == 250
    assert set(states()) == {"delivered"}


def test_once_has_nothing_to_do(site, emulator):
    run = site.worker("--once")

    assert run.status() == 0, run.output
    assert len(run.lines) == 1
    assert run.count("Sent nothing, in ")


def test_once_waits_for_the_account_s_limits(site, emulator, put, states):
    site.given["truncus"]["REQUESTS_PER_SECOND"] = 2
    put_requests(put, 5)

    run = site.worker("--once")

    assert run.status() == 0, run.output
    assert run.count("Sent 5 emails in 5 requests, in ")
    assert is_all_sent()


def test_once_tells_why_nothing_is_sent_and_when_it_goes_on(site, emulator, put, states):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put_requests(put, 3)

    run = site.worker("--once", "--concurrency", "2")

    assert run.status() == 0, run.output
    assert run.count("The mailer is paused: ") + run.count("Mailer 'default' is paused: ") == 1
    assert run.count("The next attempt is due in ") == 1
    assert run.count(": AuthenticationError") == 1
    assert not {"delivered", "failed"} & set(states())


def test_nothing_is_said_where_nothing_is_to_be_said(site, emulator, put):
    put(3)

    run = site.worker("--once", "--verbosity", "0")

    assert run.status() == 0
    assert run.lines == []
    assert is_all_sent()


def test_no_address_is_said(site, emulator, put):
    emulator.faults.next("error_500")
    put(2)

    run = site.worker("--once", "--verbosity", "3")

    assert run.status() == 0
    assert run.count("put off: ServerError") == 1, run.output
    assert "@" not in run.output


# Until it is told to stop ---------------------------------------------------------------------


def test_emails_are_sent_as_they_are_committed(site, emulator, put):
    # Told of them by PostgreSQL, a worker needs no look of its own.
    can_listen = connections[database()].vendor == "postgresql"
    worker = ready(site.worker("--poll", "600" if can_listen else "0.1"))
    put(1)
    worker.says("Sent 1 email in")  # and now it is idle
    put(2)
    worker.says("Sent 2 emails")

    worker.signal(signal.SIGTERM)
    assert worker.status() == 0, worker.output
    assert worker.count("Sent 3 emails in 2 requests, in ")
    assert emulator.accepted == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_progress_is_finished(site, emulator, put, states, number):
    emulator.faults.next("delay", seconds=3)
    put(2)
    worker = site.worker()
    until(lambda: emulator.faults.struck["delay"])

    worker.signal(number)

    assert worker.status() == 0, worker.output
    assert worker.count("Sent 2 emails in 1 request, in ")
    assert states() == ["delivered"] * 2
    assert len(emulator.requests) == 1


def test_a_server_that_does_not_answer_keeps_it_for_no_longer_than_the_timeout(
    site, emulator, put, states
):
    emulator.faults.next("delay_after", seconds=600)
    site.given["truncus"]["TIMEOUT"] = 1
    put(2)
    worker = site.worker()
    until(lambda: emulator.accepted == 2)

    worker.signal(signal.SIGTERM)

    assert worker.status() == 0, worker.output
    assert worker.count("1 request: AnswerLost (TIMEOUT)") == 1, worker.output
    assert states() == ["sending"] * 2


def test_a_second_signal_ends_it_at_once_and_the_next_worker_goes_on(site, emulator, put, states):
    emulator.faults.next("delay_after", seconds=600)
    put(2)
    worker = site.worker()
    until(lambda: emulator.accepted == 2)
    worker.signal(signal.SIGTERM)
    until(lambda: ended_or_signals_again(worker))
    assert worker.status() == -signal.SIGTERM
    assert states() == ["sending"] * 2
    OutboxBatch.objects.update(due_at=OutboxBatch.objects.get().created_at)  # the lease is over

    assert site.worker("--once").status() == 0

    assert states() == ["delivered"] * 2
    assert emulator.accepted == 2


def ended_or_signals_again(worker: Process) -> bool:
    worker.signal(signal.SIGTERM)
    return worker.has_ended


_WITHOUT_READER = """
import os, sys
reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(reader)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_reader_that_is_gone_keeps_no_email_from_being_sent(site, emulator, put):
    put_requests(put, 12)
    command = ("-m", "django", "truncus_worker", "--verbosity", "2")
    site.start("-c", _WITHOUT_READER, *command)

    until(lambda: emulator.accepted == 12)


def test_several_requests_are_made_at_a_time(site, emulator, put):
    emulator.faults.next("delay_after", times=3, seconds=600)
    put_requests(put, 4)

    site.worker("--concurrency", "3")

    until(lambda: emulator.faults.struck["delay_after"] == 3)
    assert OutboxBatch.objects.count() == 3


# Trouble --------------------------------------------------------------------------------------


@pytest.fixture
def interrupted_database() -> Callable[[Process], None]:
    """Return a function that keeps a worker from its database, until it has noticed."""

    def interrupt(worker: Process) -> None:
        connection = connections[database()]
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("BEGIN EXCLUSIVE")
                worker.says("The outbox's database fails: OperationalError")
                cursor.execute("ROLLBACK")
            elif connection.vendor == "postgresql":
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            else:
                cursor.execute(
                    "SELECT id FROM information_schema.processlist"
                    " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
                )
                for (number,) in cursor.fetchall():
                    cursor.execute(f"KILL {number}")

    return interrupt


def test_a_database_that_is_gone_for_a_while_is_waited_for(
    site, emulator, put, interrupted_database
):
    if connections[database()].vendor == "sqlite":
        site.given["database"]["OPTIONS"]["timeout"] = 0.1
    can_listen = connections[database()].vendor == "postgresql"
    worker = ready(site.worker("--poll", "600" if can_listen else "0.1"))
    put(1)
    worker.says("Sent 1 email in")

    interrupted_database(worker)

    put(2)
    worker.says("Sent 2 emails")
    put(3)
    worker.says("Sent 3 emails")  # on PostgreSQL: it listens again
    worker.signal(signal.SIGTERM)
    assert worker.status() == 0
    assert worker.count("The outbox's database fails") <= 1
    assert emulator.accepted == 6


def test_a_pause_is_told_once(site, emulator, put):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put_requests(put, 2)
    worker = ready(site.worker("--poll", "0.05"))
    worker.says("is paused: ")
    emulator.reset()
    OutboxAccount.objects.update(paused_until=None)

    worker.says("Sent 1 email in 1 request.")

    assert worker.count("is paused: ") == 1, worker.output


def test_missing_tables_are_named(site, tmp_path):
    site.given["database"] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "empty.sqlite3"),
    }
    run = site.worker()
    assert run.status() == 1
    assert run.count("The database 'default' has no tables for the outbox. Run: manage.py migrate")


def test_a_site_without_truncus_has_no_worker(site):
    site.given["backend"] = "django.core.mail.backends.smtp.EmailBackend"
    del site.given["truncus"]["API_KEY"]
    run = site.worker()
    assert run.status() == 1
    assert run.count("No mailer of this project is Truncus")


def test_direct_mode_is_pointed_out(site, emulator):
    site.given["truncus"]["DELIVERY"] = "direct"
    run = site.worker("--once")
    assert run.status() == 0
    assert run.count("TRUNCUS['DELIVERY'] is 'direct'")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--concurrency", "0"), "--concurrency must be from 1 to 100."),
        (("--concurrency", "101"), "--concurrency must be from 1 to 100."),
        (("--poll", "0"), "--poll must be more than 0"),
        (("--poll", "nan"), "--poll must be more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(site, arguments, complaint):
    run = site.worker(*arguments)
    assert run.status() == 1
    assert run.count(complaint)


def test_help_shows_how_to_run_it(site):
    run = site.worker("--help")
    assert run.status() == 0
    for text in ("--once", "--concurrency", "[Service]", "* * * * *", "SIGTERM"):
        assert run.count(text), text


# In this process ------------------------------------------------------------------------------


@pytest.fixture
def quick(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker here, which does not wait for long after an error."""
    monkeypatch.setattr(worker_module, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(worker_module, "LONGEST_BACKOFF_S", 0.01)
    return


def fail(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """Let the next steps of dispatchers fail."""
    left, real = list(errors), Dispatcher.step

    def step(self: Dispatcher) -> Any:
        if left:
            raise left.pop(0)
        return real(self)

    monkeypatch.setattr(Dispatcher, "step", step)


def test_an_unexpected_error_is_logged_by_its_type_and_place(
    quick, emulator, put, monkeypatch, caplog
):
    put(1)
    fail(monkeypatch, ValueError("ann@example.org"), ValueError("bob@example.org"))

    result = Worker(is_once=True).run()

    assert result.stats.accepted == 1
    assert not result.is_cut_short
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith("A step of the outbox failed: ValueError in ")
    assert "@" not in caplog.text


def test_one_run_gives_up_where_the_database_stays_away(quick, put, monkeypatch, caplog):
    put(1)
    fail(monkeypatch, *[OperationalError("gone")] * worker_module.TRIES_OF_ONE_RUN)

    result = Worker(is_once=True).run()

    assert result.is_cut_short
    assert OutboxEntry.objects.get().is_waiting
    assert caplog.text.count("The outbox's database fails: OperationalError") == 1


def test_one_run_goes_on_as_long_as_steps_succeed_in_between(quick, emulator, put, monkeypatch):
    real, calls = Dispatcher.step, itertools.count()

    def step(self: Dispatcher) -> Any:
        if next(calls) % 2 == 0:
            raise OperationalError("gone")
        return real(self)

    monkeypatch.setattr(Dispatcher, "step", step)
    put_requests(put, worker_module.TRIES_OF_ONE_RUN + 1)

    result = Worker(is_once=True).run()

    assert result.stats.requests == worker_module.TRIES_OF_ONE_RUN + 1
    assert not result.is_cut_short


def test_debug_does_not_keep_all_queries(quick, emulator, put, settings):
    settings.DEBUG = True
    put_requests(put, 20)
    counts: list[int] = []

    class Counting(Watcher):
        def on_idle(self, idle: Idle) -> None:
            counts.append(len(connections[database()].queries_log))

    assert Worker(is_once=True, watcher=Counting()).run().stats.requests == 20
    assert max(counts) < 40


def test_what_a_worker_s_own_thread_writes_is_sent_without_notifying_anybody(
    quick, emulator, put, monkeypatch, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": "celery"}
    notified: list[str] = []
    monkeypatch.setattr(
        "truncus_django.outbox.notify.notify", lambda using, by: notified.append(by)
    )
    put(1)
    assert notified == ["celery"]

    class Answering(Watcher):
        def on_dispatched(self, dispatched: Any) -> None:
            if Email.objects.count() == 1:
                put(1)

    assert Worker(is_once=True, watcher=Answering()).run().stats.accepted == 2
    assert notified == ["celery"]


def test_stop_ends_an_idle_worker(quick, emulator):
    worker = Worker(poll_s=600)
    idled = threading.Event()

    class Idling(Watcher):
        def on_idle(self, idle: Idle) -> None:
            idled.set()

    worker._watcher = Idling()
    stopper = threading.Thread(target=lambda: (idled.wait(PATIENCE_S), worker.stop()))
    stopper.start()
    result = worker.run()
    stopper.join()
    assert result.stats.requests == 0
    assert not result.is_cut_short
