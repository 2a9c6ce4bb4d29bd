"""QUOTA_RESERVE: what is left of the month's quota is kept for what is urgent."""

import time
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management.base import OutputWrapper
from django.utils import timezone

from tests.admin.pages import LOG, page_of
from tests.outbox.conftest import NO_LIMITS, reload
from truncus_django.bulk import BulkInterrupted, send_bulk
from truncus_django.doctor import Level, examine_outbox
from truncus_django.management.commands.truncus_worker import _Output
from truncus_django.models import AccountQuota, Email, OutboxBatch, OutboxEntry, Priority
from truncus_django.outbox.health import health
from truncus_django.outbox.idle import Idle
from truncus_django.quota import figures
from truncus_django.quota.figures import DAY_S, month_of
from truncus_django.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def reserve(settings, outbox):
    """The outbox keeps 10 emails of the quota."""
    settings.TRUNCUS = {**settings.TRUNCUS, "QUOTA_RESERVE": 10}


@pytest.fixture
def plan(emulator):
    """Return a function that gives the account a plan of so many emails, used up to so many."""

    def plan(limit, *, sent=0):
        emulator.reset(monthly_limit=limit, **NO_LIMITS)
        AccountQuota.objects.all().delete()

    return plan


@pytest.fixture
def held_back(plan, put, dispatcher):
    """Return a function that puts emails of low priority which the reserve holds back."""

    def held_back(count):
        plan(20)
        put(10, priority="low")
        dispatcher.drain()  # so that no more than the reserve is left
        emails = put(count, priority="low")
        dispatcher.drain()
        return emails

    return held_back


def sent_of(emails):
    return sum(reload(email).state == State.DELIVERED for email in emails)


def test_low_priority_stops_at_the_reserve_exactly(plan, put, dispatcher):
    plan(100)
    put(60, priority="low")
    dispatcher.drain()  # by which the quota is known
    low = put(60, priority="low")

    idle = dispatcher.drain().idle

    assert sent_of(low) == 30
    assert AccountQuota.objects.get().remaining == 10
    assert list(idle.held_back) == [low[0].mailer]
    assert "10 emails are left" in idle.held_back[low[0].mailer]


def test_urgent_emails_still_pass_and_go_first(plan, put, dispatcher):
    plan(20)
    put(10, priority="low")
    dispatcher.drain()
    low = put(5, priority="low")
    normal, high = put(3), put(2, priority="high")

    dispatcher.drain()

    assert sent_of(low) == 0
    assert sent_of([*normal, *high]) == 5
    assert AccountQuota.objects.get().remaining == 5


def test_a_batch_takes_along_no_more_than_may_go(plan, put, dispatcher):
    plan(20)
    put(5, priority="low")
    dispatcher.drain()
    low, normal = put(10, priority="low"), put(2)

    stats = dispatcher.drain()

    assert stats.requests == 1
    assert (sent_of(low), sent_of(normal)) == (5, 2)


def test_a_share_of_the_plan_is_a_reserve_as_well(settings, plan, put, dispatcher):
    settings.TRUNCUS = {**settings.TRUNCUS, "QUOTA_RESERVE": 0.25}
    plan(40)
    put(20, priority="low")
    dispatcher.drain()
    put(20, priority="low")
    dispatcher.drain()

    assert AccountQuota.objects.get().remaining == 10


def test_they_go_on_when_the_quota_grows(held_back, put, dispatcher, emulator):
    low = held_back(5)
    emulator.reset(monthly_limit=100, **NO_LIMITS)
    put(1, priority="high")  # whose answer tells

    dispatcher.drain()

    assert sent_of(low) == 5


def test_they_go_on_in_a_new_month(held_back, dispatcher):
    low = held_back(5)
    assert sent_of(low) == 0
    AccountQuota.objects.update(month="2020-01-01")

    dispatcher.drain()

    assert sent_of(low) == 5


def test_after_a_day_without_an_answer_one_email_asks(held_back, dispatcher, emulator):
    low = held_back(5)
    day_ago = timezone.now() - timedelta(seconds=DAY_S + 1)
    AccountQuota.objects.update(told_at=day_ago)

    dispatcher.drain()
    assert sent_of(low) == 1

    emulator.reset(monthly_limit=100, **NO_LIMITS)
    AccountQuota.objects.update(told_at=day_ago)
    dispatcher.drain()
    assert sent_of(low) == 5


@pytest.fixture
def no_new_month(monkeypatch):
    """Let the present month last, however far a test travels."""
    month = month_of(time.time())
    monkeypatch.setattr(figures, "month_of", lambda now: month)


