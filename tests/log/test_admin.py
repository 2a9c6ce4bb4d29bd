"""The log in the admin: what it shows, to whom, at what cost, and what may be done there."""

import csv
import io
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from truncus_django.admin import filters, paginator
from truncus_django.admin.export import cell
from truncus_django.admin.loose_scan import distinct_values
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db

LOG = "/admin/truncus_django/email/"
HOSTILE = "<script>alert('x')</script>"


def page_of(email: Email) -> str:
    return reverse("admin:truncus_django_email_change", args=[email.pk])


def make(**fields: Any) -> Email:
    """Record an e-mail that was delivered, but for ``fields``."""
    number = Email.objects.count()
    to = fields.pop("to", [f"customer-{number}@example.org"])
    subject = fields.pop("subject", f"Order {number}")
    return Email.objects.create(
        **{
            "state": State.DELIVERED,
            "message_id": f"msg-{number}",
            "to": to,
            "subject": subject,
            "search_text": " ".join([*to, subject]).lower(),
            "from_email": "shop@example.com",
            "sent_at": timezone.now(),
            **fields,
        }
    )


@pytest.fixture
def may(client: Client) -> Callable[..., Client]:
    """Return a function that signs in somebody with these permissions, and no others."""

    def sign_in(*codenames: str) -> Client:
        user = User.objects.create_user("clerk", is_staff=True)
        permissions = Permission.objects.filter(codename__in=codenames)
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        client.force_login(user)
        return client

    return sign_in


def shown(response: Any) -> list[str]:
    """Return the subjects that a list shows."""
    assert response.status_code == 200, response
    return [email.subject for email in response.context["cl"].result_list]


def run(client: Client, action: str, *emails: Email, **data: Any) -> Any:
    """Run an action of the list, as far as its question."""
    chosen = [str(email.pk) for email in emails]
    return client.post(LOG, {"action": action, "_selected_action": chosen, "index": "0", **data})


def confirm(client: Client, action: str, *emails: Email, **data: Any) -> Any:
    """Run an action of the list and answer its question as its page does."""
    question = run(client, action, *emails, **data)
    assert question.status_code == 200, question
    told = {"confirmed": "Yes", "click": str(question.context["click"]), **data}
    return run(client, action, *emails, **told)


def messages_of(client: Client, response: Any) -> str:
    """Return what the page that follows tells the user."""
    assert response.status_code == 302, response
    page = client.get(response["Location"])
    return " ".join(str(message) for message in page.context["messages"])


