"""Claim, send, record the outcome: what one worker does, in that order."""

import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from tests.outbox.conftest import keys_of, put_all, reload
from truncus_django import rate_limit, signals
from truncus_django.api.capabilities import forget_capabilities
from truncus_django.api.client import TruncusClient
from truncus_django.api.transport import longest_request_s
from truncus_django.backend import TruncusBackend
from truncus_django.conf import get_settings
from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox import dispatcher as dispatcher_module
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import (
    LEASE_MARGIN_S,
    Claim,
    Countdown,
    Idle,
    claim,
    lease_s,
)
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.stored_payload import stored_emails

pytestmark = pytest.mark.django_db


# The usual case -------------------------------------------------------------------------------


def test_a_hundred_are_one_request(emulator, put, dispatcher, states):
    put(250)

    stats = dispatcher.drain()

    assert (stats.requests, stats.accepted) == (3, 250)
    assert len(emulator.emails) == 250
    assert set(states()) == {"delivered"}
    assert OutboxEntry.objects.count() == OutboxBatch.objects.count() == 0


def test_the_order_of_a_list_is_the_order_of_the_requests(emulator, put, dispatcher):
    put(150)
    dispatcher.drain()

    sent = sorted(emulator.emails, key=lambda email: int(email.subject.split()[1]))
    assert [email.subject for email in emulator.emails] == [email.subject for email in sent]


def test_what_came_back_is_on_the_row(emulator, put, dispatcher):
    first, second = put(2)
    dispatcher.drain()

    assert {reload(first).message_id, reload(second).message_id} == {
        email.id for email in emulator.emails
    }
    assert keys_of(emulator) == [first.idempotency_key]
    assert (first.batch_index, second.batch_index) == (0, 1)
    assert first.attempts == 1
    assert first.sent_at is not None
    assert first.next_sync_at is not None


def test_one_goes_to_the_endpoint_of_one(emulator, put, dispatcher):
    [email] = put(1)
    dispatcher.drain()

    assert [request.path for request in emulator.requests] == ["/api/v1/emails/send"]
    assert reload(email).batch_index is None


def test_a_receiver_hears_of_the_new_state(
    emulator, put, dispatcher, django_capture_on_commit_callbacks
):
    known_events = []

    def ingest(**state):
        known_events.append((state["old_state"], state["new_state"]))

    put(2)
    signals.email_state_changed.connect(ingest)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            dispatcher.drain()
    finally:
        signals.email_state_changed.disconnect(ingest)

    assert known_events == [("sending", "delivered")] * 2


def test_queries_do_not_grow_with_the_batch(
    emulator, put, dispatcher, django_assert_max_num_queries, takes_few_parameters
):
    put(1)
    dispatcher.drain()
    put(100)

    with django_assert_max_num_queries(32 if takes_few_parameters else 25):
        assert dispatcher.step() == DispatchResult(accepted=100)


def test_an_empty_outbox_is_idle(emulator, dispatcher):
    assert dispatcher.step() == Idle()
    assert emulator.requests == []


# Which go together ----------------------------------------------------------------------------


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


SOON = datetime.now(UTC) + timedelta(hours=12)


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        pytest.param([{}, {"idempotency_key": "order-2"}, {}], 2, id="own keys go alone"),
        pytest.param(
            2 * [{}, {"sandbox": True}, {"expires_at": timedelta(minutes=10)}],
            3,
            id="the sandbox and what expires go by themselves",
        ),
        pytest.param(
            [{"expires_at": SOON + timedelta(seconds=number)} for number in range(250)],
            3,
            id="those that expire at about the same moment share requests",
        ),
        pytest.param(
            [{}, {"expires_at": timedelta(days=2)}, {}],
            1,
            id="what expires after its key goes with what never expires",
        ),
    ],
)
def test_which_share_a_request(emulator, message, dispatcher, options, requests):
    put_all([message(number, **given) for number, given in enumerate(options)])

    assert dispatcher.drain().requests == requests
    assert len(emulator.emails) == len(options)


