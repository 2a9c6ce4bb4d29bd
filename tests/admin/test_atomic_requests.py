"""The admin of a site with ``ATOMIC_REQUESTS``: each request is one transaction, really."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, connections

from tests.admin.pages import LOG, answer, confirm, make, messages_of, page_of, run
from truncus_django.models import Email
from truncus_django.signals import email_state_changed
from truncus_django.states import State


@pytest.fixture(autouse=True)
def _atomic(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.fixture
def known_events() -> Any:
    """Where the signals of moved states were sent: whether inside a transaction."""
    told: list[bool] = []

    def note(**kwargs: Any) -> None:
        told.append(connection.in_atomic_block)

    email_state_changed.connect(note)
    yield told
    email_state_changed.disconnect(note)


def test_sync_and_cancel_are_kept_and_told_after_the_commit(
    admin_client, scheduled, emulator, known_events
):
    assert "asked" in messages_of(admin_client, confirm(admin_client, "sync_now", scheduled))
    assert "Cancelled." in messages_of(admin_client, confirm(admin_client, "cancel", scheduled))

    scheduled.refresh_from_db()
    assert scheduled.state == State.CANCELLED
    assert known_events == [False]
    assert LogEntry.objects.count() == 2


def test_a_resend_is_recorded(admin_client, sent, emulator):
    told = messages_of(admin_client, confirm(admin_client, "resend", sent))

    assert page_of(Email.objects.get(resend_of=sent)) in told
    assert LogEntry.objects.count() == 1


def test_a_resend_that_failed_keeps_the_record_of_that(admin_client, sent, emulator):
    emulator.reset(domains={"example.com": "paused"})

    confirm(admin_client, "resend", sent)

    assert Email.objects.get(resend_of=sent).state == State.FAILED


def test_a_resend_whose_record_was_rolled_back_is_not_sent_a_second_time(
    admin_client, sent, emulator, monkeypatch
):
    question = run(admin_client, "resend", sent)

    def fail(*args: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("truncus_django.admin.action_runner.ActionRun._show", fail)
        with pytest.raises(RuntimeError):
            answer(admin_client, question)
    assert not Email.objects.filter(resend_of=sent).exists()
    confirm(admin_client, "resend", sent)

    accepted = [email.subject for email in emulator.emails if "ERROR" not in email.subject]
    assert accepted == ["Your tea", "Your tea"]  # and what Django emails to the admins
    assert Email.objects.filter(resend_of=sent).count() == 1


def test_the_export_streams_after_the_transaction(admin_client):
    emails = [make() for _ in range(30)]

    response = confirm(admin_client, "export_csv", *emails)

    assert not connection.in_atomic_block
    assert b"".join(response.streaming_content).count(b"\r\n") == 31
    assert LogEntry.objects.count() == 1


def test_an_email_can_be_deleted(admin_client):
    email = make()

    response = admin_client.post(f"{LOG}{email.pk}/delete/", {"post": "yes"})

    assert response.status_code == 302
    assert not Email.objects.exists()
