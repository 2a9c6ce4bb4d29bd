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

from truncus_django.admin import dashboard, statistics
from truncus_django.admin.dashboard import bounce_mark, complaint_mark, what_is_marked
from truncus_django.admin.statistics import Counts, DateRange, Statistics, read_statistics
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db

URL = "/admin/truncus_django/email/dashboard/"
BERLIN = ZoneInfo("Europe/Berlin")
TODAY = date(2026, 3, 31)


def make(state: str = State.DELIVERED, *, at: datetime | None = None, **fields: Any) -> Email:
    moment = at or datetime(2026, 3, 30, 12, tzinfo=UTC)
    return Email.objects.create(state=state, created_at=moment, **fields)


def read(days: int = 30, **options: Any) -> Statistics:
    dates = DateRange(TODAY - timedelta(days=days - 1), TODAY)
    return read_statistics(dates, zone=BERLIN, **options)


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

    assert total == Counts(
        sent=6, delivered=3, opened=2, clicked=1, bounced=1, complained=1, failed=1, rejected=1
    )
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
    monkeypatch.setattr(dashboard, "MAX_CHOICES", 3)
    for module in (dashboard, statistics):
        monkeypatch.setattr(module, "MAX_TENANTS", 2)
    for number in range(5):
        for _ in range(number + 1):
            make(tenant_id=f"tenant-{number}", open_count=1, at=timezone.now())

    context = admin_client.get(URL).context

    assert [(row["tenant"], row["counts"]) for row in context["by_tenant"]] == [
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


def test_days_can_be_of_one_tenant():
    make(tenant_id="acme")
    make(State.BOUNCED, tenant_id="acme", reason="mailbox_full")
    make(State.BOUNCED, tenant_id="other", reason="no_mx_record")

    for has_few_tenants in (True, False):
        stats = read(tenant="acme", has_few_tenants=has_few_tenants)

        assert stats.total == Counts(sent=2, delivered=1, bounced=1)
        assert [tenant for tenant, counts in stats.by_tenant] == ["acme"]
        assert stats.bounce_reasons == [("mailbox_full", 1)]


def days_ago(days: int) -> date:
    return timezone.localdate() - timedelta(days=days)


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({}, 29, 0),
        ({"days": "1"}, 0, 0),
        ({"days": "7"}, 6, 0),
        ({"days": "8"}, 7, 0),
        ({"days": "366"}, 365, 0),
        ({"days": ""}, 29, 0),
        ({"since": 1, "until": 1}, 1, 1),
        ({"since": 20, "until": 11}, 20, 11),
        ({"since": 3}, 3, 0),
        ({"until": 3}, 3, 3),
        ({"since": 3, "until": -5}, 3, 0),
        ({"since": 365}, 365, 0),
    ],
)
def test_any_days_can_be_asked_for(admin_client, query, first, last):
    given = {
        name: days_ago(value).isoformat() if isinstance(value, int) else value
        for name, value in query.items()
    }

    page = admin_client.get(URL, given)

    assert page.context["dates"] == DateRange(days_ago(first), days_ago(last))
    assert not page.context["form"].errors
    assert f'name="since" value="{days_ago(first)}"' in page.text
    assert f'name="until" value="{days_ago(last)}"' in page.text


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("days=0", "greater than or equal to 1"),
        ("days=367", "less than or equal to 366"),
        ("days=x", "Enter a whole number"),
        ("since=yesterday", "Enter a valid date"),
        ("since=2026-02-30", "Enter a valid date"),
        ("since=2026-02-02&until=2026-02-01", "The first day is after the last one."),
        ("until=0001-01-01", "The first day is too long ago."),
        ("since=0001-01-01&until=9999-12-31", "The first day is too long ago."),
        ("since=2999-01-01", "The first day lies in the future."),
        ("since=2020-01-01", "Choose at most 366 days."),
        ("tenant=%00", "Null characters are not allowed."),
        (f"tenant={'x' * 256}", "at most 255 characters"),
    ],
)
def test_what_are_no_days_is_told_and_the_usual_ones_are_shown(admin_client, query, text):
    page = admin_client.get(f"{URL}?{query}")

    assert page.context["dates"] == DateRange(days_ago(29), days_ago(0))
    assert text in page.text


def test_yesterday_is_one_click_away_and_keeps_the_tenant(admin_client):
    make(State.BOUNCED, at=timezone.now() - timedelta(days=1), tenant_id="a&b")
    make(at=timezone.now() - timedelta(days=1), tenant_id="other")

    page = admin_client.get(URL, {"tenant": "a&b"})
    [yesterday] = [each for each in page.context["usual"] if each["text"] == "Yesterday"]
    assert f'href="?{yesterday["query"].replace("&", "&amp;")}"' in page.text
    page = admin_client.get(f"{URL}?{yesterday['query']}")

    assert page.context["dates"] == DateRange(days_ago(1), days_ago(1))
    assert page.context["total"] == Counts(sent=1, bounced=1)
    assert page.context["plots"] is None


def test_an_unknown_tenant_is_said_to_have_sent_nothing(admin_client):
    make(tenant_id="acme", at=timezone.now())

    page = admin_client.get(URL, {"tenant": "<i>nobody"}).text

    assert "No email of <bdi>&lt;i&gt;nobody</bdi> was sent, or failed" in page
    assert '<option value="&lt;i&gt;nobody" selected>' in page


