"""``truncus_sync``: asking Truncus what has become of emails."""

from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.chaos.sliding import SlidingServer
from tests.clocks import Time
from tests.log.syncing import DIALECTS, asked, sync
from tests.servers import serving
from truncus_django.ages import moment_of
from truncus_django.api.client import TruncusClient
from truncus_django.backend import TruncusBackend
from truncus_django.log.sync import Selection, SyncJob, attach_orphans, count_due
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db


# What is learned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_state_and_engagement_are_learned_in_both_forms_of_answer(emulator, send_due, dialect):
    emulator.reset(dialect=dialect, delivery_delay_s=0)
    people = ("click@example.org", "bounce@example.org")
    TruncusBackend().send_messages(
        [TruncusMessage("Hello", "Hello", "shop@example.com", [address]) for address in people]
    )
    Email.objects.update(state=State.SENT, next_sync_at=timezone.now())

    result = SyncJob().run()

    clicked = Email.objects.get(state=State.DELIVERED)
    bounced = Email.objects.get(state=State.BOUNCED)
    assert (result.asked, result.changed, result.failed) == (2, 2, 0)
    assert (clicked.open_count, clicked.click_count) == (1, 1)
    assert clicked.first_opened_at is not None
    assert bounced.next_sync_at is None
    assert clicked.next_sync_at > timezone.now()


def test_nothing_is_asked_where_nothing_is_due(emulator, send_due):
    send_due(2)
    Email.objects.update(next_sync_at=timezone.now() + timedelta(minutes=1))
    assert SyncJob().run().asked == 0
    assert asked(emulator) == []


def test_the_longest_overdue_is_asked_first(emulator, send_due):
    emails = send_due(3)
    for minutes, email in zip((1, 3, 2), emails, strict=True):
        email.next_sync_at = timezone.now() - timedelta(minutes=minutes)
        email.save()
    SyncJob().run()
    assert asked(emulator) == [emails[index].message_id for index in (1, 2, 0)]


def test_what_becomes_due_while_the_job_runs_is_left_to_the_next(emulator, send_due):
    send_due(3)
    now = timezone.now()
    moments = iter([now, *(now + timedelta(hours=hours) for hours in range(1, 100))])
    assert SyncJob(now=lambda: next(moments)).run().asked == 3


def test_an_email_in_the_sandbox_is_never_due_again(emulator, send_due):
    [email] = send_due(sandbox=True)
    SyncJob().run()
    email.refresh_from_db()
    assert email.next_sync_at is None


def test_stray_events_find_their_email(emulator, send_due):
    [email] = send_due()
    EmailEvent.objects.create(
        message_id=email.message_id,
        event_id="e-1",
        type="complained",
        occurred_at=timezone.now(),
        source=EmailEvent.Source.WEBHOOK,
    )
    assert attach_orphans() == 1
    email.refresh_from_db()
    assert email.state == State.COMPLAINED


def test_events_of_unknown_emails_stay_strays(emulator, db):
    EmailEvent.objects.create(
        message_id="elsewhere", event_id="e-1", type="opened", occurred_at=timezone.now()
    )
    assert attach_orphans() == 0


def test_given_emails_are_asked_about_though_not_due(emulator, send_due):
    emails = send_due(2)
    Email.objects.update(next_sync_at=None)
    result = SyncJob().ask_about(Email.objects.all())
    assert result.asked == 2
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)


# Selections ---------------------------------------------------------------------------------------


def test_limit_since_tenant_and_state_narrow_it_down(emulator, send_due):
    [acme] = send_due(tenant_id="acme")
    [old] = send_due()
    Email.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=3))
    [delivered] = send_due()
    Email.objects.filter(pk=delivered.pk).update(state=State.DELIVERED)

    def found(**options: Any) -> set[Any]:
        return {email.pk for email in Selection(**options).due(timezone.now())}

    assert found(tenants=["acme"]) == {acme.pk}
    assert found(states=["delivered"]) == {delivered.pk}
    assert found(since=timezone.now() - timedelta(days=1)) == {acme.pk, delivered.pk}
    sync("--limit", "1")
    assert len(asked(emulator)) == 1
    sync("--since", "2d", "--state", "sent")
    assert old.message_id not in asked(emulator)[1:]


