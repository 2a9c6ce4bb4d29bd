"""The actions of the admin: a question first, then what becomes of it."""

import re
import uuid
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.pages import (
    LOG,
    answer,
    confirm,
    confirm_unasked,
    make,
    messages_of,
    page_of,
    run,
    store,
)
from truncus_django.admin.action_runner import RESULTS, Action
from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.api.client import TruncusClient
from truncus_django.models import Email, OutboxBatch, OutboxEntry, Priority
from truncus_django.outbox import operations
from truncus_django.outbox.operations import OperationResult
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_every_action_needs_a_permission_that_there_is():
    assert {action.permission for action in ACTIONS} == dict(Email._meta.permissions).keys()


_STATES = {
    "decide_sent": State.UNKNOWN,
    "decide_send": State.UNKNOWN,
    "decide_not_sent": State.UNKNOWN,
    "retry": State.FAILED,
    "cancel": State.SCHEDULED,
}
"""In which an action can be done, if not in any."""


def possible(action: Action, **fields: Any) -> Email:
    """Record an email to which an action can be done."""
    email = make(state=_STATES.get(action.name, State.DELIVERED), text_body="Hello.", **fields)
    store(email)
    return email


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_every_action_asks_first(admin_client, emulator, action):
    email = possible(action, subject="Your tea")

    question = run(admin_client, action.name, email)

    page = unescape(question.text)
    assert f'name="confirmed" value="{action.confirm % {"count": 1}}"' in page
    assert action.question % {"count": 1} in page
    assert "Your tea" in page
    assert "Left unchanged" not in page
    assert emulator.requests == []
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    "action", [action for action in ACTIONS if action.limit != 1], ids=lambda action: action.name
)
def test_many_are_asked_about_as_many(admin_client, emulator, action):
    question = run(admin_client, action.name, *[possible(action) for _ in range(3)])

    page = unescape(question.text)
    assert action.question % {"count": 3} in page
    assert action.question % {"count": 1} not in page
    assert f'value="{action.confirm % {"count": 3}}"' in page


def test_what_is_not_possible_is_not_part_of_what_is_confirmed(admin_client, emulator):
    waiting = [make(state=State.SCHEDULED, subject=f"Tomorrow {number}") for number in range(2)]
    others = [make(subject=f"Gone out {number}") for number in range(3)]

    page = run(admin_client, "cancel", *waiting, *others)

    assert "This is possible for 2 of the 5 chosen emails." in page.text
    assert 'value="Do not send 2 emails"' in page.text
    assert page.text.count("It is neither scheduled nor waiting.") == 3
    meant, left_out = page.text.split("Left unchanged")
    assert all(email.subject in meant and str(email.pk) in meant for email in waiting)
    assert all(email.subject in left_out and email.subject not in meant for email in others)
    assert {*meant_by(page)} == {email.pk for email in waiting}


@pytest.mark.parametrize("count", [1, 2])
def test_where_nothing_is_possible_there_is_nothing_to_confirm(admin_client, emulator, count):
    page = run(admin_client, "cancel", *[make() for _ in range(count)]).text

    assert "This is not possible" in page
    assert "It is neither scheduled nor waiting." in page
    assert 'name="confirmed"' not in page
    assert "Go back" in page


def test_of_many_those_that_cannot_be_done_are_left_out(admin_client, emulator):
    emails = [make(state=State.SCHEDULED if number % 2 else State.SENT) for number in range(60)]

    page = run(admin_client, "cancel", *emails).text

    assert "This is possible for 30 of the 60 chosen emails." in page
    assert "Cancel these 30 emails, so that they are not sent?" in page
    assert page.count("It is neither scheduled nor waiting.") == 20
    assert page.count("and 10 more") == 2
    assert page.count('name="_selected_action"') == 1


def meant_by(question: Any) -> list[uuid.UUID]:
    """Return the emails that a question is about."""
    [ids] = re.findall(r'name="meant" value="([^"]*)"', question.text)
    return [uuid.UUID(each.partition(":")[0]) for each in ids.split()]


@pytest.mark.parametrize(
    ("action", "limit"), [("decide_not_sent", 10_000), ("resend", 50)], ids=lambda value: str(value)
)
def test_all_of_a_list_are_those_that_were_there_when_asked(admin_client, emulator, action, limit):
    emails = [make(state=State.UNKNOWN, text_body="Hello.") for _ in range(min(60, limit))]
    earlier = make(text_body="Hello.")
    chosen = {
        "action": action,
        "index": "0",
        "select_across": "1",
        "_selected_action": [str(emails[0].pk)],
    }

    question = admin_client.post(f"{LOG}?state__exact=unknown", chosen)
    make(state=State.UNKNOWN)
    Email.objects.filter(pk=earlier.pk).update(state=State.UNKNOWN)  # nobody has looked at it
    told = messages_of(admin_client, answer(admin_client, question))

    assert {*meant_by(question)} == {email.pk for email in emails}
    assert "emails</b>: Marked as not sent." in told or "Sent again." in told
    assert LogEntry.objects.exclude(object_id__in=[str(email.pk) for email in emails]).count() == 0
    assert LogEntry.objects.count() == len(emails)


