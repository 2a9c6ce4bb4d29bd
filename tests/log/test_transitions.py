"""IncomingEvent moves an email once, in whatever order and however often it comes."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from truncus_django import signals
from truncus_django.api.errors import TruncusError
from truncus_django.api.results import EmailDetails, ReportedEvent, SendResult
from truncus_django.log.ingest import IncomingEvent, apply_details, attach, digest, ingest
from truncus_django.log.recording import ANSWER_FIELDS, add_answer
from truncus_django.log.transitions import EmailUpdate, advance_emails, restart_emails
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import email_event, email_state_changed
from truncus_django.states import RESTARTABLE_STATES, State

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
SYNC = EmailEvent.Source.SYNC

A_LITTLE_LATER = 0.05
"""Webhooks and answers tell one open with times that are some seconds apart."""

pytestmark = pytest.mark.django_db


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def email(message_id: str = "m-1", state: str = State.SENT, **fields: Any) -> Email:
    return Email.objects.create(message_id=message_id, state=state, **fields)


def incoming(word: str, minute: float = 0, message_id: str = "m-1", **fields: Any) -> IncomingEvent:
    at = START + timedelta(minutes=minute)
    event_id = digest(message_id, word, minute, fields.get("source"))
    return IncomingEvent(message_id, word, at, **{"event_id": event_id, **fields})


def told(
    status: str = "delivered", *events: tuple[str, float], message_id: str = "m-1", **fields: Any
) -> EmailDetails:
    """What Truncus answers, with events as (type, minute)."""
    reported = tuple(
        ReportedEvent(f"{message_id}-{word}-{minute}", word, START + timedelta(minutes=minute))
        for word, minute in events
    )
    opens = [event.created_at for event in reported if event.type == "opened"]
    counts = {
        "open_count": len(opens),
        "click_count": sum(event.type == "clicked" for event in reported),
        "first_opened_at": min(opens, default=None),
        "last_opened_at": max(opens, default=None),
    }
    return EmailDetails(message_id, status, events=reported, **{**counts, **fields})


def stand(row: Email, *more: str) -> dict[str, Any]:
    """What news has made of an email."""
    names = (
        "state", "reason", "sent_at", "delivered_at", "bounced_at", "complained_at",
        "first_opened_at", "last_opened_at", "open_count", "click_count", *more,
    )  # fmt: skip
    row.refresh_from_db()
    return {name: getattr(row, name) for name in names}


@pytest.fixture
def signalled() -> Any:
    """Every signal of the log, as (old state, new state) or event type."""
    seen: list[Any] = []

    def moved(sender: Any, email: Email, old_state: str, new_state: str, **_: Any) -> None:
        seen.append((str(old_state), str(new_state)))

    def known_events(sender: Any, email: Email, event: EmailEvent, **_: Any) -> None:
        seen.append(event.type)

    email_state_changed.connect(moved)
    email_event.connect(known_events)
    yield seen
    email_state_changed.disconnect(moved)
    email_event.disconnect(known_events)


# States -------------------------------------------------------------------------------------------


def test_news_moves_an_email_and_says_when():
    row = email()

    assert ingest([incoming("delivered", 1), incoming("bounced", 2, reason="mailbox_full")]) == 2
    row.refresh_from_db()
    assert (row.state, row.reason) == (State.BOUNCED, "mailbox_full")
    assert row.delivered_at == START + timedelta(minutes=1)
    assert row.bounced_at == START + timedelta(minutes=2)


def test_late_news_is_kept_and_moves_nothing_back():
    row = email()
    ingest([incoming("complained", 3)])
    ingest([incoming("delivered", 1)])

    row.refresh_from_db()
    assert row.state == State.COMPLAINED
    assert row.delivered_at == START + timedelta(minutes=1)
    assert row.events.count() == 2


def test_repeated_news_is_stored_and_applied_once():
    row = email()

    assert ingest([incoming("opened"), incoming("opened")]) == 1
    assert ingest([incoming("opened")]) == 0
    assert (stand(row)["open_count"], row.events.count()) == (1, 1)


def test_unknown_words_are_kept_and_move_nothing():
    row = email()
    ingest([incoming("translated")])

    assert stand(row)["state"] == State.SENT
    assert row.events.get().type == "translated"


def test_a_reason_belongs_to_its_state():
    row = email(state=State.DEFERRED, reason="greylisted")
    ingest([incoming("delivered")])

    assert stand(row)["reason"] == ""


def test_a_delivered_email_was_sent_even_if_nobody_said_so():
    row = email(state=State.SCHEDULED)
    ingest([incoming("delivered", 5)])

    assert stand(row)["sent_at"] == START + timedelta(minutes=5)


def test_a_final_state_is_not_asked_about_again():
    row = email(next_sync_at=START)
    ingest([incoming("bounced")])

    row.refresh_from_db()
    assert row.next_sync_at is None


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
def test_every_order_of_news_leads_to_the_same_end(db, order, cuts, recorded_after):
    """Told one by one or together, twice, and before the email is recorded or after."""
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
        assert stand(row) == {
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
    """About any event; some have the id under which sync tells the same one."""
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
        return told(status, *listed, **common)
    count = draw(st.integers(0, 3))
    first = minute(draw(MINUTES)) if count else None
    return told(status, open_count=count, click_count=count, first_opened_at=first, **common)


def record_of(status: str, reason: str) -> Email:
    """What is written down about a send that was answered so."""
    row = Email(mailer="a")
    error = TruncusError("Refused", code="REFUSED") if status == "failed" else None
    add_answer(row, SendResult(status, message_id="m-1", reason=reason), error, at=minute(3))
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
    """Tell webhooks, together up to a cut, and answers; return what becomes of the email."""
    first_answer = next((i for i, one in enumerate(steps) if isinstance(one, EmailDetails)), 99)
    written_after = min(written_after, first_answer)  # nobody asks before
    borders = sorted({0, written_after, len(steps), *cuts})
    if written_after == 0:
        write()
    for start, end in pairwise(borders):
        known_events: list[IncomingEvent] = []
        for step in steps[start:end]:
            if isinstance(step, IncomingEvent):
                known_events.append(step)
                continue
            ingest(known_events)
            known_events = []
            for _ in range(2 if is_repeated else 1):
                apply_details({"m-1": step}, now=minute(3.5))
        ingest(known_events)
        if is_repeated:
            ingest(known_events[:1])
        if end == written_after:
            write()
            attach(["m-1"])
    return stand(Email.objects.get(message_id="m-1"), "error_code", "error")


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

    assert stand(row)["reason"] == "no_mx_record"


def test_the_reason_of_an_event_stands_over_those_of_answers():
    row = email(state=State.BOUNCED, reason="a bounce")
    ingest([incoming("bounced", 1, reason="mailbox_full")])
    apply_details({"m-1": told("bounced", intelligence={"failure_reason": "a failure"})})

    assert stand(row)["reason"] == "mailbox_full"


def test_one_event_told_by_two_sources_has_the_earlier_time_and_the_reason_of_either():
    row = email()
    answer = told("bounced", ("bounced", 2))
    apply_details({"m-1": answer})
    ingest([incoming("bounced", 1, event_id=str(answer.events[0].id), reason="mailbox_full")])

    assert (row.events.get().reason, row.events.get().occurred_at) == ("mailbox_full", minute(1))
    assert (stand(row)["reason"], stand(row)["bounced_at"]) == ("mailbox_full", minute(1))


def test_an_outcome_of_the_outbox_that_news_outran_takes_nothing_back():
    row = email(state=State.SENDING)
    ingest([incoming("bounced", 2, reason="mailbox_full"), incoming("delivered", 1)])
    told_late = EmailUpdate(
        row.pk, State.DELIVERED, message_id="m-1", sent_at=minute(3), delivered_at=minute(3)
    )
    advance_emails([told_late], ANSWER_FIELDS)

    assert stand(row, "next_sync_at") == {
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
    assert stand(row, *expected) | expected == stand(row, *expected)


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
    assert stand(row, "message_id")["message_id"] == f"m-{done.index(True)}"


@pytest.mark.django_db(transaction=True)
def test_an_outcome_of_the_outbox_that_news_outran_is_not_signalled(signalled):
    row = email(state=State.BOUNCED)
    with transaction.atomic():
        advance_emails([EmailUpdate(row.pk, State.DELIVERED, message_id="m-1")], ANSWER_FIELDS)

    assert signalled == []


def test_what_one_process_knows_itself_moves_by_rank_too():
    row = email(state=State.SCHEDULED)

    update = EmailUpdate(row.pk, State.CANCELLED, reason="asked for")
    assert advance_emails([update], ["state", "reason"]) == {row.pk}
    assert (stand(row)["state"], row.reason) == (State.CANCELLED, "asked for")
    assert advance_emails([EmailUpdate(row.pk, State.SENT)], ["state", "reason"]) == {row.pk}
    assert (stand(row)["state"], row.reason) == (State.CANCELLED, "asked for")


def test_only_what_was_surely_not_sent_starts_over():
    rows = [email(f"m-{state}", state, error="x", reason="x") for state in State]
    again = [row for row in rows if row.state in RESTARTABLE_STATES]

    assert restart_emails([row.pk for row in rows]) == len(again)
    for row in rows:
        expected = State.PENDING if row in again else row.state
        assert stand(row)["state"] == expected
        assert (row.error, row.reason) == (("", "") if row in again else ("x", "x"))


def test_what_is_heard_of_the_attempt_before_moves_nothing():
    row = email(state=State.FAILED)
    restart_emails([row.pk])
    ingest([incoming("delivered"), incoming("opened", 1)])

    assert (stand(row)["state"], row.open_count, row.delivered_at) == (State.PENDING, 0, None)
    assert EmailEvent.objects.filter(email=None).count() == 2


# Opens and clicks ---------------------------------------------------------------------------------


OPENS = [("delivered", 0), ("opened", 1), ("opened", 2), ("clicked", 2)]


@pytest.mark.parametrize("webhook_first", [True, False])
def test_opens_told_by_webhook_and_sync_count_once(webhook_first):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming(word, minute) for word, minute in OPENS]),
        lambda: apply_details({"m-1": told("delivered", *OPENS)}),
    ]
    for step in steps if webhook_first else reversed(steps):
        step()

    assert (stand(row)["open_count"], stand(row)["click_count"]) == (2, 1)


def test_opens_that_were_only_counted_are_not_counted_again_when_their_webhooks_come():
    row = email()
    apply_details({"m-1": told(open_count=2, click_count=1, first_opened_at=START)})
    ingest([incoming(word, minute) for word, minute in OPENS])

    assert (stand(row)["open_count"], stand(row)["click_count"]) == (2, 1)


def test_sync_makes_up_for_webhooks_that_were_lost():
    row = email()
    ingest([incoming("opened", 1)])
    apply_details({"m-1": told("delivered", *OPENS)}, now=minute(8))
    ingest([incoming("opened", 9)])

    assert stand(row)["open_count"] == 3


FORMS: dict[str, Callable[..., EmailDetails]] = {
    "listed": lambda *minutes, **fields: told(
        "delivered", *[("opened", at) for at in minutes], **fields
    ),
    "counted": lambda *minutes, **fields: told(
        open_count=len(minutes), first_opened_at=min(map(minute, minutes), default=None), **fields
    ),
}


@pytest.fixture(params=FORMS)
def opened(request: pytest.FixtureRequest) -> Callable[..., EmailDetails]:
    """Return a function that makes an answer about an email opened at these minutes."""
    return FORMS[request.param]


@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
def test_one_open_told_with_two_times_counts_once(opened, shift):
    row = email()
    ingest([incoming("opened", 1 + shift)])
    apply_details({"m-1": opened(1)}, now=minute(5))

    assert stand(row)["open_count"] == 1


@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
def test_a_late_webhook_about_what_sync_has_told_counts_nothing(opened, shift):
    row = email()
    apply_details({"m-1": opened(1, 2)}, now=minute(5))
    for at in (1, 2):
        ingest([incoming("opened", at + shift)])
        assert stand(row)["open_count"] == 2


def test_an_open_after_sync_is_one_more_though_its_forerunners_had_no_webhooks(opened):
    row = email()
    apply_details({"m-1": opened(1, 2)}, now=minute(5))
    for _ in range(2):
        ingest([incoming("opened", 6)])
    ingest([incoming("opened", 2 + A_LITTLE_LATER)])
    assert stand(row)["open_count"] == 3

    apply_details({"m-1": opened(1, 2, 6 - A_LITTLE_LATER)}, now=minute(7))
    ingest([incoming("opened", 8), incoming("opened", 9)])
    assert stand(row)["open_count"] == 5


def test_an_answer_older_than_a_webhook_takes_no_open_back(opened):
    row = email()
    ingest([incoming("opened", 1), incoming("opened", 2)])
    apply_details({"m-1": opened(1)}, now=minute(5))

    assert stand(row)["open_count"] == 2


SKEWS = [-10, -1, -0.4, 0, 0.4, 1, 10]
"""Minutes by which Truncus's clock, which dates webhooks and events, is ahead of ours."""


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
@pytest.mark.parametrize("webhook_first", [True, False])
@pytest.mark.parametrize("is_dated", [True, False])
def test_one_open_counts_once_however_far_truncuss_clock_is_ahead(
    opened, webhook_first, shift, skew, is_dated
):
    row = email()
    dated = {"answered_at": minute(1.2 + skew)} if is_dated else {}
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming("opened", 1 + skew + shift)]),
        lambda: apply_details({"m-1": opened(1 + skew, **dated)}, now=minute(1.2)),
    ]
    for step in steps if webhook_first else reversed(steps):
        step()

    assert stand(row)["open_count"] == 1


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_two_opens_and_one_after_the_answer_count_as_three_by_any_clock(opened, shift, skew, order):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming("opened", 1 + skew + shift)]),
        lambda: ingest([incoming("opened", 2 + skew + shift)]),
        lambda: ingest([incoming("opened", 4 + skew + shift)]),
        lambda: apply_details(
            {"m-1": opened(1 + skew, 2 + skew, answered_at=minute(3 + skew))}, now=minute(3)
        ),
    ]
    for place in order:
        steps[place]()

    assert stand(row)["open_count"] == 3


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("answer_first", [True, False])
def test_an_open_after_the_answer_is_one_more_though_the_first_had_no_webhook(
    opened, skew, answer_first
):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: apply_details(
            {"m-1": opened(1 + skew, answered_at=minute(2 + skew))}, now=minute(2)
        ),
        lambda: ingest([incoming("opened", 3 + skew)]),
    ]
    for step in steps if answer_first else reversed(steps):
        step()

    assert stand(row)["open_count"] == 2


