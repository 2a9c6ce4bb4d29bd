"""Sending an e-mail again from the admin."""

import uuid

import pytest
from django.contrib.admin.models import LogEntry

from tests.log.admin_pages import confirm, make, messages_of, page_of, run
from truncus_django.models import Email

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
        run(admin_client, "resend", sent, confirmed="Yes", click=click)

    assert Email.objects.count() == 2
    assert emulator.accepted == 2


@pytest.mark.parametrize("click", ["", "x"])
def test_a_confirmation_without_its_mark_sends_nothing(admin_client, sent, emulator, click):
    run(admin_client, "resend", sent, confirmed="Yes", click=click)

    assert emulator.accepted == 1


def test_what_was_not_kept_cannot_be_sent_again(admin_client, emulator):
    email = make()

    told = messages_of(admin_client, confirm(admin_client, "resend", email))

    assert "was not kept" in told
    assert emulator.accepted == 0
    assert "disabled" in admin_client.get(page_of(email)).text


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