def test_dry_run_counts_and_makes_no_request(emulator, send_due):
    send_due(2)
    [other] = send_due()
    Email.objects.filter(pk=other.pk).update(state=State.DELIVERED)
    told = sync("--dry-run")
    assert "3 emails are due" in told
    assert "2  sent" in told
    assert "1  delivered" in told
    assert asked(emulator) == []
    assert [group.count for group in count_due()] == [1, 2]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30m", datetime(2026, 11, 20, 11, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 20, 10, 0, tzinfo=UTC)),
        ("3d", datetime(2026, 11, 17, 12, 0, tzinfo=UTC)),
        ("4w", datetime(2026, 10, 23, 12, 0, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 10, 31, 23, 0, tzinfo=UTC)),  # midnight in Berlin
        ("2026-11-01T10:00+00:00", datetime(2026, 11, 1, 10, 0, tzinfo=UTC)),
    ],
)
def test_ages_and_dates_are_understood(text, moment):
    assert moment_of(text, now=datetime(2026, 11, 20, 12, 0, tzinfo=UTC)) == moment


@pytest.mark.parametrize("text", ["2", "h", "2y", "yesterday", "2026-13-01", "2999-01-01"])
def test_other_texts_are_refused(text):
    with pytest.raises(CommandError, match=r"^--since: "):
        sync("--since", text)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(CommandError, match="1 or more"):
        sync("--limit", "0")


# Limits -------------------------------------------------------------------------------------------


def test_requests_keep_within_the_limits_ahead_of_time(emulator, send_due, settings):
    send_due(13)
    settings.TRUNCUS = settings.TRUNCUS | {"REQUESTS_PER_SECOND": 5, "REQUESTS_PER_MINUTE": 12}
    time = Time()
    result = SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert result.asked == 13
    assert time.naps == [1.0, 1.0, 58.0]
    assert not any(status == 429 for _, _, status in emulator.request_counts)


@pytest.mark.parametrize(("delivery", "share"), [("direct", 10), ("outbox", 5)])
def test_no_second_holds_more_requests_as_they_arrive(send_due, settings, delivery, share):
    """In real time: each eleventh question takes longer to arrive than those after it."""
    send_due(25)
    ways_s = cycle([0.15, *[0.0] * share])
    server = SlidingServer({1.0: share}, way_there_s=lambda: next(ways_s))
    settings.TRUNCUS = settings.TRUNCUS | {
        "BASE_URL": server.url,
        "DELIVERY": delivery,
        "REQUESTS_PER_SECOND": 10,
    }
    with serving(server):
        result = SyncJob().run()
    assert (result.asked, result.failed) == (25, 0)
    assert len(server.arrivals) == 25
    assert server.refused == 0


def test_mailers_with_one_key_share_its_limits(emulator, send_due, settings, accounts):
    send_due(2, mailer="default")
    accounts["second"] = accounts["default"]
    send_due(2, mailer="second")
    settings.TRUNCUS = settings.TRUNCUS | {"REQUESTS_PER_SECOND": 2}
    time = Time()
    SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert time.naps == [1.0]


def test_a_longer_429_is_waited_for_and_then_nothing_is_lost(emulator, send_due):
    send_due(3)
    emulator.faults.next("rate_limit", path="email", retry_after=45)
    time = Time()
    result = SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert (result.asked, result.changed, result.failed) == (3, 3, 0)
    assert time.naps == [45.0]


def test_a_429_of_a_day_leaves_the_rest_to_the_next_run(emulator, send_due):
    send_due(3)
    emulator.faults.next("rate_limit", path="email", retry_after=86400)
    time = Time()
    job = SyncJob(clock=time.clock, sleep=time.sleep)
    result = job.run()
    assert (result.asked, result.failed, time.naps) == (1, 1, [])
    assert job.count_left() == 3


def test_answers_are_written_before_a_long_wait(emulator, send_due):
    send_due(3)
    seen = []
    time = Time()

    def look_and_sleep(seconds: float) -> None:
        seen.append(Email.objects.filter(state=State.DELIVERED).count())
        time.sleep(seconds)

    get_email = TruncusClient.get_email

    def third_is_late(self: TruncusClient, message_id: str) -> Any:
        if len(asked(emulator)) == 2:
            emulator.faults.next("rate_limit", path="email", retry_after=45)
        return get_email(self, message_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TruncusClient, "get_email", third_is_late)
        SyncJob(clock=time.clock, sleep=look_and_sleep).run()
    assert seen == [2]


# Costs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_queries_for_each_100_emails_are_the_same(emulator, send_due, dialect):
    emulator.reset(dialect=dialect, delivery_delay_s=0)

    def queries(count: int) -> int:
        send_due(count)
        with CaptureQueriesContext(connection) as captured:
            assert SyncJob().run().asked == count
        return len(captured)

    send_due(1)
    SyncJob().run()
    none, hundred, two_hundred = queries(0), queries(100), queries(200)
    assert two_hundred - none == 2 * (hundred - none)
    assert hundred - none <= 25
