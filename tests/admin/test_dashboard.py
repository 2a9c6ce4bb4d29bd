"""What the dashboard adds up, and that the database does it."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import override

from truncus_django.admin import dashboard
from truncus_django.admin.dashboard import Counts, read_statistics
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db

URL = "/admin/truncus_django/email/dashboard/"
BERLIN = ZoneInfo("Europe/Berlin")
TODAY = date(2026, 3, 31)


def make(state: str = State.DELIVERED, *, at: datetime | None = None, **fields: Any) -> Email:
    moment = at or datetime(2026, 3, 30, 12, tzinfo=UTC)
    return Email.objects.create(state=state, created_at=moment, **fields)


def read(days: int = 30) -> dashboard.Statistics:
    return read_statistics(days, today=TODAY, zone=BERLIN)


def test_counts_what_became_of_emails():
    make(State.SENT)
    make(State.DEFERRED)
    make(State.DELIVERED, open_count=4, click_count=2)
    make(State.DELIVERED, open_count=1)
    make(State.COMPLAINED)
    make(State.BOUNCED, reason="mailbox_full")
    for state in (State.FAILED, State.REJECTED, State.PENDING, State.SCHEDULED, State.CANCELLED):
        make(state)

    total = read().total

    assert total == Counts(sent=6, delivered=3, opened=2, clicked=1, bounced=1, complained=1)
    assert total.delivery_rate == 3 / 6
    assert total.open_rate == 2 / 3
    assert total.click_rate == 1 / 3
    assert total.bounce_rate == 1 / 6
    assert total.complaint_rate == 1 / 3


def test_rates_of_nothing_are_nothing():
    assert Counts().open_rate == 0
    assert read().total == Counts()


def test_the_sandbox_is_left_out():
    make(is_sandbox=True)
    assert read().total.sent == 0


def test_a_day_ends_at_midnight_of_the_time_zone_also_when_clocks_change():
    make(at=datetime(2026, 3, 28, 22, 59, tzinfo=UTC))  # 23:59 in winter
    make(at=datetime(2026, 3, 28, 23, 0, tzinfo=UTC))
    make(at=datetime(2026, 3, 29, 21, 59, tzinfo=UTC))  # 23:59 in summer
    make(at=datetime(2026, 3, 29, 22, 0, tzinfo=UTC))

    by_day = read().by_day

    assert by_day[date(2026, 3, 28)].sent == 1
    assert by_day[date(2026, 3, 29)].sent == 2
    assert by_day[date(2026, 3, 30)].sent == 1


def test_every_day_is_there_and_none_before_or_after():
    make(at=datetime(2026, 3, 24, 12, tzinfo=UTC))
    make(at=datetime(2026, 3, 25, 12, tzinfo=UTC))
    make(State.BOUNCED, at=datetime(2026, 3, 31, 22, 0, tzinfo=UTC), tenant_id="tomorrow")

    stats = read(days=7)

    assert list(stats.by_day) == [TODAY - timedelta(days=ago) for ago in range(6, -1, -1)]
    assert stats.total.sent == 1
    assert [tenant for tenant, counts in stats.by_tenant] == [""]
    assert stats.bounce_reasons == []


def test_tenants_are_told_apart():
    make(tenant_id="acme")
    make(tenant_id="acme", state=State.BOUNCED)
    make()

    assert read().by_tenant == [
        ("acme", Counts(sent=2, delivered=1, bounced=1)),
        ("", Counts(sent=1, delivered=1)),
    ]


def test_of_many_tenants_the_busiest_are_shown(admin_client, monkeypatch):
    monkeypatch.setattr(dashboard, "_FEW_TENANTS", 3)
    monkeypatch.setattr(dashboard, "MOST_TENANTS", 2)
    for number in range(5):
        for _ in range(number + 1):
            make(tenant_id=f"tenant-{number}", open_count=1, at=timezone.now())

    context = admin_client.get(URL).context

    assert context["by_tenant"] == [
        ("tenant-4", Counts(sent=5, delivered=5, opened=5)),
        ("tenant-3", Counts(sent=4, delivered=4, opened=4)),
    ]
    assert not context["has_all_tenants"]
    assert context["total"].sent == 15


def test_bounce_reasons_come_by_their_number():
    for reason in ("full", "gone", "gone", ""):
        make(State.BOUNCED, reason=reason)

    assert read().bounce_reasons == [("gone", 2), ("", 1), ("full", 1)]


def test_queries_do_not_grow_with_emails(admin_client):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(URL).status_code == 200
        return len(captured)

    queries()
    for number in range(10):
        make(tenant_id=f"t{number}", at=timezone.now())
    few = queries()
    for number in range(200):
        make(tenant_id=f"t{number % 20}", at=timezone.now() - timedelta(days=number % 30))

    assert queries() == few
    assert few <= 8  # two for the quotas: their rows, and the database's clock


@pytest.mark.parametrize(
    ("query", "days"),
    [("", 30), ("?days=7", 7), ("?days=90", 90), ("?days=8", 30), ("?days=x", 30), ("?days=", 30)],
)
def test_spans_are_7_30_and_90_days(admin_client, query, days):
    page = admin_client.get(URL + query)

    assert page.context["days"] == days
    assert len(page.context["by_day"]) == days


def test_the_page_shows_numbers_plots_and_a_table(admin_client):
    Email.objects.bulk_create(
        Email(state=State.DELIVERED, created_at=timezone.now(), open_count=1) for _ in range(1500)
    )
    make(State.BOUNCED, at=timezone.now(), reason="<b>full</b>", tenant_id="<b>acme</b>")

    page = admin_client.get(URL).text

    assert "1,501" in page
    assert "99.9 % of sent" in page
    assert page.count('role="img"') == 3
    assert "&lt;b&gt;full" in page
    assert "&lt;b&gt;acme" in page
    assert "<b>full" not in page


@pytest.mark.parametrize(("language", "share"), [("en", "68.8 %"), ("de", "68,8 %")])
def test_tile_table_and_plot_round_a_share_alike(admin_client, language, share):
    for number in range(16):
        make(at=timezone.now(), open_count=int(number < 11))  # 68.75 %

    with override(language):
        page = admin_client.get(URL).text

    assert share in "".join(re.findall(r"<svg viewBox.*?</svg>", page, re.S))
    assert set(re.findall(r"68[.,]\d+ %", page)) == {share}


def test_an_empty_log_has_a_dashboard(admin_client):
    page = admin_client.get(URL)

    assert page.status_code == 200
    assert "None bounced." in page.text


def test_the_list_leads_to_the_dashboard(admin_client):
    assert f'href="{URL}"' in admin_client.get("/admin/truncus_django/email/").text
