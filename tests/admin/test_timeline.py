"""The timeline on an email's page."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.admin.pages import confirm, make, page_of, store
from truncus_django.admin.timeline import timeline
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 3, 11, 0, 0, tzinfo=UTC)


def email_of(state: State, **fields: Any) -> Email:
    return make(**{"state": state, "created_at": NOON, "sent_at": None, **fields})


def happened(email: Email, word: str, at: datetime, **fields: Any) -> EmailEvent:
    number = EmailEvent.objects.count()
    return EmailEvent.objects.create(
        email=email,
        message_id="m",
        event_id=str(number),
        type=word,
        occurred_at=at,
        source="webhook",
        **fields,
    )


def shown(email: Email) -> list[tuple[datetime | None, str]]:
    events = EmailEvent.objects.filter(email=email).order_by("-occurred_at")
    return [(entry.at, entry.title) for entry in timeline(email, list(events))]


def titles(email: Email) -> list[str]:
    return [title for _, title in shown(email)]


def test_the_newest_comes_first_and_the_record_last():
    email = email_of(State.DELIVERED, sent_at=NOON)
    happened(email, "delivered", NOON + timedelta(seconds=2))
    happened(email, "opened", NOON + timedelta(minutes=1))

    assert titles(email) == ["opened", "delivered", "sent", "recorded"]


def test_at_equal_times_what_follows_comes_above():
    email = email_of(State.DELIVERED)
    for word in ("clicked", "queued", "delivered", "opened", "sent"):
        happened(email, word, NOON)

    assert titles(email) == ["clicked", "opened", "delivered", "sent", "queued", "recorded"]


def test_the_record_of_a_direct_send_is_placed_by_its_time():
    email = email_of(State.DELIVERED, created_at=NOON + timedelta(milliseconds=400))
    happened(email, "sent", NOON)  # in the same second
    happened(email, "delivered", NOON + timedelta(seconds=2))
    assert titles(email) == ["delivered", "sent", "recorded"]

    email.created_at = NOON + timedelta(seconds=1)

    assert titles(email) == ["delivered", "recorded", "sent"]


@pytest.mark.parametrize(
    ("language", "time"),
    [
        ("en", "03/03/2026 12:00:00\u00a0p.m."),
        ("de", "03.03.2026 12:00:00"),
        ("fi", "3.3.2026 12.00.00"),
    ],
)
def test_times_are_shown_to_the_second_by_the_clock_of_the_language(
    admin_client, settings, language, time
):
    settings.LANGUAGE_CODE = language

    page = admin_client.get(page_of(email_of(State.SENT, sent_at=NOON))).text

    shown_times = re.findall(r'<div class="truncus-when"><time[^>]*>([^<]*)</time>', page)
    assert shown_times == [time] * 2


@pytest.mark.parametrize(
    ("word", "state", "kind"),
    [
        ("blocked", State.REJECTED, "bad"),
        ("bounce", State.BOUNCED, "bad"),
        ("Complaint", State.COMPLAINED, "bad"),
        ("sandbox", State.SENT, "sent"),
    ],
)
def test_an_event_stands_for_the_state_that_it_leads_to(word, state, kind):
    email = email_of(state)
    event = happened(email, word, NOON)

    first, last = timeline(email, [event])

    assert (first.at, first.title, first.kind) == (NOON, state.label, kind)
    assert last.title == "recorded"


def test_an_event_of_a_new_kind_is_shown_by_its_word():
    email = email_of(State.SENT, sent_at=NOON)
    happened(email, "printed", NOON)

    assert titles(email) == ["printed", "sent", "recorded"]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (State.PENDING, "It waits in the outbox."),
        (State.SENDING, "a request that a worker makes or repeats"),
        (State.UNKNOWN, "It is not known whether this email was sent"),
        (State.DEFERRED, "Truncus tries again by itself."),
        (State.FAILED, "It was not sent."),
        (State.REJECTED, "It was refused, and not sent."),
        (State.EXPIRED, "It expired before a worker could send it"),
        (State.CANCELLED, "It is not sent."),
    ],
)
def test_a_state_without_a_known_time_is_told_as_the_present_one(admin_client, state, told):
    email = email_of(state)

    assert shown(email) == [(None, state.label), (NOON, "recorded")]
    page = admin_client.get(page_of(email)).text
    assert '<div class="truncus-when">now</div>' in page
    assert page.count(told) == 1


def test_a_scheduled_email_tells_for_when(admin_client):
    email = email_of(State.SCHEDULED, send_at=NOON + timedelta(hours=1, seconds=5))

    page = admin_client.get(page_of(email)).text

    assert shown(email)[0] == (None, "scheduled")
    assert re.search(r"Truncus sends it at <time[^>]*>03/03/2026 1:00:05\u00a0p.m.</time>", page)


def test_an_event_tells_since_when_an_email_is_in_its_state():
    email = email_of(State.CANCELLED)
    at = NOON + timedelta(minutes=1)
    happened(email, "cancelled", at)

    assert shown(email) == [(at, "cancelled"), (NOON, "recorded")]


def test_what_a_person_once_did_is_not_the_time_of_what_followed(admin_client):
    email = email_of(State.UNKNOWN)
    store(email)
    confirm(admin_client, "decide_not_sent", email)
    confirm(admin_client, "retry", email)
    Email.objects.update(state=State.FAILED)  # by a worker

    email.refresh_from_db()

    assert shown(email) == [(None, "failed"), (NOON, "recorded")]


def test_reasons_are_told_in_words(admin_client):
    email = email_of(State.BOUNCED, reason="mailbox_full", sent_at=NOON)
    happened(email, "bounced", NOON + timedelta(seconds=9), reason="mailbox_full")

    assert [entry.reason for entry in timeline(email, list(email.events.all()))] == [
        "mailbox full",
        "",
        "",
    ]
