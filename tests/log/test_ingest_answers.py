"""What Truncus answers about an email, applied to its record."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from tests.log.events import OPENS, START, SYNC, answered, email, fields_of, incoming, minute
from truncus_django.log.ingest import apply_details, ingest
from truncus_django.log.transitions import EmailUpdate, advance_emails
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_an_answer_changes_state_and_counts_and_sets_the_next_question():
    row = email(sent_at=START)
    answer = answered("delivered", *OPENS, global_message_id="g-1", provider_message_id="p-1")

    assert apply_details({"m-1": answer}, now=START) == 1
    row.refresh_from_db()
    assert (row.state, row.open_count, row.click_count) == (State.DELIVERED, 2, 1)
    assert (row.global_message_id, row.provider_message_id) == ("g-1", "p-1")
    assert row.next_sync_at == START + timedelta(minutes=1)
    assert set(row.events.values_list("source", flat=True)) == {SYNC}


def test_an_answer_with_nothing_new_only_sets_the_next_question():
    row = email(state=State.DELIVERED, sent_at=START, delivered_at=START)

    assert apply_details({"m-1": answered(updated_at=START)}, now=START + timedelta(hours=2)) == 0
    row.refresh_from_db()
    assert row.next_sync_at == START + timedelta(hours=3)


@pytest.mark.parametrize("name", ["global_message_id", "provider_message_id"])
def test_an_answer_with_no_more_than_an_id_is_a_change(name):
    row = email(state=State.DELIVERED)

    assert apply_details({"m-1": answered(**{name: "id-1"})}) == 1
    row.refresh_from_db()
    assert getattr(row, name) == "id-1"
    assert apply_details({"m-1": answered(**{name: "id-1"})}) == 0


def test_an_answer_about_an_unknown_email_harms_nothing():
    assert apply_details({"m-2": answered("delivered", message_id="m-2")}) == 0


def test_an_answer_larger_than_a_column_harms_nothing():
    row = email()
    apply_details({"m-1": answered(open_count=10**30, global_message_id="g" * 5000)})

    assert fields_of(row)["open_count"] == 2**31 - 1


@pytest.mark.parametrize("step", ["ingest", "apply_details", "advance_emails"])
def test_nothing_is_asked_about_an_email_of_the_sandbox(step):
    now = timezone.now()
    row = email(is_sandbox=True, state=State.SCHEDULED, next_sync_at=now)
    if step == "ingest":
        ingest([incoming("delivered")])
    elif step == "apply_details":
        apply_details({"m-1": answered("sent")})
    else:
        answer = EmailUpdate(row.pk, State.SENT, message_id="m-1", is_sandbox=True, sent_at=now)
        advance_emails([answer], ["state", "message_id"])

    row.refresh_from_db()
    assert row.state != State.SCHEDULED
    assert row.next_sync_at is None


def test_a_scheduled_email_stays_scheduled_until_it_is_sent():
    at = timezone.now() + timedelta(days=2)
    row = email(state=State.SCHEDULED, send_at=at)
    apply_details({"m-1": answered("scheduled", ("queued", 0))})

    row.refresh_from_db()
    assert (row.state, row.sent_at) == (State.SCHEDULED, None)
    assert row.next_sync_at > at


def test_answers_cost_a_constant_number_of_queries_per_hundred(count_queries):
    def cost(count: int) -> int:
        ids = [f"{count}-{number}" for number in range(count)]
        for message_id in ids:
            email(message_id)
        with count_queries() as queries:
            apply_details({i: answered("delivered", *OPENS, message_id=i) for i in ids})
        assert set(Email.objects.filter(message_id__in=ids).values_list("state")) == {
            (State.DELIVERED,)
        }
        return len(queries)

    # SQLite takes a bounded number of values in one statement.
    limited = connection.features.max_query_params is not None
    per_hundred = cost(100)
    assert per_hundred <= (45 if limited else 12)
    assert cost(200) <= 2 * per_hundred


# Reasons ------------------------------------------------------------------------------------------


def test_the_reason_of_a_bounce_may_come_after_its_event():
    row = email()
    answer = answered("bounced", ("bounced", 1), intelligence={"failure_reason": "mailbox_full"})
    apply_details({"m-1": answer})

    assert fields_of(row)["reason"] == "mailbox_full"


def test_the_reason_of_an_event_stands_over_those_of_answers():
    row = email(state=State.BOUNCED, reason="a bounce")
    ingest([incoming("bounced", 1, reason="mailbox_full")])
    apply_details({"m-1": answered("bounced", intelligence={"failure_reason": "a failure"})})

    assert fields_of(row)["reason"] == "mailbox_full"


def test_one_event_reported_by_two_sources_has_the_earlier_time_and_the_reason_of_either():
    row = email()
    answer = answered("bounced", ("bounced", 2))
    apply_details({"m-1": answer})
    ingest([incoming("bounced", 1, event_id=str(answer.events[0].id), reason="mailbox_full")])

    assert (row.events.get().reason, row.events.get().occurred_at) == ("mailbox_full", minute(1))
    assert (fields_of(row)["reason"], fields_of(row)["bounced_at"]) == ("mailbox_full", minute(1))
