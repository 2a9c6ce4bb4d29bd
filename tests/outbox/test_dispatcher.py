"""Claim, send, record the outcome: what one worker does, in that order."""

import logging

import pytest
from django.db import OperationalError

from tests.outbox.conftest import keys_of, put_all, reload
from truncus_django import signals
from truncus_django.api.capabilities import forget_capabilities
from truncus_django.backend import TruncusBackend
from truncus_django.db.clock import Clock, moment_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox import dispatcher as dispatcher_module
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import claim
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.stored_payload import stored_emails

pytestmark = pytest.mark.django_db


# The usual case -----------------------------------------------------------------------------------


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

    with django_assert_max_num_queries(30 if takes_few_parameters else 23):
        assert dispatcher.step() == DispatchResult(accepted=100)


def test_an_empty_outbox_is_idle(emulator, dispatcher):
    assert dispatcher.step() == Idle()
    assert emulator.requests == []


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


# Failures -----------------------------------------------------------------------------------------


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


# Refusals -----------------------------------------------------------------------------------------


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


# Rows that cannot be read -------------------------------------------------------------------------


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


# The account --------------------------------------------------------------------------------------


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
