"""Links into the filtered list, as the dashboard has them: they work, are shown and are removed."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from tests.admin.pages import LOG, make, shown
from truncus_django.states import State

pytestmark = pytest.mark.django_db

DAY = "created_at__gte=2026-11-28&created_at__lt=2026-11-29"


def active(response: Any) -> list[tuple[str, str]]:
    """Return what the list shows as narrowing it."""
    assert response.status_code == 200
    for each in response.context["cl"].active_filters:
        assert f": <b>{each.text}</b>" in response.text
    return [(each.name, each.text) for each in response.context["cl"].active_filters]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", []),
        ("q=order&o=2&p=1", []),
        ("state__exact=bounced", [("state", "bounced")]),
        ("state__exact=archived", [("state", "archived")]),
        ("state__in=bounced,failed", [("state", "bounced, failed")]),
        (
            "reason__exact=mailbox_full&state__exact=bounced",
            [("reason", "mailbox full"), ("state", "bounced")],
        ),
        ("reason__exact=greylisted_twice", [("reason", "greylisted twice")]),
        ("outbox_entry__isnull=False", [("content", "stored in the outbox")]),
        ("outbox_entry__isnull=1", [("content", "not stored in the outbox")]),
        ("tenant_id=acme", [("tenant", "acme")]),
        ("tenant_id__exact=acme", [("tenant", "acme")]),
        ("tenant_id=", [("tenant", "(none)")]),
        ("mailer=bulk", [("mailer", "bulk")]),
        ("is_sandbox__exact=0", [("sandbox", "No")]),
        ("is_sandbox__exact=1", [("sandbox", "Yes")]),
        ("engagement=unopened", [("engagement", "not opened")]),
        ("engagement=opened&engagement=unopened", [("engagement", "not opened")]),
        ("tenant_id=acme&tenant_id=other", [("tenant", "other")]),
        ("state__in=bounced&state__in=failed", [("state", "bounced, failed")]),
        ("reason__exact=&state__exact=bounced", [("reason", "(none)"), ("state", "bounced")]),
        (
            "created_at__gte=2026-11-29&created_at__lt=2026-11-28",
            [("created", "11/29/2026 – 11/28/2026")],
        ),
        ("subject__contains=tea", [("subject", "contains tea")]),
        (DAY, [("created", "11/28/2026")]),
        (
            "created_at__gte=2026-11-28&created_at__lt=2026-12-05",
            [("created", "11/28/2026 – 12/04/2026")],
        ),
        ("created_at__gte=2026-11-28", [("created", "since 11/28/2026")]),
        ("created_at__lt=2026-11-28T10:30", [("created", "before 11/28/2026 10:30 a.m.")]),
        (
            "created_at__gte=2026-11-27T23:00:00Z&created_at__lt=2026-11-28T23:00:00Z",
            [("created", "11/28/2026")],  # in Berlin
        ),
        (
            "created_at__gte=2026-11-28T08:00&created_at__lt=2026-11-28T09:00",
            [("created", "11/28/2026 8 a.m. – 11/28/2026 9 a.m.")],
        ),
    ],
)
def test_what_narrows_the_list_is_shown(admin_client, query, expected):
    make()
    assert active(admin_client.get(f"{LOG}?{query}")) == expected


def test_each_is_removed_on_its_own(admin_client):
    make()
    query = f"q=tea&o=2&reason__exact=mailbox_full&reason=x&state__exact=bounced&{DAY}"

    changelist = admin_client.get(f"{LOG}?{query}").context["cl"]

    assert {each.name: each.remove for each in changelist.active_filters} == {
        "reason": f"?{DAY}&o=2&q=tea&state__exact=bounced",
        "state": f"?{DAY}&o=2&q=tea&reason=x&reason__exact=mailbox_full",
        "created": "?o=2&q=tea&reason=x&reason__exact=mailbox_full&state__exact=bounced",
    }
    assert changelist.clear_all_filters_qs == "?o=2&q=tea"


def test_django_offers_to_clear_filters_that_are_not_beside_the_list(admin_client):
    make()
    assert "Clear all filters" not in admin_client.get(LOG).text
    assert "Clear all filters" in admin_client.get(f"{LOG}?reason__exact=mailbox_full").text


def test_hostile_values_are_text(admin_client):
    page = admin_client.get(LOG, {"reason__exact": "<script>", "tenant_id": '"><script>'}).text
    assert "<script>" not in page.replace("<script src", "")
    assert "<b>&lt;script&gt;</b>" in page


def test_the_reason_narrows_the_list(admin_client):
    make(subject="full", state=State.BOUNCED, reason="mailbox_full")
    make(subject="none", state=State.BOUNCED, reason="mailbox_does_not_exist")
    make(subject="refused", state=State.REJECTED, reason="mailbox_full")

    query = "reason__exact=mailbox_full&state__exact=bounced"
    assert shown(admin_client.get(f"{LOG}?{query}")) == ["full"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Auckland", "UTC"])
def test_a_day_is_one_of_the_current_time_zone(admin_client, zone):
    begins, ends = (datetime(2026, 11, day, tzinfo=ZoneInfo(zone)) for day in (28, 29))
    make(subject="first", created_at=begins)
    make(subject="last", created_at=ends.replace(day=28, hour=23, minute=59, second=59))
    make(subject="before", created_at=begins.replace(day=27, hour=23, minute=59, second=59))
    make(subject="after", created_at=ends)

    with timezone.override(zone):
        response = admin_client.get(f"{LOG}?{DAY}")

    assert sorted(shown(response)) == ["first", "last"]
    assert active(response) == [("created", "11/28/2026")]


def test_a_day_on_which_the_clocks_change_has_23_hours(admin_client):
    make(subject="first", created_at=datetime(2026, 3, 28, 23, tzinfo=UTC))
    make(subject="last", created_at=datetime(2026, 3, 29, 21, 59, tzinfo=UTC))
    make(subject="after", created_at=datetime(2026, 3, 29, 22, tzinfo=UTC))

    found = admin_client.get(f"{LOG}?created_at__gte=2026-03-29&created_at__lt=2026-03-30")

    assert sorted(shown(found)) == ["first", "last"]


def test_bounds_with_a_time_zone_keep_it(admin_client):
    make(subject="in", created_at=datetime(2026, 11, 28, 0, 30, tzinfo=UTC))
    make(subject="out", created_at=datetime(2026, 11, 27, 23, 30, tzinfo=UTC))

    found = admin_client.get(LOG, {"created_at__gte": "2026-11-28 00:00:00+00:00"})

    assert shown(found) == ["in"]


def test_today_is_marked_beside_the_list(admin_client):
    make()
    changelist = admin_client.get(LOG).context["cl"]
    [by_date] = [each for each in changelist.filter_specs if each.title == "created"]
    [today] = [each for each in by_date.choices(changelist) if each["display"] == "Today"]

    response = admin_client.get(LOG + today["query_string"])

    changelist = response.context["cl"]
    [by_date] = [each for each in changelist.filter_specs if each.title == "created"]
    assert [str(each["display"]) for each in by_date.choices(changelist) if each["selected"]] == [
        "Today"
    ]
    assert len(shown(response)) == 1
    assert len(active(response)) == 1


@pytest.mark.parametrize(
    "day", ["2026-02-30", "yesterday", "", "0001-01-01", "0001-01-01T00:00:00%2B14:00"]
)
def test_what_is_no_day_leads_back_to_the_list(admin_client, day):
    make()
    response = admin_client.get(f"{LOG}?created_at__gte={day}")
    assert response.status_code == 302
    assert response["Location"] == f"{LOG}?e=1"
