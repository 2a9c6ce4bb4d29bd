"""``truncus_sync`` that is interrupted or runs twice at once: no answer is lost."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import InterfaceError, connection
from django.utils import timezone

from tests.log.syncing import asked, sync
from tests.waiting import PATIENCE_S
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import ConfigurationError
from truncus_django.log import sync as sync_module
from truncus_django.log.sync import Selection, SyncJob, count_due
from truncus_django.log.transitions import EmailUpdate, advance_emails
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


# Interrupted --------------------------------------------------------------------------------------


def test_an_interrupted_job_keeps_what_it_heard_and_resumes_with_the_rest(emulator, send_due):
    emails = send_due(10)
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
    emulator, send_due, monkeypatch, in_threads, limit
):
    emulator.reset(delivery_delay_s=0)
    send_due(130)
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


def test_answers_are_kept_until_they_are_written(emulator, send_due, monkeypatch):
    send_due(3)
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


def test_an_interrupted_job_gives_back_the_old_dates(emulator, send_due, monkeypatch):
    send_due(3)
    before = dict(Email.objects.values_list("pk", "next_sync_at"))

    def interrupted(self: TruncusClient, message_id: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(TruncusClient, "get_email", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SyncJob().run()
    assert dict(Email.objects.values_list("pk", "next_sync_at")) == before


def test_claims_of_a_job_that_died_run_out(emulator, send_due):
    send_due(3)
    assert SyncJob()._claim(100) is not None
    assert SyncJob().run().asked == 0
    later = timezone.now() + timedelta(minutes=20)
    assert SyncJob(now=lambda: later).run().asked == 3


# Twice at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_skip_locked", [True, False])
def test_a_second_job_leaves_alone_what_the_first_has_claimed(
    emulator, send_due, monkeypatch, has_skip_locked
):
    emails = send_due(150)
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


def test_what_another_job_claims_between_looking_and_claiming_is_passed_over(emulator, send_due):
    emails = send_due(4)
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


def test_a_webhook_that_is_faster_than_a_failure_is_not_undone(emulator, send_due, monkeypatch):
    [email] = send_due()

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
def test_two_processes_ask_about_each_email_once(emulator, send_due, tmp_path: Path):
    emails = send_due(450)
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
    told = [job.communicate(timeout=PATIENCE_S) for job in jobs]
    assert [job.returncode for job in jobs] == [1, 1], told  # all are unknown to the emulator
    assert sorted(asked(emulator)) == sorted(email.message_id for email in emails)
    assert all("unknown to Truncus" in out for out, _ in told), told
