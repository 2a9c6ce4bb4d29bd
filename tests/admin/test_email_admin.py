"""The list of emails in the admin: what it shows, finds and counts, and at what cost."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.pages import LOG, make, page_of, run, shown
from truncus_django.admin import filters, paginator
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert('x')</script>"


class TestList:
    def test_each_email_has_its_state_recipients_subject_tenant_and_counts(self, admin_client):
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

    def test_queries_are_few_and_as_many_for_10_emails_as_for_200(self, admin_client):
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
            ("tenant_id=a%00", []),
            ("mailer=bulk", ["c"]),
            ("is_sandbox__exact=1", ["c"]),
            ("engagement=opened", ["a", "b"]),
            ("engagement=clicked", ["a"]),
            ("engagement=unopened", ["c"]),
            ("created_at__gte=2020-02-03 00:00:00Z&created_at__lt=2020-02-04 00:00:00Z", ["a"]),
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

        assert "3 emails" in admin_client.get(LOG).text

    def test_a_long_filtered_list_is_counted_no_further_than_it_can_be_leafed_through(
        self, admin_client, monkeypatch
    ):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        for _ in range(7):
            make()

        page = admin_client.get(f"{LOG}?state__exact=delivered")

        assert "more than 5 emails" in page.text
        assert page.context["cl"].result_count == 5

    def test_a_long_log_is_estimated(self, admin_client, monkeypatch):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        monkeypatch.setattr(paginator, "estimated_count", lambda rows: 1_234_567)
        for _ in range(7):
            make()

        assert "about 1,234,567 emails" in admin_client.get(LOG).text

    def test_where_there_is_no_estimate_it_is_counted(self, admin_client, monkeypatch):
        monkeypatch.setattr(paginator, "COUNT_LIMIT", 5)
        monkeypatch.setattr(paginator, "estimated_count", lambda rows: None)
        for _ in range(7):
            make()

        assert "7 emails" in admin_client.get(LOG).text


def test_a_state_of_a_later_version_is_shown_as_it_is(admin_client):
    make(state="archived")
    assert "archived" in admin_client.get(LOG).text
