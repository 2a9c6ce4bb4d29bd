"""Events and answers change an email once, in whatever order and however often they come."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.log.events import (
    A_LITTLE_LATER,
    OPENS,
    START,
    SYNC,
    answered,
    email,
    fields_of,
    incoming,
    minute,
)
from truncus_django.api.errors import TruncusError
from truncus_django.api.results import EmailDetails, SendResult
from truncus_django.log.ingest import IncomingEvent, apply_details, attach, ingest
from truncus_django.log.recording import ANSWER_FIELDS, apply_outcome
from truncus_django.log.transitions import EmailUpdate, advance_emails
from truncus_django.models import Email, EmailEvent
from truncus_django.sending.outgoing import SendOutcome
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


STORY = [
    incoming("sent", 0),
    incoming("deferred", 1, reason="greylisted"),
    incoming("delivered", 2),
    incoming("delivered", 3),
    incoming("opened", 4),
    incoming("opened", 5),
    incoming("opened", 4, source=SYNC),
    incoming("clicked", 5),
    incoming("failed", 1.5, reason="other"),
    incoming("cancelled", 1.5),
    incoming("bounced", 6, reason="mailbox_full"),
    incoming("queued", 0),
    incoming("translated", 2),
]


@hypothesis_settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.permutations(STORY), st.lists(st.integers(0, len(STORY))), st.integers(0, len(STORY)))
def test_every_order_of_events_leads_to_the_same_end(db, order, cuts, recorded_after):
    """Reported one by one or together, twice, and before the email is recorded or after."""
    with transaction.atomic():
        cuts = sorted({0, recorded_after, *cuts, len(order)})
        row = email() if recorded_after == 0 else None
        for start, end in pairwise(cuts):
            ingest(order[start:end])
            ingest(order[start:end][:1])
            if end == recorded_after and row is None:
                row = email()
                attach(["m-1"])
        assert row is not None
        assert fields_of(row) == {
            "state": State.BOUNCED,
            "reason": "mailbox_full",
            "sent_at": START,
            "delivered_at": START + timedelta(minutes=2),
            "bounced_at": START + timedelta(minutes=6),
            "complained_at": None,
            "first_opened_at": START + timedelta(minutes=4),
            "last_opened_at": START + timedelta(minutes=5),
            "open_count": 2,
            "click_count": 1,
        }
        transaction.set_rollback(True)


WORDS = ["sent", "deferred", "delivered", "bounced", "complained", "failed", "opened", "clicked"]


REASONS = st.sampled_from(["", "mailbox_full", "no_mx_record"])


MINUTES = st.integers(1, 6)


@st.composite
def webhooks(draw: st.DrawFn) -> IncomingEvent:
    """About any event; some have the id under which sync reports the same one."""
    word, at = draw(st.sampled_from(WORDS)), draw(MINUTES)
    late = draw(st.sampled_from([0, A_LITTLE_LATER, -A_LITTLE_LATER]))
    event_id = draw(st.sampled_from([f"m-1-{word}-{at}", f"{word}-{at + late}"]))
    return incoming(word, at + late, reason=draw(REASONS), event_id=event_id)


@st.composite
def answers(draw: st.DrawFn) -> EmailDetails:
    """In either form, about any of the events."""
    status = draw(st.sampled_from(["queued", "sent", "delivered", "bounced", "complained"]))
    listed = draw(st.lists(st.tuples(st.sampled_from(WORDS), MINUTES), max_size=4, unique=True))
    common = {
        "updated_at": minute(draw(MINUTES)),
        "answered_at": draw(st.one_of(st.none(), MINUTES.map(minute))),
        "intelligence": {"failure_reason": draw(REASONS)},
    }
    if draw(st.booleans()):
        return answered(status, *listed, **common)
    count = draw(st.integers(0, 3))
    first = minute(draw(MINUTES)) if count else None
    return answered(status, open_count=count, click_count=count, first_opened_at=first, **common)


def record_of(status: str, reason: str) -> Email:
    """What is written down about a send that was answered so."""
    row = Email(mailer="a")
    error = TruncusError("Refused", code="REFUSED") if status == "failed" else None
    result = SendResult(status, message_id="m-1", reason=reason)
    apply_outcome(row, SendOutcome(result=result, error=error), at=minute(3))
    return row


def written_by_the_log(status: str, reason: str) -> Callable[[], None]:
    return record_of(status, reason).save


def written_by_the_outbox(status: str, reason: str) -> Callable[[], None]:
    waiting = Email.objects.create(mailer="a", state=State.SENDING)
    update = EmailUpdate(waiting.pk)
    answer = record_of(status, reason)
    for name in ANSWER_FIELDS:
        setattr(update, name, getattr(answer, name))
    return lambda: advance_emails([update], ANSWER_FIELDS)


def end_of(
    steps: list[IncomingEvent | EmailDetails],
    cuts: list[int],
    write: Callable[[], None],
    written_after: int,
    *,
    is_repeated: bool = False,
) -> dict[str, Any]:
    """Apply webhooks, together up to a cut, and answers; return what becomes of the email."""
    first_answer = next((i for i, one in enumerate(steps) if isinstance(one, EmailDetails)), 99)
    written_after = min(written_after, first_answer)  # nobody asks before
    borders = sorted({0, written_after, len(steps), *cuts})
    if written_after == 0:
        write()
    for start, end in pairwise(borders):
        events: list[IncomingEvent] = []
        for step in steps[start:end]:
            if isinstance(step, IncomingEvent):
                events.append(step)
                continue
            ingest(events)
            events = []
            for _ in range(2 if is_repeated else 1):
                apply_details({"m-1": step}, now=minute(3.5))
        ingest(events)
        if is_repeated:
            ingest(events[:1])
        if end == written_after:
            write()
            attach(["m-1"])
    return fields_of(Email.objects.get(message_id="m-1"), "error_code", "error")


@hypothesis_settings(
    max_examples=200 if connection.vendor == "sqlite" else 30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(st.data())
def test_every_order_of_webhooks_answers_and_records_leads_to_the_same_end(db, data):
    steps = data.draw(st.lists(st.one_of(webhooks(), answers()), min_size=1, max_size=7))
    status = data.draw(st.sampled_from(["sent", "delivered", "bounced", "failed", "queued"]))
    reason = data.draw(REASONS)
    write = data.draw(st.sampled_from([written_by_the_log, written_by_the_outbox]))
    places = st.integers(0, len(steps))
    ends = []
    for order in (steps, data.draw(st.permutations(steps))):
        with transaction.atomic():
            cuts, written_after = data.draw(st.lists(places)), data.draw(places)
            ends.append(
                end_of(
                    list(order),
                    cuts,
                    write(status, reason),
                    written_after,
                    is_repeated=data.draw(st.booleans()),
                )
            )
            transaction.set_rollback(True)

    assert ends[0] == ends[1]


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


def test_an_answer_about_an_unknown_email_harms_nothing():
    assert apply_details({"m-2": answered("delivered", message_id="m-2")}) == 0


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
            assert events.wait(20)
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
            assert recorded.wait(20)
            assert Email.objects.get().state == State.DELIVERED
    thread.join()
    assert Email.objects.get().state == State.BOUNCED


@pytest.mark.django_db(transaction=True)
def test_events_reported_by_many_threads_at_once_are_applied_once(shared_database, in_threads):
    rows = [email(f"m-{number}") for number in range(3)]
    story = [incoming(word, minute, row.message_id) for row in rows for word, minute in OPENS]

    def report(first: int) -> int:
        events = story[first:] + story[:first]
        return sum(ingest([event]) for event in events) + ingest(events)

    new = in_threads(*[lambda first=first: report(first) for first in (0, 3, 6, 9)])

    assert sum(new) == len(story) == EmailEvent.objects.count()
    assert {(fields_of(row)["open_count"], fields_of(row)["click_count"]) for row in rows} == {
        (2, 1)
    }


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


def test_the_reason_of_a_bounce_may_come_after_its_event():
    row = email()
    answer = answered("bounced", ("bounced", 1), intelligence={"failure_reason": "mailbox_full"})
    apply_details({"m-1": answer})

    assert fields_of(row)["reason"] == "mailbox_full"


def test_a_scheduled_email_stays_scheduled_until_it_is_sent():
    at = timezone.now() + timedelta(days=2)
    row = email(state=State.SCHEDULED, send_at=at)
    apply_details({"m-1": answered("scheduled", ("queued", 0))})

    row.refresh_from_db()
    assert (row.state, row.sent_at) == (State.SCHEDULED, None)
    assert row.next_sync_at > at


def test_an_answer_larger_than_a_column_harms_nothing():
    row = email()
    apply_details({"m-1": answered(open_count=10**30, global_message_id="g" * 5000)})

    assert fields_of(row)["open_count"] == 2**31 - 1


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


@pytest.mark.parametrize("word", ["delivered", "opened", "failed"])
def test_one_event_costs_few_queries(word, count_queries):
    row = email()
    with count_queries() as queries:
        ingest([incoming(word)])

    of_lock = connection.vendor == "sqlite"
    assert len(queries) == 3 + of_lock  # the email, the event, and what it changes
    assert row.events.get().type == word


@pytest.mark.django_db(transaction=True)
def test_a_burst_is_applied_once_by_four_at_once(shared_database, in_threads):
    """Webhooks and answers about the same emails, each of them from all four, in other orders."""
    rows = [email(f"m-{number}") for number in range(25)]
    story = [("delivered", 1), *[("opened", minute) for minute in range(2, 8)], ("clicked", 9)]
    events = [incoming(word, minute, row.message_id) for row in rows for word, minute in story]

    def report(seed: int) -> int:
        mine = Random(seed).sample(events, len(events))
        new = sum(ingest([event]) for event in mine[:100])
        apply_details({row.message_id: answered("delivered", *story) for row in rows[seed::4]})
        return new + sum(ingest([event]) for event in mine[100:])

    in_threads(*[lambda seed=seed: report(seed) for seed in range(4)])
    found = Email.objects.values_list("state", "open_count", "click_count")
    assert list(found) == [(State.DELIVERED, 6, 1)] * 25


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
