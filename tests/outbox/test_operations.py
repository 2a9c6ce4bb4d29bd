"""What a person does with emails of the outbox, also while workers do their work."""

import threading
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import uuid4

import pytest
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext

from tests.log.conftest import in_threads, other_database, shared_database
from tests.outbox.conftest import NO_LIMITS, put_all, reload
from tests.waiting import PATIENCE_S
from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.admin.resend import Outcome, resend
from truncus_django.db.clock import Clock
from truncus_django.db.retry import in_tries
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.operations import (
    Decision,
    OperationResult,
    cancel,
    decide,
    resume,
    retry,
)
from truncus_django.states import State

__all__ = ["in_threads", "other_database", "shared_database"]

pytestmark = pytest.mark.django_db


def ids_of(emails):
    return [email.pk for email in emails]


@pytest.fixture
def put_off(emulator, put, dispatcher):
    """Three emails whose request surely failed at Truncus, and is made again in a while."""
    emails = put(3)
    emulator.faults.next("rate_limit", retry_after=600)
    dispatcher.drain()
    assert not OutboxBatch.objects.get().is_ambiguous
    return emails


# Trying again -------------------------------------------------------------------------------------


def test_what_failed_is_sent_under_a_new_key(failed, emulator, dispatcher):
    old_keys = {email.idempotency_key for email in failed}

    assert set(retry(ids_of(failed)).values()) == {OperationResult.WAITS_AGAIN}

    for email in failed:
        assert (reload(email).state, email.error, email.error_code) == (State.PENDING, "", "")
    dispatcher.drain()
    assert {reload(email).state for email in failed} == {State.DELIVERED}
    assert old_keys.isdisjoint(email.idempotency_key for email in failed)
    assert len(emulator.emails) == 2
    assert not OutboxEntry.objects.exists()


def test_a_key_of_the_messages_own_stays(emulator, put, dispatcher):
    emulator.reset(**NO_LIMITS, domains={"example.com": "paused"})
    [email] = put(1, idempotency_key="order-42")
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)

    retry([email.pk])
    dispatcher.drain()

    assert reload(email).state == State.DELIVERED
    assert email.idempotency_key == "order-42"


def test_an_expiry_that_is_over_is_forgotten(emulator, put, dispatcher, travel):
    emulator.reset(**NO_LIMITS, domains={"example.com": "paused"})
    [email] = put(1, expires_at=timedelta(minutes=10))
    [other] = put(1, expires_at=timedelta(hours=10))
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    travel(3600)

    retry([email.pk, other.pk])

    assert OutboxEntry.objects.get(pk=email.pk).expires_at is None
    assert OutboxEntry.objects.get(pk=other.pk).expires_at is not None
    dispatcher.drain()
    assert {reload(email).state, reload(other).state} == {State.DELIVERED}


def test_what_waits_for_its_next_try_is_due_now(put_off, emulator, dispatcher):
    OutboxAccount.objects.update(paused_until=None)
    assert dispatcher.drain().requests == 0

    assert set(retry(ids_of(put_off)).values()) == {OperationResult.DUE_NOW}

    assert dispatcher.drain().accepted == 3


def test_what_is_ambiguous_is_repeated_as_it_was(ambiguous, emulator, dispatcher):
    key = OutboxBatch.objects.get().idempotency_key

    assert set(retry(ids_of(ambiguous)[:1]).values()) == {OperationResult.DUE_NOW}
    dispatcher.drain()

    assert {reload(email).idempotency_key for email in ambiguous} == {key}
    assert len(emulator.emails) == 2


def test_what_needs_no_retry_is_left_and_told(emulator, put, dispatcher, settings):
    [expired] = put(1, expires_at=timedelta(seconds=5))
    Email.objects.filter(pk=expired.pk).update(state=State.EXPIRED)
    OutboxEntry.objects.filter(pk=expired.pk).delete()
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    [sent] = put(1)
    dispatcher.drain()
    [waits] = put(1)
    nobody = uuid4()

    assert retry([expired.pk, sent.pk, waits.pk, nobody]) == {
        expired.pk: OperationResult.NOT_STORED,
        sent.pk: OperationResult.DOES_NOT_APPLY,
        waits.pk: OperationResult.WAITS_ALREADY,
        nobody: OperationResult.GONE,
    }
    assert len(emulator.emails) == 1