def test_the_same_own_key_is_one_email(emulator, message, dispatcher):
    first, second = put_all([message(1, idempotency_key="k"), message(1, idempotency_key="k")])
    dispatcher.drain()

    assert len(emulator.emails) == 1
    assert reload(first).state == reload(second).state == "delivered"
    assert sorted([first.message_id or "", second.message_id or ""])[0] == ""


def test_a_request_holds_no_more_than_it_may(emulator, message, dispatcher, monkeypatch):
    monkeypatch.setattr("truncus_django.outbox.batching.MAX_BATCH_BYTES", 5_000)
    mails = []
    for number in range(3):
        mail = message(number)
        mail.attach("data.bin", b"\x00" * 3_000, "application/octet-stream")
        mails.append(mail)
    put_all(mails)

    assert dispatcher.drain().requests == 3


# Trouble --------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_for_again_under_its_key(emulator, put, dispatcher, travel, states):
    emulator.faults.next("reset_after")
    put(3)

    assert dispatcher.step().postponed == 3
    assert states() == ["sending"] * 3
    [batch] = OutboxBatch.objects.all()
    assert (batch.is_ambiguous, batch.lease, batch.attempts) == (True, None, 1)
    assert isinstance(dispatcher.step(), Idle)
    travel(60)
    dispatcher.drain()

    assert len(emulator.emails) == 3
    assert len(set(keys_of(emulator))) == 1
    assert set(states()) == {"delivered"}
    assert set(Email.objects.values_list("attempts", flat=True)) == {2}


def test_the_row_says_what_is_wrong_and_when_it_is_tried_again(emulator, put, dispatcher):
    emulator.faults.next("error_500")
    [email] = put(1)
    dispatcher.step()

    assert reload(email).state == "sending"
    assert email.error_code == "transient_failure"
    assert "HTTP 500" in email.error
    assert email.outbox_entry.batch.due_at > moment_of(Clock("default").now() - 1)


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


def test_past_the_keys_life_an_ambiguous_batch_is_left_to_a_person(
    emulator, put, dispatcher, travel, states
):
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert len(keys_of(emulator)) == 1
    assert OutboxBatch.objects.count() == 0
    assert OutboxEntry.objects.filter(is_waiting=False, batch=None).count() == 2
    assert "24 hours" in Email.objects.first().error


