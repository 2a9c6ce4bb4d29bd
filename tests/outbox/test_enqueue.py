"""Sending is a part of the caller's transaction."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.mail import EmailMessage, send_mail
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction

from tests.outbox.conftest import put_all
from tests.outbox.processes import other_database, shared_database
from truncus_django.api.errors import (
    ConfigurationError,
    InvalidAddress,
    MessageError,
    MessagesNotSent,
    OutcomeUnknown,
    TruncusError,
)
from truncus_django.backend import TruncusBackend
from truncus_django.models import Email, OutboxEntry, Priority
from truncus_django.outbox import enqueue
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.signals import post_send, pre_send, send_failed

__all__ = ["other_database", "shared_database"]

pytestmark = pytest.mark.django_db


def test_nothing_is_requested(emulator, put):
    put(3)

    assert emulator.requests == []


def test_rows_and_status_tell_that_it_waits(put):
    [email] = put(1, metadata={"order": "42"}, tenant_id="acme")

    assert email.state == "pending"
    assert email.to == ["customer-0@example.org"]
    assert (email.tenant_id, email.metadata) == ("acme", {"order": "42"})
    entry = OutboxEntry.objects.get()
    assert entry.is_waiting
    assert json.loads(entry.payload)["subject"] == "Order 0"
    assert entry.size >= len(entry.payload)


def test_status_of_a_message_in_the_outbox(message):
    sent = message()

    assert TruncusBackend().send_messages([sent]) == 1
    status = sent.truncus_status
    assert (status.status, status.id, status.is_accepted) == ("pending", None, False)
    assert Email.objects.get().pk == status.email_pk


def test_send_mail_returns_one(emulator):
    assert send_mail("Hello", "Hello", "shop@example.com", ["ann@example.org"]) == 1
    assert Email.objects.get().subject == "Hello"


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_never_there(put):
    with transaction.atomic():
        put(2)
        transaction.set_rollback(True)

    assert Email.objects.count() == OutboxEntry.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_savepoint_that_is_rolled_back_takes_its_own_along(message):
    with transaction.atomic():
        put_all([message(1)])
        with transaction.atomic():
            put_all([message(2)])
            transaction.set_rollback(True)

    assert [email.subject for email in Email.objects.all()] == ["Order 1"]


def test_two_inserts_for_a_hundred(message, django_assert_max_num_queries, takes_few_parameters):
    messages = [message(number) for number in range(100)]

    with django_assert_max_num_queries(12 if takes_few_parameters else 2):
        TruncusBackend().send_messages(messages)


def test_a_list_keeps_its_order(message):
    put_all([message(number) for number in range(250)])

    entries = OutboxEntry.objects.order_by(*OutboxEntry.IN_ORDER)
    subjects = [json.loads(entry.payload)["subject"] for entry in entries]
    assert subjects == [f"Order {number}" for number in range(250)]


def test_a_bad_message_is_refused_in_the_caller(message):
    bad = message(to=["no address"])

    with pytest.raises(InvalidAddress):
        TruncusBackend().send_messages([bad])
    assert bad.truncus_status.status == "failed"
    assert Email.objects.count() == 0


def test_one_bad_message_of_a_list_does_not_cost_the_others(message):
    messages = [message(0), message(1, to=["no address"]), message(2)]

    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages)
    assert caught.value.accepted == 2
    assert [failure.index for failure in caught.value.failures] == [1]
    assert OutboxEntry.objects.count() == 2


def test_fail_silently_counts_what_is_in(message):
    messages = [message(0), message(1, to=["no address"])]

    assert TruncusBackend(fail_silently=True).send_messages(messages) == 1


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, Priority.NORMAL),
        ("high", Priority.HIGH),
        ("normal", Priority.NORMAL),
        ("low", Priority.LOW),
    ],
)
def test_priorities(put, given, stored):
    put(1, priority=given)

    assert OutboxEntry.objects.get().priority == stored


@pytest.mark.parametrize("given", ["hihg", 1, True, "HIGH"])
def test_a_priority_that_is_none(put, given):
    with pytest.raises(MessageError, match="'high', 'normal' or 'low'"):
        put(1, priority=given)


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize(
    "given", [datetime.max.replace(tzinfo=UTC), "9999-12-31T00:00Z", timedelta.max]
)
def test_an_expiry_at_the_end_of_time_is_none(put, settings, given, use_tz):
    settings.USE_TZ = use_tz
    [email] = put(1, expires_at=given)

    assert email.outbox_entry.expires_at is None


def test_a_list_keeps_its_order_where_the_clock_stands_still(message, monkeypatch):
    now = datetime(2026, 11, 1, tzinfo=UTC)
    monkeypatch.setattr(enqueue.timezone, "now", lambda: now)
    emails = put_all([message(number) for number in range(3)])

    moments = [now + timedelta(microseconds=number) for number in range(3)]
    assert [email.created_at for email in emails] == moments
    assert [email.outbox_entry.created_at for email in emails] == moments


def test_an_expiry_is_a_moment_or_a_while(message):
    moment = datetime.now(UTC) + timedelta(minutes=10)
    put_all([message(1, expires_at=moment), message(2, expires_at=timedelta(minutes=10))])

    first, second = OutboxEntry.objects.order_by("created_at")
    assert first.expires_at == moment
    assert abs(second.expires_at - moment) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "given", [datetime(2020, 1, 1, tzinfo=UTC), timedelta(0), "soon", object(), 12, True]
)
def test_an_expiry_that_is_none_or_over(put, given):
    with pytest.raises(MessageError, match="expires_at"):
        put(1, expires_at=given)


def test_a_timeout_of_the_caller_is_no_matter_to_the_outbox(message):
    assert TruncusBackend(timeout=5).send_messages([message()]) == 1


@pytest.mark.parametrize(("name", "value"), [
    ("api_key", "tr_live_of_a_tenant"), ("dialect", "sdk"), ("requests_per_second", 5),
])  # fmt: skip
def test_what_is_unknown_to_a_worker_is_refused(message, name, value):
    backend = TruncusBackend(**{name: value})

    with pytest.raises(ConfigurationError, match=name) as caught:
        backend.send_messages([message()])
    assert "tr_live" not in str(caught.value)
    assert Email.objects.count() == 0


def test_what_is_in_the_payload_may_be_a_keyword(message):
    TruncusBackend(tenant_id="acme", sandbox=True).send_messages([message()])

    email = Email.objects.get()
    assert (email.tenant_id, email.is_sandbox) == ("acme", True)


def test_one_backend_may_send_at_once(emulator, message):
    backend = TruncusBackend(delivery="direct")

    assert backend.send_messages([message()]) == 1
    assert len(emulator.emails) == 1


def test_without_the_app_there_is_nothing_to_write_to(settings, message):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "truncus_django"]

    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        TruncusBackend().send_messages([message()])


def test_a_message_put_in_twice_is_two_emails(message):
    same = message()
    TruncusBackend().send_messages([same])
    TruncusBackend().send_messages([same])

    assert Email.objects.count() == 2


def test_receivers_are_asked_once_and_told_of_what_is_refused(message):
    asked, told, failed = [], [], []

    def ask(**state):
        asked.append(state["message"])
        state["payload"]["subject"] = "Changed"

    def tell(**state):
        told.append(state)

    def fail(**state):
        failed.append(state["error"])

    pre_send.connect(ask)
    post_send.connect(tell)
    send_failed.connect(fail)
    try:
        with pytest.raises(MessagesNotSent):
            TruncusBackend().send_messages([message(0), message(1, to=["no address"])])
    finally:
        pre_send.disconnect(ask)
        post_send.disconnect(tell)
        send_failed.disconnect(fail)

    assert len(asked) == 1
    assert told == []  # nothing is sent yet
    assert [type(error) for error in failed] == [InvalidAddress]
    assert Email.objects.get().subject == "Changed"


def test_receivers_may_change_the_message(message):
    def change(message, **state):
        if message.subject == "Order 0":
            message.to.clear()
        message.subject = "Changed"
        message.priority = "high"

    pre_send.connect(change)
    try:
        assert TruncusBackend().send_messages([message(0), message(1)]) == 1
    finally:
        pre_send.disconnect(change)

    assert Email.objects.get().subject == "Changed"
    entry = OutboxEntry.objects.get()
    assert json.loads(entry.payload)["subject"] == "Changed"
    assert entry.priority == Priority.HIGH


def test_a_message_without_recipients_is_skipped_and_not_counted(message):
    nobody = message(0, to=[])

    assert TruncusBackend().send_messages([nobody]) == 0
    assert TruncusBackend().send_messages([nobody, message(1)]) == 1
    assert nobody.truncus_status is None
    assert Email.objects.get().subject == "Order 1"


def test_attachments_travel_with_the_row(message):
    mail = message()
    mail.attach("invoice.pdf", b"%PDF-1.7", "application/pdf")
    [email] = put_all([mail])

    assert email.attachment_count == 1
    [file] = json.loads(OutboxEntry.objects.get().payload)["attachments"]
    assert file["filename"] == "invoice.pdf"


def test_large_emails_go_to_the_database_in_several_statements(
    message, monkeypatch, django_assert_num_queries
):
    monkeypatch.setattr(enqueue, "MAX_INSERT_BYTES", 50_000)
    messages = []
    for number in range(4):
        mail = message(number)
        mail.attach("data.bin", b"\x00" * 30_000, "application/octet-stream")
        messages.append(mail)

    with django_assert_num_queries(8):
        TruncusBackend().send_messages(messages)
    assert OutboxEntry.objects.count() == 4


def test_a_database_that_does_not_exist_is_a_wrong_setting(settings, message):
    settings.TRUNCUS = {**settings.TRUNCUS, "DATABASE": "nowhere"}
    with pytest.raises(ConfigurationError, match="no alias of DATABASES"):
        TruncusBackend().send_messages([message(0)])
    for name in ("truncus_sync", "truncus_worker", "truncus_purge"):
        with pytest.raises(CommandError, match="no alias of DATABASES"):
            call_command(name, **({"older_than": "1d"} if name == "truncus_purge" else {}))


@pytest.mark.parametrize("fail_silently", [False, True])
def test_in_a_coroutine_the_error_says_what_to_call_instead(message, fail_silently):
    async def send() -> None:
        TruncusBackend(fail_silently=fail_silently).send_messages([message(0)])

    with pytest.raises(ConfigurationError, match=r"await asend\(message\)"):
        asyncio.run(send())
    assert OutboxEntry.objects.count() == 0


def test_a_coroutine_puts_a_message_in_by_another_thread(message, shared_database):
    async def send() -> int:
        try:
            return await sync_to_async(TruncusBackend().send_messages)([message(0)])
        finally:
            await sync_to_async(connections.close_all)()

    assert asyncio.run(send()) == 1
    assert OutboxEntry.objects.count() == 1


def test_where_django_allows_it_a_coroutine_puts_messages_in(message, shared_database, monkeypatch):
    async def send() -> int:
        try:
            return TruncusBackend().send_messages([message(0)])
        finally:
            connections.close_all()

    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    assert asyncio.run(send()) == 1
    assert OutboxEntry.objects.count() == 1


def test_bodies_are_in_the_log_only_when_asked_for(settings, message):
    put_all([message(0)])
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    put_all([message(1)])

    first, second = Email.objects.order_by("created_at")
    assert (first.text_body, first.html_body) == (None, None)
    assert "order 1" in second.text_body


def test_a_plain_message_of_django_has_a_place_in_it(emulator):
    mail = EmailMessage("Hello", "Hello", "shop@example.com", ["ann@example.org"])

    assert TruncusBackend().send_messages([mail]) == 1


def test_half_a_character_costs_only_its_own_message(message):
    messages = [message(0), message(1, esp_extra={"metadata": {"name": "\ud800"}}), message(2)]

    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages)
    assert [failure.index for failure in caught.value.failures] == [1]
    assert OutboxEntry.objects.count() == 2


def test_an_ambiguous_direct_send_does_not_become_another_email(emulator, message):
    emulator.faults.next("reset_after", times=4)
    sent = message()
    with pytest.raises(TruncusError) as caught:
        TruncusBackend(delivery="direct", max_retries=0).send_messages([sent])
    assert caught.value.ambiguous

    with pytest.raises(OutcomeUnknown, match="directly"):
        TruncusBackend().send_messages([sent])
    assert OutboxEntry.objects.count() == 0


def test_an_ambiguous_direct_send_with_a_key_of_its_own_may_wait(emulator, message):
    emulator.faults.next("reset_after")
    sent = message(idempotency_key="order-1")
    with pytest.raises(TruncusError):
        TruncusBackend(delivery="direct", max_retries=0).send_messages([sent])

    assert TruncusBackend().send_messages([sent]) == 1
    Dispatcher().drain()
    assert len(emulator.emails) == 1


def test_missing_tables_name_the_command_that_makes_them(message, monkeypatch):
    def fail(*args, **kwargs):
        raise OperationalError("no such table: truncus_django_email")

    monkeypatch.setattr(enqueue, "insert", fail)
    with pytest.raises(OperationalError) as caught:
        TruncusBackend().send_messages([message()])
    assert "manage.py migrate" in "".join(caught.value.__notes__)
