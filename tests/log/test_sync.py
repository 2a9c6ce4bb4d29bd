"""``truncus_sync``: asking Truncus what has become of emails."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.chaos.sliding import SlidingServer
from tests.conftest import FakeTruncus
from tests.servers import serving
from truncus_django.ages import moment_of
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import ConfigurationError
from truncus_django.backend import TruncusBackend
from truncus_django.log import sync as sync_module
from truncus_django.log.ingest import ingest
from truncus_django.log.sync import Selection, SyncJob, attach_orphans, count_due
from truncus_django.log.transitions import EmailUpdate, advance_emails
from truncus_django.log.webhook_payload import read_event
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db
DIALECTS = ("manual", "sdk")


@pytest.fixture
def send(emulator: Any, settings: Any, messages: Any) -> Any:
    """Return a function that sends emails which are due for a question now."""

    def send(count: int = 1, *, mailer: str | None = None, **options: Any) -> list[Email]:
        before = set(Email.objects.values_list("pk", flat=True))
        TruncusBackend(alias=mailer).send_messages(messages(count, **options))
        sent = Email.objects.exclude(pk__in=before)
        sent.update(state=State.SENT, next_sync_at=timezone.now() - timedelta(minutes=1))
        return list(sent.order_by("pk"))

    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }
    return send


@pytest.fixture
def accounts(settings: Any) -> Any:
    """Three mailers: one works, one has a revoked key, one a key that may not read."""
    backend = "truncus_django.backend.TruncusBackend"
    settings.MAILERS = {
        "default": {"BACKEND": backend},
        "revoked": {"BACKEND": backend, "OPTIONS": {"api_key": "tr_test_revoked"}},
        "sender": {"BACKEND": backend, "OPTIONS": {"api_key": "tr_test_sender"}},
    }
    return settings.MAILERS


def asked(emulator: Any) -> list[str]:
    """Return the ids that Truncus was asked about, in order."""
    return [
        request.path.rpartition("/")[2]
        for request in emulator.requests
        if request.endpoint == "email"
    ]


def sync(*arguments: str) -> str:
    out = StringIO()
    call_command("truncus_sync", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.monotonic_s = 1000.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.monotonic_s

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.monotonic_s += seconds


# What is learned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_state_and_engagement_are_learned_in_both_forms_of_answer(emulator, send, dialect):
    emulator.reset(dialect=dialect, delivery_delay_s=0)
    TruncusBackend().send_messages([_message("click@example.org"), _message("bounce@example.org")])
    Email.objects.update(state=State.SENT, next_sync_at=timezone.now())

    result = SyncJob().run()

    clicked = Email.objects.get(state=State.DELIVERED)
    bounced = Email.objects.get(state=State.BOUNCED)
    assert (result.asked, result.changed, result.failed) == (2, 2, 0)
    assert (clicked.open_count, clicked.click_count) == (1, 1)
    assert clicked.first_opened_at is not None
    assert bounced.next_sync_at is None
    assert clicked.next_sync_at > timezone.now()


def test_nothing_is_asked_where_nothing_is_due(emulator, send):
    send(2)
    Email.objects.update(next_sync_at=timezone.now() + timedelta(minutes=1))
    assert SyncJob().run().asked == 0
    assert asked(emulator) == []


def test_the_longest_overdue_is_asked_first(emulator, send):
    emails = send(3)
    for minutes, email in zip((1, 3, 2), emails, strict=True):
        email.next_sync_at = timezone.now() - timedelta(minutes=minutes)
        email.save()
    SyncJob().run()
    assert asked(emulator) == [emails[index].message_id for index in (1, 2, 0)]


def test_what_becomes_due_while_the_job_runs_is_left_to_the_next(emulator, send):
    send(3)
    now = timezone.now()
    moments = iter([now, *(now + timedelta(hours=hours) for hours in range(1, 100))])
    assert SyncJob(now=lambda: next(moments)).run().asked == 3


def test_an_email_in_the_sandbox_is_never_due_again(emulator, send):
    [email] = send(sandbox=True)
    SyncJob().run()
    email.refresh_from_db()
    assert email.next_sync_at is None


def test_stray_events_find_their_email(emulator, send):
    [email] = send()
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


def test_given_emails_are_asked_about_though_not_due(emulator, send):
    emails = send(2)
    Email.objects.update(next_sync_at=None)
    result = SyncJob().ask_about(Email.objects.all())
    assert result.asked == 2
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)


# Selections ---------------------------------------------------------------------------------------


def test_limit_since_tenant_and_state_narrow_it_down(emulator, send):
    [acme] = send(tenant_id="acme")
    [old] = send()
    Email.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=3))
    [delivered] = send()
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


def test_dry_run_counts_and_makes_no_request(emulator, send):
    send(2)
    [other] = send()
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


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["error_500", "html_502", "reset_after", "truncated"])
def test_one_bad_answer_never_stops_the_rest(emulator, send, fault, dialect):
    emulator.reset(dialect=dialect)
    send(4)
    emulator.faults.next(fault, times=4, path="email")  # one try and three repetitions
    result = SyncJob().run()
    assert (result.asked, result.changed, result.failed) == (4, 3, 1)
    assert Email.objects.filter(next_sync_at__gt=timezone.now()).count() == 4
    assert SyncJob().run().asked == 0


def test_an_email_that_truncus_does_not_know_is_not_asked_about_again(emulator, send):
    send(2)
    Email.objects.filter(pk=Email.objects.first().pk).update(message_id="em_gone")
    result = SyncJob().run()
    assert (result.asked, result.failed, result.unknown) == (2, 1, 1)
    assert Email.objects.get(message_id="em_gone").next_sync_at is None


@pytest.mark.parametrize("body", ["{broken", "[]", "{}", {"id": "x", "status": 5}])
def test_an_answer_that_is_none_fails_alone(truncus: FakeTruncus, settings, body):
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_SECOND": 0, "REQUESTS_PER_MINUTE": 0}
    now = timezone.now()
    for number in range(3):
        Email.objects.create(message_id=f"m-{number}", state=State.SENT, next_sync_at=now)
    truncus.always_answers(200, {"id": "m", "status": "delivered"})
    truncus.answers(200, body, times=4 if isinstance(body, str) and body != "{}" else 1)
    result = SyncJob().run()
    assert (result.asked, result.changed, result.failed) == (3, 2, 1)


def test_an_answer_that_no_database_takes_fails_alone(emulator, send, monkeypatch):
    emails = send(3)
    real = sync_module.apply_details

    def apply_or_fail(details: Any, **options: Any) -> int:
        if emails[1].message_id in details:
            raise ValueError("A string literal cannot contain NUL (0x00) characters.")
        return real(details, **options)

    monkeypatch.setattr(sync_module, "apply_details", apply_or_fail)
    result = SyncJob().run()
    assert (result.asked, result.changed, result.failed) == (3, 2, 1)
    assert Email.objects.filter(next_sync_at__gt=timezone.now()).count() == 3


def test_answers_with_impossible_characters_and_numbers_are_stored(truncus: FakeTruncus):
    Email.objects.create(message_id="m-1", state=State.SENT, next_sync_at=timezone.now())
    truncus.always_answers(
        200,
        b'{"id": "m-1", "status": "bounced", "open_count": 99999999999999999999, '
        b'"provider_message_id": "ses\\u0000", "events": [{"id": "e\\u0000", "type": "bou\\u0000", '
        b'"payload": {"reason": "no\\u0000", "n": NaN, "half": "\\ud800"}}]}',
    )
    result = SyncJob().run()
    email = Email.objects.get()
    assert (result.changed, result.failed) == (1, 0)
    assert (email.state, email.provider_message_id) == (State.BOUNCED, "ses")


@pytest.mark.parametrize("ahead_s", [-240, -20, 0, 20, 240])
def test_late_webhooks_about_what_was_answered_add_nothing_however_clocks_differ(
    truncus: FakeTruncus, ahead_s
):
    Email.objects.create(message_id="m-1", state=State.SENT, next_sync_at=timezone.now())
    theirs = int(timezone.now().timestamp()) + ahead_s
    opens = (theirs - 1800, theirs - 10)
    answer = {"id": "m-1", "status": "delivered", "open_count": 2, "opened_at": opens[0]}
    truncus.answers(200, answer, headers={"Date": formatdate(theirs, usegmt=True)})
    SyncJob().run()
    for at in (*opens, theirs + 60):
        body = {"event": "email.open", "message_id": "m-1", "timestamp": at}
        ingest([read_event(json.dumps(body).encode(), signed_at=theirs + 90)])
        expected = 3 if at > theirs else 2
        assert Email.objects.get().open_count == expected


def test_a_revoked_key_stops_its_mailer_and_no_other(emulator, send, accounts):
    emulator.reset(revoked_keys=["tr_test_gone"])
    send(5, mailer="revoked")
    send(2, mailer="default")
    accounts["revoked"]["OPTIONS"]["api_key"] = "tr_test_gone"
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.changed, result.failed) == (3, 2, 1)
    assert list(result.stopped) == ["revoked"]
    assert "API_KEY" in result.stopped["revoked"]
    assert job.count_left() == 5


def test_a_key_without_the_scope_to_read_stops_its_mailer(emulator, send, accounts):
    keys = {"tr_test_sender": ["send"], "tr_test_emulator": ["send", "read_events"]}
    emulator.reset(api_keys=keys)
    send(3, mailer="sender")
    result = SyncJob().run()
    assert (result.asked, result.failed) == (1, 1)
    assert "read_events" in result.stopped["sender"]


def test_no_connection_stops_themailer(emulator, send, settings):
    send(3)
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": "http://127.0.0.1:1"}
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.failed, job.count_left()) == (1, 1, 3)
    assert "No connection" in result.stopped[""]


def test_a_mailer_that_is_no_more_fails_with_a_clear_line(emulator, send, accounts):
    send(2, mailer="default")
    send(2, mailer="revoked")
    Email.objects.filter(mailer="revoked").update(mailer="closed")
    errors = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("truncus_sync", stdout=StringIO(), stderr=errors)
    assert caught.value.returncode == 1
    assert "MAILERS has no mailer 'closed' any more" in errors.getvalue()
    assert len(asked(emulator)) == 2


def test_failures_without_end_stop_themailer(emulator, send):
    send(30)
    emulator.faults.rate("error_500", 1.0, path="email")
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.failed, job.count_left()) == (10, 10, 20)
    assert "10 failures in a row" in result.stopped[""]


def test_the_command_tells_what_was_done_and_what_failed(emulator, send):
    send(3)
    told = sync()
    assert told.startswith("Asked about 3 emails in ")
    assert "3 changed, 0 failed." in told
    send(1)
    Email.objects.update(message_id=None)
    [email] = send(1)
    Email.objects.filter(pk=email.pk).update(message_id="em_gone")
    with pytest.raises(CommandError, match="1 email could not be asked about"):
        sync()


def test_logs_and_output_hold_ids_only(emulator, send, caplog):
    emails = send(2)
    emulator.faults.next("error_500", times=4, path="email")
    errors = StringIO()
    with pytest.raises(CommandError):
        call_command("truncus_sync", stdout=errors, stderr=errors)
    told = caplog.text + errors.getvalue()
    assert any(str(email.pk) in told for email in emails)
    assert "customer" not in told
    assert "Order" not in told


# Limits -------------------------------------------------------------------------------------------


def test_requests_keep_within_the_limits_ahead_of_time(emulator, send, settings):
    send(13)
    settings.TRUNCUS = settings.TRUNCUS | {"REQUESTS_PER_SECOND": 5, "REQUESTS_PER_MINUTE": 12}
    time = Time()
    result = SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert result.asked == 13
    assert time.naps == [1.0, 1.0, 58.0]
    assert not any(status == 429 for _, _, status in emulator.request_counts)


@pytest.mark.parametrize(("delivery", "share"), [("direct", 10), ("outbox", 5)])
def test_no_second_holds_more_requests_as_they_arrive(send, settings, delivery, share):
    """In real time: each eleventh question takes longer to arrive than those after it."""
    send(25)
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


def test_mailers_with_one_key_share_its_limits(emulator, send, settings, accounts):
    send(2, mailer="default")
    accounts["second"] = accounts["default"]
    send(2, mailer="second")
    settings.TRUNCUS = settings.TRUNCUS | {"REQUESTS_PER_SECOND": 2}
    time = Time()
    SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert time.naps == [1.0]


def test_a_longer_429_is_waited_for_and_then_nothing_is_lost(emulator, send):
    send(3)
    emulator.faults.next("rate_limit", path="email", retry_after=45)
    time = Time()
    result = SyncJob(clock=time.clock, sleep=time.sleep).run()
    assert (result.asked, result.changed, result.failed) == (3, 3, 0)
    assert time.naps == [45.0]


def test_a_429_of_a_day_leaves_the_rest_to_the_next_run(emulator, send):
    send(3)
    emulator.faults.next("rate_limit", path="email", retry_after=86400)
    time = Time()
    job = SyncJob(clock=time.clock, sleep=time.sleep)
    result = job.run()
    assert (result.asked, result.failed, time.naps) == (1, 1, [])
    assert job.count_left() == 3


def test_answers_are_written_before_a_long_wait(emulator, send):
    send(3)
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


# Twice at once, and interrupted -------------------------------------------------------------------


def test_an_interrupted_job_keeps_what_it_heard_and_resumes_with_the_rest(emulator, send):
    emails = send(10)
    get_email = TruncusClient.get_email

    def interrupted(self: TruncusClient, message_id: str) -> Any:
        if len(asked(emulator)) == 4:
            raise KeyboardInterrupt
        return get_email(self, message_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TruncusClient, "get_email", interrupted)
        with pytest.raises(CommandError) as caught:
            sync()
    assert caught.value.returncode == 130
    assert Email.objects.filter(state=State.DELIVERED).count() == 4
    assert SyncJob().run().asked == 6
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)


def end_connection(in_threads: Any) -> None:
    """Have the server end this thread's connection, from another one."""
    sql, end = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
        "mysql": ("SELECT connection_id()", "KILL %s"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(sql)
        mine = cursor.fetchone()

    def end_it() -> None:
        with connection.cursor() as cursor:
            cursor.execute(end, mine)

    in_threads(end_it)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no connections to end")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", ["", "--limit=30"])