class TestList:
    def test_each_e_mail_has_its_state_recipients_subject_tenant_and_counts(self, admin_client):
        make(
            to=["ann@example.org", "ben@example.org", "cleo@example.org"],
            subject="Your tea",
            tenant_id="acme",
            open_count=7,
            click_count=3,
            state=State.BOUNCED,
            is_sandbox=True,
        )

        page = admin_client.get(LOG).text

        assert '<span class="truncus-state truncus-bad">bounced</span>' in page
        assert '<span class="truncus-state truncus-sandbox">sandbox</span>' in page
        for text in ("ann@example.org", "+2 more", "Your tea", "acme", ">7<", ">3<"):
            assert text in page

    def test_newest_come_first(self, admin_client):
        now = timezone.now()
        for days in (2, 1, 3):
            make(subject=f"{days} days old", created_at=now - timedelta(days=days))

        assert shown(admin_client.get(LOG)) == ["1 days old", "2 days old", "3 days old"]

    def test_queries_are_few_and_as_many_for_10_e_mails_as_for_200(self, admin_client):
        admin_client.get(LOG)  # what is read once per process

        def queries(**params: str) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(LOG, params).status_code == 200
            return len(captured)

        for _ in range(10):
            make(tenant_id=f"t{_}", mailer=f"m{_}")
        few = queries(), queries(q="order"), queries(state__exact="delivered")
        for _ in range(190):
            make(tenant_id=f"t{_ % 10}", mailer=f"m{_ % 7}", to=["a@example.org"] * 3)
        many = queries(), queries(q="order"), queries(state__exact="delivered")

        assert few == many
        assert max(many) <= 12

    def test_bodies_are_not_read_for_the_list(self, admin_client):
        make(html_body="<p>secret", text_body="secret")

        with CaptureQueriesContext(connection) as captured:
            admin_client.get(LOG)

        assert not [query for query in captured if "html_body" in query["sql"]]

    def test_hostile_text_is_text(self, admin_client):
        email = make(
            subject=HOSTILE,
            to=[f"{HOSTILE}@example.org"],
            tenant_id=HOSTILE,
            mailer=HOSTILE,
            state=State.FAILED,
            error=HOSTILE,
            error_code=HOSTILE,
            reason=HOSTILE,
            message_id=HOSTILE,
            metadata={HOSTILE: HOSTILE},
            attachments=[{"filename": HOSTILE, "content_type": HOSTILE, "size": 1}],
            text_body=f"</pre>{HOSTILE}",
            html_body=HOSTILE,
        )
        make(tenant_id="another", mailer="another")
        EmailEvent.objects.create(
            email=email,
            message_id="x",
            event_id="x",
            type=HOSTILE,
            reason=HOSTILE,
            recipient=HOSTILE,
            occurred_at=timezone.now(),
            source="webhook",
            payload={"url": f"javascript:{HOSTILE}"},
        )

        question = run(admin_client, "resend", email)
        for page in (admin_client.get(LOG), admin_client.get(page_of(email)), question):
            assert page.status_code == 200
            assert HOSTILE not in page.text
            assert "&lt;script&gt;" in page.text
            assert 'href="javascript' not in page.text


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("state__exact=bounced", ["b"]),
            ("tenant_id=acme", ["a"]),
            ("tenant_id=", ["b", "c"]),
            ("mailer=bulk", ["c"]),
            ("is_sandbox__exact=1", ["c"]),
            ("engagement=opened", ["a", "b"]),
            ("engagement=clicked", ["a"]),
            ("engagement=unopened", ["c"]),
            ("created_at__year=2020", ["a"]),
            ("created_at__year=2020&created_at__month=2&created_at__day=3", ["a"]),
            ("created_at__year=2020&created_at__month=3", []),
        ],
    )
    def test_filters_narrow_the_list(self, admin_client, query, expected):
        then = datetime(2020, 2, 3, 12, tzinfo=UTC)
        make(subject="a", tenant_id="acme", open_count=2, click_count=1, created_at=then)
        make(subject="b", state=State.BOUNCED, open_count=1)
        make(subject="c", mailer="bulk", is_sandbox=True)

        assert sorted(shown(admin_client.get(f"{LOG}?{query}"))) == expected

    def test_one_tenant_needs_no_filter(self, admin_client):
        make(tenant_id="acme")
        assert "By tenant" not in admin_client.get(LOG).text

        make(tenant_id="other")
        assert "By tenant" in admin_client.get(LOG).text

    def test_of_many_tenants_one_is_typed(self, admin_client, monkeypatch):
        monkeypatch.setattr(filters, "MOST_CHOICES", 3)
        for number in range(5):
            make(tenant_id=f"tenant-{number}")

        page = admin_client.get(f"{LOG}?q=order&tenant_id=tenant-2")

        assert '<input type="text" name="tenant_id" value="tenant-2"' in page.text
        assert '<input type="hidden" name="q" value="order">' in page.text
        assert "tenant-4" not in page.text
        assert len(shown(page)) == 1

    def test_values_of_a_column_are_found_on_its_index(self):
        for tenant in ("b", "", "a", "b", "c"):
            make(tenant_id=tenant)

        assert distinct_values("tenant_id", limit=10) == ["", "a", "b", "c"]
        assert distinct_values("tenant_id", limit=2) == ["", "a"]

    def test_of_an_empty_log_there_are_none(self):
        assert distinct_values("tenant_id", limit=10) == []

    @pytest.mark.parametrize(
        "query",
        [
            "created_at__year=0",
            "created_at__year=99999",
            "created_at__year=x",
            "created_at__year=2026&created_at__month=13",
            "created_at__year=2026&created_at__month=2&created_at__day=31",
            "p=999",
            "o=9.-9",
            "q=%00",
            "state__exact=nothing",
            "tenant_id=%27%22%00",
            "is_sandbox__exact=maybe",
            "nothing=1",
        ],
    )
    def test_odd_queries_are_no_crash(self, admin_client, query):
        make()
        assert admin_client.get(f"{LOG}?{query}", follow=True).status_code in {200, 400}


