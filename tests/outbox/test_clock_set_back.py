"""The outbox's clock. One that is set back: the outbox goes on, and its keys grow no younger."""

import time

import pytest
from django.db import connection, connections

from tests.outbox.conftest import keys_of
from tests.outbox.processes import other_database, shared_database, site
from truncus_django.db.clock import Clock, moment_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.clock_set_back import SET_BACK_S
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.stored_payload import stored_emails
from truncus_django.outbox.waiting import AWAITS_SEND_AT

__all__ = ["other_database", "shared_database", "site"]

pytestmark = pytest.mark.django_db

HOUR_S = 60 * 60.0


@pytest.fixture
def limited(settings):
    """The limits of a real account, by which its latest requests are noted."""
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_SECOND": 10, "REQUESTS_PER_MINUTE": 60}


@pytest.fixture(params=["the same worker", "a new one"])
def worker(request, dispatcher):
    """Return a function that returns who works after the clock was set back."""
    fresh = Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5)
    return lambda: dispatcher if request.param == "the same worker" else fresh


@pytest.mark.parametrize("fault", ["error_500", "reset_after", "provider_502"])
def test_what_waits_for_its_next_try_is_sent(
    emulator, put, dispatcher, worker, travel, states, fault
):
    emulator.faults.next(fault)
    put(2)
    dispatcher.step()
    travel(-HOUR_S)
    worker().drain()

    assert states() == ["delivered"] * 2
    assert len(set(keys_of(emulator))) == 1
    assert len(emulator.emails) == 2


@pytest.mark.usefixtures("limited")
def test_what_has_failed_for_longer_than_that_is_sent(
    emulator, put, dispatcher, worker, travel, states
):
    emulator.faults.next("error_500", times=20)
    put(2)
    for _ in range(20):
        dispatcher.step()
        travel(15 * 60)
    travel(-15 * 60)  # its next try is still to come
    travel(-HOUR_S)
    worker().drain()
    travel(2 * 60)  # the account's pause starts anew
    worker().drain()

    assert states() == ["delivered"] * 2


@pytest.mark.usefixtures("limited")
def test_limits_hold_nothing_back_for_longer_than_a_minute(
    emulator, message, dispatcher, worker, travel, put
):
    for number in range(60):
        put(1, idempotency_key=f"before-{number}")
        dispatcher.step()
        travel(0.2)
    travel(-HOUR_S)
    put(1)
    idle = worker().step()

    assert isinstance(idle, Idle)
    assert idle.is_pace
    assert idle.due_at - dispatcher.clock.now() < 62
    travel(62)
    assert worker().step().accepted == 1


@pytest.mark.usefixtures("limited")
def test_a_pause_lasts_no_longer_than_it_was_meant_to(
    emulator, put, dispatcher, worker, travel, states
):
    emulator.faults.next("rate_limit", retry_after=30)
    put(1)
    dispatcher.step()
    travel(-HOUR_S)
    idle = worker().step()

    assert isinstance(idle, Idle)
    assert 25 < idle.due_at - dispatcher.clock.now() < 40
    travel(40)
    worker().drain()
    assert states() == ["delivered"]


def test_a_mailer_without_usable_settings_is_looked_at_as_often_as_before(
    put, dispatcher, worker, travel
):
    [email] = put(1)
    OutboxEntry.objects.filter(pk=email.pk).update(mailer="gone")
    dispatcher.step()
    travel(-HOUR_S)
    idle = worker().step()

    assert isinstance(idle, Idle)
    assert idle.due_at - dispatcher.clock.now() <= 600


@pytest.mark.usefixtures("limited")
def test_a_lease_of_a_worker_that_died_runs_out(emulator, put, dispatcher, worker, travel, states):
    put(2)
    taken = claim(dispatcher.clock)
    assert isinstance(taken, Claim)
    travel(-HOUR_S)

    assert isinstance(worker().step(), Idle), "the worker that has it may be alive"
    travel(301)
    worker().drain()
    assert states() == ["delivered"] * 2
    assert keys_of(emulator) == [taken.batch.idempotency_key]


def test_a_worker_that_lives_writes_down_its_answer(
    emulator, put, dispatcher, worker, travel, states
):
    put(2)
    taken = claim(dispatcher.clock)
    emails = stored_emails(taken.batch, now=dispatcher.clock.now())
    results = dispatcher._send(taken, emails)
    travel(-HOUR_S)
    worker().step()

    assert dispatcher._record(taken, emails, results).accepted == 2
    assert states() == ["delivered"] * 2
    assert len(keys_of(emulator)) == 1