def test_a_connection_that_the_server_ends_costs_no_answer(
    emulator, send, monkeypatch, in_threads, limit
):
    emulator.reset(delivery_delay_s=0)
    send(130)
    get_email = TruncusClient.get_email

    def ending(self: TruncusClient, message_id: str) -> Any:
        if len(asked(emulator)) in {10, 109}:
            end_connection(in_threads)
        return get_email(self, message_id)

    monkeypatch.setattr(TruncusClient, "get_email", ending)
    sync(*[limit] if limit else [])
    count = 30 if limit else 130
    assert len(asked(emulator)) == count
    assert Email.objects.exclude(state=State.SENT).count() == count


def test_answers_are_kept_until_they_are_written(emulator, send, monkeypatch):
    send(3)
    real = sync_module.apply_details
    tries = []

    def fail_at_first(*arguments: Any, **options: Any) -> int:
        tries.append(1)
        if len(tries) <= 3:
            raise InterfaceError(0, "")
        return real(*arguments, **options)

    monkeypatch.setattr(sync_module, "apply_details", fail_at_first)
    monkeypatch.setattr("truncus_django.log.sync.WRITE_EVERY_S", -1)
    with pytest.raises(CommandError, match=r"The database failed \(InterfaceError\)"):
        sync()
    assert Email.objects.filter(state=State.DELIVERED).count() == 1
    assert count_due()[0].count == 2


