"""``truncus_forget``: one person goes, and what has to stay stays."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import models
from django.test import override_settings
from django.utils import timezone

from tests.forget.conftest import dump, run
from tests.log.events import incoming
from truncus_django.api.errors import EmailRefused
from truncus_django.doctor import Level, examine_log
from truncus_django.forget import forget, tables
from truncus_django.forget.forgetting import Forgetting
from truncus_django.forget.person import Person
from truncus_django.log.ingest import ingest
from truncus_django.log.suppression import unsubscribe_address
from truncus_django.message import TruncusMessage
from truncus_django.models import (
    AccountQuota,
    Email,
    EmailEvent,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.operations import OperationResult, cancel, retry
from truncus_django.sending.forgotten import FORGOTTEN, is_digest
from truncus_django.states import State
from truncus_django.suppression import allow_again, is_suppressed, suppress
from truncus_django.testing import send_outbox
from truncus_django.unsubscribe import Subscription

pytestmark = pytest.mark.django_db

ANN = "ann@example.org"


def reload(email):
    email.refresh_from_db()
    return email


# What goes and what stays -------------------------------------------------------------------------


def test_an_email_to_her_alone_loses_what_is_hers_and_keeps_its_numbers(send):
    email = send(
        f"Ann <{ANN}>",
        subject="Your therapy",
        metadata={"customer": "42"},
        attachments=[("ann.pdf", "%PDF", "application/pdf")],
    )
    run(ANN, "--yes")
    new = reload(email)
    assert (new.to, new.subject, new.text_body, new.html_body) == (
        [FORGOTTEN],
        FORGOTTEN,
        None,
        None,
    )
    assert (new.metadata, new.attachments[0]["filename"]) == ({}, FORGOTTEN)
    assert (new.attachment_count, new.attachment_bytes, new.state) == (1, 4, State.DELIVERED)
    assert new.search_text == f"{FORGOTTEN} {FORGOTTEN}"
    assert new.forgotten_at is not None


def test_an_email_to_others_too_keeps_them_and_its_subject(send):
    email = send("joann@example.org", cc=[ANN], bcc=["boss@example.com"], subject="Minutes")
    forget(ANN)
    new = reload(email)
    assert (new.to, new.cc, new.bcc) == (["joann@example.org"], [FORGOTTEN], ["boss@example.com"])
    assert (new.subject, new.text_body) == ("Minutes", None)
    assert "joann@example.org" in new.search_text
    forget("boss@example.com")
    forget("joann@example.org")
    assert reload(email).subject == FORGOTTEN  # nobody is left


def test_a_text_for_others_keeps_all_but_her_address(send):
    email = send("shop@example.org", subject=f"Order of {ANN}", text=f"From {ANN}, by joann@a.de")
    found = forget(ANN)
    new = reload(email)
    assert (found.emails, found.mentions) == (0, 1)
    assert (new.subject, new.text_body) == (
        f"Order of {FORGOTTEN}",
        f"From {FORGOTTEN}, by joann@a.de",
    )
    assert new.forgotten_at is None


def test_metadata_that_names_her_is_not_found_by_her_address_any_more(send):
    alone = send(ANN, metadata={"customer": "kunde-42"})
    mention = send("bob@example.org", metadata={"by": f"Ann <{ANN}>", "order": "LK-42"})
    long = send("bob@example.org", metadata={"note": f"{ANN} {'x' * 100}"})
    assert all(ANN in email.search_text for email in (alone, mention))
    assert ANN not in long.search_text
    forget(ANN)
    assert "kunde-42" not in reload(alone).search_text
    assert reload(mention).search_text.endswith(f" {FORGOTTEN} lk-42")
    assert ANN not in reload(long).metadata["note"] + long.search_text
    assert ANN not in dump()


def test_events_of_an_email_to_her_alone_lose_what_they_tell(send):
    email = send(ANN)
    ingest([incoming("clicked", 1, email.message_id, payload={"ip": "192.0.2.7"})])
    other = send("bob@example.org")
    ingest([incoming("clicked", 1, other.message_id, payload={"ip": "192.0.2.8"})])
    forget(ANN)
    assert EmailEvent.objects.get(email=email).payload == {}
    assert EmailEvent.objects.get(email=other).payload == {"ip": "192.0.2.8"}
    assert reload(email).click_count == 1


def test_what_is_reported_later_brings_nobody_back(send):
    email = send(ANN)
    forget(ANN)
    event = incoming(
        "complained", 3, email.message_id, recipient=ANN, reason=f"by {ANN}", payload={"to": ANN}
    )
    ingest([event])
    ingest([event])
    assert ANN not in dump()
    assert reload(email).state == State.COMPLAINED
    assert EmailEvent.objects.get(type="complained").payload == {}
    assert is_suppressed(ANN)  # she complained all the same
    assert is_digest(SuppressedAddress.objects.get().address)


NOT_LOOKED_AT = {
    # Ids that Truncus gave, choices, and names that the project gave.
    Email: (
        "message_id", "global_message_id", "provider_message_id", "state",
        "mailer", "sent_by", "tenant_id", "template_id", "unsubscribe_list",
    ),
    EmailEvent: ("message_id", "event_id", "type", "source"),
    OutboxEntry: ("mailer", "tenant", "traceparent"),
    SuppressedAddress: ("tenant_id", "list_name", "reason", "source"),
    OutboxBatch: ("idempotency_key", "mailer", "tenant", "account", "handover", "wire_format"),
    OutboxAccount: ("account", "mailer", "tenant", "recent_requests", "capabilities"),
    AccountQuota: ("account", "mailer", "tenant", "capped"),  # figures by account and domain
}  # fmt: skip


def test_every_column_with_text_is_looked_at_or_is_left_out_on_purpose():
    known = [
        tables.EMAILS, tables.EVENTS, tables.PAYLOADS, tables.SUPPRESSED, tables.REQUESTS,
        tables.ACCOUNTS, tables.BULKS,
    ]  # fmt: skip
    looked_at = {table.rows().model: set(table.columns) for table in known}
    for model in apps.get_app_config("truncus_django").get_models():
        texts = {
            field.name
            for field in model._meta.concrete_fields
            if isinstance(field, models.CharField | models.TextField | models.JSONField)
        }
        assert texts == looked_at.get(model, set()) | set(NOT_LOOKED_AT.get(model, ())), model


# Suppressed addresses -----------------------------------------------------------------------------


def test_who_was_suppressed_is_not_mailed_after_being_forgotten(emulator):
    suppress(ANN, note="asked by phone")
    suppress(ANN, list_name="digest", reason="unsubscribed")
    forget("Ann@Example.ORG")
    assert ANN not in dump()
    assert "phone" not in dump()
    with pytest.raises(EmailRefused):
        TruncusMessage("Hi", "Text", "shop@example.com", [f"ANN <{ANN}>"], html="<p>").send()
    assert emulator.emails == []
    assert is_suppressed(ANN)
    assert not is_suppressed("joann@example.org")


def test_she_can_come_back(send):
    suppress(ANN)
    forget(ANN)
    assert allow_again(ANN) == 1
    assert send(ANN).to == [ANN]


def test_who_was_forgotten_and_unsubscribes_then_is_not_stored_again():
    suppress(ANN)
    forget(ANN)
    unsubscribe_address(Subscription(ANN, "digest", ""))
    assert {entry.list_name for entry in SuppressedAddress.objects.all()} == {"", "digest"}
    assert all(is_digest(entry.address) for entry in SuppressedAddress.objects.all())
    allow_again(ANN, list_name="")
    assert is_suppressed(ANN, list_name="digest")
    assert not is_suppressed(ANN)


def test_forgotten_twice_is_one_entry_that_holds_the_longer():
    suppress(ANN, expires_at=timezone.now() + timedelta(days=1))
    forget(ANN)
    suppress(ANN)
    forget(ANN)
    assert SuppressedAddress.objects.get().expires_at is None
    assert is_suppressed(ANN)


def test_a_rotated_key_finds_her_as_long_as_it_is_a_fallback():
    suppress(ANN)
    forget(ANN)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["tests"]):
        assert is_suppressed(ANN)
    with override_settings(SECRET_KEY="new"):
        assert not is_suppressed(ANN)


def test_the_doctor_tells_of_a_key_that_is_lost():
    suppress(ANN)
    suppress("bob@example.org")
    forget(ANN)
    found = [finding for finding in examine_log() if finding.level is Level.WARN]
    assert not any("forgotten" in finding.found for finding in found)
    with override_settings(SECRET_KEY="new"):
        found = [finding.found for finding in examine_log() if finding.level is Level.WARN]
    assert any(text.startswith("1 suppressed addresses of people") for text in found)


def test_a_file_takes_digests_out_and_in(tmp_path):
    suppress(ANN)
    forget(ANN)
    file = str(tmp_path / "suppressed.csv")
    call_command("truncus_suppress", "--export", file, stderr=StringIO())
    SuppressedAddress.objects.all().delete()
    call_command("truncus_suppress", "--import", file, stdout=StringIO(), stderr=StringIO())
    assert is_suppressed(ANN)


# What waits, and what may have been sent ----------------------------------------------------------


@pytest.fixture
def outbox(configure, emulator):
    configure(DELIVERY="outbox")


def test_what_waits_is_left_and_told_and_forgotten_by_the_next_purge(outbox, send):
    email = send(ANN)
    with pytest.raises(CommandError, match=r"1 emails wait to be sent \(--cancel cancels them\)"):
        run(ANN, "--yes")
    assert reload(email).to == [ANN]
    assert send_outbox() == 1
    out = StringIO()
    call_command("truncus_purge", stdout=out, stderr=StringIO())
    assert "in 1 emails" in out.getvalue()
    assert reload(email).to == [FORGOTTEN]
    assert ANN not in dump()


def test_the_next_run_forgets_it_as_well(outbox, send):
    send(ANN)
    assert forget(ANN).waiting == 1
    assert forget(ANN).waiting == 1
    send_outbox()
    assert forget(ANN).emails == 1
    assert ANN not in dump()


def test_cancel_cancels_what_waits_to_be_sent_to_her_and_no_other(outbox, send):
    email, other, third = send(ANN), send("joann@example.org"), send("bob@example.org", text=ANN)
    with pytest.raises(CommandError, match="Left as they are: 1 emails wait to be sent"):
        run(ANN, "--yes", "--cancel")
    assert reload(email).state == State.CANCELLED
    assert [reload(each).state for each in (other, third)] == [State.PENDING, State.PENDING]
    assert retry([email.pk]) == {email.pk: OperationResult.NOT_STORED}
    assert send_outbox() == 2
    call_command("truncus_purge", stdout=StringIO(), stderr=StringIO())
    assert ANN not in dump().replace("joann@example.org", "")
    assert set(Email.objects.values_list("forget_when_finished", flat=True)) == {""}
    call_command("truncus_purge", stdout=StringIO(), stderr=StringIO())


def test_cancel_cancels_what_truncus_holds(emulator, send):
    email = send(ANN, send_at=timezone.now() + timedelta(days=1))
    assert email.state == State.SCHEDULED
    assert forget(ANN).waiting == 1
    run(ANN, "--yes", "--cancel")
    assert (reload(email).state, email.to) == (State.CANCELLED, [FORGOTTEN])
    assert emulator.requests[-1].method == "DELETE"


def account_for(tenant, mailer):
    return {"api_key": "tr_test_acme"}


def test_cancel_asks_the_account_of_the_email_s_tenant(emulator, send, settings):
    emulator.reset(api_keys={"tr_test_acme": ["send", "read_events"]})
    settings.TRUNCUS = {**settings.TRUNCUS, "ACCOUNTS": f"{__name__}.account_for"}
    email = send(ANN, send_at=timezone.now() + timedelta(days=1), tenant_id="acme")
    assert email.state == State.SCHEDULED
    found = forget(ANN, cancel=True)
    assert (found.emails, found.left) == (1, 0)
    assert reload(email).state == State.CANCELLED


def test_what_went_out_meanwhile_is_not_cancelled_but_forgotten(emulator, send):
    email = send(ANN)
    Email.objects.update(state=State.SCHEDULED)
    found = forget(ANN, cancel=True)
    assert (found.emails, found.left) == (1, 0)
    assert (reload(email).state, email.to) == (State.DELIVERED, [FORGOTTEN])


def test_what_may_have_been_sent_is_finished_first(outbox, emulator, send):
    email = send(ANN)
    emulator.faults.next("reset_after")
    dispatcher = Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5)
    dispatcher.step()
    before = OutboxEntry.objects.get().payload
    with pytest.raises(CommandError, match="1 emails are being sent, or may have been"):
        run(ANN, "--yes", "--cancel")
    assert OutboxEntry.objects.get().payload == before
    assert (reload(email).state, email.to) == (State.SENDING, [ANN])


def test_a_stored_payload_to_others_is_still_sent_without_her(outbox, emulator, send):
    emulator.reset(domains={"example.com": "paused"}, requests_per_second=0)
    email = send("bob@example.org", reply_to=[ANN], text=f"Call {ANN}")
    send_outbox()
    assert reload(email).state == State.FAILED
    assert forget(ANN).payloads == 1
    emulator.reset(requests_per_second=0, requests_per_minute=0)
    retry([email.pk])
    send_outbox()
    assert emulator.emails[-1].payload["text"] == f"Call {FORGOTTEN}"


# The command --------------------------------------------------------------------------------------


def test_without_yes_it_counts_and_changes_nothing(send):
    email = send(ANN)
    send("bob@example.org", text=ANN)
    suppress(ANN)
    told = run(ANN)
    assert "1  emails to or from the address" in told
    assert "1  other emails that mention it" in told
    assert "1  suppressed addresses" in told
    assert "Nothing was changed" in told
    assert ANN not in told
    assert reload(email).to == [ANN]


def test_a_malformed_address_is_refused():
    with pytest.raises(CommandError, match="nothing before or nothing after its @"):
        run("ann at example.org")


def test_portions_of_any_size_do_the_same(send, monkeypatch):
    for number in range(7):
        send(ANN if number % 2 else "joann@example.org")
    monkeypatch.setattr(tables, "PORTION", 2)
    seen = []
    found = Forgetting(person=Person(ANN), on_progress=seen.append).run()
    assert found.emails == 3
    assert len(seen) >= 4
    assert ANN not in dump().replace("joann@example.org", "")


def test_an_interruption_loses_nothing_and_the_next_run_does_the_rest(send, monkeypatch):
    for _ in range(4):
        send(ANN)
    monkeypatch.setattr(tables, "PORTION", 2)
    done = []

    def interrupt(self, found, email, busy, *, real=Forgetting._forget_in):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(email)
        real(self, found, email, busy)

    with monkeypatch.context() as patched:
        patched.setattr(Forgetting, "_forget_in", interrupt)
        with pytest.raises(CommandError, match="the next run does the rest") as caught:
            run(ANN, "--yes")
    assert caught.value.returncode == 130
    assert Email.objects.exclude(forgotten_at=None).count() == 2  # whole portions
    assert "2  emails to or from" in run(ANN, "--yes")
    assert ANN not in dump()


@pytest.mark.django_db(transaction=True)
def test_what_is_retried_meanwhile_is_sent_whole_or_forgotten(
    shared_database, configure, emulator, in_threads, send, monkeypatch
):
    # The admin's history is not in the database that threads can share.
    monkeypatch.setattr(tables, "history", lambda: None)
    configure(DELIVERY="outbox")
    emails = [send(ANN) for _ in range(120)]
    ids = [email.pk for email in emails]
    cancel(ids)
    in_threads(
        lambda: forget(ANN),
        lambda: [retry(ids[start : start + 10]) for start in range(110, -1, -10)],
    )
    for email in Email.objects.all():
        entry = OutboxEntry.objects.filter(pk=email.pk).first()
        if email.forgotten_at is None:
            assert (email.to, email.state, entry.is_waiting) == ([ANN], State.PENDING, True)
        else:
            assert (email.to, email.state, entry) == ([FORGOTTEN], State.CANCELLED, None)


_KILLED = """
import os, sys, django
from django.conf import settings
settings.configure(
    SECRET_KEY="tests", USE_TZ=True, INSTALLED_APPS=["truncus_django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    TRUNCUS={"API_KEY": "tr_test_forget"},
)
django.setup()
from django.core.management import call_command
from django.db import connection
from truncus_django.models import Email
if sys.argv[2] == "fill":
    call_command("migrate", verbosity=0)
    for number in range(300):
        Email.objects.create(state="sent", to=["Ann <ann@example.org>", "bob@example.org"],
                             search_text="ann@example.org bob@example.org")
elif sys.argv[2] == "kill":
    seen = []
    def kill(execute, sql, *rest):
        if sql.startswith("UPDATE"):
            seen.append(sql)
            if len(seen) == int(sys.argv[3]):
                os.kill(os.getpid(), 9)
        return execute(sql, *rest)
    with connection.execute_wrapper(kill):
        call_command("truncus_forget", "ann@example.org", "--yes")
else:
    call_command("truncus_forget", "ann@example.org", "--yes")
print(Email.objects.filter(forgotten_at=None).count())
"""


@pytest.mark.processes
def test_a_killed_process_leaves_whole_emails_and_the_next_run_does_the_rest(tmp_path):
    def python(*arguments):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        env.pop("DJANGO_SETTINGS_MODULE", None)
        command = [sys.executable, "-c", _KILLED, str(tmp_path / "log.sqlite3"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    assert python("fill").stdout.endswith("300\n")
    assert python("kill", "170").returncode == -9
    rest = python("run").stdout
    assert "150  emails to or from" in rest or "200  emails to or from" in rest
    assert rest.endswith("\n0\n")
    assert b"ann@" not in b"".join(line.encode() for line in _dumped(tmp_path / "log.sqlite3"))


def _dumped(path):
    with closing(sqlite3.connect(path)) as database:
        yield from database.iterdump()


# The export ---------------------------------------------------------------------------------------


def exported(tmp_path, *arguments):
    file = tmp_path / "ann.json"
    run(ANN, "--export", str(file), *arguments)
    return json.loads(file.read_text()), file


def test_the_export_holds_all_of_her_and_little_of_others(send, tmp_path):
    email = send(ANN, bcc=["boss@example.com"], metadata={"customer": "42"})
    mention = send("bob@example.org", subject=f"About {ANN}", text="Secret of Bob")
    send("joann@example.org")
    ingest([incoming("clicked", 1, email.message_id, payload={"ip": "192.0.2.7"}, recipient=ANN)])
    suppress(ANN, note="by phone")
    suppress("joann@example.org", note=f"not {ANN}")

    held, file = exported(tmp_path)

    assert held["address"] == ANN
    own, other = sorted(held["emails"], key=lambda each: each["id"] != str(email.pk))
    assert own["text_body"] == "Text"
    assert own["metadata"] == {"customer": "42"}
    assert own["bcc"] == []
    assert set(other) == {"id", "created_at", "subject"}
    assert other["id"] == str(mention.pk)
    [event] = held["events"]
    assert event["payload"] == {"ip": "192.0.2.7"}
    assert [entry["note"] for entry in held["suppressed"]] == ["by phone"]
    assert [each["note"] for each in held["mentions_elsewhere"]] == [f"not {ANN}"]
    for nobody in ("boss@example.com", "bob@example.org", "joann"):
        assert nobody not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert reload(email).to == [ANN]


def test_the_export_holds_what_waits(configure, send, tmp_path):
    configure(DELIVERY="outbox", STORE_BODIES=False)
    send(ANN, text="Your code", attachments=[("a.txt", "abc", "text/plain")])
    held, _ = exported(tmp_path)
    [stored] = held["stored_to_be_sent"]
    assert stored["text"] == "Your code"
    assert stored["attachments"][0]["filename"] == "a.txt"


def test_export_and_yes_export_first_and_no_file_is_overwritten(send, tmp_path):
    send(ANN)
    held, file = exported(tmp_path, "--yes")
    assert held["emails"][0]["to"] == [ANN]
    assert ANN not in dump()
    with pytest.raises(CommandError, match="there already"):
        exported(tmp_path, "--yes")
    assert ANN in file.read_text()
    with pytest.raises(CommandError, match="cannot be written"):
        run(ANN, "--export", str(Path(tmp_path) / "no" / "ann.json"))


def test_the_export_goes_to_standard_output_alone(send):
    send(ANN)
    out = StringIO()
    call_command("truncus_forget", ANN, "--export", "-", stdout=out, stderr=StringIO())
    assert json.loads(out.getvalue())["emails"][0]["to"] == [ANN]
