"""Forgetting a recipient from the admin."""

import pytest
from django.contrib.admin.models import LogEntry

from tests.admin.pages import LOG, answer, confirm, confirm_unasked, make, messages_of, page_of, run
from truncus_django.models import Email
from truncus_django.sending.forgotten import FORGOTTEN
from truncus_django.states import State

pytestmark = pytest.mark.django_db

ANN = "Ann <ann@example.org>"


def test_the_question_names_whom_to_choose_and_one_is_forgotten_everywhere(admin_client):
    email = make(to=["bob@example.org", ANN])
    other = make(to=["ANN@example.org"])
    joann = make(to=["joann@example.org"])

    question = run(admin_client, "forget", email)
    assert question.context["asked"].choices == ["bob@example.org", ANN]
    asked = "Whom do you want to forget? This cannot be undone."
    assert f"<fieldset><legend><strong>{asked}</strong></legend>" in question.text
    assert question.text.count(asked) == 1
    told = messages_of(admin_client, answer(admin_client, question, choice=ANN))

    assert "Removed the address from 2 emails." in told
    tos = {each.pk: each.to for each in Email.objects.all()}
    assert tos == {
        email.pk: ["bob@example.org", FORGOTTEN],
        other.pk: [FORGOTTEN],
        joann.pk: ["joann@example.org"],
    }
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == (
        str(email.pk),
        "Removed the address from 2 emails.",
    )
    page = admin_client.get(page_of(email)).text
    assert "Address removed" in page
    assert "Its text is not stored, as somebody was forgotten." in page


def test_without_the_permission_there_is_no_such_action(may):
    email = make(to=[ANN])
    client = may("view_email", "delete_email", "resend_email", "export_email")
    assert 'value="forget"' not in client.get(LOG).text
    assert "Forget a recipient" not in client.get(page_of(email)).text
    confirm_unasked(client, "forget", email, choice=ANN)
    email.refresh_from_db()
    assert email.to == [ANN]


def test_with_the_permission_there_is(may):
    email = make(to=[ANN])
    client = may("view_email", "forget_email")
    assert "Forget a recipient" in client.get(page_of(email)).text
    confirm(client, "forget", email, choice=ANN)
    email.refresh_from_db()
    assert email.to == [FORGOTTEN]
    assert LogEntry.objects.get().change_message == "Removed the address from 1 email."


def test_somebody_who_is_not_in_the_email_is_not_forgotten(admin_client):
    email, other = make(to=[ANN]), make(to=["bob@example.org"])
    for choice in ("bob@example.org", email.from_email, "", FORGOTTEN):
        response = confirm(admin_client, "forget", email, choice=choice)
        assert "Choose whom to forget." in messages_of(admin_client, response)
    other.refresh_from_db()
    assert other.to == ["bob@example.org"]


def test_one_email_at_a_time(admin_client):
    response = run(admin_client, "forget", make(), make())
    assert "Choose 1 email at a time." in messages_of(admin_client, response)


def test_what_waits_is_told(admin_client):
    email = make(to=[ANN])
    make(to=[ANN], state=State.UNKNOWN)
    told = messages_of(admin_client, confirm(admin_client, "forget", email, choice=ANN))
    assert "1 email is left as it is until it is finished." in told


def test_nobody_is_left_to_forget_or_to_send_to(admin_client):
    email = make(to=[ANN], text_body="Hello", from_email="")
    confirm(admin_client, "forget", email, choice=ANN)
    page = admin_client.get(page_of(email)).text
    assert "Forget a recipient" not in page
    assert "One of its recipients, or its sender, was forgotten." in page


def test_a_name_is_shown_as_text(admin_client):
    email = make(to=['"<script>x</script>" <ann@example.org>'])
    page = run(admin_client, "forget", email).text
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