class TestCalendar:
    def test_only_periods_in_which_there_can_be_e_mails_are_offered(self, admin_client):
        make(created_at=datetime(2025, 11, 5, 12, tzinfo=UTC))
        make(created_at=datetime(2026, 2, 3, 12, tzinfo=UTC))

        def titles(query: str = "") -> list[str]:
            calendar = admin_client.get(f"{LOG}{query}").context["cl"].calendar
            return [choice["title"] for choice in calendar.choices]

        assert titles() == ["2025", "2026"]
        assert titles("?created_at__year=2025") == ["November 2025", "December 2025"]
        assert titles("?created_at__year=2026") == ["January 2026", "February 2026"]
        days = titles("?created_at__year=2026&created_at__month=2")
        assert days == ["February 1", "February 2", "February 3"]
        day = "?created_at__year=2026&created_at__month=2&created_at__day=3"
        assert titles(day) == ["February 3"]

    def test_within_one_year_months_are_offered_at_once(self, admin_client):
        make(created_at=datetime(2026, 2, 3, 12, tzinfo=UTC))

        page = admin_client.get(LOG)

        assert [one["title"] for one in page.context["cl"].calendar.choices] == ["February 2026"]

    def test_links_keep_what_else_is_chosen(self, admin_client):
        make(created_at=datetime(2026, 2, 3, 12, tzinfo=UTC))

        calendar = admin_client.get(f"{LOG}?q=order&p=1").context["cl"].calendar

        assert "q=order" in calendar.choices[0]["link"]
        assert "created_at__month=2" in calendar.choices[0]["link"]


class TestSearch:
    @pytest.fixture
    def emails(self) -> Email:
        make(subject="Other")
        return make(
            subject="Grüße aus Köln",
            to=["Ann.Lee@Example.org"],
            message_id="msg_1",
            global_message_id="gm_1",
            provider_message_id="0100-ses",
            idempotency_key="order-42",
        )

    @pytest.mark.parametrize(
        "term",
        [
            "ann.lee@example.org",
            "ANN.LEE",
            "grüße",
            "köln ann",
            "  msg_1 ",
            "gm_1",
            "0100-ses",
            "order-42",
        ],
    )
    def test_finds_addresses_words_and_any_id(self, admin_client, emails, term):
        assert shown(admin_client.get(LOG, {"q": term})) == ["Grüße aus Köln"]

    def test_finds_our_own_id_with_and_without_hyphens(self, admin_client, emails):
        for term in (str(emails.pk), emails.pk.hex):
            assert shown(admin_client.get(LOG, {"q": term})) == ["Grüße aus Köln"]

    @pytest.mark.parametrize("term", ["msg_", "köln bonn", "%", "_", "\\", "'", "x" * 10_000])
    def test_finds_nothing_that_does_not_fit(self, admin_client, emails, term):
        assert shown(admin_client.get(LOG, {"q": term})) == []