@pytest.mark.usefixtures("limited")
def test_a_key_grows_no_younger(emulator, put, dispatcher, worker, travel, states):
    """Six hours later by the clock the day of the key is over all the same."""
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    OutboxBatch.objects.update(due_at=moment_of(dispatcher.clock.now() + 19 * HOUR_S))
    travel(18 * HOUR_S)
    put(1)
    dispatcher.step()
    travel(-12 * HOUR_S)
    emulator.faults.rate("rate_limit", 1)
    worker().step()
    travel(6 * HOUR_S)
    emulator.faults.rate("rate_limit", 0)
    asked = len(keys_of(emulator))
    worker().drain()

    assert states() == ["unknown", "unknown", "delivered"]
    assert len(keys_of(emulator)) == asked


def test_what_awaits_its_send_at_waits_for_the_moment_that_its_sender_named(
    emulator, put, dispatcher, worker, travel
):
    emulator.faults.next("error_500", times=2)
    put(1, idempotency_key="held")
    dispatcher.step()
    held_at = moment_of(dispatcher.clock.now() + 48 * HOUR_S)
    held = OutboxBatch.objects.filter(idempotency_key="held")
    held.update(error_code=AWAITS_SEND_AT, due_at=held_at)
    put(1)
    dispatcher.step()
    travel(-HOUR_S)
    worker().step()
    travel(60)  # the account's pause
    worker().drain()

    assert held.get().due_at == held_at
    assert len(emulator.emails) == 1


@pytest.mark.usefixtures("limited")
def test_set_forward_and_back_again_it_sends_once(
    emulator, put, dispatcher, worker, travel, states
):
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    travel(HOUR_S)
    emulator.faults.next("reset_after")
    dispatcher.step()
    put(1)
    travel(-HOUR_S)
    worker().drain()
    travel(60)
    worker().drain()

    assert states() == ["delivered"] * 3
    assert len(emulator.emails) == 3
    assert len(set(keys_of(emulator))) == 2


@pytest.mark.usefixtures("limited")
def test_a_clock_that_differs_a_little_changes_nothing(emulator, put, dispatcher, travel):
    emulator.faults.next("reset_after")
    put(1)
    dispatcher.step()
    before = OutboxBatch.objects.values().get(), OutboxAccount.objects.values().get()
    travel(-SET_BACK_S / 2)
    dispatcher.step()
    Dispatcher().step()

    assert (OutboxBatch.objects.values().get(), OutboxAccount.objects.values().get()) == before


@pytest.mark.parametrize("junk", ["x", ["a", None, True], [1e300], [[2e9]], {"a": 2e9}])
def test_junk_among_the_requests_of_an_account_tells_no_time(emulator, put, dispatcher, junk):
    emulator.faults.next("reset_after")
    put(1)
    dispatcher.step()
    before = OutboxBatch.objects.values().get()
    OutboxAccount.objects.update(recent_requests=junk)
    Dispatcher().step()

    assert OutboxBatch.objects.values().get() == before


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_started_after_the_clock_was_set_back_sends(site, emulator, put, travel):
    """On SQLite, whose clock is the machine's; where there is a server, it is the server's."""
    if connections[database()].vendor == "sqlite":
        travel(HOUR_S)
    emulator.faults.next("reset_after")
    put(2)
    Dispatcher(jitter=lambda: 0.0).step()
    run = site.worker("--once")

    assert run.status() == 0, run.output
    assert {email.state for email in Email.objects.all()} == {"delivered"}
    assert len(set(keys_of(emulator))) == 1
    assert emulator.accepted == 2


def test_one_set_back_is_mended_once_however_many_workers_begin_after_it(
    emulator, put, dispatcher, worker, travel, states
):
    emulator.faults.next("reset_after", times=5)
    put(2)
    dispatcher.step()
    travel(-8 * HOUR_S)
    for _ in range(5):
        worker().step()
        travel(120)

    assert "unknown" not in states()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite's clock is the machine's")
def test_an_answer_that_was_long_on_its_way_sets_no_clock():
    """A busy machine lets a process wait between the database's answer and its own next step."""
    delays_s = iter([2.0])

    def late(execute, *query):
        result = execute(*query)
        time.sleep(next(delays_s, 0.0))
        return result

    with connection.execute_wrapper(late):
        late_clock = Clock(database(), asks=2)
        late_now = late_clock.now()
    assert next(delays_s, None) is None
    assert late_now == pytest.approx(Clock(database(), asks=2).now(), abs=0.8)