def test_a_request_that_failed_waits_and_its_first_email_asks(
    plan, put, dispatcher, emulator, travel, no_new_month
):
    plan(20)
    low = put(3, priority="low")
    emulator.faults.next("provider_502")
    dispatcher.step()
    put(10, priority="high")
    dispatcher.drain()
    travel(3600)

    dispatcher.drain()

    assert sent_of(low) == 0
    found = health()
    assert [held.emails for held in found.held_back] == [3]
    assert found.next_attempt_at is None
    assert not found.is_unattended

    travel(DAY_S)
    dispatcher.drain()
    assert [reload(email).state for email in low] == ["delivered", "sending", "sending"]


def test_a_request_that_may_have_been_accepted_is_repeated_all_the_same(
    plan, put, dispatcher, emulator, travel, no_new_month
):
    plan(20)
    low = put(3, priority="low")
    emulator.faults.next("reset_after")
    dispatcher.step()
    assert OutboxBatch.objects.get().is_ambiguous
    put(9, priority="high")
    travel(3600)
    dispatcher.step()
    assert AccountQuota.objects.get().remaining <= 10

    dispatcher.drain()

    assert sent_of(low) == 3


def test_what_other_workers_are_sending_counts(plan, put, dispatcher):
    plan(100)
    [first] = put(1)
    dispatcher.drain()
    account = AccountQuota.objects.get().account
    OutboxBatch.objects.create(
        mailer="other",
        account=account,
        priority=Priority.LOW,
        due_at=timezone.now() + timedelta(hours=1),
        lease=first.pk,
        is_ambiguous=True,
        size=85,
        idempotency_key="another worker's",
    )
    low = put(20, priority="low")

    dispatcher.drain()

    assert sent_of(low) == 4  # 99 are left, 10 of them kept and 85 under way


def test_without_a_reserve_nothing_is_held_back(settings, plan, put, dispatcher):
    settings.TRUNCUS = {**settings.TRUNCUS, "QUOTA_RESERVE": 0}
    plan(20)
    low = put(10, priority="low") + put(10, priority="low")

    dispatcher.drain()

    assert sent_of(low) == 20


def test_health_tells_what_is_held_back_and_does_not_ask_for_a_worker(held_back):
    low = held_back(5)
    hour_ago = timezone.now() - timedelta(hours=1)
    OutboxEntry.objects.update(created_at=hour_ago)
    Email.objects.filter(state=State.PENDING).update(created_at=hour_ago)

    found = health()

    [held] = found.held_back
    assert (held.mailer, held.emails, held.left, held.reserved) == (low[0].mailer, 5, 10, 10)
    assert found.pending == 5
    assert found.oldest_age_s is None
    assert found.is_healthy()
    assert not found.is_unattended
    assert found.as_dict()["truncus_outbox_held_back"] == 5
    assert found.as_dict()["truncus_outbox_quota_share"] == 0.5


def test_a_direct_bulk_says_why_it_ends(settings, plan, message):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    plan(20)
    send_bulk([message(number) for number in range(10)])

    with pytest.raises(BulkInterrupted, match="QUOTA_RESERVE keeps 10"):
        send_bulk([message(number) for number in range(10, 15)])


# Who says so ----------------------------------------------------------------------------------


def test_the_doctor_says_it(held_back):
    held_back(2)
    found = {finding.what: finding for finding in examine_outbox()}

    assert found["outbox"].level is Level.OK
    finding = found["outbox: reserve"]
    assert finding.level is Level.WARN
    assert finding.found.startswith("2 emails")
    assert "10 emails are left of this month's quota, and QUOTA_RESERVE keeps 10" in finding.found


def test_the_panel_and_the_emails_page_say_it(held_back, put, admin_client):
    held = held_back(2)
    [normal] = put(1)

    panel = admin_client.get(f"{LOG}dashboard/").text
    assert "2 emails of low priority are held back: 10 emails are left" in panel
    assert "Monthly quota" in panel
    reason = "By QUOTA_RESERVE: 10 emails are left"
    assert reason in admin_client.get(page_of(held[0])).text
    assert reason not in admin_client.get(page_of(normal)).text


def test_the_worker_says_it_once():
    out = StringIO()
    output = _Output(OutputWrapper(out), verbosity=1, is_once=False)
    idle = Idle(None, held_back={"": "10 emails are left"})
    for _ in range(3):
        output.on_idle(idle)

    assert out.getvalue().splitlines() == [
        "The mailer holds emails of low priority back: 10 emails are left."
    ]
