"""Every email leaves one record, and recording never costs one."""

import asyncio
import contextlib
import logging
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.mail import EmailMessage, send_mail
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import path
from django.utils import timezone

from truncus_django.api.errors import MessagesNotSent, SendCancelled, TruncusError
from truncus_django.backend import TruncusBackend
from truncus_django.db.bulk import insert_new
from truncus_django.log import recording
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import post_send, pre_send
from truncus_django.states import State
from truncus_django.testing import BACKEND

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_trouble_yet() -> None:
    recording._trouble.clear()


def message(**fields: Any) -> TruncusMessage:
    return TruncusMessage(
        **{
            "subject": "Your order",
            "body": "It is on its way.",
            "from_email": "Shop <shop@example.com>",
            "to": ["ada@example.org"],
            **fields,
        }
    )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# What is recorded ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "state"), [("manual", "delivered"), ("sdk", "sent")])
def test_a_sent_email_is_recorded_with_all_its_fields(emulator, dialect, state):
    emulator.reset(dialect=dialect, delivery_delay_s=60)
    before = timezone.now()
    sent = message(
        to=["Ada <ada@example.org>", "bea@example.org"],
        cc=["cy@example.org"],
        bcc=["dan@example.org"],
        tenant_id="acme",
        metadata={"order": "42"},
        track_opens=False,
        track_clicks=True,
    )
    sent.send()

    row = Email.objects.get()
    status = sent.truncus_status
    assert (row.message_id, row.idempotency_key) == (status.id, status.idempotency_key)
    assert row.global_message_id == (status.answer.global_message_id or "")
    assert row.provider_message_id == (status.answer.provider_message_id or "")
    assert (row.state, row.reason, row.error_code, row.error) == (state, "", "", "")
    assert row.from_email == "Shop <shop@example.com>"
    assert row.to[0] in {"Ada <ada@example.org>", '"Ada" <ada@example.org>'}
    assert sorted(row.recipients[1:]) == ["bea@example.org", "cy@example.org", "dan@example.org"]
    assert row.bcc == ["dan@example.org"]
    assert (row.subject, row.tenant_id, row.metadata) == ("Your order", "acme", {"order": "42"})
    assert (row.track_opens, row.track_clicks, row.is_sandbox) == (False, True, False)
    assert (row.attempts, row.batch_index, row.resend_of) == (status.attempts, None, None)
    assert before <= row.created_at <= timezone.now()
    assert before <= row.sent_at <= row.next_sync_at
    assert (row.delivered_at is not None) == (state == "delivered")
    assert "bea@example.org" in row.search_text
    assert "your order" in row.search_text


if django.VERSION >= (6, 1):

    def test_themailer_is_recorded(emulator, settings):
        settings.MAILERS = {**settings.MAILERS, "incoming": {"BACKEND": BACKEND}}
        message().send(using="incoming")

        assert Email.objects.get().mailer == "incoming"


def test_the_status_of_each_message_names_its_record(emulator, backend, messages):
    told = {}

    def listen(message, status, **kwargs):
        told[message.subject] = status.email_pk

    post_send.connect(listen)
    try:
        mails = messages(3)
        mails[1].to = ["suppressed@example.org"]
        with pytest.raises(MessagesNotSent):
            backend().send_messages(mails)
    finally:
        post_send.disconnect(listen)

    records = dict(Email.objects.values_list("subject", "pk"))
    assert {sent.subject: sent.truncus_status.email_pk for sent in mails} == records
    assert told == {subject: records[subject] for subject in ("Order 0", "Order 2")}
    assert [sent.truncus_status.status == "pending" for sent in mails] == [False] * 3


def test_the_status_names_no_record_where_none_was_written(emulator, broken_table):
    sent = message()
    sent.send()

    assert sent.truncus_status.is_accepted
    assert sent.truncus_status.email_pk is None