def test_what_may_have_been_sent_is_not_tried_again_without_a_decision(unknown, emulator):
    assert set(retry(ids_of(unknown)).values()) == {OperationResult.NEEDS_DECISION}
    assert {reload(email).state for email in unknown} == {State.UNKNOWN}


def test_what_a_worker_has_is_left_to_it(emulator, put):
    [email] = put(1)
    assert isinstance(claim(Clock(database())), Claim)

    assert retry([email.pk]) == {email.pk: OperationResult.BEING_SENT}
    assert cancel([email.pk]) == {email.pk: OperationResult.BEING_SENT}


# Cancelling ---------------------------------------------------------------------------------------


def test_what_waits_is_never_sent(emulator, put, dispatcher, states):
    emails = put(3)

    assert cancel(ids_of(emails)[:2]) == dict.fromkeys(
        ids_of(emails)[:2], OperationResult.CANCELLED
    )
    dispatcher.drain()

    assert states() == [State.CANCELLED, State.CANCELLED, State.DELIVERED]
    assert [email.subject for email in emulator.emails] == ["Order 2"]


def test_what_was_cancelled_can_be_taken_back(emulator, put, dispatcher, states):
    [email] = put(1)
    cancel([email.pk])

    assert retry([email.pk]) == {email.pk: OperationResult.WAITS_AGAIN}
    dispatcher.drain()

    assert states() == [State.DELIVERED]


def test_a_request_that_loses_a_member_takes_another_key(put_off, emulator, dispatcher, travel):
    key = OutboxBatch.objects.get().idempotency_key

    assert cancel([put_off[0].pk]) == {put_off[0].pk: OperationResult.CANCELLED}

    assert OutboxBatch.objects.get().idempotency_key != key
    travel(700)
    dispatcher.drain()
    assert [email.subject for email in emulator.emails] == ["Order 1", "Order 2"]
    assert reload(put_off[1]).idempotency_key != key
    assert reload(put_off[0]).state == State.CANCELLED


def test_a_request_that_loses_all_is_gone(put_off, emulator, dispatcher, travel):
    cancel(ids_of(put_off))

    assert not OutboxBatch.objects.exists()
    travel(700)
    assert dispatcher.drain().requests == 0
    assert OutboxEntry.objects.count() == 3


def test_what_may_have_been_accepted_cannot_be_cancelled(ambiguous, emulator, dispatcher, travel):
    assert set(cancel(ids_of(ambiguous)).values()) == {OperationResult.AMBIGUOUS}

    travel(700)
    dispatcher.drain()
    assert {reload(email).state for email in ambiguous} == {State.DELIVERED}
    assert len(emulator.emails) == 2


def test_what_a_dead_worker_left_cannot_be_cancelled(emulator, put, travel):
    [email] = put(1)
    assert isinstance(claim(Clock(database())), Claim)
    travel(700)

    assert cancel([email.pk]) == {email.pk: OperationResult.AMBIGUOUS}


@pytest.mark.parametrize("state", [State.SENT, State.FAILED, State.UNKNOWN, State.SCHEDULED])
def test_what_does_not_wait_is_not_cancelled(state):
    email = Email.objects.create(state=state)
    assert cancel([email.pk]) == {email.pk: OperationResult.DOES_NOT_APPLY}


# Deciding -----------------------------------------------------------------------------------------


def test_it_was_sent(unknown, emulator, dispatcher):
    assert set(decide(ids_of(unknown), Decision.SENT).values()) == {OperationResult.SENT}

    assert {(reload(email).state, email.error) for email in unknown} == {(State.SENT, "")}
    assert not OutboxEntry.objects.exists()
    assert dispatcher.drain().requests == 0


def test_it_was_sent_and_its_payload_stays_where_bodies_do(unknown):
    OutboxEntry.objects.update(is_retained=True)
    decide(ids_of(unknown), Decision.SENT)
    assert OutboxEntry.objects.filter(is_waiting=False, batch=None).count() == 2


def test_it_was_not_sent_so_send_it(unknown, emulator, dispatcher):
    assert set(decide(ids_of(unknown), Decision.SEND).values()) == {OperationResult.WAITS_AGAIN}

    dispatcher.drain()
    assert {reload(email).state for email in unknown} == {State.DELIVERED}
    assert len(emulator.emails) == 2


