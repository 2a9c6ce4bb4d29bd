"""In whatever order events, answers and records come, and however often, an email ends the same."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from django.db import connection, transaction
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
from truncus_django.states import State

pytestmark = pytest.mark.django_db

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


# Many at once -------------------------------------------------------------------------------------


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
