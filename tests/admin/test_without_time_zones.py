"""The admin of a site with ``USE_TZ = False``: every page, at the site's own time."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse

from tests.admin.pages import LOG, confirm, make, messages_of, page_of, run, shown
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _naive(settings: Any) -> None:
    settings.USE_TZ = False


@pytest.fixture
def emails() -> list[Email]:
    """One of five minutes ago, one of the last minute of a year, and one of long ago."""
    now = datetime.now()
    times = [now, datetime(2025, 12, 31, 23, 59, 30), datetime(2020, 2, 3, 0, 0, 30)]
    return [
        make(subject=f"{at:%Y}", created_at=at, sent_at=at, first_opened_at=at, open_count=1)
        for at in times
    ]


def test_the_list_shows_the_sites_own_time(admin_client, emails):
    page = admin_client.get(LOG)

    assert shown(page)[1:] == ["2025", "2020"]
    assert '<time datetime="2025-12-31T23:59:30" title="2025-12-31 23:59:30">' in page.text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("created_at__gte=2020-02-03&created_at__lt=2020-02-04", ["2020"]),
        ("created_at__gte=2025-12-31%2023:59:00&created_at__lt=2026-01-01%2000:00:00", ["2025"]),
        ("created_at__gte=2020-02-02T00:00:00%2B01:00&created_at__lt=2020-02-05T00:00Z", ["2020"]),
        ("q=2025", ["2025"]),
        ("state__exact=delivered&created_at__lt=2026-01-01", ["2025", "2020"]),
    ],
)
def test_filters_and_search(admin_client, emails, query, expected):
    assert shown(admin_client.get(f"{LOG}?{query}")) == expected


def test_every_link_of_the_filter_by_date_leads_to_a_list(admin_client, emails):
    changelist = admin_client.get(LOG).context["cl"]
    [by_date] = [spec for spec in changelist.filter_specs if spec.title == "created"]

    found = {
        str(choice["display"]): len(shown(admin_client.get(LOG + choice["query_string"])))
        for choice in by_date.choices(changelist)
    }

    assert found == {
        "Any date": 3,
        "Today": 1,
        "Past 7 days": 1,
        "This month": 1,
        "This year": 1,
    }


def test_an_emails_page(admin_client, emails):
    email = emails[1]
    EmailEvent.objects.create(
        email=email,
        message_id=email.message_id,
        event_id="e",
        type="opened",
        occurred_at=email.created_at + timedelta(seconds=20),
        source="sync",
    )

    assert "2025-12-31 23:59:50" in admin_client.get(page_of(email)).text


def test_the_dashboard_counts_by_the_sites_own_days(admin_client):
    midnight = datetime.combine(datetime.now().date(), datetime.min.time())
    for at in (midnight, midnight - timedelta(seconds=1), midnight + timedelta(days=1)):
        make(created_at=at)

    context = admin_client.get(reverse("admin:truncus_django_email_dashboard")).context

    assert [row["counts"].sent for row in context["by_day"]] == [1, 1]
    listed = [shown(admin_client.get(f"{LOG}?{row['query']}")) for row in context["by_day"]]
    assert [len(each) for each in listed] == [1, 1]
    assert context["total"].sent == 2


def test_the_export(admin_client, emails):
    response = confirm(admin_client, "export_csv", *emails)

    assert response.status_code == 200
    assert f"emails-{datetime.now():%Y-%m-%d}.csv" in response["Content-Disposition"]
    assert "2025-12-31T23:59:30," in b"".join(response.streaming_content).decode()


def test_the_actions(admin_client, sent, emulator):
    later = TruncusMessage("Later", "x", "shop@example.com", ["ann@example.org"])
    later.send_at = datetime.now() + timedelta(days=1)
    later.send()
    scheduled = Email.objects.get(subject="Later")
    emulator.wait_for(lambda e: "opened" in [event.type for event in e.emails[0].events])

    assert "asked" in messages_of(admin_client, confirm(admin_client, "sync_now", sent))
    assert "Sent again." in messages_of(admin_client, confirm(admin_client, "resend", sent))
    assert "Cancelled." in messages_of(admin_client, confirm(admin_client, "cancel", scheduled))

    sent.refresh_from_db()
    scheduled.refresh_from_db()
    assert (sent.state, scheduled.state) == (State.DELIVERED, State.CANCELLED)
    assert abs(datetime.now() - sent.first_opened_at) < timedelta(minutes=1)
    assert run(admin_client, "cancel", scheduled).status_code == 200
    for email in (sent, scheduled):
        assert admin_client.get(page_of(email)).status_code == 200


def test_deleting(admin_client, emails):
    for url in (f"{LOG}{emails[0].pk}/delete/", f"{LOG}{emails[0].pk}/history/"):
        assert admin_client.get(url).status_code == 200