def test_a_count_that_was_too_high_is_mended_by_the_next_answer():
    """Ours stands in for the answer's clock; it was half a minute behind."""
    row = email()
    apply_details({"m-1": FORMS["counted"](1, 5)}, now=minute(5))
    ingest([incoming("opened", 5.4)])
    assert stand(row)["open_count"] == 3

    apply_details({"m-1": FORMS["counted"](1, 5)}, now=minute(7))
    assert stand(row)["open_count"] == 2


def test_an_event_without_time_and_id_is_told_again_by_each_answer_and_counts_once():
    row = email()
    undated = ReportedEvent(None, "opened", None)
    for hour in (1, 2):
        answer = EmailDetails("m-1", "sent", open_count=2, events=(undated, undated))
        apply_details({"m-1": answer}, now=minute(60 * hour))

    assert (row.events.count(), stand(row)["open_count"]) == (2, 2)


def test_clicks_are_counted_apart_from_opens():
    row = email()
    apply_details({"m-1": told("delivered", *OPENS)}, now=minute(5))
    ingest([incoming("clicked", 6)])

    assert (stand(row)["open_count"], stand(row)["click_count"]) == (2, 2)


def test_two_opens_in_one_second_with_ids_count_as_two():
    row = email()
    ingest([incoming("opened", event_id="e-1"), incoming("opened", event_id="e-2")])

    assert stand(row)["open_count"] == 2