class TestCount:
    def test_few_are_counted(self, admin_client):
        for _ in range(3):
            make()

        assert "3 e-mails" in admin_client.get(LOG).text

    def test_a_long_filtered_list_is_counted_no_further_than_it_can_be_leafed_through(
        self, admin_client, monkeypatch
    ):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        for _ in range(7):
            make()

        page = admin_client.get(f"{LOG}?state__exact=delivered")

        assert "more than 5 e-mails" in page.text
        assert page.context["cl"].result_count == 5

    def test_a_long_log_is_estimated(self, admin_client, monkeypatch):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        monkeypatch.setattr(paginator, "_estimated_total", lambda: 1_234_567)
        for _ in range(7):
            make()

        assert "about 1,234,567 e-mails" in admin_client.get(LOG).text

    def test_where_there_is_no_estimate_it_is_counted(self, admin_client, monkeypatch):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        monkeypatch.setattr(paginator, "_estimated_total", lambda: None)
        for _ in range(7):
            make()

        assert "7 e-mails" in admin_client.get(LOG).text

    def test_the_databases_estimate_can_be_asked_for(self):
        estimate = paginator._estimated_total()
        assert estimate is None or isinstance(estimate, int)
        assert (estimate is None) == (connection.vendor == "sqlite")


class TestDetail:
    def test_shows_ids_to_copy_events_and_facts(self, admin_client):
        email = make(
            message_id="msg_1",
            global_message_id="gm_1",
            provider_message_id="ses_1",
            idempotency_key="order-42",
            cc=["cleo@example.org"],
            tenant_id="acme",
            metadata={"order": "42"},
            attachments=[{"filename": "a.pdf", "content_type": "application/pdf", "size": 2048}],
            attachment_count=1,
            open_count=1,
            first_opened_at=timezone.now(),
        )
        EmailEvent.objects.create(
            email=email,
            message_id="msg_1",
            event_id="e",
            type="clicked",
            occurred_at=timezone.now(),
            source="webhook",
            payload={"url": "https://example.com/"},
        )

        page = admin_client.get(page_of(email)).text

        for value in (str(email.pk), "msg_1", "gm_1", "ses_1", "order-42"):
            assert f'<code class="truncus-id">{value}</code>' in page
        for text in ("clicked", "https://example.com/", "cleo@example.org", "acme", "42"):
            assert text in page
        assert "a.pdf" in page
        assert "2.0\xa0KB" in page

    def test_tells_what_to_do_about_an_error(self, admin_client):
        email = make(
            state=State.FAILED,
            error_code="DOMAIN_NOT_FOUND",
            error="No such domain (DOMAIN_NOT_FOUND, HTTP 403). Add the sender's domain "
            "(DEFAULT_FROM_EMAIL) in Truncus and verify it.",
        )

        page = admin_client.get(page_of(email)).text

        assert "No such domain" in page
        assert page.count("in Truncus and verify it.") == 1

    @pytest.mark.parametrize(
        ("state", "advice"),
        [
            (State.BOUNCED, "Ask for another address"),
            (State.COMPLAINED, "called it spam"),
            (State.UNKNOWN, "The answer was lost"),
        ],
    )
    def test_tells_what_to_do_about_a_state(self, admin_client, state, advice):
        assert advice in admin_client.get(page_of(make(state=state))).text

    def test_html_is_framed_without_any_permission(self, admin_client):
        email = make(html_body="<h1>Hello</h1>")
        url = reverse("admin:truncus_django_email_html", args=[email.pk])

        page = admin_client.get(page_of(email)).text
        framed = admin_client.get(url)

        assert f'sandbox="" referrerpolicy="no-referrer" src="{url}"' in page
        assert "<h1>Hello</h1>" not in page
        assert framed.text == "<h1>Hello</h1>"
        policy = framed["Content-Security-Policy"]
        for rule in ("sandbox;", "default-src 'none'", "img-src data:", "form-action 'none'"):
            assert rule in policy
        assert framed["X-Content-Type-Options"] == "nosniff"
        assert framed["X-Frame-Options"] == "SAMEORIGIN"
        assert framed["Referrer-Policy"] == "no-referrer"
        assert framed["Cache-Control"].startswith("no-store")

    @pytest.mark.parametrize(
        "html",
        [
            '<link rel="preconnect" href="https://example.com">',
            "<LINK\nrel=preconnect href=//example.com>",
            "<link/rel=preconnect href=//example.com>",
            '<meta http-equiv="refresh" content="0;url=https://example.com">',
            '<iframe srcdoc="&lt;link rel=preconnect href=//example.com>"></iframe>',
        ],
    )
    def test_what_reaches_out_has_another_name_in_the_frame(self, admin_client, html):
        email = make(html_body=html)

        framed = admin_client.get(reverse("admin:truncus_django_email_html", args=[email.pk])).text

        assert framed == html.replace("<", "<x-", 1)

    def test_links_lead_nowhere_in_the_frame(self, admin_client):
        email = make(html_body='<A HREF="https://example.com">a</A><area\nhref=x><abbr>b</abbr>')

        framed = admin_client.get(reverse("admin:truncus_django_email_html", args=[email.pk])).text

        assert framed == (
            '<A inert HREF="https://example.com">a</A><area inert\nhref=x><abbr>b</abbr>'
        )

    def test_other_elements_keep_their_names(self, admin_client):
        html = "<links><linkx>a < link</linkx><p>&lt;meta&gt;</p><b>Grüße 😀"
        email = make(html_body=html)

        url = reverse("admin:truncus_django_email_html", args=[email.pk])

        assert admin_client.get(url).text == html

    def test_without_html_there_is_no_frame(self, admin_client):
        email = make()
        url = reverse("admin:truncus_django_email_html", args=[email.pk])

        assert "<iframe" not in admin_client.get(page_of(email)).text
        assert admin_client.get(url).status_code == 404
        other = reverse("admin:truncus_django_email_html", args=[uuid.uuid4()])
        assert admin_client.get(other).status_code == 404

    def test_queries_do_not_grow_with_events(self, admin_client):
        email = make(html_body="<p>x")
        admin_client.get(page_of(email))

        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(page_of(email)).status_code == 200
            return len(captured)

        few = queries()
        now = timezone.now()
        EmailEvent.objects.bulk_create(
            EmailEvent(
                email=email,
                message_id="m",
                event_id=f"e{number}",
                type="opened",
                occurred_at=now - timedelta(minutes=number),
                source="sync",
            )
            for number in range(300)
        )

        assert queries() == few
        page = admin_client.get(page_of(email))
        assert len(page.context["timeline"]) == 202
        assert "There are older events" in page.text

    @pytest.mark.parametrize("name", ["00000000-0000-7000-8000-000000000000", "x", "1"])
    def test_what_does_not_exist_leads_back(self, admin_client, name):
        assert admin_client.get(f"{LOG}{name}/change/").status_code == 302

    def test_nothing_can_be_changed_here(self, admin_client):
        email = make()

        assert admin_client.post(page_of(email), {"subject": "Other"}).status_code == 405
        assert admin_client.get(f"{LOG}add/").status_code == 403
        email.refresh_from_db()
        assert email.subject == "Order 0"