def test_a_template_is_recorded(emulator):
    message(body="", template_id="welcome", variables={"name": "Ada"}).send()

    assert Email.objects.get().template_id == "welcome"


def test_attachments_are_recorded_by_name_and_size_and_not_kept(emulator):
    sent = message()
    sent.attach("invoice.pdf", b"x" * 1000, "application/pdf")
    sent.attach("räksmörgås.bin", b"y" * 20, "application/octet-stream")
    sent.send()

    row = Email.objects.get()
    assert row.attachments == [
        {"filename": "invoice.pdf", "content_type": "application/pdf", "size": 1000},
        {"filename": "räksmörgås.bin", "content_type": "application/octet-stream", "size": 20},
    ]
    assert (row.attachment_count, row.attachment_bytes) == (2, 1020)


@pytest.mark.parametrize("kept", [True, False])
def test_bodies_are_kept_only_when_asked_for(emulator, settings, kept):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": kept}
    send_mail("x", "the text", None, ["a@example.org"], html_message="<p>the HTML</p>")

    row = Email.objects.get()
    assert (row.text_body, row.html_body) == (
        ("the text", "<p>the HTML</p>") if kept else (None, None)
    )


def test_recording_can_be_turned_off(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    message().send()

    assert emulator.accepted == 1
    assert not Email.objects.exists()


def test_a_sandbox_email_is_recorded_as_such_and_never_asked_about(emulator):
    message(sandbox=True).send()

    row = Email.objects.get()
    assert (row.is_sandbox, row.next_sync_at) == (True, None)


def test_a_scheduled_email_is_asked_about_when_its_time_has_come(emulator):
    emulator.reset(dialect="sdk")
    at = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    message(send_at=at).send()

    row = Email.objects.get()
    assert (row.state, row.send_at, row.sent_at) == (State.SCHEDULED, at, None)
    assert row.next_sync_at > at


def test_a_deferred_email_is_not_sent_yet(emulator):
    emulator.reset(dialect="sdk", retry_delay_s=60)
    message(to=["deferred@example.org"]).send()

    row = Email.objects.get()
    assert (row.state, row.sent_at) == (State.DEFERRED, None)


def test_a_cancelled_send_is_not_recorded(emulator):
    def cancel(**_: Any) -> None:
        raise SendCancelled

    pre_send.connect(cancel)
    try:
        message().send()
    finally:
        pre_send.disconnect(cancel)

    assert not Email.objects.exists()


def test_a_message_without_recipients_is_not_recorded(emulator):
    assert TruncusBackend().send_messages([message(to=[])]) == 0

    assert not Email.objects.exists()


def test_a_bounce_is_recorded_with_its_reason(emulator):
    message(to=["bounce+mailbox_full@example.org"]).send()

    row = Email.objects.get()
    assert (row.state, row.reason) == (State.BOUNCED, "mailbox_full")
    assert row.bounced_at is not None
    assert row.next_sync_at is None


@pytest.mark.django_db(transaction=True)
def test_events_that_came_before_the_record_are_applied_to_it(emulator):
    first = message(idempotency_key="k-1")
    first.send()
    Email.objects.all().delete()
    at = datetime(2026, 11, 1, tzinfo=UTC)
    ingest([IncomingEvent(first.truncus_status.id, "complained", at, "e-1")])
    message(idempotency_key="k-1").send()

    assert Email.objects.get().state == State.COMPLAINED


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_a_refused_email_is_recorded_with_its_reason(emulator, dialect):
    emulator.reset(dialect=dialect)
    with pytest.raises(TruncusError) as caught:
        message(to=["suppressed@example.org"]).send()

    row = Email.objects.get()
    assert row.state in {State.REJECTED, State.FAILED}
    assert row.to == ["suppressed@example.org"]
    assert row.reason
    assert row.error == str(caught.value)
    assert row.error_code == (caught.value.code or "")
    assert (row.sent_at, row.next_sync_at) == (None, None)


def test_a_failed_request_is_recorded_with_its_error(emulator):
    emulator.reset(domains={"example.com": "not_verified"})
    with pytest.raises(TruncusError):
        message().send()

    row = Email.objects.get()
    assert (row.state, row.error_code) == (State.FAILED, "domain_not_verified")
    assert (row.attempts, row.sent_at) == (1, None)
    assert row.reason


def test_a_message_that_cannot_be_sent_is_recorded_too(emulator):
    broken = message(to=["ada@example.org", "no address"], subject="Broken")
    with pytest.raises(TruncusError):
        broken.send()

    row = Email.objects.get()
    assert (row.state, row.subject, row.attempts) == (State.FAILED, "Broken", 0)
    assert row.to == ["ada@example.org", "no address"]
    assert "addr" in row.error


def test_of_a_batch_each_is_recorded_with_its_own_fate(emulator, backend, messages):
    mails = messages(3)
    mails[1].to = ["suppressed@example.org"]
    mails[2].to = ["no address"]
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)

    rows = {row.subject: row for row in Email.objects.all()}
    assert rows["Order 0"].state == State.DELIVERED
    assert rows["Order 1"].state in {State.REJECTED, State.FAILED}
    assert rows["Order 2"].state == State.FAILED
    assert {rows["Order 0"].batch_index, rows["Order 1"].batch_index} == {0, 1}