def test_nothing_is_confirmed_of_which_nobody_was_asked(admin_client, emulator):
    email = make(state=State.UNKNOWN)

    for ids in ({}, {"meant": ""}, {"meant": "zz"}):
        page = run(admin_client, "decide_sent", email, confirmed="Yes", select_across="1", **ids)
        assert "Mark this email as sent?" in page.text

    email.refresh_from_db()
    assert email.state == State.UNKNOWN


def test_what_left_the_list_since_it_was_shown_is_told_as_what_it_is(admin_client):
    email, other = make(state=State.PENDING), make(state=State.PENDING)
    for each in (email, other):
        store(each)
    Email.objects.filter(pk=email.pk).update(state=State.SENT)
    pks = [str(email.pk), str(other.pk)]

    question = admin_client.post(
        f"{LOG}?state__exact=pending",
        {"action": "cancel", "index": "0", "_selected_action": pks},
    )
    assert "This is possible for 1 of the 2 chosen emails." in question.text
    assert "It is neither scheduled nor waiting." in question.text

    Email.objects.filter(pk=other.pk).update(state=State.SENT)
    told = messages_of(admin_client, answer(admin_client, question))

    assert "no longer in the log" not in told
    assert "Not possible in this state." in told or "neither scheduled nor waiting" in told


def test_those_deleted_since_the_question_are_told(admin_client):
    gone, stays = make(state=State.UNKNOWN), make(state=State.UNKNOWN)
    question = run(admin_client, "decide_sent", gone, stays)
    gone.delete()

    told = messages_of(admin_client, answer(admin_client, question))

    assert "1 email is no longer in the log." in told
    assert "Marked as sent." in told


def test_of_more_than_are_counted_the_question_says_how_many_there_are_in_all(
    admin_client, monkeypatch
):
    monkeypatch.setattr("truncus_django.admin.action_runner.COUNT_LIMIT", 55)

    page = run(admin_client, "export_csv", *[make() for _ in range(60)]).text

    assert "<p>more than 55 in all</p>" in page
    assert "others" not in page


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_a_question_reads_no_bodies_that_it_does_not_need(admin_client, action):
    email = possible(action)

    with CaptureQueriesContext(connection) as captured:
        run(admin_client, action.name, email)

    queries = [query["sql"] for query in captured]
    assert any("text_body" in sql for sql in queries) == (action.name == "resend")
    assert sum("outboxentry" in sql for sql in queries) == 1


def batch(lease: uuid.UUID | None, minutes: int, *, is_ambiguous: bool = False) -> OutboxBatch:
    return OutboxBatch.objects.create(
        account="a",
        mailer="default",
        idempotency_key=str(uuid.uuid4()),
        lease=lease,
        due_at=timezone.now() + timedelta(minutes=minutes),
        is_ambiguous=is_ambiguous,
        priority=Priority.NORMAL,
    )


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_the_page_and_the_outbox_agree_on_what_is_possible(name):
    emails = []
    for state in (State.PENDING, State.SENDING, State.FAILED, State.UNKNOWN):
        batches = [
            None,
            batch(None, 5),
            batch(None, 5, is_ambiguous=True),
            batch(uuid.uuid4(), 5),  # with a worker
            batch(uuid.uuid4(), -5),  # whose worker died
            batch(uuid.uuid4(), -5, is_ambiguous=True),
        ]
        for each in batches:
            emails.append(make(state=state))
            waits = each is None and state == State.PENDING
            OutboxEntry.objects.create(
                email=emails[-1], payload="{}", size=2, is_waiting=waits, batch=each
            )
        emails.append(make(state=state))  # of which nothing is stored
    if name == "cancel":  # the admin offers it for these alone
        emails = [each for each in emails if each.state in {State.PENDING, State.SENDING}]
    [action] = [each for each in ACTIONS if each.name == name]
    entries = outbox_entries(emails)

    why_not = {each.pk: action.why_not(each, entries.get(each.pk)) for each in emails}
    results = getattr(operations, name)(why_not)

    for email_id, result in results.items():
        if result is OperationResult.DOES_NOT_APPLY:
            assert why_not[email_id].startswith("It is neither")
        else:
            assert why_not[email_id] == ("" if result.is_done else str(RESULTS[result].text))


def test_sync_asks_truncus_and_learns(admin_client, sent, emulator):
    emulator.wait_for(lambda e: "opened" in [event.type for event in e.emails[0].events])

    told = messages_of(admin_client, confirm(admin_client, "sync_now", sent))

    sent.refresh_from_db()
    assert "Truncus was asked. Still delivered." in told
    assert (sent.state, sent.open_count) == (State.DELIVERED, 1)
    [entry] = LogEntry.objects.all()
    assert entry.object_id == str(sent.pk)
    assert "Truncus was asked" in entry.change_message


def test_a_mailer_that_is_gone_is_told(admin_client, emulator):
    email = make(mailer="gone", text_body="x")

    for action in ("resend", "sync_now"):
        assert "gone" in messages_of(admin_client, confirm(admin_client, action, email))