class TestPermissions:
    def test_nobody_sees_anything_without_permission(self, may):
        email = make(html_body="<p>x")
        clerk = may()

        for url in (
            LOG,
            page_of(email),
            f"{LOG}dashboard/",
            reverse("admin:truncus_django_email_html", args=[email.pk]),
        ):
            assert clerk.get(url).status_code == 403

    def test_who_is_not_signed_in_is_sent_to_the_login(self, client):
        email = make(html_body="<p>x")
        for url in (page_of(email), reverse("admin:truncus_django_email_html", args=[email.pk])):
            assert client.get(url)["Location"].startswith("/admin/login/")

    def test_who_may_only_view_finds_nothing_to_do(self, may):
        email = make()
        clerk = may("view_email")

        assert "Run" not in clerk.get(LOG).text
        page = clerk.get(page_of(email)).text
        assert 'name="action"' not in page
        assert "/delete/" not in page
        assert clerk.get(f"{LOG}dashboard/").status_code == 200

    @pytest.mark.parametrize("action", ["sync_now", "resend", "cancel", "export_csv"])
    def test_an_action_needs_its_own_permission(self, may, action, emulator):
        email = make(state=State.SCHEDULED, text_body="x")
        others = {"sync_email", "resend_email", "cancel_email", "export_email"}
        mine = {"sync_now": "sync_email", "export_csv": "export_email"}.get(
            action, f"{action}_email"
        )
        clerk = may("view_email", *(others - {mine}))

        run(clerk, action, email, confirmed="Yes", click=str(uuid.uuid4()))

        assert f'value="{action}"' not in clerk.get(page_of(email)).text
        assert not LogEntry.objects.exists()
        assert emulator.requests == []

    def test_deleting_is_as_everywhere(self, may):
        email = make()
        EmailEvent.objects.create(
            email=email, message_id="m", event_id="e", type="x", occurred_at=timezone.now()
        )
        clerk = may("view_email", "delete_email")

        assert "/delete/" in clerk.get(page_of(email)).text
        response = clerk.post(f"{LOG}{email.pk}/delete/", {"post": "yes"})

        assert response.status_code == 302
        assert not Email.objects.exists()

    def test_an_action_is_no_get(self, admin_client, emulator):
        email = make()
        admin_client.get(f"{LOG}?action=sync_now&_selected_action={email.pk}&confirmed=1")
        assert emulator.requests == []

    def test_an_action_needs_the_csrf_token(self, admin_user, emulator):
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(admin_user)
        email = make()

        response = run(strict, "sync_now", email, confirmed="Yes")

        assert response.status_code == 403
        assert emulator.requests == []