def test_an_interrupted_job_gives_back_the_old_dates(emulator, send, monkeypatch):
    send(3)
    before = dict(Email.objects.values_list("pk", "next_sync_at"))

    def interrupted(self: TruncusClient, message_id: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(TruncusClient, "get_email", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SyncJob().run()
    assert dict(Email.objects.values_list("pk", "next_sync_at")) == before


@pytest.mark.parametrize("has_skip_locked", [True, False])
def test_a_second_job_leaves_alone_what_the_first_has_claimed(
    emulator, send, monkeypatch, has_skip_locked
):
    emails = send(150)
    features = connection.features
    monkeypatch.setattr(
        type(features),
        "has_select_for_update_skip_locked",
        has_skip_locked and features.has_select_for_update_skip_locked,
    )
    get_email = TruncusClient.get_email
    inner: list[int] = []

    def overtaken(self: TruncusClient, message_id: str) -> Any:
        if not inner:
            inner.append(0)
            inner[0] = SyncJob().run().asked
        return get_email(self, message_id)

    monkeypatch.setattr(TruncusClient, "get_email", overtaken)
    assert SyncJob().run().asked == 100
    assert inner == [50]
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)


def test_what_another_job_claims_between_looking_and_claiming_is_passed_over(emulator, send):
    emails = send(4)
    due = Selection().due(timezone.now())
    first, second = SyncJob(), SyncJob()

    class Overtaken:
        """The due emails; whoever has looked at them is overtaken."""

        is_first = True
        db = due.db

        def __getitem__(self, key: slice) -> list[Email]:
            found = list(due[key])
            if self.is_first:
                type(self).is_first = False
                Email.objects.filter(pk__in=[emails[0].pk, emails[1].pk]).update(
                    next_sync_at=timezone.now() + timedelta(minutes=15)
                )
            return found

    from truncus_django.log.sync import _claim_by_guard

    until = timezone.now() + timedelta(minutes=16)
    claimed = _claim_by_guard(Overtaken(), 100, until)  # type: ignore[arg-type]
    assert {email.pk for email in claimed} == {emails[2].pk, emails[3].pk}
    assert first.run().asked == second.run().asked == 0


def test_claims_of_a_job_that_died_run_out(emulator, send):
    send(3)
    assert SyncJob()._claim(100) is not None
    assert SyncJob().run().asked == 0
    later = timezone.now() + timedelta(minutes=20)
    assert SyncJob(now=lambda: later).run().asked == 3


def test_a_webhook_that_is_faster_than_a_failure_is_not_undone(emulator, send, monkeypatch):
    [email] = send()

    def bounced_meanwhile(self: TruncusClient, message_id: str) -> Any:
        advance_emails([EmailUpdate(email.pk, State.BOUNCED)], ["state"])
        raise ConfigurationError("No")

    monkeypatch.setattr(TruncusClient, "get_email", bounced_meanwhile)
    SyncJob().run()
    email.refresh_from_db()
    assert (email.state, email.next_sync_at) == (State.BOUNCED, None)


_SETTINGS = """
from tests.settings import *
DATABASES = {{"default": {database!r}}}
TRUNCUS = {{"API_KEY": "tr_test_log", "BASE_URL": {url!r},
            "REQUESTS_PER_SECOND": 0, "REQUESTS_PER_MINUTE": 0}}
"""


@pytest.mark.django_db(transaction=True)
def test_two_processes_ask_about_each_email_once(emulator, send, tmp_path: Path):
    emails = send(450)
    emulator.reset(latency_s=0.001)  # so that both are at it; the emails are unknown by now
    database = {name: connection.settings_dict[name] for name in ("ENGINE", "NAME", "OPTIONS")}
    if connection.vendor == "sqlite":  # other processes do not see into this one's memory
        database["NAME"] = str(tmp_path / "log.sqlite3")
        with connection.cursor() as cursor:
            cursor.execute("VACUUM INTO %s", [database["NAME"]])
    else:
        for name in ("HOST", "PORT", "USER", "PASSWORD"):
            database[name] = connection.settings_dict[name]
    (tmp_path / "two_syncs.py").write_text(_SETTINGS.format(database=database, url=emulator.url))
    command = [sys.executable, "-m", "django", "truncus_sync", "--settings=two_syncs"]
    root = Path(__file__).parents[2]
    jobs = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={
                "PYTHONPATH": f"{tmp_path}:{root}",
                "TEST_DATABASE": os.environ.get("TEST_DATABASE", "sqlite"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [1, 1], told  # all are unknown to the emulator
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)
    assert all("unknown to Truncus" in out for out, _ in told), told


# Costs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_queries_for_each_100_emails_are_the_same(emulator, send, dialect):
    emulator.reset(dialect=dialect, delivery_delay_s=0)

    def queries(count: int) -> int:
        send(count)
        with CaptureQueriesContext(connection) as captured:
            assert SyncJob().run().asked == count
        return len(captured)

    send(1)
    SyncJob().run()
    none, hundred, two_hundred = queries(0), queries(100), queries(200)
    assert two_hundred - none == 2 * (hundred - none)
    assert hundred - none <= 25


def _message(recipient: str) -> Any:
    from truncus_django.message import TruncusMessage

    return TruncusMessage("Hello", "Hello", "shop@example.com", [recipient])
