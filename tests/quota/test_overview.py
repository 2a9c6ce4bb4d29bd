"""What doctor and dashboard say about quotas."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from truncus_django.admin.quota_panel import held_back_text
from truncus_django.db.clock import Clock, moment_of
from truncus_django.doctor import Finding, Level, examine_quota
from truncus_django.doctor import examine as examine_all
from truncus_django.mailers import get_mailer
from truncus_django.models import AccountQuota
from truncus_django.outbox.reserve import HeldBack
from truncus_django.quota.figures import DAY_S
from truncus_django.quota.keeping import forget_noted
from truncus_django.quota.overview import quotas

pytestmark = pytest.mark.django_db

DASHBOARD = "/admin/truncus_django/email/dashboard/"
NOW = datetime(2026, 6, 11, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda clock: NOW)


def make(**fields: Any) -> AccountQuota:
    """Write what is known of the account: by default half of 1,000 emails in ten days."""
    given = {
        "account": get_mailer("").client.account,
        "month": "2026-06-01",
        "limit": 1000,
        "sent": 500,
        "remaining": 500,
        "told_at": moment_of(NOW - 60),
        "emails_per_day": 20.0,
    }
    return AccountQuota.objects.create(**given | fields)


def finding() -> Finding:
    [found] = examine_quota()
    return found


def dashboard(client: Any) -> str:
    return " ".join(client.get(DASHBOARD).text.split())


def test_nothing_is_said_where_nothing_is_known(admin_client):
    assert list(examine_quota()) == []
    assert quotas() == ()
    assert "Monthly quota" not in dashboard(admin_client)


def test_a_quota_that_lasts(admin_client):
    make()

    assert finding().level is Level.OK
    assert finding().found == (
        "500 of 1,000 emails used, 500 left; renewed in 20 d 0 h. 20 a day at present: they last "
        "until then."
    )
    page = dashboard(admin_client)
    assert "Monthly quota" in page
    assert "50.0 %" in page
    assert "until it is renewed in 2 weeks" in page


def test_a_quota_that_runs_out(admin_client):
    make(emails_per_day=100.0)

    assert finding().level is Level.WARN
    assert finding().found.endswith("100 a day at present: they run out in 4 d 23 h.")
    assert "QUOTA_RESERVE" in finding().advice
    assert "4 days; renewed in" in dashboard(admin_client)


def test_a_quota_of_which_most_is_used():
    make(sent=850, remaining=150, emails_per_day=1.0)
    assert finding().level is Level.WARN


def test_a_quota_that_is_used_up(admin_client):
    make(sent=1000, remaining=0)

    assert finding().level is Level.FAIL
    assert finding().found == "All emails of 1,000 are used up; renewed in 20 d 0 h."
    assert "used up; renewed in" in dashboard(admin_client)


def test_a_quota_of_which_only_a_refusal_has_told(admin_client):
    make(limit=None, sent=None, remaining=0)

    assert finding().found == "All emails are used up; renewed in 20 d 0 h."
    assert "used up; renewed in" in dashboard(admin_client)


def test_figures_of_another_month_are_those_of_another_month(admin_client):
    make(month="2026-05-01", sent=1000, remaining=0)

    assert finding().level is Level.OK
    assert finding().found == "Truncus has not told it in this month; renewed in 20 d 0 h."
    assert "not reported this month" in dashboard(admin_client)


def test_stale_figures_are_said_to_be(admin_client):
    make(told_at=moment_of(NOW - 3 * DAY_S), emails_per_day=500.0)

    assert finding().level is Level.OK
    assert finding().found.endswith("That was told 3 d 0 h ago.")
    assert "not known: reported too long ago" in dashboard(admin_client)


@pytest.mark.parametrize(("left", "words"), [(1, "1 email is left"), (2, "2 emails are left")])
def test_what_the_reserve_keeps_waiting_is_said_in_good_english(left, words):
    held = HeldBack(mailer="", emails=3, left=left, reserved=5, until=moment_of(NOW))

    assert held_back_text(held) == (
        f"3 emails of low priority are held back: {words} of this month's quota, and QUOTA_RESERVE "
        "keeps 5. Those held back are sent when the month ends or the quota grows."
    )


def test_a_daily_cap_is_said_to_be_inferred(admin_client):
    make(capped={"new.example": NOW + 3600, "old.example": NOW - 1})

    _, cap = examine_quota()
    assert cap.level is Level.WARN
    assert "new.example" in cap.found
    assert "old.example" not in cap.found
    assert "it seems that a daily cap is used up" in cap.found
    assert "It seems that a daily cap of the warm-up is used up" in dashboard(admin_client)


@pytest.mark.parametrize("capped", [None, [], {"example.com": "soon"}, {"example.com": True}])
def test_what_somebody_wrote_into_a_row_breaks_no_page(admin_client, capped):
    make(capped={} if capped is None else capped)
    assert "Monthly quota" in dashboard(admin_client)


def test_accounts_that_no_mailer_uses_are_left_out():
    make(account="that of an older key")
    assert quotas() == ()


def test_all_quotas_are_one_query():
    make()
    with CaptureQueriesContext(connection) as captured:
        assert len(quotas()) == 1
    assert len(captured) == 1


@pytest.mark.django_db(transaction=True)
def test_the_doctor_finds_out_that_the_quota_has_grown(emulator):
    emulator.reset(monthly_limit=5000)
    make(sent=1000, remaining=0, told_at=moment_of(NOW - 3600))
    forget_noted()

    found = {finding.what.partition(" (")[0]: finding for finding in examine_all()}

    assert found["quota"].level is Level.OK
    assert found["quota"].found.startswith("0 of 5,000 emails used, 5,000 left")