def test_opens_move_no_state():
    row = email()
    ingest([incoming("opened"), incoming("clicked")])

    assert stand(row)["state"] == State.SENT


# Before the email --------------------------------------------------------------------------------


def test_events_before_their_email_are_kept_and_applied_when_it_is_recorded():
    ingest([incoming("delivered"), incoming("opened", 1)])
    row = email()
    attach(["m-1"])

    assert (stand(row)["state"], row.open_count) == (State.DELIVERED, 1)
    attach(["m-1"])
    assert stand(row)["open_count"] == 1


def test_events_that_nobody_adopted_are_applied_with_the_next_news():
    ingest([incoming("delivered"), incoming("opened", 1)])
    row = email()
    ingest([incoming("clicked", 2)])

    assert (stand(row)["state"], row.open_count, row.click_count) == (State.DELIVERED, 1, 1)


def test_an_answer_about_an_unknown_email_harms_nothing():
    assert apply_details({"m-2": told("delivered", message_id="m-2")}) == 0


@pytest.mark.django_db(transaction=True)
def test_an_event_in_the_middle_of_the_recording_is_applied(
    shared_database, emulator, messages, in_threads
):
    """The webhook's transaction does not see the email, and ends before it is recorded."""
    known_events = threading.Event()

    def webhook() -> None:
        ingest([incoming("bounced", message_id=sent.truncus_status.id)])
        known_events.set()

    [sent] = messages(1)
    with transaction.atomic(shared_database):
        sent.send()
        thread = threading.Thread(target=lambda: in_threads(webhook))
        thread.start()
        if connection.vendor == "postgresql":  # the others wait for the end of this transaction
            assert known_events.wait(20)
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
def test_news_told_by_many_threads_at_once_is_applied_once(shared_database, in_threads):
    rows = [email(f"m-{number}") for number in range(3)]
    story = [incoming(word, minute, row.message_id) for row in rows for word, minute in OPENS]

    def tell(first: int) -> int:
        pieces = story[first:] + story[:first]
        return sum(ingest([piece]) for piece in pieces) + ingest(pieces)

    new = in_threads(*[lambda first=first: tell(first) for first in (0, 3, 6, 9)])

    assert sum(new) == len(story) == EmailEvent.objects.count()
    assert {(stand(row)["open_count"], stand(row)["click_count"]) for row in rows} == {(2, 1)}


