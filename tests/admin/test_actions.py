"""The actions of the admin: a question first, then what becomes of it."""

import uuid
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from tests.admin.pages import confirm, make, messages_of, page_of, run
from truncus_django.admin.actions import ACTIONS
from truncus_django.api.client import TruncusClient
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_every_action_needs_a_permission_that_there_is():
    assert {action.permission for action in ACTIONS} == dict(Email._meta.permissions).keys()


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_every_action_asks_first(admin_client, sent, emulator, action):
    before = len(emulator.requests)

    question = run(admin_client, action.name, sent)

    assert 'name="confirmed"' in question.text
    assert str(action.question) in unescape(question.text)
    assert "Your tea" in question.text
    assert len(emulator.requests) == before
    assert not LogEntry.objects.exists()


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


def test_what_has_gone_out_is_not_cancelled_but_looked_at(admin_client, sent, emulator):
    Email.objects.update(state=State.SCHEDULED)

    told = messages_of(admin_client, confirm(admin_client, "cancel", sent))

    sent.refresh_from_db()
    assert "Truncus can no longer cancel it." in told
    assert sent.state in {State.SENT, State.DELIVERED}


def test_what_is_not_scheduled_is_left_alone(admin_client, sent, emulator):
    before = len(emulator.requests)

    told = messages_of(admin_client, confirm(admin_client, "cancel", sent))

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

    told = messages_of(admin_client, confirm(admin_client, "sync_now", email))

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
        done = run(admin_client, action, ghost, confirmed="Yes", click=str(uuid.uuid4()))
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