def test_the_keys_life_counts_from_its_first_request(emulator, put, dispatcher, travel, states):
    emulator.faults.rate("reset_after", 1)
    put(2)
    dispatcher.step()
    travel(12 * 60 * 60)
    dispatcher.step()
    assert len(keys_of(emulator)) == 2
    travel(12 * 60 * 60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert len(keys_of(emulator)) == 2


def test_a_new_key_has_a_life_of_its_own(emulator, put, dispatcher, travel, states):
    emulator.faults.next("rate_limit")
    put(2)
    dispatcher.step()
    travel(24 * 60 * 60)
    emulator.faults.next("reset_after")
    dispatcher.step()
    travel(12 * 60 * 60)
    dispatcher.drain()

    first, *repeated = keys_of(emulator)
    assert len(repeated) == 2
    assert set(repeated).isdisjoint({first})
    assert len(set(repeated)) == 1
    assert states() == ["delivered"] * 2


@pytest.mark.parametrize(("own_key", "keys"), [(None, 2), ("order-42", 1)])
def test_past_the_keys_life_a_failure_goes_on_under_a_new_key_unless_it_is_its_own(
    emulator, put, dispatcher, travel, states, own_key, keys
):
    emulator.faults.next("rate_limit")
    put(1, idempotency_key=own_key)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.drain()

    assert len(keys_of(emulator)) == 2
    assert len(set(keys_of(emulator))) == keys
    assert states() == ["delivered"]


def test_a_day_of_failures_is_enough(emulator, put, dispatcher, travel, states):
    emulator.faults.rate("provider_502", 1)
    put(1)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.step()

    assert states() == ["failed"]
    assert OutboxEntry.objects.filter(is_waiting=False, batch=None).count() == 1


def test_a_day_counts_from_the_first_failure_of_its_own(emulator, put, dispatcher, travel, states):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(1)
    dispatcher.step()
    travel(25 * 60 * 60)
    emulator.reset()
    emulator.faults.next("provider_502")
    dispatcher.step()

    assert states() == ["sending"]
    travel(60)
    dispatcher.drain()
    assert states() == ["delivered"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", ["rate_limit", "error_500", "reset_after"])
def test_an_answer_is_written_again_where_the_end_of_the_transaction_was_lost(
    emulator, put, dispatcher, travel, states, monkeypatch, fault
):
    """Whether the commit itself came through or not, which nobody can tell."""
    emulator.faults.next(fault)
    put(2)
    real, calls = dispatcher_module.record_failure, []

    def record_failure(*args, **options):
        result = real(*args, **options)
        calls.append(result)
        if len(calls) == 1:
            raise OperationalError("the server went away")
        return result

    monkeypatch.setattr(dispatcher_module, "record_failure", record_failure)
    dispatcher.step()

    assert len(calls) == 2
    [batch] = OutboxBatch.objects.all()
    assert batch.lease is None
    assert batch.is_ambiguous is (fault != "rate_limit")
    travel(60)
    dispatcher.drain()
    assert states() == ["delivered"] * 2
    assert len(emulator.emails) == 2


def test_who_has_written_its_answer_has_no_say_any_more(emulator, put, dispatcher, travel, states):
    """The commit came through and its answer did not; meanwhile another worker is at it."""
    emulator.faults.next("rate_limit")
    put(1)
    first = claim(dispatcher.clock)
    emails = stored_emails(first.batch, now=dispatcher.clock.now())
    error = dispatcher._send(first, emails)
    dispatcher._record(first, emails, error)
    travel(60)
    emulator.faults.next("reset_after")
    Dispatcher().step()  # now it is ambiguous

    dispatcher._record(first, emails, error)

    assert OutboxBatch.objects.get().is_ambiguous
    travel(60)
    dispatcher.drain()
    assert len(emulator.emails) == 1
    assert states() == ["delivered"]


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


@pytest.mark.parametrize("timeout", [0.5, 10, 15, 30, 120])
def test_a_lease_outlasts_the_longest_request(timeout):
    settings = get_settings({"timeout": timeout})
    assert lease_s(settings) >= longest_request_s(timeout) + LEASE_MARGIN_S


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


# Refusals -------------------------------------------------------------------------------------


def test_a_batch_that_is_refused_is_halved_until_the_bad_one_stands_alone(
    emulator, message, dispatcher, states
):
    emulator.reset(batch_refusal="whole", domains={"bad.example": "not_verified"})
    mails = [message(number) for number in range(8)]
    mails[5] = message(5, esp_extra={"to": "no address"})
    put_all(mails)
    dispatcher.drain()

    assert states() == ["delivered"] * 5 + ["failed"] + ["delivered"] * 2
    assert len(emulator.emails) == 7
    assert len(set(keys_of(emulator))) == len(keys_of(emulator))
    [entry] = OutboxEntry.objects.all()
    assert entry.email.state == "failed"


def test_a_domain_that_is_refused_fails_alone(emulator, message, dispatcher, states):
    emulator.reset(batch_refusal="whole", domains={"bad.example": "not_verified"})
    senders = ["a@example.com", "b@bad.example", "c@example.com"]
    put_all([message(number, from_email=sender) for number, sender in enumerate(senders)])
    dispatcher.drain()

    assert states() == ["delivered", "failed", "delivered"]


def test_one_of_a_batch_that_is_blocked_is_told_so(emulator, message, dispatcher):
    emulator.reset(dialect="sdk", suppressed=["customer-1@example.org"])
    _, blocked, _ = put_all([message(number) for number in range(3)])
    dispatcher.drain()

    assert reload(blocked).state == "rejected"
    assert OutboxEntry.objects.get().email == blocked


# The account ----------------------------------------------------------------------------------


def test_a_revoked_key_stops_the_account_and_says_so(emulator, put, dispatcher, travel, states):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(150)
    stats = dispatcher.drain()

    assert stats.requests == 1
    assert list(stats.idle.paused) == [""]
    account = OutboxAccount.objects.get()
    assert account.failures == 1
    assert "API key" in account.error
    assert sorted(set(states())) == ["pending", "sending"]
    emulator.reset()
    travel(60)
    dispatcher.drain()

    assert set(states()) == {"delivered"}
    account.refresh_from_db()
    assert (account.failures, account.error, account.paused_until) == (0, "", None)


def test_a_drain_waits_for_the_pace(emulator, put, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_SECOND": 3, "REQUESTS_PER_MINUTE": 0}
    put(450)

    assert Dispatcher().drain().accepted == 450


def test_an_account_is_sent_the_wire_format_that_another_process_learned(
    emulator, message, dispatcher
):
    emulator.reset(dialect="sdk")
    plain = [message(number, to=["a@example.org", "b@example.org"]) for number in range(2)]
    put_all(plain[:1])
    dispatcher.drain()
    assert OutboxAccount.objects.get().capabilities["single_recipient"] is True
    asked = len(emulator.requests)
    forget_capabilities()  # as a new process has
    put_all(plain[1:])
    dispatcher.drain()

    assert len(emulator.requests) == asked + 1


# Time -----------------------------------------------------------------------------------------


def test_what_has_expired_is_never_sent(emulator, put, dispatcher, travel, states):
    put(2, expires_at=timedelta(minutes=10))
    travel(11 * 60)
    dispatcher.drain()

    assert states() == ["expired"] * 2
    assert OutboxEntry.objects.count() == 0
    assert emulator.requests == []


def test_what_expires_between_two_tries_is_taken_out(emulator, message, dispatcher, travel, states):
    emulator.faults.next("provider_502")
    put_all(
        [
            message(1, expires_at=timedelta(minutes=10)),
            message(2, expires_at=timedelta(minutes=10, seconds=50)),
        ]
    )
    dispatcher.step()
    travel(10 * 60 + 20)
    dispatcher.drain()

    assert states() == ["expired", "delivered"]
    first, second = keys_of(emulator)
    assert first != second  # another request, for it holds other emails


def test_one_that_expires_while_ambiguous_costs_none_that_is_good_for_longer(
    emulator, message, dispatcher, travel, states
):
    emulator.faults.next("reset_before", times=2)
    soon, later = timedelta(minutes=10), timedelta(hours=1)
    lives = [later, soon, later, later]
    put_all([message(number, expires_at=life) for number, life in enumerate(lives)])
    dispatcher.step()
    dispatcher.step()
    travel(11 * 60)
    dispatcher.drain()

    assert states() == ["delivered", "unknown", "delivered", "delivered"]
    assert len(set(keys_of(emulator))) == 2


def test_what_comes_to_expire_within_a_keys_life_gets_a_request_of_its_own(
    emulator, message, dispatcher, travel, states
):
    """They share a request that fails for a day; from then on, one would expire while ambiguous."""
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put_all([message(1), message(2, expires_at=timedelta(days=2)), message(3)])
    dispatcher.step()
    travel(30 * 60 * 60)
    emulator.reset()
    emulator.faults.next("reset_before", times=2)
    dispatcher.step()
    travel(60)
    dispatcher.step()
    assert OutboxBatch.objects.filter(is_ambiguous=True).count() == 2
    travel(20 * 60 * 60)
    dispatcher.drain()

    assert states() == ["delivered", "unknown", "delivered"]


def test_truncus_is_told_when_to_send(emulator, put, dispatcher):
    [email] = put(1, send_at=datetime.now(UTC) + timedelta(hours=1))
    dispatcher.drain()

    assert reload(email).state == "scheduled"
    assert OutboxEntry.objects.count() == 0


def test_a_time_to_send_that_is_over_means_now(emulator, put, dispatcher, travel):
    [email] = put(1, send_at=datetime.now(UTC) + timedelta(hours=1))
    travel(2 * 60 * 60)
    dispatcher.drain()

    assert reload(email).state == "delivered"
    assert [sent.send_at for sent in emulator.emails] == [None]


# Odd rows -------------------------------------------------------------------------------------


def test_a_row_that_cannot_be_read_fails_alone(emulator, put, dispatcher):
    _, broken, _ = put(3)
    OutboxEntry.objects.filter(pk=broken.pk).update(payload="{")
    dispatcher.drain()

    assert reload(broken).state == "failed"
    assert broken.error_code == "unreadable_payload"
    assert broken.outbox_entry.is_waiting is False
    assert len(emulator.emails) == 2


def test_while_ambiguous_a_row_that_cannot_be_read_leaves_all_unknown(
    emulator, put, dispatcher, travel, states
):
    emulator.faults.next("reset_after")
    broken, _ = put(2)
    dispatcher.step()
    OutboxEntry.objects.filter(pk=broken.pk).update(payload="{")
    travel(60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert len(keys_of(emulator)) == 1
    assert OutboxBatch.objects.count() == 0


# Bugs -----------------------------------------------------------------------------------------


@pytest.fixture
def stumble(monkeypatch):
    """Return a function that has requests raise what nobody expects, where a test says so."""

    def stumble(does_it, *, after_the_request=False):
        real = dispatcher_module.request_results

        def request_results(client, emails, **options):
            if after_the_request:
                real(client, emails, **options)
            if does_it(emails):
                raise LookupError("ann@example.org")
            return real(client, emails, **options)

        monkeypatch.setattr(dispatcher_module, "request_results", request_results)

    return stumble


def drain_stumbling(dispatcher):
    """Do what a worker does: go on after each step, whatever it raised; return how often."""
    stumbles = 0
    while True:
        try:
            dispatcher.drain()
        except LookupError:
            stumbles += 1
            continue
        return stumbles


def test_what_a_bug_keeps_from_being_sent_stands_alone_in_the_end_and_fails(
    emulator, put, dispatcher, stumble, travel, states
):
    emails = put(8)
    stumble(lambda sent: any(email["subject"] == "Order 5" for email in sent))

    assert drain_stumbling(dispatcher) == 4  # for 8, 4, 2 and 1
    assert states() == ["delivered"] * 5 + ["sending"] + ["delivered"] * 2
    assert reload(emails[5]).error_code == "unexpected_error"
    assert "LookupError in test_dispatcher.py" in emails[5].error
    assert "ann@" not in emails[5].error
    assert not emails[5].outbox_entry.batch.is_ambiguous
    travel(24 * 60 * 60)
    drain_stumbling(dispatcher)

    assert reload(emails[5]).state == "failed"
    assert len(emulator.emails) == 7


def test_after_a_bug_with_an_answer_the_very_same_request_is_made_again(
    emulator, put, dispatcher, stumble, travel, states
):
    put(3)
    stumbles = iter([True])
    stumble(lambda sent: next(stumbles, False), after_the_request=True)
    with pytest.raises(LookupError):
        dispatcher.step()
    assert OutboxBatch.objects.get().is_ambiguous
    travel(60)
    dispatcher.drain()

    assert states() == ["delivered"] * 3
    assert len(set(keys_of(emulator))) == 1
    assert len(emulator.emails) == 3


def test_a_bug_that_stays_ends_an_ambiguous_batch_with_its_key(
    emulator, put, dispatcher, stumble, travel, states
):
    emulator.faults.next("reset_after")
    put(3)
    dispatcher.step()
    stumble(lambda sent: True)
    for _ in range(3):
        travel(60)
        drain_stumbling(dispatcher)
    assert states() == ["sending"] * 3
    travel(24 * 60 * 60)
    drain_stumbling(dispatcher)

    assert states() == ["unknown"] * 3


def test_sent_rows_drop_what_was_sent_unless_it_is_to_be_retained(
    emulator, message, dispatcher, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    put_all([message(1)])
    dispatcher.drain()

    entry = OutboxEntry.objects.get()
    assert (entry.is_waiting, entry.batch) == (False, None)
    assert "order 1" in entry.payload
    assert isinstance(dispatcher.step(), Idle)


def test_what_is_retained_is_the_mailers_to_say(emulator, message, dispatcher, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    TruncusBackend(store_bodies=False).send_messages([message(1)])
    dispatcher.drain()

    assert OutboxEntry.objects.count() == 0


def test_logs_tell_no_addresses(emulator, message, dispatcher, travel, caplog):
    caplog.set_level(logging.DEBUG, logger="truncus_django")
    emulator.faults.next("error_500")
    put_all([message(1)])
    dispatcher.step()
    travel(60)
    dispatcher.drain()

    assert "failed" in caplog.text
    assert "example.org" not in caplog.text
    assert "Order" not in caplog.text
