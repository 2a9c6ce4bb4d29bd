"""Which emails a worker claims, and for how long they are leased to it."""

from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.outbox.conftest import keys_of, put_all
from truncus_django import rate_limit
from truncus_django.api.client import TruncusClient
from truncus_django.api.transport import longest_request_s
from truncus_django.conf import get_settings
from truncus_django.db.clock import moment_of, unix_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import LEASE_MARGIN_S, Claim, Countdown, claim, lease_s
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.idle import Idle

pytestmark = pytest.mark.django_db


# Which go first -----------------------------------------------------------------------------------


def test_the_urgent_go_first(emulator, message, dispatcher):
    put_all(
        [message(number, priority=name) for number, name in enumerate(["low", "normal", "high"])]
    )
    dispatcher.drain()

    assert [email.subject for email in emulator.emails] == ["Order 2", "Order 1", "Order 0"]


def test_an_urgent_one_overtakes_a_batch_that_waits_for_its_retry(
    emulator, message, dispatcher, travel
):
    emulator.faults.next("provider_502")
    put_all([message(1)])
    dispatcher.step()
    travel(60)
    put_all([message(2, priority="high")])
    dispatcher.drain()

    assert [email.subject for email in emulator.emails] == ["Order 2", "Order 1"]


def test_a_batch_that_is_due_goes_before_others_that_are_no_more_urgent(
    emulator, message, dispatcher, travel
):
    emulator.faults.next("reset_before")
    put_all([message(1)])
    dispatcher.step()
    put_all([message(2), message(3, priority="low")])
    travel(60)
    dispatcher.drain()

    assert [email.subject for email in emulator.emails] == ["Order 1", "Order 2", "Order 3"]


def test_a_pause_that_begins_at_the_last_moment_is_obeyed(emulator, put, dispatcher, monkeypatch):
    put(1)
    dispatcher.drain()
    put(1)
    real = rate_limit.locked_account

    def pause_first(account):
        until = moment_of(dispatcher.clock.now() + 600)
        OutboxAccount.objects.filter(account=account).update(paused_until=until)
        return real(account)

    monkeypatch.setattr(rate_limit, "locked_account", pause_first)
    idle = claim(dispatcher.clock)

    assert isinstance(idle, Idle)
    assert list(idle.paused) == [""]


# Leases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("monotonic_s", "wall_s", "left_s"), [(10, 10, 50), (0, 70, -10), (70, -3600, -10)]
)
def test_a_lease_runs_out_while_the_machine_sleeps_and_whatever_its_clock_says(
    monkeypatch, monotonic_s, wall_s, left_s
):
    now = {"monotonic": 1000.0, "time": 1_800_000_000.0}
    for name in now:
        monkeypatch.setattr(f"truncus_django.outbox.claim.time.{name}", lambda name=name: now[name])
    countdown = Countdown(60)
    now["monotonic"] += monotonic_s
    now["time"] += wall_s

    assert countdown.left_s == left_s


@pytest.mark.parametrize("timeout", [0.5, 10, 15, 30, 120])
def test_a_lease_outlasts_the_longest_request(timeout):
    settings = get_settings({"timeout": timeout})
    assert lease_s(settings) >= longest_request_s(timeout) + LEASE_MARGIN_S


def test_a_worker_that_dies_leaves_a_lease_that_runs_out(emulator, put, dispatcher, travel):
    put(5)
    taken = claim(dispatcher.clock)
    assert isinstance(taken, Claim)

    idle = Dispatcher().step()
    assert isinstance(idle, Idle)
    assert idle.due_at == pytest.approx(unix_of(taken.batch.due_at), abs=2)
    travel(lease_s(taken.settings) + 1)
    dispatcher.drain()

    assert keys_of(emulator) == [taken.batch.idempotency_key]
    assert len(emulator.emails) == 5


@contextmanager
def standing_still(*, left_s):
    """Let no more than so many seconds of a lease be left when the request is to be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Countdown, "left_s", property(lambda countdown: left_s))
        yield


@pytest.mark.parametrize("left_s", [-1.0, longest_request_s(30) - 1])
def test_who_stood_still_asks_nothing_and_gives_the_batch_back(
    emulator, put, dispatcher, states, left_s
):
    put(1)
    with standing_still(left_s=left_s):
        assert dispatcher.step() == DispatchResult(requests=0)
    assert emulator.requests == []
    batch = OutboxBatch.objects.get()
    assert (batch.lease, batch.is_ambiguous, batch.attempts) == (None, False, 0)
    Dispatcher().step()
    assert states() == ["delivered"]
    assert emulator.accepted == 1


def test_what_expires_before_any_request_of_it_is_not_unknown(
    emulator, put, dispatcher, travel, states
):
    put(1, expires_at=timedelta(minutes=1))
    with standing_still(left_s=1.0):
        dispatcher.step()
    travel(61)
    dispatcher.drain()

    assert states() == ["expired"]
    assert emulator.requests == []


def test_who_stood_still_before_a_repeated_request_leaves_it_ambiguous(
    emulator, put, dispatcher, travel
):
    emulator.faults.next("reset_after")
    put(1)
    dispatcher.step()
    travel(3600)
    with standing_still(left_s=1.0):
        dispatcher.step()

    batch = OutboxBatch.objects.get()
    assert (batch.lease, batch.is_ambiguous) == (None, True)


# Another account takes over -----------------------------------------------------------------------


def test_another_account_does_not_repeat_an_ambiguous_request(
    emulator, put, dispatcher, travel, states, settings
):
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": "tr_test_another"}
    travel(60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert "another account" in Email.objects.first().error


def test_another_account_goes_on_with_what_was_refused(
    emulator, put, dispatcher, travel, states, settings
):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(2)
    dispatcher.step()
    assert states() == ["sending"] * 2
    emulator.reset()
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": "tr_test_another"}
    travel(60)
    dispatcher.drain()

    assert states() == ["delivered"] * 2


def test_the_parts_of_a_batch_go_over_to_another_account_together(
    emulator, message, dispatcher, travel, settings
):
    """Emails of one request that expire far apart are parted when it is made again."""
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put_all([message(0), message(1)])
    dispatcher.step()
    first = OutboxEntry.objects.order_by(*OutboxEntry.IN_ORDER)[0]
    OutboxEntry.objects.filter(pk=first.pk).update(
        expires_at=moment_of(dispatcher.clock.now() + 2 * 3600)
    )
    emulator.reset()
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": "tr_test_another"}
    travel(3600)
    dispatcher.step()

    [remaining] = OutboxBatch.objects.all()
    assert (
        remaining.account
        == TruncusClient("tr_test_another", base_url=settings.TRUNCUS["BASE_URL"]).account
    )
