"""What the outbox hands to the fallback mailer while Truncus is down."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.db import connection
from django.db.models import Q
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.fallback import SMTP, UNREACHABLE, smtp_server, use_fallback
from tests.log.conftest import other_database, shared_database
from tests.outbox.conftest import NO_LIMITS, reload
from tests.outbox.test_steps import victim
from tests.waiting import PATIENCE_S
from truncus_django.bulk import send_bulk
from truncus_django.models import (
    AccountQuota,
    Email,
    Handover,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.outbox import operations
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.handover import LEASE_S
from truncus_django.outbox.operations import Decision, OperationResult
from truncus_django.outbox.stored_payload import stored_emails
from truncus_django.states import State

__all__ = ["other_database", "shared_database", "victim"]

pytestmark = pytest.mark.django_db(transaction=True)

REVOKED = {"revoked_keys": ["tr_test_emulator", "tr_test_steps"], **NO_LIMITS}


@pytest.fixture
def name(emulator, settings):
    """The fallback mailer's."""
    return use_fallback(settings)


@pytest.fixture
def down(name, emulator):
    """Let Truncus know nobody's key."""
    emulator.reset(**REVOKED)


@pytest.fixture
def smtp(emulator, settings):
    """A real server as the fallback mailer, in use."""
    with smtp_server() as server:
        options = {"host": "127.0.0.1", "port": server.port, "timeout": PATIENCE_S}
        server.name = use_fallback(settings, SMTP, options)
        yield server


@pytest.fixture
def fallback(smtp, settings):
    """What a process that is killed needs to know of it."""
    options = {"host": "127.0.0.1", "port": smtp.port}
    return {smtp.name: {"BACKEND": SMTP, "OPTIONS": options}}


def subjects():
    return sorted(message.subject for message in mail.outbox)


def account():
    return OutboxAccount.objects.get()


def test_what_truncus_cannot_be_asked_about_goes_to_the_fallback_mailer(
    name, put, dispatcher, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}
    emails = put(3)
    stats = dispatcher.drain()
    assert subjects() == ["Order 0", "Order 1", "Order 2"]
    assert (stats.requests, stats.accepted) == (1, 3)
    for email in map(reload, emails):
        assert (email.state, email.sent_by) == (State.SENT, name)
        assert f"The fallback mailer {name!r} sent it" in email.reason
        assert "NETWORK_ERROR" in email.reason
        assert (email.error, email.error_code, email.message_id) == ("", "", None)
    assert not OutboxEntry.objects.exists()
    assert not OutboxBatch.objects.exists()


def test_while_the_account_is_paused_truncus_is_not_asked(down, put, dispatcher, emulator, travel):
    put(1)
    dispatcher.drain()
    put(2)
    assert dispatcher.drain().accepted == 2
    assert len(emulator.requests) == 1
    travel(3600)
    put(1)
    dispatcher.drain()
    assert len(emulator.requests) == 2
    assert len(mail.outbox) == 4


def test_when_the_pause_is_over_truncus_sends_again(down, put, dispatcher, emulator, travel):
    put(1)
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    travel(3600)
    [email] = put(1)
    dispatcher.drain()
    assert (len(mail.outbox), len(emulator.emails)) == (1, 1)
    assert reload(email).sent_by == ""


def test_the_pause_is_long_enough_to_be_a_breaker(name, put, settings, travel):
    """Its length is by chance otherwise, and may be next to nothing."""
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}
    put(1)
    Dispatcher(jitter=lambda: 0.001).drain()
    assert len(mail.outbox) == 1
    assert (account().paused_until - datetime.now(UTC)).total_seconds() > 20