# Asking -------------------------------------------------------------------------------------------


def test_an_answer_moves_state_and_counts_and_sets_the_next_question():
    row = email(sent_at=START)
    answer = told("delivered", *OPENS, global_message_id="g-1", provider_message_id="p-1")

    assert apply_details({"m-1": answer}, now=START) == 1
    row.refresh_from_db()
    assert (row.state, row.open_count, row.click_count) == (State.DELIVERED, 2, 1)
    assert (row.global_message_id, row.provider_message_id) == ("g-1", "p-1")
    assert row.next_sync_at == START + timedelta(minutes=1)
    assert set(row.events.values_list("source", flat=True)) == {SYNC}


def test_an_answer_that_tells_nothing_new_only_sets_the_next_question():
    row = email(state=State.DELIVERED, sent_at=START, delivered_at=START)

    assert apply_details({"m-1": told(updated_at=START)}, now=START + timedelta(hours=2)) == 0
    row.refresh_from_db()
    assert row.next_sync_at == START + timedelta(hours=3)


@pytest.mark.parametrize("name", ["global_message_id", "provider_message_id"])
def test_an_answer_that_tells_no_more_than_an_id_is_a_change(name):
    row = email(state=State.DELIVERED)

    assert apply_details({"m-1": told(**{name: "id-1"})}) == 1
    row.refresh_from_db()
    assert getattr(row, name) == "id-1"
    assert apply_details({"m-1": told(**{name: "id-1"})}) == 0