def test_it_was_not_sent_and_that_is_that(unknown, emulator, dispatcher):
    assert set(decide(ids_of(unknown), Decision.NOT_SENT).values()) == {OperationResult.NOT_SENT}

    assert dispatcher.drain().requests == 0
    assert {reload(email).state for email in unknown} == {State.FAILED}
    assert set(retry(ids_of(unknown)).values()) == {OperationResult.WAITS_AGAIN}


def test_what_was_sent_directly_is_decided_and_not_sent_from_here():
    email = Email.objects.create(state=State.UNKNOWN)

    assert decide([email.pk], Decision.SEND) == {email.pk: OperationResult.NOT_STORED}
    assert decide([email.pk], Decision.NOT_SENT) == {email.pk: OperationResult.NOT_SENT}
    assert reload(email).state == State.FAILED


@pytest.mark.parametrize("decision", Decision)
def test_only_what_is_unknown_is_decided(put, decision):
    [waits] = put(1)
    delivered = Email.objects.create(state=State.DELIVERED)

    done = decide([waits.pk, delivered.pk], decision)

    assert set(done.values()) == {OperationResult.DOES_NOT_APPLY}
    assert (reload(waits).state, reload(delivered).state) == (State.PENDING, State.DELIVERED)


# Paused accounts ----------------------------------------------------------------------------------


def test_an_account_goes_on_before_its_pause_ends(put_off, emulator, dispatcher):
    account = OutboxAccount.objects.get().account
    assert dispatcher.drain().requests == 0

    assert resume(account) is True

    assert dispatcher.drain().accepted == 3
    assert resume(account) is False
    assert resume("another") is False


# Cost, and others ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [retry, cancel, partial(decide, decision=Decision.SEND)], ids=["retry", "cancel", "send"]
)
def test_queries_are_as_many_for_one_as_for_many(act, message, failed, unknown):
    emails = [*failed, *unknown, *put_all([message(number) for number in range(20)])]
    retry(ids_of(failed))

    def queries(chosen):
        with (
            CaptureQueriesContext(connections[database()]) as captured,
            transaction.atomic(using=database()),
        ):
            act(ids_of(chosen))
            transaction.set_rollback(True, using=database())
        return len(captured)

    assert queries(emails) <= queries([emails[0], emails[2], emails[-1]]) <= 20


def test_more_than_a_portion(put, monkeypatch):
    monkeypatch.setattr("truncus_django.outbox.operations._AT_ONCE", 2)
    emails = put(5)
    assert cancel(ids_of(emails)) == dict.fromkeys(ids_of(emails), OperationResult.CANCELLED)


def test_whoever_sends_is_notified_once_something_is_due(put, monkeypatch):
    notified = []
    monkeypatch.setattr(
        "truncus_django.outbox.operations.notify_after_commit",
        lambda using, settings: notified.append(using),
    )
    [email] = put(1)

    cancel([email.pk])
    assert notified == []
    retry([email.pk])
    assert notified == [database()]


@contextmanager
def deadlock(times):
    """Let so many looks at the accounts end in a deadlock."""
    left = iter(range(times))

    def look(execute, sql, *query):
        if "outboxaccount" in sql and next(left, None) is not None:
            raise OperationalError(1213, "Deadlock found when trying to get lock")
        return execute(sql, *query)

    with connections[database()].execute_wrapper(look):
        yield


@pytest.mark.django_db(transaction=True)
def test_after_a_deadlock_it_is_tried_once_more(put):
    ids = ids_of(put(2))
    with deadlock(2), pytest.raises(OperationalError):
        cancel(ids)
    with deadlock(1):
        assert cancel(ids) == dict.fromkeys(ids, OperationResult.CANCELLED)


def test_in_a_transaction_of_the_caller_s_it_is_not_tried_again(put):
    ids = ids_of(put(2))
    with deadlock(1), pytest.raises(OperationalError):
        cancel(ids)
    assert Email.objects.filter(state=State.CANCELLED).count() == 0


def run_together(in_threads, *functions):
    """Call functions at the same moment, each in a thread of its own; return their answers."""
    start = threading.Barrier(len(functions))

    def begin(function):
        start.wait(PATIENCE_S)
        return function()

    return in_threads(*[partial(begin, function) for function in functions])


def drain():
    """Send as a worker does, which goes on after a deadlock."""
    dispatcher = Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5)
    return in_tries(dispatcher.drain, using=database())