@pytest.mark.parametrize(
    "options",
    [
        {"esp_extra": {"template_id": "t"}},
        {"idempotency_key": "invoice-7"},
        {"sandbox": True},
        {"send_at": datetime.now(UTC) + timedelta(days=1)},
        {"esp_extra": {"unsubscribe_group": 7}},
    ],
)
def test_what_only_truncus_can_send_waits_and_keeps_nobody_else(
    down, put, dispatcher, emulator, travel, options
):
    [email] = put(1, **options)
    put(2)
    dispatcher.drain()
    [late] = put(1, **options)
    put(2)
    dispatcher.drain()
    assert len(mail.outbox) == 4
    assert {reload(email).state, reload(late).state} <= {State.PENDING, State.SENDING}
    assert email.sent_by == late.sent_by == ""
    emulator.reset(**NO_LIMITS)
    travel(3600)
    dispatcher.drain()
    assert len(emulator.requests) > 0
    assert len(mail.outbox) == 4
    assert {reload(email).state, reload(late).state}.isdisjoint({State.PENDING, State.SENDING})


def test_what_truncus_may_have_taken_stays_with_truncus(
    name, ambiguous, put, dispatcher, emulator, travel
):
    options = vars(emulator.options) | REVOKED
    accepted = len(emulator.emails)
    emulator.reset(**options)
    travel(5)
    dispatcher.drain()
    put(1)
    dispatcher.drain()
    assert accepted == 2
    assert subjects() == ["Order 0"]  # the last one
    assert OutboxBatch.objects.get().is_ambiguous


def test_a_service_that_fails_twice_is_down_for_those_that_wait(
    name, put, dispatcher, emulator, travel
):
    emulator.faults.rate("reset_before", 1.0)
    lost = put(2)
    for _ in range(3):
        dispatcher.drain()
        travel(40)
        if account().paused_until is not None:
            break
    travel(-40)
    waits = put(2)
    dispatcher.drain()
    assert len(mail.outbox) == 2
    assert {reload(email).sent_by for email in waits} == {name}
    assert {reload(email).state for email in lost} == {State.SENDING}
    emulator.faults.clear()
    travel(3600)
    dispatcher.drain()
    assert {reload(email).sent_by for email in lost} == {""}
    assert len(emulator.emails) == 2


def test_what_follows_a_failure_of_the_provider_stays_with_truncus(
    name, put, dispatcher, emulator, travel
):
    emulator.faults.rate("provider_502", 1.0)
    failed = put(3)
    dispatcher.drain()
    key = OutboxBatch.objects.get().idempotency_key
    emulator.faults.clear()
    emulator.reset(**REVOKED)
    travel(40)
    dispatcher.drain()
    waits = put(1)
    dispatcher.drain()
    assert {reload(email).sent_by for email in waits} == {name}
    assert len(mail.outbox) == 1
    assert OutboxBatch.objects.get().idempotency_key == key
    assert {reload(email).state for email in failed} == {State.SENDING}
    emulator.reset(**NO_LIMITS)
    travel(4000)
    dispatcher.drain()
    assert len(emulator.emails) == 3


def test_a_quota_that_ends_in_the_middle_of_a_batch(name, put, dispatcher, emulator):
    emulator.reset(dialect="sdk", monthly_limit=2, **NO_LIMITS)
    put(4)
    dispatcher.drain()
    assert len(emulator.emails) == 2
    assert subjects() == ["Order 2", "Order 3"]


def test_the_rest_of_a_batch_gets_another_key(down, put, dispatcher):
    put(3)
    dispatcher.step()
    before = OutboxBatch.objects.get().idempotency_key
    dispatcher.step()
    rest = OutboxBatch.objects.get()
    assert rest.idempotency_key != before
    assert (rest.first_request_at, rest.handover) == (None, "")


def test_an_email_alone_goes_on_with_the_failures_of_its_batch(down, put, dispatcher):
    put(2)
    dispatcher.step()
    since = datetime(2026, 11, 28, tzinfo=UTC)
    OutboxBatch.objects.update(failures=5, failing_since=since)
    claim(dispatcher.clock)
    told = OutboxBatch.objects.values_list("failures", "failing_since")
    assert list(told) == [(5, since)] * 2


def test_the_guard_holds(down, put, dispatcher, settings):
    put(1, cc=["bob@example.net"])
    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": ["dev@example.com"]}
    dispatcher.drain()
    assert mail.outbox[0].recipients() == ["dev@example.com"]
    assert Email.objects.get().redirected_to == ["dev@example.com"]


