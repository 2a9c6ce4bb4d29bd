"""States change by rank, and only a person brings one back."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.log.events import email, fields_of, incoming, minute
from truncus_django.log.ingest import ingest
from truncus_django.log.recording import ANSWER_FIELDS
from truncus_django.log.transitions import (
    EmailUpdate,
    advance_emails,
    mark_sending,
    restart_emails,
)
from truncus_django.models import Email, EmailEvent
from truncus_django.states import RESTARTABLE_STATES, State

pytestmark = pytest.mark.django_db


def test_an_answer_that_an_event_outran_takes_nothing_back():
    row = email(state=State.SENDING)
    ingest([incoming("bounced", 2, reason="mailbox_full"), incoming("delivered", 1)])
    late = EmailUpdate(
        row.pk, State.DELIVERED, message_id="m-1", sent_at=minute(3), delivered_at=minute(3)
    )
    advance_emails([late], ANSWER_FIELDS)

    assert fields_of(row, "next_sync_at") == {
        "state": State.BOUNCED,
        "reason": "mailbox_full",
        "sent_at": minute(1),
        "delivered_at": minute(1),
        "bounced_at": minute(2),
        "complained_at": None,
        "first_opened_at": None,
        "last_opened_at": None,
        "open_count": 0,
        "click_count": 0,
        "next_sync_at": None,
    }


def test_an_answer_without_ids_and_times_leaves_those_that_are_stored():
    row = email(state=State.BOUNCED, global_message_id="g-1", reason="full", sent_at=minute(1))
    again = Email(pk=row.pk, state=State.SENT, provider_message_id="p-1", sent_at=minute(2))
    assert advance_emails([again], ANSWER_FIELDS) == {row.pk}

    assert again.state == State.BOUNCED
    expected = {
        "state": State.BOUNCED,
        "reason": "full",
        "message_id": "m-1",
        "global_message_id": "g-1",
        "provider_message_id": "p-1",
        "sent_at": minute(1),
    }
    assert fields_of(row, *expected) | expected == fields_of(row, *expected)


def test_an_email_that_is_not_recorded_is_not_among_those_written():
    row = email(state=State.UNKNOWN, message_id=None)
    updates = [Email(state=State.SENT, message_id="m-1"), Email(pk=row.pk, state=State.SENT)]
    assert advance_emails(updates, ANSWER_FIELDS) == {row.pk}


@pytest.mark.django_db(transaction=True)
def test_one_ambiguous_send_is_completed_by_one_of_many(shared_database, in_threads):
    row = email(state=State.UNKNOWN, message_id=None)

    def complete(number: int) -> bool:
        ambiguous = Email.objects.filter(state=State.UNKNOWN)
        update = Email(pk=row.pk, state=State.SENT, message_id=f"m-{number}")
        return advance_emails([update], ANSWER_FIELDS, emails=ambiguous) == {row.pk}

    done = in_threads(*[lambda number=number: complete(number) for number in range(4)])

    assert sum(done) == 1
    assert fields_of(row, "message_id")["message_id"] == f"m-{done.index(True)}"


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_an_event_outran_is_not_signalled(signalled):
    row = email(state=State.BOUNCED)
    with transaction.atomic():
        advance_emails([EmailUpdate(row.pk, State.DELIVERED, message_id="m-1")], ANSWER_FIELDS)

    assert signalled == []


def test_the_first_answer_about_a_direct_send_counts_whatever_an_earlier_try_met():
    """Without an id the record can have had no event; its state is that of a try before."""
    row = email(state=State.FAILED, message_id=None, reason="bad template")
    accepted = Email(pk=row.pk, state=State.SENT, message_id="m-9", sent_at=minute(1))
    advance_emails([accepted], ANSWER_FIELDS)
    fields = fields_of(row, "message_id")
    assert (fields["state"], fields["reason"], fields["message_id"]) == (State.SENT, "", "m-9")
    assert row.next_sync_at is not None


@pytest.mark.django_db(transaction=True)
def test_a_change_is_signalled_as_it_was_though_the_email_is_further_by_then(signalled):
    row = email(state=State.SENDING)
    with transaction.atomic():
        advance_emails([EmailUpdate(row.pk, State.SENT, message_id="m-1")], ANSWER_FIELDS)
        Email.objects.filter(pk=row.pk).update(state=State.DELIVERED)

    assert signalled == [(State.SENDING, State.SENT)]


def test_a_cancellation_goes_by_rank_too():
    row = email(state=State.SCHEDULED)

    update = EmailUpdate(row.pk, State.CANCELLED, reason="asked for")
    assert advance_emails([update], ["state", "reason"]) == {row.pk}
    assert (fields_of(row)["state"], row.reason) == (State.CANCELLED, "asked for")
    assert advance_emails([EmailUpdate(row.pk, State.SENT)], ["state", "reason"]) == {row.pk}
    assert (fields_of(row)["state"], row.reason) == (State.CANCELLED, "asked for")


def test_only_emails_that_are_not_sent_start_over_with_nothing_of_the_attempt_before():
    before = {"error": "x", "reason": "x", "sent_at": minute(0), "bounced_at": minute(0)}
    rows = [email(f"m-{state}", state, **before) for state in State]
    again = [row for row in rows if row.state in RESTARTABLE_STATES]

    assert restart_emails([row.pk for row in rows]) == len(again)
    for row in rows:
        expected = {"state": row.state, "message_id": row.message_id, **before}
        if row in again:
            expected = {"state": State.PENDING, "message_id": None, "error": "", "reason": ""}
            expected |= {"sent_at": None, "bounced_at": None}
        assert fields_of(row, *expected) | expected == fields_of(row, *expected)


def test_events_of_the_attempt_before_change_nothing():
    row = email(state=State.FAILED)
    restart_emails([row.pk])
    ingest([incoming("delivered"), incoming("opened", 1)])

    assert (fields_of(row)["state"], row.open_count, row.delivered_at) == (State.PENDING, 0, None)
    assert EmailEvent.objects.filter(email=None).count() == 2


@pytest.mark.parametrize("state", State)
def test_a_request_marks_only_what_waits(state):
    row = email(state=state)
    mark_sending([row.pk])
    assert fields_of(row)["state"] == (State.SENDING if state == State.PENDING else state)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="others go by the size of tables")
def test_a_request_is_marked_without_going_through_all_that_waits():
    with CaptureQueriesContext(connection) as captured:
        mark_sending([email(state=State.PENDING).pk])
    update = captured[-1]["sql"]
    assert update.startswith("UPDATE")
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {update}")
        plan = " ".join(row[3] for row in cursor.fetchall())
    assert "autoindex" in plan  # that of the primary key
    assert "truncus_email_state" not in plan