@pytest.mark.django_db(transaction=True)
class TestAtTheSameMoment:
    def test_workers_send_and_a_person_cancels(self, shared_database, emulator, put, in_threads):
        """Each email is sent or cancelled, never both, never neither."""
        emails = put(300)
        chosen = ids_of(emails)[::2]

        answers = run_together(
            in_threads, drain, drain, *[partial(cancel, chosen[n::3]) for n in range(3)]
        )
        drain()

        told = {pk: done for answer in answers[2:] for pk, done in answer.items()}
        sent = Counter(email.subject for email in emulator.emails)
        assert set(told.values()) <= {
            OperationResult.CANCELLED,
            OperationResult.BEING_SENT,
            OperationResult.DOES_NOT_APPLY,
        }
        assert max(sent.values()) == 1
        for email in emails:
            is_cancelled = told.get(email.pk) is OperationResult.CANCELLED
            assert (sent[email.subject] == 0) is is_cancelled
            assert (reload(email).state == State.CANCELLED) is is_cancelled
        assert not OutboxBatch.objects.exists()

    def test_workers_send_and_two_people_retry(
        self, shared_database, emulator, put, in_threads, dispatcher
    ):
        """What failed is sent once, by whoever was first."""
        emulator.reset(**NO_LIMITS, domains={"example.com": "paused"})
        emails = put(150)
        dispatcher.drain()
        emulator.reset(**NO_LIMITS)

        run_together(in_threads, drain, drain, *[partial(retry, ids_of(emails)) for _ in range(2)])
        drain()

        assert Counter(email.subject for email in emulator.emails) == Counter(
            email.subject for email in emails
        )
        assert {reload(email).state for email in emails} == {State.DELIVERED}

    def test_two_people_decide_otherwise(
        self, shared_database, emulator, put, in_threads, dispatcher, travel
    ):
        """The first decision holds."""
        emails = put(60)
        emulator.faults.next("reset_after")
        dispatcher.step()
        travel(25 * 3600)
        dispatcher.drain()
        emulator.reset(**NO_LIMITS)
        ids = ids_of(emails)

        answers = run_together(
            in_threads,
            *[partial(decide, ids, decision) for decision in (Decision.SENT, Decision.SEND)],
        )
        drain()

        winners = [{done for done in answer.values() if done.is_done} for answer in answers]
        assert sorted(map(len, winners)) == [0, 1]
        assert len(emulator.emails) == (60 if winners[1] else 0)

    def test_one_cancels_and_another_retries(self, shared_database, emulator, put, in_threads):
        """Whatever comes out, what is cancelled is not sent, and what waits is."""
        ids = ids_of(put(100))

        run_together(
            in_threads,
            partial(cancel, ids),
            partial(cancel, ids[::-1]),
            partial(retry, ids[50:] + ids[:50]),
            drain,
        )
        drain()

        sent = Counter(email.subject for email in emulator.emails)
        assert set(sent.values()) <= {1}
        for email in Email.objects.all():
            expected = State.DELIVERED if sent[email.subject] else State.CANCELLED
            assert email.state == expected

    def test_one_person_retries_and_another_resends(
        self, shared_database, emulator, put, in_threads, dispatcher
    ):
        """Each email is sent by one of them, though both were asked about all of them before."""
        emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
        emails = put(40)
        dispatcher.drain()
        emulator.reset(**NO_LIMITS)
        emails = [reload(email) for email in emails]
        [action] = [each for each in ACTIONS if each.name == "retry"]
        shown = action.versions(emails, outbox_entries(emails))

        def find_changed(emails, entries):
            now = action.versions(emails, entries)
            return {pk for pk, version in now.items() if version != shown[pk]}

        both = threading.Barrier(2)

        def each_together(do):
            for email in emails:
                both.wait(PATIENCE_S)
                yield do(email)

        def retry_all():
            return list(each_together(lambda one: retry([one.pk], find_changed)[one.pk]))

        def resend_all():
            options = {"click": uuid4(), "find_changed": find_changed}
            return list(each_together(lambda one: resend(one, **options).outcome))

        retried, resent = run_together(in_threads, retry_all, resend_all)
        drain()

        assert set(retried) <= {OperationResult.WAITS_AGAIN, OperationResult.CHANGED}
        assert set(resent) <= {Outcome.SENT, Outcome.CHANGED}
        for result, outcome in zip(retried, resent, strict=True):
            assert (result is OperationResult.CHANGED) is (outcome is Outcome.SENT)
        assert Counter(email.subject for email in emulator.emails) == {
            email.subject: 1 for email in emails
        }
