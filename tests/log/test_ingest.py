"""Events change an email once, by their rank and time, and may come before it is recorded."""

import threading
from datetime import datetime
from typing import Any

import pytest
from django.db import connection, transaction

from tests.log.events import (
    A_LITTLE_LATER,
    OPENS,
    START,
    answered,
    email,
    fields_of,
    incoming,
    minute,
)
from tests.waiting import PATIENCE_S
from truncus_django.log.ingest import apply_details, attach, ingest
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import email_event
from truncus_django.states import State

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("state", "events", "expected"),
    [
        pytest.param(
            State.SENT,
            [incoming("delivered", 1), incoming("bounced", 2, reason="mailbox_full")],
            {
                "state": State.BOUNCED,
                "reason": "mailbox_full",
                "delivered_at": minute(1),
                "bounced_at": minute(2),
                "next_sync_at": None,
            },
            id="events change the state and say when; a final state is not asked about again",
        ),
        pytest.param(
            State.SENT,
            [incoming("complained", 3), incoming("delivered", 1)],
            {"state": State.COMPLAINED, "delivered_at": minute(1), "complained_at": minute(3)},
            id="a late event changes no state back",
        ),
        pytest.param(
            State.SENT,
            [incoming("translated"), incoming("queued")],
            {"state": State.SENT},
            id="unknown words change nothing",
        ),
        pytest.param(
            State.SENT,
            [incoming("opened"), incoming("clicked")],
            {"state": State.SENT, "open_count": 1, "click_count": 1},
            id="opens and clicks change no state",
        ),
        pytest.param(
            State.SCHEDULED,
            [incoming("delivered", 5)],
            {"state": State.DELIVERED, "sent_at": minute(5)},
            id="a delivered email was sent even if no event said so",
        ),
    ],
)
def test_events_change_the_state_by_rank_and_are_all_kept(state, events, expected):
    row = email(state=state, next_sync_at=START)
    for event in events:
        assert ingest([event]) == 1

    assert fields_of(row, *expected) | expected == fields_of(row, *expected)
    assert row.events.count() == len(events)


def test_a_reason_belongs_to_its_state():
    row = email(state=State.DEFERRED, reason="greylisted")
    ingest([incoming("delivered")])

    assert fields_of(row)["reason"] == ""


