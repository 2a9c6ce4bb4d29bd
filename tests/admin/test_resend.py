"""Sending an email again from the admin."""

import uuid

import pytest
from django.contrib.admin.models import LogEntry

from tests.admin.pages import (
    answer,
    confirm,
    confirm_unasked,
    make,
    messages_of,
    page_of,
    run,
    store,
)
from truncus_django.admin.resend import resend
from truncus_django.api.errors import SendCancelled
from truncus_django.models import Email, OutboxEntry
from truncus_django.signals import pre_send
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_resend_sends_the_same_to_the_same_and_links_both(admin_client, sent, emulator):
    told = messages_of(admin_client, confirm(admin_client, "resend", sent))

    new = Email.objects.exclude(pk=sent.pk).get()
    assert new.resend_of == sent
    assert new.message_id != sent.message_id
    assert (new.subject, new.to, new.cc) == (sent.subject, sent.to, sent.cc)
    assert (new.tenant_id, new.metadata) == ("acme", {"order": "42"})
    assert (new.text_body, new.html_body) == (sent.text_body, sent.html_body)
    assert new.track_clicks is False
    assert new.mailer == sent.mailer
    assert page_of(new) in told
    assert page_of(new) in admin_client.get(page_of(sent)).text
    assert page_of(sent) in admin_client.get(page_of(new)).text
    assert str(new.pk) in LogEntry.objects.get().change_message


def test_one_confirmation_sends_once(admin_client, sent, emulator):
    click = str(uuid.uuid4())
    for _ in range(3):
        confirm_unasked(admin_client, "resend", sent, click=click)

    assert Email.objects.count() == 2
    assert emulator.accepted == 2


@pytest.mark.parametrize("click", ["", "x"])
def test_a_confirmation_without_its_mark_sends_nothing(admin_client, sent, emulator, click):
    confirm_unasked(admin_client, "resend", sent, click=click)

    assert emulator.accepted == 1


def test_what_was_not_kept_cannot_be_sent_again(admin_client, emulator):
    email = make()
    click = str(uuid.uuid4())

    told = messages_of(admin_client, confirm_unasked(admin_client, "resend", email, click=click))

    assert "is not stored" in told
    assert emulator.accepted == 0
    assert "disabled" in admin_client.get(page_of(email)).text


def test_a_resend_says_that_reply_to_and_headers_are_not_kept(admin_client, sent):
    assert "Reply-To and headers of its own" in run(admin_client, "resend", sent).text


def test_a_template_can_be_sent_again_without_its_text(admin_client, emulator):
    email = make(template_id="welcome", attachment_count=2)

    question = run(admin_client, "resend", email)
    confirm(admin_client, "resend", email)

    assert "its attachments (2), the variables of its template" in question.text
    assert Email.objects.get(resend_of=email).template_id == "welcome"


def test_a_resend_that_truncus_refuses_is_told(admin_client, sent, emulator):
    emulator.reset(domains={"example.com": "paused"})

    told = messages_of(admin_client, confirm(admin_client, "resend", sent))

    assert "DOMAIN_PAUSED" in told or "paused" in told
    assert not LogEntry.objects.exists()


def cancel(**facts):
    raise SendCancelled


def take_out(message, **facts):
    message.to.clear()
    message.cc.clear()
    message.bcc.clear()


@pytest.mark.parametrize("receiver", [cancel, take_out])
def test_a_resend_that_a_receiver_keeps_back_is_not_told_as_sent(
    admin_client, sent, emulator, receiver
):
    pre_send.connect(receiver)
    try:
        told = messages_of(admin_client, confirm(admin_client, "resend", sent))
    finally:
        pre_send.disconnect(receiver)

    assert "A pre_send receiver cancelled this email" in told
    assert "Sent again" not in told
    assert emulator.accepted == 1


def confirm_again(client, question) -> str:
    """Answer a question once more, as after the browser's way back; return what is told."""
    return messages_of(client, answer(client, question))