class TestActions:
    @pytest.fixture
    def sent(self, emulator, settings) -> Email:
        """An e-mail that the emulator has, with its bodies."""
        settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
        TruncusMessage(
            "Your tea",
            "It is on its way.",
            "shop@example.com",
            ["open@example.org"],
            html="<p>It is on its way.</p>",
            cc=["copy@example.org"],
            tenant_id="acme",
            metadata={"order": "42"},
            track_clicks=False,
        ).send()
        return Email.objects.get()

    @pytest.fixture
    def scheduled(self, emulator) -> Email:
        TruncusMessage(
            "Tomorrow",
            "Soon.",
            "shop@example.com",
            ["ann@example.org"],
            send_at=timezone.now() + timedelta(days=1),
        ).send()
        return Email.objects.get()

    def test_every_action_asks_first(self, admin_client, sent, emulator):
        before = len(emulator.requests)
        for action in ("sync_now", "resend", "cancel", "export_csv"):
            question = run(admin_client, action, sent)
            assert question.status_code == 200
            assert 'name="confirmed"' in question.text
            assert "Your tea" in question.text

        assert len(emulator.requests) == before
        assert not LogEntry.objects.exists()

    def test_sync_asks_truncus_and_learns(self, admin_client, sent, emulator):
        emulator.wait_for(lambda e: "opened" in [event.type for event in e.emails[0].events])

        told = messages_of(admin_client, confirm(admin_client, "sync_now", sent))

        sent.refresh_from_db()
        assert "Truncus was asked; still delivered." in told
        assert (sent.state, sent.open_count) == (State.DELIVERED, 1)
        [entry] = LogEntry.objects.all()
        assert entry.object_id == str(sent.pk)
        assert "Truncus was asked" in entry.change_message

    def test_resend_sends_the_same_to_the_same_and_links_both(self, admin_client, sent, emulator):
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

    def test_one_confirmation_sends_once(self, admin_client, sent, emulator):
        click = str(uuid.uuid4())
        for _ in range(3):
            run(admin_client, "resend", sent, confirmed="Yes", click=click)

        assert Email.objects.count() == 2
        assert emulator.accepted == 2

    @pytest.mark.parametrize("click", ["", "x"])
    def test_a_confirmation_without_its_mark_sends_nothing(
        self, admin_client, sent, emulator, click
    ):
        run(admin_client, "resend", sent, confirmed="Yes", click=click)

        assert emulator.accepted == 1

    def test_what_was_not_kept_cannot_be_sent_again(self, admin_client, emulator):
        email = make()

        told = messages_of(admin_client, confirm(admin_client, "resend", email))

        assert "was not kept" in told
        assert emulator.accepted == 0
        assert "disabled" in admin_client.get(page_of(email)).text

    def test_a_template_can_be_sent_again_without_its_text(self, admin_client, emulator):
        email = make(template_id="welcome", attachment_count=2)

        question = run(admin_client, "resend", email)
        confirm(admin_client, "resend", email)

        assert "its attachments (2), the variables of its template" in question.text
        assert Email.objects.get(resend_of=email).template_id == "welcome"

    def test_a_resend_that_truncus_refuses_is_told(self, admin_client, sent, emulator):
        emulator.reset(domains={"example.com": "paused"})

        told = messages_of(admin_client, confirm(admin_client, "resend", sent))

        assert "DOMAIN_PAUSED" in told or "paused" in told
        assert not LogEntry.objects.exists()

    def test_a_mailer_that_is_gone_is_told(self, admin_client, emulator):
        email = make(mailer="gone", text_body="x")

        for action in ("resend", "sync_now"):
            assert "gone" in messages_of(admin_client, confirm(admin_client, action, email))

    def test_cancel_cancels_what_is_scheduled(self, admin_client, scheduled, emulator):
        told = messages_of(admin_client, confirm(admin_client, "cancel", scheduled))

        scheduled.refresh_from_db()
        assert "Cancelled." in told
        assert scheduled.state == State.CANCELLED
        assert LogEntry.objects.get().change_message == "Cancelled."

    def test_what_has_gone_out_is_not_cancelled_but_looked_at(self, admin_client, sent, emulator):
        Email.objects.update(state=State.SCHEDULED)

        told = messages_of(admin_client, confirm(admin_client, "cancel", sent))

        sent.refresh_from_db()
        assert "does not cancel it any more" in told
        assert sent.state in {State.SENT, State.DELIVERED}

    def test_what_is_not_scheduled_is_left_alone(self, admin_client, sent, emulator):
        before = len(emulator.requests)

        told = messages_of(admin_client, confirm(admin_client, "cancel", sent))

        assert "It is not scheduled." in told
        assert len(emulator.requests) == before

    @pytest.mark.parametrize("action", ["sync_now", "cancel"])
    def test_what_truncus_does_not_know_is_told(self, admin_client, emulator, action):
        email = make(state=State.SCHEDULED, message_id="nobody-knows")

        told = messages_of(admin_client, confirm(admin_client, action, email))

        assert "HTTP 404" in told

    def test_when_the_account_is_at_fault_the_rest_is_left(self, admin_client, emulator, settings):
        emails = [make(), make(), make()]
        emulator.reset(revoked_keys=[settings.TRUNCUS["API_KEY"]])

        told = messages_of(admin_client, confirm(admin_client, "sync_now", *emails))

        assert "revoked" in told
        assert "2 e-mails were left as they are." in told
        assert not LogEntry.objects.exists()

    def test_without_an_id_there_is_nothing_to_ask(self, admin_client, emulator):
        email = make(message_id=None)

        told = messages_of(admin_client, confirm(admin_client, "sync_now", email))

        assert "Truncus has given it no id." in told

    def test_too_many_at_once_are_refused(self, admin_client, emulator, monkeypatch):
        monkeypatch.setattr("truncus_django.admin.actions.MOST_AT_ONCE", 2)
        emails = [make(), make(), make()]

        told = messages_of(admin_client, run(admin_client, "sync_now", *emails))

        assert "at most 2" in told

    def test_after_a_button_on_its_page_comes_that_page(self, admin_client, sent, emulator):
        response = confirm(admin_client, "sync_now", sent, from_page="1")

        assert response["Location"] == page_of(sent)

    def test_nonsense_for_an_id_is_told(self, admin_client, emulator):
        response = admin_client.post(
            LOG, {"action": "sync_now", "_selected_action": "nonsense", "index": "0"}
        )

        assert "There is no such e-mail." in messages_of(admin_client, response)

    def test_what_is_gone_meanwhile_is_no_crash(self, admin_client, sent, emulator):
        ghost = Email(pk=uuid.uuid4())
        for action in ("sync_now", "resend", "cancel", "export_csv"):
            question = run(admin_client, action, ghost)
            assert "is there any more" in question.text
            done = run(admin_client, action, ghost, confirmed="Yes", click=str(uuid.uuid4()))
            assert done.status_code in {200, 302}