def test_what_esp_extra_makes_of_a_payload_costs_no_other_record(emulator, backend, messages):
    mails = messages(2)
    mails[0].esp_extra = {"attachments": "x", "track_opens": "yes", "send_at": "2026-13-99"}
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)

    assert Email.objects.count() == 2


# Doubt and repetition -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "order-42"])
@pytest.mark.parametrize("pickled", [True, False])
def test_a_message_in_doubt_that_is_sent_again_updates_its_one_record(emulator, key, pickled):
    emulator.faults.next("reset_after", times=10)
    sent = message(**({"idempotency_key": key} if key else {}))
    with pytest.raises(TruncusError):
        sent.send()
    unconfirmed = Email.objects.get()
    assert (unconfirmed.state, unconfirmed.message_id) == (State.UNKNOWN, None)

    emulator.faults.clear()
    again = pickle.loads(pickle.dumps(sent)) if pickled else sent
    again.send()

    row = Email.objects.get()
    assert again.truncus_status.email_pk == row.pk
    assert (row.pk, row.state) == (unconfirmed.pk, State.DELIVERED)
    assert (row.error, row.reason) == ("", "")
    assert row.message_id
    assert emulator.accepted == 1


def test_a_batch_in_doubt_that_is_sent_again_updates_its_records(emulator, backend, messages):
    emulator.faults.next("reset_after", times=10)
    mails = messages(3)
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)
    emulator.faults.clear()
    backend().send_messages(mails)

    assert set(Email.objects.values_list("state", "batch_index")) == {
        (State.DELIVERED, index) for index in range(3)
    }


def test_a_message_in_doubt_whose_record_was_rolled_back_gets_a_new_one(emulator):
    emulator.faults.next("reset_after", times=10)
    sent = message()
    with pytest.raises(TruncusError), transaction.atomic():
        sent.send()
    assert not Email.objects.exists()
    emulator.faults.clear()
    sent.send()

    row = Email.objects.get()
    assert (row.state, row.subject) == (State.DELIVERED, "Your order")


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_a_repeated_idempotency_key_leaves_one_record(emulator, dialect):
    emulator.reset(dialect=dialect)
    repeated = [message(idempotency_key="order-42") for _ in range(2)]
    for sent in repeated:
        sent.send()

    assert Email.objects.count() == emulator.accepted == 1
    record = Email.objects.get().pk
    assert [sent.truncus_status.email_pk for sent in repeated] == [record, record]


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_new_message_with_the_key_of_one_in_doubt_settles_its_record(emulator, dialect, fault):
    """A task that is tried again makes its message anew."""
    emulator.reset(dialect=dialect)
    emulator.faults.next(fault, times=20)
    for subject in ("First", "Second"):
        with pytest.raises(TruncusError):
            message(subject=subject, idempotency_key="order-42").send()
    unconfirmed = Email.objects.get()
    assert (unconfirmed.state, unconfirmed.subject) == (State.UNKNOWN, "First")

    emulator.faults.clear()
    again = message(subject="Third", idempotency_key="order-42")
    again.send()

    row = Email.objects.get()
    assert (row.pk, row.created_at) == (unconfirmed.pk, unconfirmed.created_at)
    assert (row.message_id, row.error) == (again.truncus_status.id, "")
    assert row.state in {State.SENT, State.DELIVERED}
    assert emulator.accepted == 1


