"""``truncus_doctor``: what is in order, and what to do where it is not."""

import json
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.urls import include, path
from django.utils import timezone

from tests.log.conftest import count_queries, emulator, messages, recording, sent
from truncus_django import doctor
from truncus_django.api.client import TruncusClient
from truncus_django.api.results import CheckResult, read_server_time
from truncus_django.doctor import Finding, Level, examine
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

__all__ = ["count_queries", "emulator", "messages", "recording", "sent"]

pytestmark = pytest.mark.django_db
API_KEY = "tr_test_emulator"

_webhook = [path("webhook/", lambda request: None, name="webhook")]
urlpatterns = [path("truncus/", include((_webhook, "truncus_django")))]


@pytest.fixture(autouse=True)
def in_order(emulator: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project where everything is as it should be, and a terminal of usual width."""
    monkeypatch.setenv("COLUMNS", "110")
    settings.ROOT_URLCONF = __name__
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": ["s3cret"]}


def findings(**options: Any) -> dict[str, Finding]:
    """Return all findings by what they are about; those of mailers without the mailer's name."""
    return {finding.what.partition(" (")[0]: finding for finding in examine(**options)}


def doctor_says(*arguments: str) -> str:
    out = StringIO()
    call_command("truncus_doctor", *arguments, stdout=out, stderr=StringIO(), no_color=True)
    return out.getvalue()


# All in order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_all_is_well(emulator, dialect):
    emulator.reset(dialect=dialect)
    found = findings()
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert list(found) == [
        "settings", "API key", "Truncus", "clock", "reading", "dialect", "webhook", "log", "sync",
        "events",
    ]  # fmt: skip


def test_nothing_is_delivered_or_recorded(emulator):
    findings()
    assert all(email.status in {"sent", "sandbox"} for email in emulator.emails)
    sends = [request for request in emulator.requests if request.endpoint == "send"]
    assert len(sends) == 2
    assert all(email.sandbox for email in emulator.emails)
    assert not Email.objects.exists()


def test_without_network_nothing_is_asked(emulator):
    found = findings(network=False)
    assert emulator.requests == []
    assert list(found) == ["settings", "API key", "webhook", "log", "sync", "events"]


def test_the_table_tells_and_the_exit_status_is_0():
    told = doctor_says()
    assert told.splitlines()[0].split() == ["what", "found", "what", "to", "do"]
    assert "Knows the key;" in told  # and how soon, perhaps in the next line
    assert told.endswith("10 ok, 0 warn, 0 fail\n")
    assert "\x1b" not in told


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_the_emails_that_it_sends_in_the_sandbox_are_told(emulator, dialect):
    emulator.reset(dialect=dialect)
    assert findings()["dialect"].found.endswith("Found out by sending two emails in the sandbox.")


def test_a_failure_is_exit_status_1(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": []}
    with pytest.raises(CommandError, match="1 finding failed") as caught:
        doctor_says("--no-network")
    assert caught.value.returncode == 1


def test_json_is_for_machines():
    listed = json.loads(doctor_says("--json", "--no-network"))
    assert listed[0] == {"level": "ok", "what": "settings", "found": "No objections.", "advice": ""}


def test_colours_are_for_terminals():
    out = StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    call_command("truncus_doctor", "--no-network", stdout=out, force_color=True)
    assert "\x1b[" in out.getvalue()


class AsciiOnly(StringIO):
    encoding = "ascii"  # type: ignore[assignment]

    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_is_told_where_the_output_takes_ascii_only(emulator, settings, arguments):
    emulator.reset(revoked_keys=[API_KEY])
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SÉCRETS": 1}
    out = AsciiOnly()
    with pytest.raises(CommandError):
        call_command("truncus_doctor", *arguments, stdout=out, no_color=True)
    assert "u00c9" in out.getvalue() or r"\xc9" in out.getvalue()


def test_neither_key_nor_secret_is_shown(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": ["s3cret-value"]}
    told = doctor_says()
    assert API_KEY not in told
    assert "s3cret-value" not in told


# Settings -----------------------------------------------------------------------------------------


def test_wrong_settings_are_told_without_a_traceback(settings):
    settings.TRUNCUS = {"API_KEY": API_KEY, "SANDBX": True}
    found = findings(network=False)
    assert found["settings"].level is Level.FAIL
    assert "did you mean 'SANDBOX'?" in found["settings"].found


def test_a_missing_key_is_told(settings):
    settings.TRUNCUS = {}
    found = findings()
    assert found["API key"].level is Level.FAIL
    assert "Truncus" not in found


# Truncus ------------------------------------------------------------------------------------------


def test_a_revoked_key_is_told_and_nothing_else_is_asked(emulator):
    emulator.reset(revoked_keys=[API_KEY])
    found = findings()
    assert found["Truncus"].level is Level.FAIL
    assert "API_KEY" in found["Truncus"].advice
    assert "dialect" not in found


def test_no_connection_is_told(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": "http://127.0.0.1:1", "MAX_RETRIES": 0}
    found = findings()
    assert found["Truncus"].level is Level.FAIL
    assert "No connection" in found["Truncus"].found


def test_a_slow_answer_is_told(monkeypatch):
    slow = CheckResult(latency_s=3.0, base_url="", is_sandbox=False)
    monkeypatch.setattr(TruncusClient, "check", lambda self: slow)
    found = findings()
    assert found["Truncus"].level is Level.WARN
    assert "3000 ms" in found["Truncus"].found
    assert found["clock"].level is Level.OK


@pytest.mark.parametrize(
    ("skew_s", "level", "words"),
    [
        (5, Level.OK, "Agrees"),
        (60, Level.WARN, "behind"),
        (-60, Level.WARN, "ahead"),
        (400, Level.FAIL, "behind"),
    ],
)
def test_a_clock_that_is_wrong_is_told(monkeypatch, skew_s, level, words):
    server_time = datetime.now(UTC) + timedelta(seconds=skew_s)
    check = CheckResult(0.01, "", is_sandbox=False, server_time=server_time)
    monkeypatch.setattr(TruncusClient, "check", lambda self: check)
    found = findings()["clock"]
    assert (found.level, words in found.found) == (level, True)


def test_the_time_of_an_answer_is_read(emulator):
    client = TruncusClient(API_KEY, base_url=emulator.url)
    server_time = client.check().server_time
    assert server_time is not None
    assert abs((server_time - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Fri, 99 Nov 2026 07:00:00 GMT",
        "Mon, 01 Jan 2001 00:00:00 +99999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ],
)
def test_a_time_that_is_none_is_passed_over(date):
    assert read_server_time({"Date": date}) is None
    assert read_server_time({}) is None


def test_a_key_that_may_not_read_is_told(emulator):
    emulator.reset(api_keys={API_KEY: ["send"]})
    found = findings()
    assert found["reading"].level is Level.FAIL
    assert "read_events" in found["reading"].advice


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        ("manual", ("takes text alone", "takes a list in 'to'")),
        ("sdk", ("wants HTML beside text", "wants one recipient in 'to'")),
    ],
)
def test_the_dialect_of_the_account_is_found(emulator, dialect, words):
    emulator.reset(dialect=dialect)
    found = findings()["dialect"]
    assert found.level is Level.OK
    assert all(word in found.found for word in words)


def test_a_dialect_that_is_pinned_wrongly_is_told(emulator, settings):
    emulator.reset(dialect="sdk")
    settings.TRUNCUS = {**settings.TRUNCUS, "DIALECT": "manual"}
    found = findings()["dialect"]
    assert (found.level, found.advice) == (Level.FAIL, "Set it to 'sdk', or to 'auto'.")


def test_a_sender_that_is_not_verified_is_told(emulator):
    emulator.reset(verified_domains=["elsewhere.example"])
    found = findings()["dialect"]
    assert found.level is Level.FAIL
    assert "DEFAULT_FROM_EMAIL" in found.advice


def test_a_sandbox_that_is_none_stops_the_examination(emulator, monkeypatch):
    sends: list[Any] = []

    def sent(self: TruncusClient, email: Any, **options: Any) -> Any:
        sends.append(email)
        return SimpleNamespace(is_accepted=True, is_sandbox=False)

    monkeypatch.setattr(TruncusClient, "send", sent)
    found = findings()["dialect"]
    assert found.level is Level.FAIL
    assert len(sends) == 1


def test_the_process_learns_nothing_from_the_examination(emulator, caplog):
    emulator.reset(dialect="sdk")
    findings()
    assert "From now on" not in caplog.text


# Webhook ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secrets", "urlconf", "level"),
    [
        (["a", "b"], __name__, Level.OK),
        ([], __name__, Level.FAIL),
        (["a"], "tests.log.no_urls", Level.FAIL),
        ([], "tests.log.no_urls", Level.WARN),
    ],
)
def test_a_webhook_needs_a_secret_and_a_url(settings, monkeypatch, secrets, urlconf, level):
    monkeypatch.setitem(
        __import__("sys").modules, "tests.log.no_urls", SimpleNamespace(urlpatterns=[])
    )
    settings.ROOT_URLCONF = urlconf
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": secrets}
    assert findings(network=False)["webhook"].level is level


class _BrokenUrls:
    @property
    def urlpatterns(self) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("module", "kind"), [(None, "ModuleNotFoundError"), (_BrokenUrls(), "ZeroDivisionError")]
)
def test_urls_that_cannot_be_loaded_are_told(settings, monkeypatch, module, kind):
    monkeypatch.setitem(sys.modules, "tests.log.broken_urls", module)
    settings.ROOT_URLCONF = "tests.log.broken_urls"
    found = findings(network=False)["webhook"]
    assert found.level is Level.FAIL
    assert found.found == f"The project's urls cannot be loaded ({kind})."


# The log ------------------------------------------------------------------------------------------


def test_overdue_questions_are_told():
    moment = timezone.now()
    for hours in (0, 2, 5):
        Email.objects.create(
            message_id=f"m-{hours}",
            state=State.SENT,
            next_sync_at=moment - timedelta(hours=hours),
        )
    found = findings(network=False)["sync"]
    assert found.level is Level.WARN
    assert found.found == "2 emails are overdue, the longest for 5 h 0 min."


def test_orphans_are_told():
    for minutes in (0, 60):
        EmailEvent.objects.create(
            message_id="m",
            event_id=f"e-{minutes}",
            type="opened",
            occurred_at=timezone.now(),
            received_at=timezone.now() - timedelta(minutes=minutes),
        )
    found = findings(network=False)["events"]
    assert (found.level, found.found[:1]) == (Level.WARN, "1")


def test_missing_migrations_are_told_and_the_tables_left_alone():
    MigrationRecorder(connection).migration_qs.filter(app="truncus_django").delete()
    found = findings(network=False)
    assert found["log"].level is Level.FAIL
    assert "migrate truncus_django" in found["log"].advice
    assert "sync" not in found


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("password=hunter2"),
        InterfaceError(0, ""),
        ImproperlyConfigured("password=hunter2"),
        ModuleNotFoundError("hunter2"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(monkeypatch, error):
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(doctor, "MigrationExecutor", fail)
    found = findings(network=False)["log"]
    assert found.level is Level.FAIL
    assert f"cannot be used ({type(error).__name__})" in found.found
    assert "hunter2" not in found.found


def test_migrations_that_are_nowhere_are_told(settings):
    settings.MIGRATION_MODULES = {"truncus_django": "no.such"}
    assert findings(network=False)["log"].level is Level.FAIL


def test_a_database_that_is_not_there_is_told(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DATABASE": "nowhere"}
    found = findings(network=False)
    assert "no alias of DATABASES" in found["settings"].found
    assert "log" not in found  # it is told once


def test_recording_that_is_off_is_told(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    assert findings(network=False)["log"].level is Level.WARN