def test_the_confirmation_of_a_resend_that_failed_counts_again(
    admin_client, sent, emulator, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    question = run(admin_client, "resend", sent)
    emulator.faults.next("rate_limit")

    refused = confirm_again(admin_client, question)
    told = confirm_again(admin_client, question)

    assert "Sent again" not in refused
    assert "Sent again." in told
    assert emulator.accepted == 2


@pytest.mark.parametrize("state", [State.FAILED, State.REJECTED, State.CANCELLED, State.EXPIRED])
def test_a_resend_that_never_went_out_is_no_resend(admin_client, sent, emulator, state):
    question = run(admin_client, "resend", sent)
    make(resend_of=sent, state=state)

    assert "Sent again." in confirm_again(admin_client, question)
    assert emulator.accepted == 2


def test_after_a_resend_that_truncus_rejected_the_next_has_another_key(
    admin_client, sent, emulator
):
    emulator.reset(suppressed=["open@example.org"])
    question = run(admin_client, "resend", sent)
    confirm_again(admin_client, question)
    emulator.unsuppress("open@example.org")

    assert "Sent again." in confirm_again(admin_client, question)
    assert emulator.accepted == 1


def test_an_ambiguous_resend_is_shown_and_asked_about_before_another(
    admin_client, sent, emulator, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    question = run(admin_client, "resend", sent)
    emulator.faults.next("reset_before")
    confirm_again(admin_client, question)
    [lost] = Email.objects.filter(resend_of=sent, state=State.UNKNOWN)

    told = confirm_again(admin_client, question)

    assert "May have been sent again before" in told
    assert page_of(lost) in told
    assert emulator.accepted == 1

    question = run(admin_client, "resend", sent)
    assert "may have been sent again before" in question.text
    assert "Sent again." in confirm_again(admin_client, question)
    assert emulator.accepted == 2


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_an_ambiguous_resend_that_was_accepted_is_not_sent_a_second_time(
    admin_client, sent, emulator, settings, dialect
):
    emulator.reset(dialect=dialect)
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0, "DIALECT": dialect}
    Email.objects.update(cc=[])
    emulator.faults.next("reset_after")
    confirm(admin_client, "resend", sent)

    told = messages_of(admin_client, confirm(admin_client, "resend", sent))

    assert emulator.accepted == 1
    if dialect == "sdk":
        assert "Was already sent again, and not sent now." in told


def test_who_knows_of_an_earlier_resend_may_send_another(admin_client, sent, emulator):
    for _ in range(3):
        told = messages_of(admin_client, confirm(admin_client, "resend", sent))
        assert "Sent again." in told

    assert emulator.accepted == 4


def test_who_was_asked_before_somebody_else_confirmed_does_not_send_another(
    admin_client, sent, emulator
):
    question, other = (run(admin_client, "resend", sent) for _ in range(2))

    assert "Sent again." in confirm_again(admin_client, question)
    assert "Was already sent again, and not sent now." in confirm_again(admin_client, other)
    assert emulator.accepted == 2


def test_a_site_that_records_nothing_can_resend_what_it_recorded_once(
    admin_client, sent, emulator, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}

    for _ in range(2):
        assert "Sent again." in messages_of(admin_client, confirm(admin_client, "resend", sent))

    assert emulator.accepted == 3


@pytest.mark.parametrize("known", ["x", "00000000-0000-7000-8000-000000000000", " , "])
def test_nonsense_for_known_resends_is_no_crash(admin_client, sent, emulator, known):
    told = confirm(admin_client, "resend", sent, known_resends=known)

    assert "Sent again." in messages_of(admin_client, told)


def test_two_who_confirm_at_once_send_once(shared_database, sent, emulator, in_threads):
    outcomes = in_threads(*[lambda: resend(sent, click=uuid.uuid4()) for _ in range(6)])

    assert emulator.accepted == 2
    assert Email.objects.filter(resend_of=sent).count() == 1
    assert len({one.record.pk for one in outcomes if one.record}) == 1


def test_a_stored_payload_that_cannot_be_read_is_not_sent_as_less_than_it_was(
    admin_client, sent, emulator
):
    OutboxEntry.objects.create(email=sent, payload="{", size=1, is_waiting=False)

    told = messages_of(admin_client, confirm(admin_client, "resend", sent))

    assert "What was stored of the email cannot be read; it was not sent" in told
    assert emulator.accepted == 1


def test_what_a_worker_could_not_read_is_not_offered_to_be_sent(admin_client):
    email = make(state=State.FAILED, error_code="unreadable_payload", text_body="Hello")
    OutboxEntry.objects.create(email=email, payload="{", size=1, is_waiting=False)

    why_not = {
        each.name: each.why_not for each in admin_client.get(page_of(email)).context["buttons"]
    }

    assert why_not["resend"] == "What the outbox stores of it cannot be read."
    assert "retry" not in why_not
    assert why_not["resend"] in run(admin_client, "retry", email).text


def test_what_was_dropped_after_the_question_is_not_sent_as_less_than_it_was(
    admin_client, sent, emulator
):
    store(sent)
    question = run(admin_client, "resend", sent)
    assert "Reply-To and headers" not in question.text
    OutboxEntry.objects.all().delete()

    told = confirm_again(admin_client, question)

    assert "It has changed since you were asked." in told
    assert emulator.accepted == 1

    question = run(admin_client, "resend", sent)
    assert "Reply-To and headers" in question.text
    assert "Sent again." in confirm_again(admin_client, question)