def test_cancel_cancels_what_is_scheduled(admin_client, scheduled, emulator):
    told = messages_of(admin_client, confirm(admin_client, "cancel", scheduled))

    scheduled.refresh_from_db()
    assert "Cancelled." in told
    assert scheduled.state == State.CANCELLED
    assert LogEntry.objects.get().change_message == "Cancelled."


def test_too_many_scheduled_ones_are_refused_before_anything_is_done(admin_client):
    scheduled = [make(state=State.SCHEDULED) for _ in range(51)]
    waiting = make(state=State.PENDING)

    meant = " ".join(email.pk.hex for email in [*scheduled, waiting])
    for data in ({}, {"confirmed": "Yes", "meant": meant}):
        told = messages_of(admin_client, run(admin_client, "cancel", *scheduled, waiting, **data))
        assert "Choose at most 50 scheduled emails at once" in told

    assert {email.state for email in Email.objects.all()} == {State.SCHEDULED, State.PENDING}
    assert "Cancelled" not in told


def test_those_that_cannot_be_cancelled_do_not_count_as_too_many(admin_client, scheduled, emulator):
    others = [make(state=State.DELIVERED) for _ in range(55)]

    told = messages_of(admin_client, confirm(admin_client, "cancel", scheduled, *others))

    scheduled.refresh_from_db()
    assert scheduled.state == State.CANCELLED
    assert told == "<b>Tomorrow</b>: Cancelled."


def test_what_has_gone_out_is_not_cancelled_but_looked_at(admin_client, sent, emulator):
    Email.objects.update(state=State.SCHEDULED)

    told = messages_of(admin_client, confirm(admin_client, "cancel", sent))

    sent.refresh_from_db()
    assert "Truncus can no longer cancel it." in told
    assert sent.state in {State.SENT, State.DELIVERED}


def test_what_is_not_scheduled_is_left_alone(admin_client, sent, emulator):
    before = len(emulator.requests)

    told = messages_of(admin_client, confirm_unasked(admin_client, "cancel", sent))

    assert "It is neither scheduled nor waiting." in told
    assert len(emulator.requests) == before


@pytest.mark.parametrize("action", ["sync_now", "cancel"])
def test_what_truncus_does_not_know_is_told(admin_client, emulator, action):
    email = make(state=State.SCHEDULED, message_id="nobody-knows")

    told = messages_of(admin_client, confirm(admin_client, action, email))

    assert "HTTP 404" in told


def test_an_error_about_one_email_leaves_the_others_to_be_tried(admin_client, sent, emulator):
    unknown = make(message_id="nobody-knows", created_at=timezone.now())  # the first

    told = messages_of(admin_client, confirm(admin_client, "sync_now", sent, unknown))

    assert "HTTP 404" in told
    assert "<b>Your tea</b>: Truncus was asked." in told


def test_when_the_account_is_at_fault_the_rest_is_left(admin_client, emulator, settings):
    emails = [make(), make(), make()]
    emulator.reset(revoked_keys=[settings.TRUNCUS["API_KEY"]])

    told = messages_of(admin_client, confirm(admin_client, "sync_now", *emails))

    assert "revoked" in told
    assert "<b>2 emails</b>: Left unchanged." in told
    assert not LogEntry.objects.exists()


def test_without_an_id_there_is_nothing_to_ask(admin_client, emulator):
    email = make(message_id=None)

    told = messages_of(admin_client, confirm_unasked(admin_client, "sync_now", email))

    assert "Truncus has given it no id." in told


def test_too_many_at_once_are_refused(admin_client, emulator):
    emails = [make() for _ in range(51)]

    told = messages_of(admin_client, run(admin_client, "sync_now", *emails))

    assert "at most 50" in told


def test_after_a_button_on_its_page_comes_that_page(admin_client, sent, emulator):
    response = confirm(admin_client, "sync_now", sent, from_page="1")

    assert response["Location"] == page_of(sent)


def test_what_is_gone_meanwhile_is_no_crash(admin_client, sent, emulator):
    ghost = Email(pk=uuid.uuid4())
    for action in ("sync_now", "resend", "cancel", "export_csv"):
        question = run(admin_client, action, ghost)
        assert "is in the log any more" in question.text
        done = confirm_unasked(admin_client, action, ghost, click=str(uuid.uuid4()))
        assert done.status_code in {200, 302}


@pytest.mark.parametrize("action", ["sync_now", "cancel"])
def test_what_is_purged_while_truncus_is_asked_is_told(
    admin_client, scheduled, emulator, monkeypatch, action
):
    name = {"sync_now": "get_email", "cancel": "cancel"}[action]
    ask = getattr(TruncusClient, name)

    def asked(self, message_id):
        Email.objects.all().delete()
        return ask(self, message_id)

    monkeypatch.setattr(TruncusClient, name, asked)
    response = confirm(admin_client, action, scheduled)
    told = messages_of(admin_client, response)
    assert told == "<b>Tomorrow</b>: Was deleted in the meantime."