def ambiguous(**fields: Any) -> Email:
    return Email.objects.create(
        **{"idempotency_key": "order-42", "state": State.UNKNOWN, "mailer": MAILER, **fields}
    )


MAILER = "default" if django.VERSION >= (6, 1) else ""


@pytest.mark.parametrize(
    "fields",
    [
        {"mailer": "other"},
        {"is_sandbox": True},
        {"idempotency_key": "order-43"},
        {"created_at": timezone.now() - timedelta(days=2)},  # the key means nothing any more
        {"message_id": "m-1"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_key_settles_no_other_record(emulator, fields):
    other = ambiguous(**fields)
    message(idempotency_key="order-42").send()

    other.refresh_from_db()
    assert other.state == State.UNKNOWN
    assert Email.objects.count() == 2


def test_a_refusal_of_the_request_settles_no_doubt(emulator):
    unconfirmed = ambiguous()
    emulator.reset(domains={"example.com": "paused"})
    with pytest.raises(TruncusError):
        message(idempotency_key="order-42").send()

    unconfirmed.refresh_from_db()
    assert unconfirmed.state == State.UNKNOWN


def test_a_doubt_is_settled_beside_a_record_of_the_same_email(emulator):
    for _ in range(2):
        message(idempotency_key="order-42").send()
        unconfirmed = ambiguous()
    message(idempotency_key="order-42").send()

    unconfirmed.refresh_from_db()
    assert unconfirmed.state == State.DELIVERED
    assert Email.objects.exclude(message_id=None).count() == 1


def test_the_same_message_sent_twice_is_two_emails(emulator):
    sent = message()
    sent.send()
    sent.send()

    assert Email.objects.count() == 2


# What it costs ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_one_email_costs_at_most_two_queries(emulator, count_queries):
    with count_queries() as queries:
        message().send()

    assert len(queries) <= 2


@pytest.mark.django_db(transaction=True)
def test_a_batch_costs_a_constant_number_of_queries_per_hundred(
    emulator, backend, messages, count_queries
):
    def cost(count: int) -> int:
        with count_queries() as queries:
            backend().send_messages(messages(count))
        return len(queries)

    per_hundred = cost(100)
    assert cost(250) <= 3 * per_hundred
    # SQLite takes a bounded number of values in one statement.
    limited = connection.features.max_query_params is not None
    assert per_hundred <= (6 if limited else 2)
    assert Email.objects.count() == 350


# Databases in trouble -----------------------------------------------------------------------------


@pytest.fixture
def broken_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's table is missing, as before the first migrate."""
    monkeypatch.setattr(Email._meta, "db_table", "truncus_nowhere")


def test_a_missing_table_loses_no_email_and_is_logged_once(emulator, broken_table, caplog):
    for _ in range(3):
        assert message().send() == 1

    assert emulator.accepted == 3
    (logged,) = errors(caplog)
    assert "manage.py migrate" in logged
    assert "ada@" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_missing_table_leaves_the_callers_transaction_whole(emulator, monkeypatch, caplog):
    with monkeypatch.context() as patch, transaction.atomic():
        EmailEvent.objects.create(message_id="m-1", event_id="e-1", occurred_at=timezone.now())
        patch.setattr(Email._meta, "db_table", "truncus_nowhere")
        message().send()
        EmailEvent.objects.create(message_id="m-1", event_id="e-2", occurred_at=timezone.now())

    assert EmailEvent.objects.count() == 2
    assert len(errors(caplog)) == 1


def test_a_database_that_is_down_loses_no_email_and_is_logged_once(
    emulator, other_database, tmp_path, caplog
):
    other_database(path=tmp_path / "missing" / "log.sqlite3", with_tables=False)
    for _ in range(3):
        assert message().send() == 1

    assert emulator.accepted == 3
    (logged,) = errors(caplog)
    assert "manage.py migrate" not in logged


def test_trouble_that_comes_back_is_logged_again(emulator, monkeypatch, caplog):
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Email._meta, "db_table", "truncus_nowhere")
            message().send()
        message().send()

    assert len(errors(caplog)) == 2
    assert Email.objects.count() == 2


def test_a_database_that_is_down_hides_no_failure(emulator, broken_table):
    with pytest.raises(TruncusError):
        message(to=["suppressed@example.org"]).send()


def test_a_record_in_a_database_of_its_own_survives_a_rollback(emulator, other_database):
    alias = other_database()
    with transaction.atomic():
        message().send()
        transaction.set_rollback(True)

    assert Email.objects.using(alias).get().state == State.DELIVERED
    assert not Email.objects.using("default").exists()


def test_a_record_in_the_callers_transaction_is_rolled_back_with_it(emulator):
    with transaction.atomic():
        message().send()
        transaction.set_rollback(True)

    assert not Email.objects.exists()


# From a coroutine ---------------------------------------------------------------------------------


def in_a_coroutine(function: Callable[[], Any]) -> Any:
    """Call a function where an event loop runs in its thread, as in an async view."""

    async def call() -> Any:
        return function()

    return asyncio.run(call())


async def async_view(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"accepted": message().send()})


urlpatterns = [path("send/", async_view)]


@pytest.mark.urls(__name__)
def test_what_an_async_view_sends_is_recorded_once(emulator, shared_database, caplog):
    response = async_to_sync(AsyncClient().get)("/send/")

    assert response.json() == {"accepted": 1}
    assert Email.objects.get().message_id == emulator.emails[0].id
    assert errors(caplog) == []


@pytest.mark.parametrize("count", [1, 250])
def test_what_a_coroutine_sends_is_recorded_once(
    emulator, shared_database, backend, messages, caplog, count
):
    sent = messages(count)
    assert in_a_coroutine(lambda: backend().send_messages(sent)) == count

    ids = {each.truncus_status.id for each in sent}
    assert len(ids) == Email.objects.count() == count
    assert set(Email.objects.values_list("message_id", flat=True)) == ids
    assert errors(caplog) == []


def test_what_a_coroutine_could_not_send_is_recorded(emulator, shared_database, caplog):
    emulator.faults.next("reset_after", times=4)
    for sent in (message(), message(to=["suppressed@example.org"]), message(subject="a\nb")):
        with pytest.raises(TruncusError):
            in_a_coroutine(sent.send)

    states = Email.objects.order_by("created_at").values_list("state", flat=True)
    assert list(states) == ["unknown", "rejected", "failed"]
    assert errors(caplog) == []


def test_a_doubt_that_a_coroutine_settles_leaves_one_record(emulator, shared_database):
    emulator.faults.next("reset_after", times=4)
    sent = message()
    with pytest.raises(TruncusError):
        in_a_coroutine(sent.send)
    in_a_coroutine(sent.send)

    assert Email.objects.get().state == State.DELIVERED


def test_a_coroutines_record_leaves_no_connection_open(emulator, shared_database, monkeypatch):
    monkeypatch.setitem(connections.settings[shared_database], "CONN_MAX_AGE", None)
    used = []
    real = recording.insert_new

    def insert(*args: Any, using: str) -> None:
        real(*args, using=using)
        used.append(connections[using])

    monkeypatch.setattr(recording, "insert_new", insert)
    in_a_coroutine(message().send)

    assert [each.connection for each in used] == [None]
    assert Email.objects.count() == 1


def test_trouble_with_a_coroutines_record_loses_no_email_and_is_logged_once(
    emulator, shared_database, monkeypatch, caplog
):
    with monkeypatch.context() as patch:
        patch.setattr(Email._meta, "db_table", "truncus_nowhere")
        assert [in_a_coroutine(message().send) for _ in range(2)] == [1, 1]

    assert emulator.accepted == 2
    [line] = errors(caplog)
    assert line.startswith("Emails were sent and could not be recorded: ")
    assert "SynchronousOnlyOperation" not in line


def test_where_django_allows_it_a_coroutines_record_is_written_in_its_thread(
    emulator, shared_database, monkeypatch
):
    threads = []
    real = recording.insert_new

    def insert(*args: Any, **kwargs: Any) -> None:
        threads.append(threading.get_ident())
        real(*args, **kwargs)

    def send() -> None:
        message().send()
        if os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):
            connections.close_all()  # those of this coroutine

    monkeypatch.setattr(recording, "insert_new", insert)
    in_a_coroutine(send)
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    in_a_coroutine(send)

    assert Email.objects.count() == 2
    assert threads[0] != threads[1] == threading.get_ident()