@pytest.mark.parametrize("step", ["ingest", "apply_details", "advance_emails"])
def test_nothing_is_asked_about_an_email_of_the_sandbox(step):
    now = timezone.now()
    row = email(is_sandbox=True, state=State.SCHEDULED, next_sync_at=now)
    if step == "ingest":
        ingest([incoming("delivered")])
    elif step == "apply_details":
        apply_details({"m-1": told("sent")})
    else:
        answer = EmailUpdate(row.pk, State.SENT, message_id="m-1", is_sandbox=True, sent_at=now)
        advance_emails([answer], ["state", "message_id"])

    row.refresh_from_db()
    assert row.state != State.SCHEDULED
    assert row.next_sync_at is None


def test_the_reason_of_a_bounce_is_learned_after_its_event():
    row = email()
    answer = told("bounced", ("bounced", 1), intelligence={"failure_reason": "mailbox_full"})
    apply_details({"m-1": answer})

    assert stand(row)["reason"] == "mailbox_full"


def test_a_scheduled_email_stays_scheduled_until_it_is_sent():
    at = timezone.now() + timedelta(days=2)
    row = email(state=State.SCHEDULED, send_at=at)
    apply_details({"m-1": told("scheduled", ("queued", 0))})

    row.refresh_from_db()
    assert (row.state, row.sent_at) == (State.SCHEDULED, None)
    assert row.next_sync_at > at


def test_an_answer_larger_than_a_column_harms_nothing():
    row = email()
    apply_details({"m-1": told(open_count=10**30, global_message_id="g" * 5000)})

    assert stand(row)["open_count"] == 2**31 - 1