def test_who_is_suppressed_gets_nothing_from_it_either(down, put, message, settings):
    unsubscribe = {"SUPPRESS": "manual", "UNSUBSCRIBE_BASE_URL": "https://shop.example.com"}
    settings.TRUNCUS = {**settings.TRUNCUS, **unsubscribe, "DELIVERY": "outbox"}
    for to in ("ann@example.net", "bob@example.net"):
        message(to=[to], unsubscribe="digest").send()
    SuppressedAddress.objects.create(address="ann@example.net", list_name="digest")
    Dispatcher().drain()
    assert [each.recipients() for each in mail.outbox] == [["bob@example.net"]]
    assert "List-Unsubscribe" in mail.outbox[0].extra_headers
    assert set(Email.objects.values_list("state", "attempts")) == {("rejected", 0), ("sent", 1)}


def test_a_bulk(down, message, settings):
    for delivery in ("direct", "outbox"):
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}
        result = send_bulk(message(number) for number in range(3))
        Dispatcher().drain()
        if delivery == "direct":
            assert result.accepted == 3
    assert result.queued == 3
    assert Counter(subjects()) == {f"Order {number}": 2 for number in range(3)}
    assert set(Email.objects.values_list("state", flat=True)) == {State.SENT}


def test_stored_bodies_stay(down, put, dispatcher, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    put(1)
    dispatcher.drain()
    assert not OutboxEntry.objects.get().is_waiting


def test_settings_that_name_no_mailer_pause_the_mailer(put, dispatcher, emulator, settings):
    [email] = put(1)
    settings.TRUNCUS = {**settings.TRUNCUS, "FALLBACK_MAILER": "nothing"}
    assert dispatcher.step().paused
    assert "FALLBACK_MAILER" in reload(email).error
    assert emulator.requests == []


# The fallback mailer fails ------------------------------------------------------------------------


def test_an_email_that_it_refuses_waits_for_truncus(smtp, put, dispatcher, emulator, travel):
    emulator.reset(**REVOKED)
    smtp.answers["RCPT"] = b"550 no"
    [email] = put(1)
    dispatcher.drain()
    assert reload(email).state == State.SENDING
    assert "refused it (SMTPRecipientsRefused)" in email.error
    assert "example.org" not in email.error
    assert (email.sent_by, email.error_code) == ("", "invalid_api_key")
    assert OutboxBatch.objects.get().handover == Handover.REFUSED
    smtp.answers.clear()
    put(1)
    dispatcher.drain()
    assert len(smtp.taken) == 1  # the other one
    emulator.reset(**NO_LIMITS)
    travel(3600)
    dispatcher.drain()
    assert len(emulator.emails) == 1
    assert reload(email).sent_by == ""


def test_a_server_that_is_not_there_is_asked_once_in_a_pause(
    smtp, put, dispatcher, emulator, travel
):
    emulator.reset(**REVOKED)
    smtp.answers["connect"] = b"421 later"
    emails = put(5)
    assert dispatcher.drain().postponed == 6  # the batch, and one of it
    assert not account().allows_fallback
    assert dispatcher.drain().requests == 0
    assert {reload(email).state for email in emails} == {State.SENDING}
    smtp.answers.clear()
    travel(3600)
    dispatcher.drain()
    assert len(smtp.taken) == 5
    assert {reload(email).state for email in emails} == {State.SENT}


@pytest.mark.parametrize("command", ["DATA", "."])
def test_a_connection_that_breaks_leaves_it_to_a_person(
    smtp, put, dispatcher, emulator, travel, command
):
    emulator.reset(**REVOKED)
    smtp.answers[command] = None
    [email] = put(1)
    dispatcher.drain()
    assert (reload(email).state, email.sent_by) == (State.UNKNOWN, smtp.name)
    assert f"find out in the logs of {smtp.name!r}" in email.error
    smtp.answers.clear()
    smtp.taken.clear()
    emulator.reset(**NO_LIMITS)
    travel(3600)
    dispatcher.drain()
    assert (smtp.taken, emulator.emails) == ([], [])
    operations.decide([email.pk], Decision.SEND)
    dispatcher.drain()
    assert len(emulator.emails) == 1
    assert reload(email).sent_by == ""


def test_a_worker_that_dies_leaves_it_to_a_person(
    down, put, dispatcher, emulator, travel, settings
):
    name = use_fallback(settings, "tests.fallback.InterruptedBackend")
    first, second = put(2)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.drain()
    assert (reload(first).state, reload(second).state) == (State.SENT, State.SENDING)
    assert operations.cancel([second.pk]) == {second.pk: OperationResult.BEING_SENT}
    travel(LEASE_S + 1)
    assert operations.cancel([second.pk]) == {second.pk: OperationResult.AMBIGUOUS}
    emulator.reset(**NO_LIMITS)
    dispatcher.drain()
    assert (reload(second).state, second.sent_by) == (State.UNKNOWN, name)
    assert subjects() == ["Order 0"]
    assert emulator.emails == []


@pytest.fixture
def slow_handover(name, down, put, dispatcher, travel):
    """An email that was handed over; its lease has run out, and another worker ended it."""
    put(1)
    dispatcher.drain()
    [email] = put(1)
    claimed = claim(dispatcher.clock)
    emails = stored_emails(claimed.batch, now=dispatcher.clock.now())
    answer = dispatcher._hand_over(claimed, emails)
    travel(LEASE_S + 1)
    Dispatcher().drain()
    assert (reload(email).state, email.sent_by) == (State.UNKNOWN, name)
    return email, lambda: dispatcher._record(claimed, emails, answer)


def test_that_an_email_was_handed_over_is_true_after_the_lease_too(name, slow_handover):
    email, record = slow_handover
    assert record() == DispatchResult(accepted=1, requests=0)
    assert (reload(email).state, email.sent_by, email.error) == (State.SENT, name, "")
    assert f"The fallback mailer {name!r} sent it" in email.reason
    assert not OutboxEntry.objects.exists()
    assert len(mail.outbox) == 2


def test_a_handover_says_nothing_of_an_email_that_a_person_has_sent_again(
    name, slow_handover, dispatcher, travel
):
    email, record = slow_handover
    operations.decide([email.pk], Decision.SEND)
    assert record() == DispatchResult(requests=0)
    assert reload(email).state == State.PENDING
    assert OutboxEntry.objects.get().is_waiting
    dispatcher.step()
    assert claim(dispatcher.clock).is_handover
    travel(LEASE_S + 1)
    Dispatcher().drain()
    assert (reload(email).state, email.sent_by) == (State.UNKNOWN, name)
    assert record() == DispatchResult(requests=0)
    assert reload(email).state == State.UNKNOWN


def test_a_worker_that_stood_still_before_a_handover_gives_the_email_back(
    down, put, dispatcher, monkeypatch
):
    put(1)
    dispatcher.drain()
    [email] = put(1)
    with monkeypatch.context() as patch:
        patch.setattr(Claim, "has_time_for_request", False)
        assert dispatcher.step().requests == 0
    assert (len(mail.outbox), reload(email).sent_by) == (1, "")
    assert dispatcher.drain().accepted == 1
    assert (len(mail.outbox), reload(email).state) == (2, State.SENT)


def test_a_long_timeout_of_truncus_keeps_nobody_from_a_handover(name, put, dispatcher, settings):
    """No request could be over before a handover's lease is."""
    slow = {"BASE_URL": UNREACHABLE, "TIMEOUT": LEASE_S}
    settings.TRUNCUS = {**settings.TRUNCUS, **slow}
    [email] = put(1)
    for _ in range(3):
        dispatcher.step()
    assert (reload(email).state, email.sent_by) == (State.SENT, name)


def test_a_handover_is_given_back_as_a_whole(down, put, dispatcher, monkeypatch):
    """Whoever takes the email next writes whom it is handed to, and that must not be undone."""
    put(1)
    dispatcher.drain()
    put(1)
    is_alone = []

    def look(execute, sql, params, many, context):
        if sql.startswith("UPDATE") and "sent_by" in sql and "" in params:
            is_alone.append(not connection.in_atomic_block)
        return execute(sql, params, many, context)

    monkeypatch.setattr(Claim, "has_time_for_request", False)
    with connection.execute_wrapper(look):
        dispatcher.step()
    assert is_alone == [False]
    assert OutboxBatch.objects.get().handover == ""


# Killed between every two steps -------------------------------------------------------------------


@pytest.mark.parametrize("is_back", [False, True])
def test_killed_at_any_step_no_email_goes_twice(
    shared_database, fallback, victim, smtp, emulator, put, is_back
):
    """Whether Truncus is back at once, or the fallback mailer goes on before."""
    count = 2 if is_back else 1

    def before():
        emulator.reset(**REVOKED)
        smtp.taken.clear()
        put(count)

    def meanwhile():
        if not is_back:
            past = datetime.now(UTC) - timedelta(seconds=1)
            OutboxBatch.objects.update(due_at=past)
            Dispatcher().drain()
        emulator.reset(**NO_LIMITS)

    def after(scene):
        by_smtp = Counter(email["Subject"] for _, email in smtp.taken)
        by_truncus = Counter(email.subject for email in emulator.emails)
        sent = by_smtp + by_truncus
        assert set(sent.values()) <= {1}
        states = dict(Email.objects.values_list("subject", "state"))
        unknown = {subject for subject, state in states.items() if state == State.UNKNOWN}
        assert len(unknown) <= 1
        assert not unknown & by_truncus.keys()
        assert {*unknown, *sent} == states.keys()
        assert set(states.values()) <= {State.SENT, State.DELIVERED, State.UNKNOWN}
        by_record = Email.objects.exclude(sent_by="").values_list("subject", flat=True)
        assert by_smtp.keys() <= set(by_record) == unknown | by_smtp.keys()

    victim.dies_everywhere(before, after, meanwhile=meanwhile)
    handover = {"the handover", "the use of its end"}
    assert {"COMMIT", "the request", "the use of its answer", *handover} <= set(victim.gaps)


# Never both ---------------------------------------------------------------------------------------

FAULTS = st.sampled_from(
    [
        *("reset_before", "reset_after", "truncated", "rate_limit"),
        *("error_500", "error_500_after", "provider_502", "html_502"),
    ]
)


@hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.lists(FAULTS, max_size=2)), max_size=6))
@example(steps=[(5, []), (1, ["reset_before"])])
@example(steps=[(2, []), (3, []), (1, ["provider_502"])])
def test_whatever_fails_no_email_goes_both_ways(
    name, put, dispatcher, emulator, settings, travel, steps
):
    for model in (OutboxEntry, OutboxBatch, OutboxAccount, AccountQuota, Email):
        model.objects.all().delete()
    mail.outbox.clear()
    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": ["dev@example.com"]}
    emulator.reset(dialect="sdk", monthly_limit=5, **NO_LIMITS)
    for count, faults in [*steps, (1, [])]:
        for fault in faults:
            emulator.faults.next(fault, retry_after=0)
        put(count)
        dispatcher.drain()
        travel(120)
        dispatcher.drain()
        emulator.faults.clear()
    for _ in range(10):
        travel(4000)
        dispatcher.drain()
    by_truncus = Counter(email.payload["text"] for email in emulator.emails)
    by_fallback = Counter(message.body for message in mail.outbox)
    rows = Email.objects.filter(state__in=[State.SENT, State.DELIVERED])
    assert sum(by_truncus.values()) == rows.filter(sent_by="").count()
    assert sum(by_fallback.values()) == rows.exclude(sent_by="").count()
    # Without a quota Truncus does not say whether it took them; so they stay with it for a day.
    # What met a failure of the service stays with it, too.
    is_unanswered = Q(batch__is_ambiguous=True) | Q(batch__handover=Handover.REFUSED)
    unanswered = OutboxEntry.objects.filter(is_unanswered, batch__lease=None)
    assert rows.count() + unanswered.count() == sum(count for count, _ in steps) + 1
    assert {to for message in mail.outbox for to in message.recipients()} <= {"dev@example.com"}
    for email in emulator.emails:
        assert "dev@example.com" in json.dumps(email.payload)
