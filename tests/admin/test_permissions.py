"""Who may see and do what in the admin."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.admin.pages import LOG, confirm_unasked, make, page_of
from truncus_django.models import Email, EmailEvent

pytestmark = pytest.mark.django_db


def test_nobody_sees_anything_without_permission(may):
    email = make(html_body="<p>x")
    clerk = may()

    for url in (
        LOG,
        page_of(email),
        f"{LOG}dashboard/",
        reverse("admin:truncus_django_email_html", args=[email.pk]),
    ):
        assert clerk.get(url).status_code == 403


def test_who_is_not_signed_in_is_sent_to_the_login(client):
    email = make(html_body="<p>x")
    for url in (page_of(email), reverse("admin:truncus_django_email_html", args=[email.pk])):
        assert client.get(url)["Location"].startswith("/admin/login/")


def test_who_may_only_view_finds_nothing_to_do(may):
    email = make()
    clerk = may("view_email")

    assert "Run" not in clerk.get(LOG).text
    page = clerk.get(page_of(email)).text
    assert 'name="action"' not in page
    assert "/delete/" not in page
    assert clerk.get(f"{LOG}dashboard/").status_code == 200


def test_deleting_is_as_everywhere(may):
    email = make()
    EmailEvent.objects.create(
        email=email, message_id="m", event_id="e", type="x", occurred_at=timezone.now()
    )
    clerk = may("view_email", "delete_email")

    assert "/delete/" in clerk.get(page_of(email)).text
    response = clerk.post(f"{LOG}{email.pk}/delete/", {"post": "yes"})

    assert response.status_code == 302
    assert not Email.objects.exists()


def test_an_action_is_no_get(admin_client, emulator):
    email = make()
    admin_client.get(f"{LOG}?action=sync_now&_selected_action={email.pk}&confirmed=1")
    assert emulator.requests == []


def test_an_action_needs_the_csrf_token(admin_user, emulator):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_user)
    email = make()

    response = confirm_unasked(strict, "sync_now", email)

    assert response.status_code == 403
    assert emulator.requests == []
