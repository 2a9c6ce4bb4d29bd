"""The list of emails in the admin: what it shows, finds and counts, and at what cost."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.pages import LOG, make, page_of, run, shown
from truncus_django.admin import changelist, filters, paginator, search
from truncus_django.admin.email_admin import EmailAdmin
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
        for text in ("ann@example.org", "+2 more", "Your tea", "acme", "7 opens", "3 clicks"):
            assert text in page

    def test_the_time_follows_the_state(self, admin_client):
        make()

        assert admin_client.get(LOG).context["cl"].list_display[1:3] == ["state_label", "sent"]

    @pytest.mark.parametrize(
        ("fields", "shown_reason"),
        [
            ({"state": State.BOUNCED, "reason": "mailbox_full"}, "mailbox full"),
            ({"state": State.DEFERRED, "reason": "greylisted_again"}, "greylisted again"),
            (
                {"state": State.FAILED, "error_code": "DOMAIN_NOT_VERIFIED"},
                "sender&#x27;s domain not verified",
            ),
        ],
    )
    def test_the_reason_stands_under_the_state(self, admin_client, fields, shown_reason):
        make(**fields)

        line = f'<span class="truncus-reason" title="{shown_reason}">{shown_reason}</span>'
        assert line in admin_client.get(LOG).text

    def test_what_waits_has_the_error_of_its_last_request_beside_it_alone(self, admin_client):
        make(state=State.PENDING, error_code="RATE_LIMIT_MINUTE", sent_at=None)

        assert "truncus-reason" not in admin_client.get(LOG).text

    def test_what_the_page_may_cut_off_is_whole_in_its_title(self, admin_client):
        make(subject="s" * 300, tenant_id="t" * 200, to=[f"{'a' * 60}@{'b' * 60}.example.org"])

        page = admin_client.get(LOG).text

        for whole in ("s" * 300, "t" * 200, f"{'a' * 60}@{'b' * 60}.example.org"):
            assert f'title="{whole}"' in page

    def test_newest_come_first(self, admin_client):
        now = timezone.now()
        for days in (2, 1, 3):
            make(subject=f"{days} days old", created_at=now - timedelta(days=days))

        assert shown(admin_client.get(LOG)) == ["1 days old", "2 days old", "3 days old"]

    @pytest.mark.parametrize("state", State)
    def test_only_of_what_is_still_to_be_sent_it_tells_for_when(self, admin_client, state):
        email = make(state=state, sent_at=None, send_at=timezone.now() + timedelta(days=1))

        in_list = admin_client.get(LOG).text
        in_question = run(admin_client, "export_csv", email).text

        assert ("for <time" in in_list) is (state == State.SCHEDULED)
        is_to_be_sent = state in {State.PENDING, State.SENDING, State.SCHEDULED}
        assert ("for <time" in in_question) is is_to_be_sent

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


class TestEmptyList:
    @pytest.mark.parametrize(
        ("query", "sentence", "links"),
        [
            ("?q=nobody", "No email matches this search.", ["?"]),
            ("?state__exact=bounced", "No email matches these filters.", ["?"]),
            (
                "?q=nobody&state__exact=bounced&o=2",
                "No email matches this search and these filters.",
                ["?o=2&amp;state__exact=bounced", "?o=2&amp;q=nobody", "?"],
            ),
        ],
    )
    def test_it_says_why_and_removes_it(self, admin_client, query, sentence, links):
        make()

        page = admin_client.get(LOG + query).text

        assert sentence in page
        _, _, below = page.partition(sentence)
        assert re.findall(r'href="([^"]*)"', below)[: len(links)] == links
        assert 'name="action"' not in page
        assert "0 of 0 selected" not in page
        assert "action-counter" not in page

    def test_before_the_first_email_it_says_how_to_send_one(self, admin_client):
        page = admin_client.get(LOG).text

        assert "No email is recorded yet." in page
        assert "manage.py sendtestemail" in page
        assert 'name="action"' not in page
        assert "0 emails" not in page


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("state__exact=bounced", ["b"]),
            ("tenant_id=acme", ["a"]),
            ("tenant_id=", ["b", "c"]),
            ("tenant_id=a%00", []),
            ("reason__exact=a%00", []),
            ("state__in=bounced,%00", []),
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
        monkeypatch.setattr(filters, "MAX_CHOICES", 3)
        for number in range(5):
            make(tenant_id=f"tenant-{number}")

        page = admin_client.get(f"{LOG}?q=order&tenant_id=tenant-2")

        assert '<input type="text" name="tenant_id" value="tenant-2"' in page.text
        assert '<input type="hidden" name="q" value="order">' in page.text
        assert "tenant-4" not in page.text
        assert len(shown(page)) == 1

    @pytest.mark.parametrize(
        ("query", "has_link"), [("", False), ("tenant_id=", True), ("tenant_id=tenant-2", True)]
    )
    def test_a_typed_tenant_or_none_leads_back_to_all(
        self, admin_client, monkeypatch, query, has_link
    ):
        monkeypatch.setattr(filters, "MAX_CHOICES", 3)
        for number in range(5):
            make(tenant_id=f"tenant-{number}")

        page = admin_client.get(f"{LOG}?{query}").text

        form = re.search(r'<form method="get" class="truncus-typed-filter">.*?</form>', page, re.S)
        assert (">All</a>" in form[0]) is has_link
        assert "None" not in form[0]


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

    @pytest.mark.parametrize("most", [0, 200])
    def test_finds_an_address_whether_few_or_many_have_its_mailbox(
        self, admin_client, monkeypatch, most
    ):
        monkeypatch.setattr(search, "_MAX_TO_ONE_MAILBOX", most)
        make(subject="Order", to=["ann.lee@example.org"])
        make(subject="Bill", to=["ann.lee@example.org"])
        make(subject="Order of another", to=["ann.lee@example.com"])
        make(subject="Order of Joann", to=["joann.lee@example.org"])

        def found(term: str) -> list[str]:
            return sorted(shown(admin_client.get(LOG, {"q": term})))

        assert found("Ann.Lee@example.org") == ["Bill", "Order", "Order of Joann"]
        assert found("order ann.lee@example.org") == ["Order", "Order of Joann"]
        assert found("ann.lee@example.com ann.lee@example.org") == []
        assert found("lee@") == ["Bill", "Order", "Order of Joann", "Order of another"]
        assert found("@example.com") == ["Order of another"]


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

    def test_what_is_searched_for_is_counted_less_far(self, admin_client, monkeypatch):
        monkeypatch.setattr(paginator, "SEARCH_COUNT_LIMIT", 5)
        monkeypatch.setattr(EmailAdmin, "list_per_page", 2)
        for _ in range(7):
            make()

        page = admin_client.get(f"{LOG}?q=order")

        assert "more than 5 emails" in page.text
        assert page.context["cl"].result_count == 5

    @pytest.mark.parametrize("newest", [1, 3, 4, 100])
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("q=order", ["Order 6", "Order 5"]),
            ("q=order&p=2", ["Order 4", "Order 3"]),
            ("q=order&o=2", ["Order 0", "Order 1"]),
        ],
    )
    def test_pages_of_a_long_search_are_the_same_however_they_are_read(
        self, admin_client, monkeypatch, newest, query, expected
    ):
        monkeypatch.setattr(paginator, "SEARCH_COUNT_LIMIT", 5)
        monkeypatch.setattr(changelist, "NEWEST", newest)
        monkeypatch.setattr(EmailAdmin, "list_per_page", 2)
        for number in range(7):
            make(created_at=timezone.now() + timedelta(minutes=number))

        assert shown(admin_client.get(f"{LOG}?{query}")) == expected

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