def test_learning_costs_a_constant_number_of_queries_per_hundred(count_queries):
    def cost(count: int) -> int:
        ids = [f"{count}-{number}" for number in range(count)]
        for message_id in ids:
            email(message_id)
        with count_queries() as queries:
            apply_details({i: told("delivered", *OPENS, message_id=i) for i in ids})
        assert set(Email.objects.filter(message_id__in=ids).values_list("state")) == {
            (State.DELIVERED,)
        }
        return len(queries)

    # SQLite takes a bounded number of values in one statement.
    limited = connection.features.max_query_params is not None
    per_hundred = cost(100)
    assert per_hundred <= (45 if limited else 12)
    assert cost(200) <= 2 * per_hundred


def test_hearing_one_piece_of_news_costs_few_queries(count_queries):
    email()
    with count_queries() as queries:
        ingest([incoming("opened")])

    assert len(queries) <= 9


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
def test_a_rolled_back_move_is_not_signalled(signalled):
    email()
    with transaction.atomic():
        ingest([incoming("delivered")])
        transaction.set_rollback(True)

    assert signalled == []


@pytest.mark.django_db(transaction=True)
def test_one_open_told_by_webhook_and_sync_is_signalled_once(signalled):
    email(state=State.DELIVERED)
    ingest([incoming("opened", 1)])
    apply_details({"m-1": told("delivered", ("opened", 1 + A_LITTLE_LATER))})

    assert signalled == ["opened"]


@pytest.mark.django_db(transaction=True)
def test_two_opens_close_together_are_signalled_twice(signalled):
    email(state=State.DELIVERED)
    ingest([incoming("opened", 1)])
    apply_details({"m-1": told("delivered", ("opened", 1 + A_LITTLE_LATER), ("opened", 1.3))})

    assert signalled == ["opened", "opened"]


@pytest.mark.django_db(transaction=True)
def test_events_that_came_early_are_signalled_with_their_email(signalled):
    ingest([incoming("delivered")])
    assert signalled == []
    email()
    attach(["m-1"])

    assert signalled == ["delivered", ("sent", "delivered")]


@pytest.mark.django_db(transaction=True)
def test_a_failing_receiver_harms_nothing(signalled):
    def fail(**_: Any) -> None:
        raise ZeroDivisionError

    row = email()
    email_event.connect(fail)
    try:
        ingest([incoming("delivered")])
    finally:
        email_event.disconnect(fail)

    assert stand(row)["state"] == State.DELIVERED
    assert ("sent", "delivered") in signalled


# What databases do not take -----------------------------------------------------------------------


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
    assert stand(row)["reason"].startswith("r?r?")


def test_it_works_without_time_zones(settings):
    settings.USE_TZ = False
    row = email()
    ingest([incoming("opened", 1)])
    apply_details({"m-1": told("delivered", ("opened", 1), updated_at=START)})

    assert (stand(row)["state"], row.open_count) == (State.DELIVERED, 1)
    assert row.first_opened_at == datetime(2026, 11, 1, 13, 1)  # Berlin


def test_the_log_may_have_a_database_of_its_own(other_database):
    alias = other_database()
    row = email()
    ingest([incoming("delivered"), incoming("opened", message_id="m-2")])
    apply_details({"m-1": told("delivered", *OPENS)})

    assert row._state.db == Email.objects.db == alias
    assert (stand(row)["state"], row.open_count) == (State.DELIVERED, 2)
    assert not Email.objects.using("default").exists()


def test_a_receiver_that_fails_is_logged_once_and_not_by_django(caplog):
    def fail(**kwargs):
        raise RuntimeError

    signals.email_event.connect(fail)
    try:
        for _ in range(3):
            signals.tell(signals.email_event, sender=Email, email=None, event=None)
    finally:
        signals.email_event.disconnect(fail)
    assert [record.name for record in caplog.records] == ["truncus_django"]


def test_an_email_that_starts_over_has_no_times_of_the_attempt_before():
    row = email("m-1", State.REJECTED, sent_at=minute(-100), bounced_at=minute(-100))
    assert restart_emails([row.pk]) == 1
    row.refresh_from_db()
    assert (row.sent_at, row.delivered_at, row.bounced_at) == (None, None, None)


def test_ids_that_differ_in_spaces_at_their_end_are_two_emails():
    row = email("abc")
    ingest([incoming("bounced", 1, "abc ", reason="mailbox_full")])
    ingest([incoming("bounced", 2, "abc", reason="no_mx_record")])
    row.refresh_from_db()
    assert (row.state, row.reason) == ("bounced", "no_mx_record")