def listed(admin_client: Any, query: str) -> set[str]:
    page = admin_client.get(f"/admin/truncus_django/email/?{query}")
    assert page.status_code == 200
    return {email.subject for email in page.context["cl"].result_list}


def test_every_figure_leads_to_its_emails(admin_client):
    with timezone.override("Asia/Tokyo"):
        now = timezone.now()
        for state in State:
            make(state, at=now, subject=state, open_count=1)
        make(State.BOUNCED, at=now, subject="full", reason="mailbox_full", tenant_id="acme")
        make(at=now - timedelta(days=2), subject="before")
        make(at=now, is_sandbox=True, subject="sandbox")

        context = admin_client.get(URL, {"days": 1}).context

        found = {tile["name"]: listed(admin_client, tile["query"]) for tile in context["tiles"]}
        assert found == {
            "Sent": {"sent", "deferred", "delivered", "bounced", "complained", "full"},
            "Delivered": {"delivered", "complained"},
            "Opened": {"delivered", "complained"},
            "Clicked": set(),
            "Bounced": {"bounced", "full"},
            "Complained": {"complained"},
            "Failed": {"failed"},
            "Rejected": {"rejected"},
        }
        for tile in context["tiles"]:
            assert len(found[tile["name"]]) == tile["count"]
        [day] = context["by_day"]
        counted = {*statistics.COUNTED_STATES, "full"}
        assert listed(admin_client, day["query"]) == counted
        reasons = {row["reason"]: row["query"] for row in context["bounce_reasons"]}
        assert listed(admin_client, reasons["mailbox full"]) == {"full"}
        assert listed(admin_client, reasons["no reason known"]) == {"bounced"}
        tenants = {row["tenant"]: row["query"] for row in context["by_tenant"]}
        assert listed(admin_client, tenants["acme"]) == {"full"}
        assert listed(admin_client, tenants[""]) == counted - {"full"}


@pytest.mark.parametrize(
    ("bounced", "complained", "bounces", "complaints"),
    [
        (0, 0, None, None),
        (49, 0, None, None),
        (50, 0, "bad", None),
        (0, 1, None, "waiting"),
        (0, 2, None, "waiting"),
        (0, 3, None, "bad"),
        (500, 500, "bad", "bad"),
    ],
)
def test_what_harms_the_reputation_is_marked(bounced, complained, bounces, complaints):
    counts = Counts(sent=1000, delivered=1000, bounced=bounced, complained=complained)

    found = [bounce_mark(counts), complaint_mark(counts)]

    assert [mark and mark.kind for mark in found] == [bounces, complaints]


def test_of_few_emails_nothing_is_marked():
    assert bounce_mark(Counts(sent=99, bounced=99)) is None
    assert bounce_mark(Counts(sent=100, bounced=5)) is not None
    assert complaint_mark(Counts(sent=200, delivered=99, complained=99)) is None
    assert complaint_mark(Counts(sent=200, delivered=100, complained=1)) is not None


def test_the_page_says_what_a_mark_means(admin_client):
    for state, count in ((State.DELIVERED, 100), (State.COMPLAINED, 1), (State.BOUNCED, 10)):
        for _ in range(count):
            make(state, at=timezone.now())

    page = admin_client.get(URL).text

    assert "0.3 % or more of the delivered emails were reported as spam." in page
    assert "5 % or more of the emails bounced." in page
    assert page.count("▲</span>") == 2 + 2  # the tiles, and the only day


def test_what_is_said_about_marks_is_what_is_marked(monkeypatch):
    shares = "bounces of 5 % or more, and complaints of 0.1 % or more"
    assert what_is_marked() == f"▲ marks {shares}, of 100 emails or more."
    monkeypatch.setattr(dashboard, "MIN_MARKED", 250)
    assert what_is_marked() == f"▲ marks {shares}, of 250 emails or more."
    with override("de"):
        assert "0,1 %" in what_is_marked()


def test_days_without_emails_are_left_out(admin_client):
    make(at=timezone.now())
    make(State.FAILED, at=timezone.now() - timedelta(days=3))

    rows = admin_client.get(URL).context["by_day"]

    assert [(row["day"], row["counts"]) for row in rows] == [
        (days_ago(0), Counts(sent=1, delivered=1)),
        (days_ago(3), Counts(failed=1)),
    ]


def test_the_page_shows_numbers_plots_and_a_table(admin_client):
    Email.objects.bulk_create(
        Email(state=State.DELIVERED, created_at=timezone.now(), open_count=1) for _ in range(1500)
    )
    make(State.BOUNCED, at=timezone.now(), reason="<b>full</b>", tenant_id="<b>acme</b>")

    page = admin_client.get(URL).text

    assert "1,501" in page
    assert re.search(r"99.9 %</span>\s+of sent", page)
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
    assert "No email has been sent yet." in page.text
    assert "truncus-table" not in page.text


def test_the_list_leads_to_the_dashboard(admin_client):
    assert f'href="{URL}"' in admin_client.get("/admin/truncus_django/email/").text
