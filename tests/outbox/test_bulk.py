"""send_bulk(): any number of messages, in few requests, and what is told of each."""

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.outbox.bulk_messages import ACCEPTED, books, customers
from tests.outbox.conftest import keys_of
from truncus_django.api.errors import SendCancelled
from truncus_django.bulk import BulkResult, send_bulk
from truncus_django.conf import ConfigurationError
from truncus_django.message import TruncusMessage, TruncusStatus
from truncus_django.models import BulkEmail, Email, OutboxEntry
from truncus_django.signals import post_send, pre_send, send_failed
from truncus_django.testing import send_outbox

pytestmark = pytest.mark.django_db


def test_direct_sends_hundreds_in_as_many_requests(is_direct, emulator, messages):
    result = send_bulk(messages(250), key="news")

    assert result == BulkResult(messages=250, accepted=250)
    assert books(emulator) == customers(250)
    assert len(keys_of(emulator)) == 3
    assert not OutboxEntry.objects.exists()
    assert str(result) == "250 messages: 250 accepted"


def test_in_the_outbox_they_wait_for_the_workers(emulator, messages, dispatcher):
    result = send_bulk(messages(250), key="news")

    assert result == BulkResult(messages=250, queued=250)
    assert not books(emulator)
    dispatcher.drain()
    assert books(emulator) == customers(250)


def test_without_a_key_nobody_is_skipped_and_nothing_is_noted(delivery, emulator, messages):
    for _ in range(2):
        result = send_bulk(messages(3))
        assert (result.accepted + result.queued, result.skipped) == (3, 0)
    assert not BulkEmail.objects.exists()


def test_a_list_works_too_and_each_message_has_its_status(is_direct, emulator, messages):
    given = list(messages(3))
    send_bulk(given)
    for message in given:
        status = message.truncus_status
        assert (status.status, status.is_accepted, status.attempts) == (ACCEPTED, True, 1)
        email = Email.objects.get(pk=status.email_pk)
        assert (email.message_id, email.idempotency_key) == (status.id, status.idempotency_key)


def test_nothing_is_nothing(delivery, emulator):
    assert send_bulk([], key="news") == BulkResult()
    assert str(BulkResult()) == "0 messages: nothing was sent"


def test_a_transaction_of_the_callers_takes_the_outbox_back(emulator, messages):
    with transaction.atomic():
        send_bulk(messages(3), key="news")
        transaction.set_rollback(True)
    assert not Email.objects.exists()
    assert send_bulk(messages(3), key="news").queued == 3


def test_other_emails_go_before_those_of_a_bulk(emulator, message, dispatcher):
    send_bulk([message(1), message(2, priority="high")])
    message(0).send()
    dispatcher.drain()
    order = [email.payload["subject"] for email in emulator.emails]
    assert order == ["Order 2", "Order 0", "Order 1"]


def test_each_fate_is_told_once(delivery, emulator, messages):
    told: list[tuple[str, str]] = []

    def note(message: EmailMessage, status: TruncusStatus) -> None:
        told.append((message.to[0], status.status))

    send_bulk(messages(120), key="news", on_result=note)
    word = ACCEPTED if delivery == "direct" else "pending"
    assert sorted(told) == [(customer, word) for customer in sorted(customers(120))]

    told.clear()
    send_bulk(messages(120), key="news", on_result=note)
    assert sorted(told) == [(customer, word) for customer in sorted(customers(120))]


def test_progress_is_shown_as_lines_off_terminals(is_direct, emulator, messages, capsys):
    send_bulk(messages(1200), progress=True)
    assert capsys.readouterr().err == "1000 emails\n"
    send_bulk(list(messages(1000)), progress=True)
    assert capsys.readouterr().err == "1000 of 1000 emails\n"


def test_direct_keeps_within_the_limits_ahead_of_time(is_direct, emulator, messages, settings):
    limits = {"requests_per_second": 2, "requests_per_minute": 60}
    emulator.reset(**limits)
    own = {name.upper(): value for name, value in limits.items()}
    settings.TRUNCUS = {**settings.TRUNCUS, **own}

    assert send_bulk(messages(350), key="news").accepted == 350
    assert [request.status for request in emulator.requests] == [200] * 4  # and no 429