class TestExport:
    def rows(self, response: Any) -> list[dict[str, str]]:
        assert response.status_code == 200
        text = b"".join(response.streaming_content).decode()
        return list(csv.DictReader(io.StringIO(text)))

    def test_holds_everything_but_bodies(self, admin_client):
        email = make(
            to=["a@example.org", "b@example.org"],
            subject="Tea, hot",
            text_body="secret",
            html_body="secret",
            tenant_id="acme",
        )

        response = confirm(admin_client, "export_csv", email)
        [row] = self.rows(response)

        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert "attachment" in response["Content-Disposition"]
        assert row["id"] == str(email.pk)
        assert row["to"] == "a@example.org, b@example.org"
        assert row["subject"] == "Tea, hot"
        assert row["state"] == "delivered"
        assert "secret" not in "".join(row.values())

    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
    def test_formulas_are_defused(self, admin_client, start):
        email = make(subject=f"{start}HYPERLINK(1)", to=[f"{start}x@example.org"])

        [row] = self.rows(confirm(admin_client, "export_csv", email))

        assert row["subject"] == f"'{start}HYPERLINK(1)"
        assert row["to"] == f"'{start}x@example.org"

    def test_cells(self):
        moment = datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
        assert cell(None) == ""
        assert cell(True) == "yes"
        assert cell(moment) == "2026-02-03T04:05:06+00:00"
        assert cell(["=x", "y"]) == "'=x, y"

    def test_all_that_fits_the_filters_can_be_taken_at_once(self, admin_client):
        for _ in range(60):
            make()
        for _ in range(3):
            other = make(state=State.BOUNCED)

        data = {
            "action": "export_csv",
            "index": "0",
            "select_across": "1",
            "_selected_action": str(other.pk),
        }
        question = admin_client.post(f"{LOG}?state__exact=delivered", data)
        assert 'name="select_across" value="1"' in question.text
        response = admin_client.post(f"{LOG}?state__exact=delivered", {**data, "confirmed": "Yes"})

        assert len(self.rows(response)) == 60
        assert LogEntry.objects.get().object_repr == "60 e-mails"

    def test_it_is_noted_on_the_e_mail_or_for_all(self, admin_client):
        one, two = make(), make()

        confirm(admin_client, "export_csv", one)
        confirm(admin_client, "export_csv", one, two)

        notes = LogEntry.objects.order_by("pk").values_list("object_id", "change_message")
        assert list(notes) == [(str(one.pk), "Exported as CSV."), (None, "Exported as CSV.")]


@pytest.mark.parametrize(
    "query",
    [
        {"created_at__year": "9999"},
        {"created_at__year": "99999999999999999999"},
        {"created_at__gte": "0001-01-01 00:00:00+14:00"},
        {"q": "a " * 1200},
        {"q": "x" * 12_000},
    ],
)
def test_foreign_values_in_the_url_are_no_server_error(admin_client, query):
    response = admin_client.get("/admin/truncus_django/email/", query, follow=True)
    assert response.status_code == 200
