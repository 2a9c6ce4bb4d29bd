"""``truncus_sync`` where answers, keys, mailers or connections fail."""

import json
from email.utils import formatdate
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.conftest import FakeTruncus
from tests.log.syncing import DIALECTS, asked, sync
from truncus_django.log import sync as sync_module
from truncus_django.log.ingest import ingest
from truncus_django.log.sync import SyncJob
from truncus_django.log.webhook_payload import read_event
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


# One email ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["error_500", "html_502", "reset_after", "truncated"])
def test_one_bad_answer_never_stops_the_rest(emulator, send_due, fault, dialect):
    emulator.reset(dialect=dialect)
    send_due(4)
    emulator.faults.next(fault, times=4, path="email")  # one try and three repetitions
    result = SyncJob().run()
    assert (result.asked, result.changed, result.failed) == (4, 3, 1)
    assert Email.objects.filter(next_sync_at__gt=timezone.now()).count() == 4
    assert SyncJob().run().asked == 0


def test_an_email_that_truncus_does_not_know_is_not_asked_about_again(emulator, send_due):
    send_due(2)
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


def test_an_answer_that_no_database_takes_fails_alone(emulator, send_due, monkeypatch):
    emails = send_due(3)
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


# A mailer -----------------------------------------------------------------------------------------


def test_a_revoked_key_stops_its_mailer_and_no_other(emulator, send_due, accounts):
    emulator.reset(revoked_keys=["tr_test_gone"])
    send_due(5, mailer="revoked")
    send_due(2, mailer="default")
    accounts["revoked"]["OPTIONS"]["api_key"] = "tr_test_gone"
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.changed, result.failed) == (3, 2, 1)
    assert list(result.stopped) == ["revoked"]
    assert "API_KEY" in result.stopped["revoked"]
    assert job.count_left() == 5


def test_a_key_without_the_scope_to_read_stops_its_mailer(emulator, send_due, accounts):
    keys = {"tr_test_sender": ["send"], "tr_test_emulator": ["send", "read_events"]}
    emulator.reset(api_keys=keys)
    send_due(3, mailer="sender")
    result = SyncJob().run()
    assert (result.asked, result.failed) == (1, 1)
    assert "read_events" in result.stopped["sender"]


def test_no_connection_stops_the_mailer(emulator, send_due, settings):
    send_due(3)
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": "http://127.0.0.1:1"}
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.failed, job.count_left()) == (1, 1, 3)
    assert "No connection" in result.stopped[""]


def test_a_mailer_that_is_no_more_fails_with_a_clear_line(emulator, send_due, accounts):
    send_due(2, mailer="default")
    send_due(2, mailer="revoked")
    Email.objects.filter(mailer="revoked").update(mailer="closed")
    errors = StringIO()
    with pytest.raises(CommandError) as caught:
        call_command("truncus_sync", stdout=StringIO(), stderr=errors)
    assert caught.value.returncode == 1
    assert "MAILERS has no mailer 'closed' any more" in errors.getvalue()
    assert len(asked(emulator)) == 2


def test_failures_without_end_stop_the_mailer(emulator, send_due):
    send_due(30)
    emulator.faults.rate("error_500", 1.0, path="email")
    job = SyncJob()
    result = job.run()
    assert (result.asked, result.failed, job.count_left()) == (10, 10, 20)
    assert "10 failures in a row" in result.stopped[""]


# What is said -------------------------------------------------------------------------------------


def test_the_command_tells_what_was_done_and_what_failed(emulator, send_due):
    send_due(3)
    told = sync()
    assert told.startswith("Asked about 3 emails in ")
    assert "3 changed, 0 failed." in told
    send_due(1)
    Email.objects.update(message_id=None)
    [email] = send_due(1)
    Email.objects.filter(pk=email.pk).update(message_id="em_gone")
    with pytest.raises(CommandError, match="1 email could not be asked about"):
        sync()


def test_logs_and_output_hold_ids_only(emulator, send_due, caplog):
    emails = send_due(2)
    emulator.faults.next("error_500", times=4, path="email")
    errors = StringIO()
    with pytest.raises(CommandError):
        call_command("truncus_sync", stdout=errors, stderr=errors)
    told = caplog.text + errors.getvalue()
    assert any(str(email.pk) in told for email in emails)
    assert "customer" not in told
    assert "Order" not in told