def test_receivers_are_asked_and_told_as_in_a_send(delivery, emulator, messages):
    failures, successes = [], []

    def cancel_two(message: EmailMessage, payload: dict[str, Any], **facts: Any) -> None:
        if message.subject == "Order 2":
            raise SendCancelled
        if message.subject == "Order 1":
            payload["to"] = "not an address"
            raise ValueError
        payload["subject"] = f"Changed: {payload['subject']}"

    def note_failure(message: EmailMessage, **facts: Any) -> None:
        failures.append(message.subject)

    def note_success(message: EmailMessage, status: TruncusStatus, **facts: Any) -> None:
        successes.append((message.subject, status.status))

    pre_send.connect(cancel_two)
    send_failed.connect(note_failure)
    post_send.connect(note_success)
    try:
        result = send_bulk(messages(3), key="news")
    finally:
        pre_send.disconnect(cancel_two)
        send_failed.disconnect(note_failure)
        post_send.disconnect(note_success)
    assert successes == ([("Order 0", ACCEPTED)] if delivery == "direct" else [])
    assert (result.cancelled, result.failed, failures) == (1, 1, ["Order 1"])
    assert [email.subject for email in Email.objects.all()] == ["Changed: Order 0"]


def test_large_messages_are_not_held_by_the_hundred(emulator, message):
    alive: list[int] = []
    content = b"x" * 3_000_000

    def generate() -> Iterator[EmailMessage]:
        for number in range(6):
            alive.append(Email.objects.count())
            each = message(number)
            each.attach("file.bin", content, "application/octet-stream")
            yield each

    assert send_bulk(generate(), key="news").queued == 6
    assert max(alive) == 3  # written before the others were taken


def test_the_plain_send_path_knows_nothing_of_bulks(put):
    with CaptureQueriesContext(connection) as seen:
        put(100)
    assert seen.captured_queries
    assert not any("bulk" in query["sql"] for query in seen.captured_queries)


# Merge data ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("is_direct")
def test_a_status_is_not_that_of_an_earlier_run(emulator):
    merged = TruncusMessage(
        "News",
        "Text",
        "shop@example.com",
        ["ann@example.org", "bob@example.org"],
        merge_data={},
    )
    emulator.suppress("bob@example.org")
    assert send_bulk([merged], key="news").failed == 1
    assert merged.truncus_status.status == "mixed"
    emulator.reset()

    assert send_bulk([merged], key="news").accepted == 1
    assert merged.truncus_status.status == ACCEPTED
    assert merged.truncus_status.error is None


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_a_message_with_merge_data_is_an_email_for_each_recipient(emulator, settings, delivery):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}
    people = [f"customer{number}@example.org" for number in range(250)]
    told = []

    def merged():
        return TruncusMessage(
            "Hello",
            "Dear {{ name }}",
            "shop@example.com",
            people,
            merge_data={address: {"name": address} for address in people[1:]},
        )

    message = merged()
    result = send_bulk([message], key="news", on_result=lambda each, status: told.append(each.to))
    send_outbox()
    assert (result.messages, result.failed, len(told)) == (1, 1, 250)
    assert emulator.accepted == 249
    assert len(message.truncus_status.recipients) == 250
    assert message.truncus_status.recipients[people[0]].status == "failed"

    again = send_bulk([merged()], key="news")
    send_outbox()
    assert (again.skipped, again.failed) == (249, 1)
    assert emulator.accepted == 249


# Where it cannot work -----------------------------------------------------------------------------


def test_a_coroutine_is_told_what_to_call(messages):
    async def send() -> None:
        send_bulk(messages(1))

    with pytest.raises(ConfigurationError, match="sync_to_async\\(send_bulk\\)"):
        async_to_sync(send)()


@pytest.mark.django_db(transaction=True)
def test_direct_is_refused_in_a_transaction(is_direct, emulator, messages):
    with transaction.atomic(), pytest.raises(ConfigurationError, match=r"transaction\.atomic"):
        send_bulk(messages(1))
    assert not Email.objects.exists()


@pytest.mark.parametrize(
    ("truncus", "text"),
    [({"RECORD": False}, "RECORD is off"), ({"API_KEY": ""}, "API_KEY must be a string")],
)
def test_settings_that_do_not_do(emulator, settings, messages, truncus, text):
    settings.TRUNCUS = {**settings.TRUNCUS, **truncus}
    with pytest.raises(ConfigurationError, match=text):
        send_bulk(messages(1))


def test_the_app_is_needed(settings, messages):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if "truncus" not in name]
    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        send_bulk(messages(1))


def test_a_mailer_that_is_not_truncus(messages):  # pytest-django puts locmem there
    with pytest.raises(ConfigurationError, match="truncus_emulator"):
        send_bulk(messages(1))


def test_a_mailer_that_does_not_exist(emulator, messages):
    with pytest.raises(ConfigurationError, match="'letters' is not Truncus"):
        send_bulk(messages(1), using="letters")


@pytest.mark.parametrize("given", [None, 3, "text", EmailMessage()])
def test_what_are_no_messages(given):
    with pytest.raises(TypeError, match="a list or a generator of messages"):
        send_bulk(given)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb"])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="1 to 200 printable characters"):
        send_bulk([], key=key)


def test_a_key_is_a_string():
    with pytest.raises(TypeError, match="is a string, not int"):
        send_bulk([], key=5)  # type: ignore[arg-type]
