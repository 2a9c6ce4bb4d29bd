"""Questions that are answered late: nothing is done to an email as nobody was shown it."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from tests.admin.pages import CHANGED, LOG, answer, confirm, make, messages_of, run, store
from truncus_django.admin import resend
from truncus_django.admin.action_runner import MAX_ROWS
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_what_was_decided_meanwhile_is_not_sent_again(admin_client, emulator):
    email = make(state=State.UNKNOWN, text_body="Hello.")
    question = run(admin_client, "resend", email)
    assert "may have been sent: the answer was lost" in question.text
    confirm(admin_client, "decide_sent", email)

    told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    assert emulator.accepted == 0


def test_emails_are_read_again_before_each_request(admin_client, emulator, monkeypatch):
    emails = [make(subject=f"Order {number}", text_body="Hello.") for number in range(3)]
    question = run(admin_client, "resend", *emails)
    send = resend.resend

    def send_and_change(email: Email, **options: Any) -> Any:
        Email.objects.exclude(pk=email.pk).filter(resend_of=None).update(state=State.BOUNCED)
        return send(email, **options)

    monkeypatch.setattr(resend, "resend", send_and_change)
    told = messages_of(admin_client, answer(admin_client, question))

    assert f"<b>2 emails</b>: {CHANGED}" in told
    assert emulator.accepted == 1


def test_an_answer_from_a_page_of_the_list_that_is_gone_counts(admin_client, emulator):
    emails = [make(state=State.UNKNOWN) for _ in range(101)]
    url = f"{LOG}?state__exact=unknown&p=3"
    question = admin_client.post(
        url, {"action": "decide_sent", "index": "0", "_selected_action": [str(emails[0].pk)]}
    )
    assert f'href="{url}"'.replace("&", "&amp;") in question.text
    Email.objects.filter(pk__in=[email.pk for email in emails[50:]]).delete()

    assert "Marked as sent." in messages_of(admin_client, answer(admin_client, question))
    assert LogEntry.objects.count() == 1


def test_as_many_as_are_allowed_at_once_are_confirmed_in_one_form(admin_client):
    """Each by its id, which databases and Django limit in number."""
    Email.objects.bulk_create(
        Email(state=State.UNKNOWN, message_id=f"m-{number}") for number in range(MAX_ROWS)
    )
    first = str(Email.objects.first().pk)
    chosen = {"index": "0", "select_across": "1", "_selected_action": [first]}
    url = f"{LOG}?state__exact=unknown"
    question = admin_client.post(url, {"action": "decide_not_sent", **chosen})

    told = messages_of(admin_client, answer(admin_client, question))

    assert f"<b>{MAX_ROWS} emails</b>: Marked as not sent." in told
    assert Email.objects.filter(state=State.FAILED).count() == MAX_ROWS


def test_scheduled_ones_that_cannot_be_cancelled_do_not_count(admin_client):
    later = timezone.now() + timedelta(days=1)
    others = [make(state=State.SCHEDULED, message_id=None, send_at=later) for _ in range(51)]
    waiting = make(state=State.PENDING)
    store(waiting)

    question = run(admin_client, "cancel", *others, waiting)

    assert "This is possible for 1 of the 52 chosen emails." in question.text


def test_a_subject_does_not_turn_the_sentence_around_it(admin_client, emulator):
    email = make(state=State.UNKNOWN, subject="Order\u202e 42", text_body="Hello.")

    question = run(admin_client, "resend", email)

    assert "“Order 42” may have been sent" in question.text
    told = messages_of(admin_client, confirm(admin_client, "decide_sent", email))
    assert "<b>Order 42</b>: Marked as sent." in told
