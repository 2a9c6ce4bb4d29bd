"""Recording where the database is in trouble, is not to be asked, or does not take a value."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.core.mail import EmailMessage
from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    transaction,
)
from django.db.transaction import TransactionManagementError
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient
from django.urls import path
from django.utils import timezone

from tests.log.test_recording import errors, message, no_trouble_yet  # noqa: F401  a fixture
from truncus_django.api.errors import MessagesNotSent, TruncusError
from truncus_django.backend import TruncusBackend
from truncus_django.db.bulk import insert_new
from truncus_django.log import recording
from truncus_django.models import Email, EmailEvent, SuppressedAddress
from truncus_django.signals import post_send
from truncus_django.states import State

pytestmark = pytest.mark.django_db


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


@pytest.mark.django_db(transaction=True)
def test_a_broken_transaction_is_no_missing_table(emulator, caplog):
    with suppress(TransactionManagementError), transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic(savepoint=False):
            raise ZeroDivisionError
        assert message().send() == 1

    (logged,) = errors(caplog)
    assert "TransactionManagementError" in logged
    assert "migrate" not in logged


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


def test_the_status_names_no_record_where_none_was_written(emulator, broken_table):
    sent = message()
    sent.send()

    assert sent.truncus_status.is_accepted
    assert sent.truncus_status.email_pk is None


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


def test_an_ambiguous_send_that_a_coroutine_completes_leaves_one_record(emulator, shared_database):
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


@pytest.mark.django_db(transaction=True)
def test_what_is_recorded_again_after_a_deadlock_has_one_record(
    truncus, messages, monkeypatch, settings
):
    """Truncus gave no id, by which the first record could be found."""
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "learn"}
    truncus.answers(422, {"error": "No", "code": "ALL_RECIPIENTS_SUPPRESSED"})
    real, calls = recording.suppress, []

    def deadlock_once(found):
        calls.append(found)
        if len(calls) == 1:
            raise OperationalError("deadlock")
        return real(found)

    monkeypatch.setattr(recording, "suppress", deadlock_once)
    [sent] = messages(1)
    with suppress(TruncusError):
        sent.send()

    assert len(calls) == 2
    email = Email.objects.get()
    assert (email.message_id, email.pk) == (None, sent.truncus_status.email_pk)
    assert SuppressedAddress.objects.get().email_id == email.pk


@pytest.mark.django_db
@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_beyond_the_end_of_time_costs_no_record(emulator, messages, moment):
    [sent] = messages(1, esp_extra={"send_at": moment})
    with suppress(TruncusError):
        sent.send()

    assert Email.objects.get().send_at is None