def test_a_repeated_event_is_stored_and_applied_once():
    row = email()

    assert ingest([incoming("opened"), incoming("opened")]) == 1
    assert ingest([incoming("opened")]) == 0
    assert (fields_of(row)["open_count"], row.events.count()) == (1, 1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_bounces_the_reason_is_that_of_the_first_by_time(order):
    row = email()
    bounces = [
        incoming("bounced", 1, reason="no_mx_record"),
        incoming("bounced", 2, reason="mailbox_full"),
    ]
    for place in order:
        ingest([bounces[place]])

    assert fields_of(row)["reason"] == "no_mx_record"


@pytest.mark.parametrize("word", ["delivered", "opened", "failed"])
def test_one_event_costs_few_queries(word, count_queries):
    row = email()
    with count_queries() as queries:
        ingest([incoming(word)])

    of_lock = connection.vendor == "sqlite"
    assert len(queries) == 3 + of_lock  # the email, the event, and what it changes
    assert row.events.get().type == word


def test_hostile_content_is_stored_in_a_form_that_every_database_takes():
    row = email()
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    payload = {"a\x00": "\x00\ud800", "b": [float("nan"), float("inf")], "c": deep, "d": "é" * 9999}
    ingest([incoming("bounced", reason="\x00r\ud800" * 500, recipient="a" * 9999, payload=payload)])

    event = row.events.get()
    assert event.payload["a"] == "?"
    assert event.payload["b"] == [None, None]
    assert len(event.payload["d"]) == 9999
    assert fields_of(row)["reason"].startswith("r?r?")


def test_it_works_without_time_zones(settings):
    settings.USE_TZ = False
    row = email()
    ingest([incoming("opened", 1)])
    apply_details({"m-1": answered("delivered", ("opened", 1), updated_at=START)})

    assert (fields_of(row)["state"], row.open_count) == (State.DELIVERED, 1)
    assert row.first_opened_at == datetime(2026, 11, 1, 13, 1)  # Berlin


def test_the_log_may_have_a_database_of_its_own(other_database):
    alias = other_database()
    row = email()
    ingest([incoming("delivered"), incoming("opened", message_id="m-2")])
    apply_details({"m-1": answered("delivered", *OPENS)})

    assert row._state.db == Email.objects.db == alias
    assert (fields_of(row)["state"], row.open_count) == (State.DELIVERED, 2)
    assert not Email.objects.using("default").exists()


def test_ids_that_differ_in_spaces_at_their_end_are_two_emails():
    row = email("abc")
    ingest([incoming("bounced", 1, "abc ", reason="mailbox_full")])
    ingest([incoming("bounced", 2, "abc", reason="no_mx_record")])
    row.refresh_from_db()
    assert (row.state, row.reason) == ("bounced", "no_mx_record")


# Before the email is recorded ---------------------------------------------------------------------


def test_events_before_their_email_are_kept_and_applied_when_it_is_recorded():
    ingest([incoming("delivered"), incoming("opened", 1)])
    row = email()
    attach(["m-1"])

    assert (fields_of(row)["state"], row.open_count) == (State.DELIVERED, 1)
    attach(["m-1"])
    assert fields_of(row)["open_count"] == 1


def test_events_that_nobody_attached_are_applied_with_the_next_event():
    ingest([incoming("delivered"), incoming("opened", 1)])
    row = email()
    ingest([incoming("clicked", 2)])

    assert (fields_of(row)["state"], row.open_count, row.click_count) == (State.DELIVERED, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_an_event_in_the_middle_of_the_recording_is_applied(
    shared_database, emulator, messages, in_threads
):
    """The webhook's transaction does not see the email, and ends before it is recorded."""
    events = threading.Event()

    def webhook() -> None:
        ingest([incoming("bounced", message_id=sent.truncus_status.id)])
        events.set()

    [sent] = messages(1)
    with transaction.atomic(shared_database):
        sent.send()
        thread = threading.Thread(target=lambda: in_threads(webhook))
        thread.start()
        if connection.vendor == "postgresql":  # the others wait for the end of this transaction
            assert events.wait(PATIENCE_S)
            assert EmailEvent.objects.get().email is None
    thread.join()
    assert Email.objects.get().state == State.BOUNCED


@pytest.mark.django_db(transaction=True)
def test_an_email_recorded_in_the_middle_of_a_webhook_gets_its_event(
    shared_database, emulator, messages, in_threads
):
    """The recording does not see the event, and ends before the webhook's transaction."""
    recorded = threading.Event()
    [sent] = messages(1)
    sent.idempotency_key = "k-1"
    with_id = messages(1)[0]
    with_id.idempotency_key = "k-1"

    def record() -> None:
        with_id.send()
        recorded.set()

    sent.send()
    Email.objects.all().delete()
    with transaction.atomic(shared_database):
        ingest([incoming("bounced", message_id=sent.truncus_status.id)])
        thread = threading.Thread(target=lambda: in_threads(record))
        thread.start()
        if connection.vendor != "sqlite":  # which has one writer at a time
            assert recorded.wait(PATIENCE_S)
            assert Email.objects.get().state == State.DELIVERED
    thread.join()
    assert Email.objects.get().state == State.BOUNCED


# Signals ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_signals_come_after_the_commit_once(signalled):
    email()
    with transaction.atomic():
        ingest([incoming("delivered"), incoming("opened", 1)])
        ingest([incoming("delivered")])
        assert signalled == []

    assert signalled == ["delivered", "opened", ("sent", "delivered")]
    ingest([incoming("delivered")])
    assert len(signalled) == 3


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_rolled_back_is_not_signalled(signalled):
    email()
    with transaction.atomic():
        ingest([incoming("delivered")])
        transaction.set_rollback(True)

    assert signalled == []


@pytest.mark.django_db(transaction=True)
def test_one_open_reported_by_webhook_and_sync_is_signalled_once(signalled):
    email(state=State.DELIVERED)
    ingest([incoming("opened", 1)])
    apply_details({"m-1": answered("delivered", ("opened", 1 + A_LITTLE_LATER))})

    assert signalled == ["opened"]


@pytest.mark.django_db(transaction=True)
def test_two_opens_close_together_are_signalled_twice(signalled):
    email(state=State.DELIVERED)
    ingest([incoming("opened", 1)])
    apply_details({"m-1": answered("delivered", ("opened", 1 + A_LITTLE_LATER), ("opened", 1.3))})

    assert signalled == ["opened", "opened"]


@pytest.mark.django_db(transaction=True)
def test_events_that_came_early_are_signalled_with_their_email(signalled):
    ingest([incoming("delivered")])
    assert signalled == []
    email()
    attach(["m-1"])

    assert signalled == ["delivered", ("sent", "delivered")]


@pytest.mark.django_db(transaction=True)
def test_a_failing_receiver_harms_nothing_and_is_logged_once_and_not_by_django(signalled, caplog):
    def fail(**_: Any) -> None:
        raise ZeroDivisionError

    row = email()
    email_event.connect(fail)
    try:
        ingest([incoming("delivered"), incoming("opened", 1)])
    finally:
        email_event.disconnect(fail)

    assert fields_of(row)["state"] == State.DELIVERED
    assert signalled == ["delivered", "opened", ("sent", "delivered")]
    assert [record.name for record in caplog.records] == ["truncus_django"]
