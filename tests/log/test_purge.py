"""``truncus_purge``: forgetting old emails, or only their bodies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, InterfaceError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.log.purge import PURGEABLE_STATES, Purge, PurgeResult
from truncus_django.models import Email, EmailEvent
from truncus_django.states import UNSENT_STATES, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def record() -> Any:
    """Return a function that records an email of some age, with as many events."""

    def record(days: int, *, state: str = State.DELIVERED, events: int = 1, **fields: Any) -> Email:
        moment = timezone.now() - timedelta(days=days, minutes=1)
        email = Email.objects.create(state=state, created_at=moment, **fields)
        for _ in range(events):
            event(days, email=email)
        return email

    return record


def event(days: int, email: Email | None = None) -> EmailEvent:
    moment = timezone.now() - timedelta(days=days, minutes=1)
    number = EmailEvent.objects.count()
    return EmailEvent.objects.create(
        email=email,
        message_id="m",
        event_id=f"e-{number}",
        type="delivered",
        occurred_at=moment,
        received_at=moment,
        source=EmailEvent.Source.WEBHOOK,
    )


def purge(*arguments: str) -> str:
    out = StringIO()
    call_command("truncus_purge", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def days_ago(days: int) -> Any:
    return timezone.now() - timedelta(days=days)


def test_what_is_older_goes_with_its_events_and_the_rest_stays(record):
    old, young = record(91, events=3), record(89)
    told = purge("--older-than", "90d")
    assert list(Email.objects.all()) == [young]
    assert EmailEvent.objects.count() == 1
    assert told.startswith("Deleted 1 emails, their 3 events and 0 events without an email")
    assert not Email.objects.filter(pk=old.pk).exists()


@pytest.mark.parametrize("state", sorted(UNSENT_STATES))
def test_what_is_pending_never_goes(record, state):
    record(1000, state=state, text_body="Hello")
    purge("--older-than", "1d")
    purge("--older-than", "1d", "--bodies")
    assert Email.objects.get().text_body == "Hello"
    with pytest.raises(CommandError, match="invalid choice"):
        purge("--older-than", "1d", "--state", state)
    with pytest.raises(ValueError, match="never purged"):
        Purge(before=timezone.now(), states=[state])


@pytest.mark.parametrize("state", PURGEABLE_STATES)
def test_every_other_state_goes(record, state):
    record(2, state=state)
    purge("--older-than", "1d", "--state", state)
    assert not Email.objects.exists()


def test_only_the_given_states_go_and_stray_events_stay(record):
    record(100, state=State.FAILED)
    delivered = record(100)
    event(100)
    purge("--older-than", "90d", "--state", "failed")
    assert list(Email.objects.all()) == [delivered]
    assert EmailEvent.objects.filter(email=None).count() == 1


def test_old_stray_events_go_too(record):
    event(100)
    young = event(10)
    assert "1 events without an email" in purge("--older-than", "90d")
    assert list(EmailEvent.objects.all()) == [young]


def test_bodies_alone_go_and_the_email_stays(record):
    email = record(40, text_body="Hello", html_body="<p>Hello</p>", subject="Hi")
    young = record(20, text_body="Hello")
    told = purge("--older-than", "30d", "--bodies")
    email.refresh_from_db()
    young.refresh_from_db()
    assert (email.text_body, email.html_body, email.subject) == (None, None, "Hi")
    assert young.text_body == "Hello"
    assert EmailEvent.objects.count() == 2
    assert told.startswith("Forgot the bodies of 1 emails")
    assert purge("--older-than", "30d", "--bodies").startswith("Forgot the bodies of 0 emails")


def test_a_resend_outlives_what_it_repeats(record):
    old = record(100)
    young = record(10, resend_of=old)
    purge("--older-than", "90d")
    young.refresh_from_db()
    assert young.resend_of is None


def test_the_retention_of_the_settings_is_the_default(record, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RETENTION_DAYS": 30}
    record(31)
    young = record(29)
    purge()
    assert list(Email.objects.all()) == [young]


def test_without_any_age_nothing_goes(record):
    record(1000)
    assert "--older-than 90d, or set TRUNCUS" in purge()
    with pytest.raises(CommandError, match="--older-than 90d, or set TRUNCUS"):
        purge("--bodies")
    assert Email.objects.exists()


@pytest.mark.parametrize("age", ["90", "-1d", "2999-01-01", "x"])
def test_an_impossible_age_is_refused(record, age):
    record(1000)
    with pytest.raises(CommandError):
        purge(f"--older-than={age}")
    assert Email.objects.exists()


def test_dry_run_counts_by_state_and_changes_nothing(record):
    record(100)
    record(100, state=State.FAILED)
    record(100, state=State.FAILED)
    event(100)
    told = purge("--older-than", "90d", "--dry-run")
    assert told.startswith("3 emails would go")
    assert "2  failed" in told
    assert "1  events without an email" in told
    assert Email.objects.count() == 3


def test_batches_of_any_size_do_the_same(record):
    for number in range(7):
        record(100 + number % 2)
    seen: list[int] = []
    result = Purge(before=days_ago(90), batch_size=3, on_progress=seen.append).run()
    assert (result, seen) == (PurgeResult(emails=7, events=7), [3, 3, 1])
    with pytest.raises(CommandError, match="batch size"):
        purge("--older-than", "90d", "--batch-size", "0")


def test_a_batch_costs_the_same_whatever_it_holds_and_reads_no_body(record):
    def queries(count: int) -> list[str]:
        for _ in range(count):
            record(100, text_body="Hello")
        with CaptureQueriesContext(
            connection,
        ) as captured:
            Purge(before=days_ago(90)).run()
        return [query["sql"] for query in captured]

    assert len(queries(2)) == len(queries(40))
    assert not any(
        "SELECT" in sql.partition("WHERE")[0] and "text_body" in sql for sql in queries(2)
    )


def test_after_an_interruption_the_next_run_goes_on(record):
    for _ in range(6):
        record(100)
    result = PurgeResult()

    def interrupt(count: int) -> None:
        if result.emails == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Purge(before=days_ago(90), batch_size=2, on_progress=interrupt).run(result)
    assert (result.emails, Email.objects.count()) == (4, 2)
    purge("--older-than", "90d")
    assert not Email.objects.exists()


def test_ctrl_c_has_an_exit_status_of_its_own(record, monkeypatch):
    def interrupted(self: Purge, result: PurgeResult) -> PurgeResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(Purge, "run", interrupted)
    with pytest.raises(CommandError) as caught:
        purge("--older-than", "90d")
    assert caught.value.returncode == 130


# In use meanwhile ---------------------------------------------------------------------------------


@contextmanager
def in_between(word: str, do: Callable[[], Any]) -> Iterator[list[str]]:
    """Do something once, after the first statement that holds ``word``."""
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, *arguments: Any) -> Any:
        result = execute(sql, *arguments)
        if word in sql:
            seen.append(sql)
            if len(seen) == 1:
                do()
        return result

    with connection.execute_wrapper(wrapper):
        yield seen


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_a_webhook_for_an_email_that_is_being_purged_is_no_crash(record, in_threads):
    emails = [record(100, message_id=f"m-{number}") for number in range(3)]
    incoming = IncomingEvent("m-1", "opened", timezone.now(), "e-new")

    with in_between(
        f"DELETE FROM {connection.ops.quote_name(EmailEvent._meta.db_table)}",
        lambda: in_threads(lambda: ingest([incoming])),
    ) as deletions:
        told = purge("--older-than", "90d")

    assert len(deletions) == 2
    assert told.startswith(f"Deleted {len(emails)} emails, their 4 events")
    assert not Email.objects.exists()
    assert not EmailEvent.objects.exists()


def test_what_fails_time_and_again_is_told(record, monkeypatch):
    record(100)
    tries = []

    def fail(*_: Any) -> None:
        tries.append(1)
        raise IntegrityError("ann@example.org")

    monkeypatch.setattr(Purge, "_delete", fail)
    with pytest.raises(CommandError, match=r"The database failed \(IntegrityError\)"):
        purge("--older-than", "90d")
    assert len(tries) == 5


def test_an_ended_connection_is_told_whatever_the_driver_calls_it(monkeypatch):
    def fail(*_: Any) -> None:
        raise InterfaceError(0, "")

    monkeypatch.setattr(Purge, "run", fail)
    with pytest.raises(CommandError, match=r"The database failed \(InterfaceError\)"):
        purge("--older-than", "90d")