def test_a_receiver_that_uses_the_database_in_a_coroutine_costs_no_record(
    emulator, shared_database, caplog
):
    def count(sender: Any, **kwargs: Any) -> None:
        Email.objects.count()

    post_send.connect(count)
    try:
        assert in_a_coroutine(message().send) == 1
    finally:
        post_send.disconnect(count)

    assert Email.objects.count() == 1
    [line] = errors(caplog)
    assert "SynchronousOnlyOperation" in line


# What databases do not take -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": "a\x00b"},
        {"subject": "half \ud800"},
        {"body": "a\x00b \ud800"},
        {"to": ["a\x00@example.org", "\ud800@example.org"]},
        {"metadata": {"a\x00": "\ud800"}},
        {"tenant_id": "t" * 5000},
        {"subject": "s" * 50_000},
        {"subject": "\U0001f600" * 998},
        {"to": ["a" * 5000 + "@example.org"]},
        {"from_email": "x" * 5000},
        {"to": [f"customer-{number}@example.org" for number in range(3000)]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_hostile_content_is_recorded_in_a_form_that_every_database_takes(
    emulator, settings, caplog, fields
):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    with suppress(TruncusError):  # some are refused, and recorded as such
        message(**fields).send()

    row = Email.objects.get()
    assert "\x00" not in row.subject + row.search_text + str(row.to) + (row.text_body or "")
    assert "could not be recorded" not in caplog.text


def test_it_works_without_time_zones(emulator, settings):
    settings.USE_TZ = False
    emulator.reset(dialect="sdk")
    at = datetime.now().replace(microsecond=0) + timedelta(days=1)
    message(send_at=at).send()

    row = Email.objects.get()
    assert (row.state, row.send_at) == (State.SCHEDULED, at)


def test_a_message_of_djangos_own_class_is_recorded(emulator):
    EmailMessage("Plain", "x", None, ["a@example.org"]).send()

    assert Email.objects.get().subject == "Plain"


@pytest.mark.parametrize("status", ["delivered", "bounced", "scheduled"])
def test_a_duplicate_is_recorded_in_the_state_that_the_first_send_reached(truncus, status):
    truncus.answers(200, {"status": "duplicate", "message_id": "m-1", "email_status": status})
    message().send()

    assert Email.objects.get().state == status


@pytest.mark.django_db(transaction=True)
def test_one_odd_value_costs_the_others_of_a_request_nothing(emulator, backend, messages):
    many = messages(3)
    many[1].send_at = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)
    many[2].esp_extra = {"send_at": "0001-01-01T00:00:00+05:00", "to": "odd@example.org"}
    with contextlib.suppress(MessagesNotSent):
        backend().send_messages(many)

    assert Email.objects.filter(to=["customer-0@example.org"]).count() == 1
    assert Email.objects.filter(to=["customer-1@example.org"]).count() == 1


END_CONNECTION = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%s)"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL %s"),
}
if connection.vendor in END_CONNECTION:  # SQLite has no server that could end one

    @pytest.mark.django_db(transaction=True)
    def test_a_connection_that_the_server_has_ended_is_made_anew(emulator, messages):
        own_id, end = END_CONNECTION[connection.vendor]
        with connection.cursor() as cursor:
            cursor.execute(own_id)
            (ended,) = cursor.fetchone()
        other = connection.copy("other")
        with other.cursor() as cursor:
            cursor.execute(end, [ended])
        other.close()
        for sent in messages(2):
            sent.send()

        assert Email.objects.count() == 2
        with connection.cursor() as cursor:
            cursor.execute(own_id)
            assert cursor.fetchone() != (ended,)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_recording_that_broke_off_is_tried_once_more(emulator, messages, monkeypatch, error):
    """With one of these two, drivers tell that a connection has ended."""
    tries = []

    def insert(*args: Any, **kwargs: Any) -> int:
        tries.append(args)
        if len(tries) % 2:
            raise error
        return insert_new(*args, **kwargs)

    monkeypatch.setattr(recording, "insert_new", insert)
    for sent in messages(2):
        sent.send()

    assert Email.objects.count() == 2
    assert len(tries) == 4


# Transactions that the caller commits by hand -------------------------------------------------


@pytest.fixture
def by_hand(transactional_db):
    """Leave it to the test to commit."""
    transaction.set_autocommit(False)
    yield
    transaction.rollback()
    transaction.set_autocommit(True)


def fail_once_with(error, monkeypatch):
    """Let the first insert of a record fail, after a statement that the database refuses."""
    real, calls = recording.insert_new, []

    def insert(rows, *, using):
        calls.append(rows)
        if len(calls) == 1:
            with suppress(DatabaseError), connections[using].cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")
            raise error("broken")
        return real(rows, using=using)

    monkeypatch.setattr(recording, "insert_new", insert)


@pytest.mark.parametrize("error", [OperationalError, InterfaceError, ProgrammingError])
def test_a_transaction_that_is_committed_by_hand_stays_whole(
    by_hand, emulator, messages, monkeypatch, error
):
    Group.objects.create(name="before")
    fail_once_with(error, monkeypatch)
    [sent] = messages(1)
    sent.send()
    Group.objects.create(name="after")
    transaction.commit()

    assert transaction.get_autocommit() is False
    assert set(Group.objects.values_list("name", flat=True)) == {"before", "after"}
    assert len(emulator.emails) == 1
    Group.objects.all().delete()
    transaction.commit()


@pytest.mark.django_db(transaction=True)
def test_what_is_too_much_for_one_statement_is_recorded_one_by_one(emulator, messages, monkeypatch):
    real = recording.insert_new

    def insert(rows, *, using):
        if len(rows) > 1:
            raise OperationalError("packet too large")
        return real(rows, using=using)

    monkeypatch.setattr(recording, "insert_new", insert)
    TruncusBackend().send_messages(messages(5))

    assert Email.objects.count() == 5


@pytest.mark.django_db
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_beyond_the_end_of_time_costs_no_record(emulator, messages, moment):
    [sent] = messages(1, esp_extra={"send_at": moment})
    with suppress(TruncusError):
        sent.send()

    assert Email.objects.get().send_at is None
