"""send_bulk(): any number of messages, each once under a key, whatever happens in between."""

import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.outbox.conftest import NO_LIMITS, keys_of
from truncus_django.api.errors import MessageError, SendCancelled
from truncus_django.bulk import BulkInterrupted, BulkResult, direct, send_bulk
from truncus_django.conf import ConfigurationError
from truncus_django.log.purge import Purge
from truncus_django.message import TruncusMessage, TruncusStatus
from truncus_django.models import BulkEmail, Email, OutboxBatch, OutboxEntry
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.operations import OperationResult, retry
from truncus_django.signals import post_send, pre_send, send_failed
from truncus_django.testing import send_outbox

ACCEPTED = "delivered"
"""How the emulator answers: it has delivered by then."""

pytestmark = pytest.mark.django_db


@pytest.fixture
def is_direct(settings: Any) -> None:
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}


@pytest.fixture(params=["direct", "outbox"])
def delivery(request: Any, settings: Any) -> str:
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": request.param}
    return str(request.param)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing but the account's limits."""
    monkeypatch.setattr(direct, "lease_s", lambda settings: 0.0)
    monkeypatch.setattr(direct, "MARGIN_S", 0.0)


@pytest.fixture
def messages(message: Callable[..., EmailMessage]) -> Callable[..., Iterator[EmailMessage]]:
    """Return a function that returns a generator of messages."""

    def generate(count: int, start: int = 0) -> Iterator[EmailMessage]:
        for number in range(start, start + count):
            yield message(number)

    return generate


def books(emulator: Any) -> list[str]:
    """Return who got an email by Truncus's books, each as often as they got one."""
    return sorted(address for email in emulator.emails for address in _listed(email.payload["to"]))


def _listed(to: Any) -> list[str]:
    return [to] if isinstance(to, str) else list(to)


def customers(count: int) -> list[str]:
    return sorted(f"customer-{number}@example.org" for number in range(count))


# All goes well ------------------------------------------------------------------------------------


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
    assert books(emulator) == []
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
    assert sorted(told) == [(customer, word) for customer in customers(120)]

    told.clear()
    send_bulk(messages(120), key="news", on_result=note)
    assert sorted(told) == [(customer, word) for customer in customers(120)]


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


# Under a key --------------------------------------------------------------------------------------


def test_a_second_run_sends_to_whom_is_new(delivery, emulator, messages, dispatcher):
    send_bulk(messages(150), key="news")
    result = send_bulk(messages(170), key="news")
    dispatcher.drain()

    assert (result.skipped, result.accepted + result.queued) == (150, 20)
    assert books(emulator) == customers(170)


def test_a_day_later_nobody_is_sent_a_second_one(is_direct, emulator, messages, travel):
    send_bulk(messages(120), key="news")
    travel(25 * 3600)
    emulator.reset(**NO_LIMITS)  # it knows no key any more

    assert send_bulk(messages(120), key="news").skipped == 120
    assert books(emulator) == []


def test_two_bulks_know_nothing_of_each_other(is_direct, emulator, messages):
    send_bulk(messages(3), key="may")
    assert send_bulk(messages(3), key="june").accepted == 3
    assert Email.objects.filter(bulk__key="june").count() == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"to": ["ann@example.org"]}, {"to": ["Ann Lee <Ann@Example.ORG>"]}),
        ({"to": ["ann@example.org"]}, {"to": ['"Lee, Ann <3" <ann@example.org>']}),
        ({"to": ["ann@bücher.example"]}, {"to": ["ann@xn--bcher-kva.example"]}),
        (
            {"to": ["ann@example.org"], "cc": ["bob@example.org"]},
            {"to": ["bob@example.org"], "bcc": ["ann@example.org"]},
        ),
        (
            {"to": ["ann@example.org"], "idempotency_key": "order-1"},
            {"to": ["bob@example.org"], "idempotency_key": "order-1"},
        ),
    ],
)
def test_the_same_recipients_or_the_same_key_are_skipped(is_direct, emulator, message, one, other):
    both = [message(1, **one), message(2, **other)]
    assert send_bulk(both, key="a").skipped == 1
    assert send_bulk(both[:1], key="b").accepted == 1
    assert send_bulk(both[1:], key="b").skipped == 1
    assert both[1].truncus_status.status == ACCEPTED


@pytest.mark.parametrize(
    "other",
    [
        {"to": ["bob@example.org"]},
        {"to": ["ann@example.org", "bob@example.org"]},
        {"to": ["ann@example.org"], "idempotency_key": "order-1"},
        {"to": ["ann@example.org"], "sandbox": True},
    ],
)
def test_others_are_not_skipped(is_direct, emulator, message, other):
    result = send_bulk([message(1, to=["ann@example.org"]), message(2, **other)], key="news")
    assert (result.accepted, result.skipped) == (2, 0)


def test_what_failed_is_tried_again_and_cannot_be_sent_from_the_admin_as_well(
    is_direct, emulator, messages
):
    emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
    result = send_bulk(messages(3), key="news")
    assert (result.failed, result.errors) == (3, {"domain_not_verified": 3})
    assert result.first_at == {"domain_not_verified": 1}
    earlier = list(Email.objects.values_list("pk", flat=True))

    emulator.reset(**NO_LIMITS)
    assert send_bulk(messages(3), key="news").accepted == 3
    assert set(retry(earlier).values()) == {OperationResult.NOT_STORED}
    assert books(emulator) == customers(3)
    assert send_bulk(messages(3), key="news").skipped == 3


def test_what_somebody_retries_is_not_sent_by_the_next_run(emulator, messages, failed, dispatcher):
    Email.objects.all().delete()
    emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
    send_bulk(messages(2), key="news")
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    retry(Email.objects.values_list("pk", flat=True))

    assert send_bulk(messages(2), key="news").skipped == 2
    dispatcher.drain()
    assert books(emulator) == customers(2)


def test_what_may_have_been_accepted_is_not_sent_again(emulator, messages, dispatcher, travel):
    send_bulk(messages(2), key="news")
    emulator.faults.next("reset_after")
    dispatcher.step()
    travel(25 * 3600)
    dispatcher.drain()

    result = send_bulk(messages(2), key="news")
    assert (result.unknown, result.queued, result.skipped) == (2, 0, 0)
    assert result.errors == {"unknown": 2}
    assert books(emulator) == customers(2)


def test_the_log_forgets_a_bulk_with_its_emails(is_direct, emulator, messages):
    send_bulk(messages(3), key="news")
    Purge(before=timezone.now() + timedelta(days=1)).run()
    assert not BulkEmail.objects.exists()
    assert send_bulk(messages(3), key="news").accepted == 3


# Bad messages -------------------------------------------------------------------------------------


def test_bad_messages_do_not_stop_the_others(delivery, emulator, message, dispatcher):
    bad: list[Any] = [
        message(1, to=["not an address"]),
        None,
        message(2, to=[]),
        message(3, priority="urgent"),
        message(4, headers={"X-A": "a\nb"}),
    ]
    result = send_bulk([*bad, *(message(number) for number in range(120))], key="news")
    dispatcher.drain()

    assert result.messages == 125
    assert (result.accepted + result.queued, result.failed, result.skipped) == (120, 4, 1)
    assert result.errors == {"InvalidAddress": 1, "MessageError": 2, "InvalidHeader": 1}
    assert result.first_at == {"InvalidAddress": 1, "MessageError": 2, "InvalidHeader": 5}
    assert books(emulator) == customers(120)
    assert isinstance(bad[0].truncus_status.error, MessageError)


def test_one_that_truncus_refuses_does_not_stop_the_others(is_direct, emulator, message):
    emulator.suppress("customer-7@example.org")
    told = {}
    result = send_bulk(
        [message(number) for number in range(20)],
        on_result=lambda each, status: told.update({each.to[0]: status}),
    )
    assert (result.accepted, result.failed) == (19, 1)
    refused = told["customer-7@example.org"]
    assert (refused.status, refused.is_accepted) == ("rejected", False)
    assert refused.error is not None


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


# Interruptions ------------------------------------------------------------------------------------


def broken(generated: Iterator[EmailMessage], exc: BaseException) -> Iterator[EmailMessage]:
    yield from generated
    raise exc


def test_messages_that_raise_half_way_lose_nothing(delivery, emulator, messages, dispatcher):
    with pytest.raises(BulkInterrupted) as caught:
        send_bulk(broken(messages(150), ValueError("ann@example.org")), key="news")

    result = caught.value.result
    assert (result.messages, result.accepted + result.queued) == (150, 150)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "ValueError in broken() (test_bulk.py, line" in str(caught.value)
    assert "150 messages: 150 " in str(caught.value)
    assert "with the same key" in str(caught.value)
    assert "ann@example.org" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).result == result

    assert send_bulk(messages(200), key="news").skipped == 150
    dispatcher.drain()
    assert books(emulator) == customers(200)


@pytest.mark.parametrize("at", [0, 50, 100, 150, 200])
def test_ctrl_c_says_what_was_sent_and_the_next_run_goes_on(
    delivery, emulator, messages, dispatcher, at
):
    with pytest.raises(KeyboardInterrupt) as caught:
        send_bulk(broken(messages(at), KeyboardInterrupt()), key="news")
    assert f"{at} message" in caught.value.__notes__[0]
    assert "with the same key" in caught.value.__notes__[0]

    send_bulk(messages(200), key="news")
    dispatcher.drain()
    assert books(emulator) == customers(200)


def test_without_a_key_the_advice_is_another(delivery, emulator, messages):
    with pytest.raises(BulkInterrupted, match="Give send_bulk\\(\\) a key"):
        send_bulk(broken(messages(1), ValueError()))


def test_a_callback_that_fails_ends_the_bulk_and_loses_nothing(delivery, emulator, messages):
    def fail(message: EmailMessage, status: TruncusStatus) -> None:
        raise ZeroDivisionError

    with pytest.raises(BulkInterrupted, match="ZeroDivisionError in fail") as caught:
        send_bulk(messages(150), key="news", on_result=fail)
    assert caught.value.result.messages == 100
    assert caught.value.result.accepted + caught.value.result.queued == 100

    told = []
    send_bulk(messages(150), key="news", on_result=lambda each, status: told.append(each))
    assert len(told) == 150
    assert Email.objects.count() == 150


def test_what_a_dead_run_left_is_sent_first(emulator, messages, settings):
    send_bulk(messages(120), key="news")  # written, and nobody sends it
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}

    result = send_bulk(messages(150), key="news")
    assert (result.skipped, result.accepted) == (120, 30)
    assert books(emulator) == customers(150)


def test_what_a_dead_process_is_sending_is_waited_for(is_direct, emulator, messages, monkeypatch):
    monkeypatch.setattr(
        Dispatcher, "_send", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        send_bulk(messages(150), key="news")
    monkeypatch.undo()
    OutboxBatch.objects.update(due_at=timezone.now() + timedelta(seconds=1.5))  # of its lease

    result = send_bulk(messages(150), key="news")
    assert (result.skipped, result.accepted) == (100, 50)
    assert books(emulator) == customers(150)


# An account that makes no requests ----------------------------------------------------------------


def test_a_refused_key_ends_the_bulk_at_once(is_direct, emulator, messages):
    emulator.reset(api_keys={"tr_test_another": ("send",)}, **NO_LIMITS)
    with pytest.raises(BulkInterrupted, match="Check TRUNCUS") as caught:
        send_bulk(messages(250), key="news")
    assert (caught.value.result.messages, caught.value.result.queued) == (100, 100)


def test_trouble_that_passes_is_waited_for(is_direct, emulator, messages, monkeypatch):
    emulator.faults.next("error_500")
    monkeypatch.setattr("truncus_django.outbox.retry_policy.pause_s", lambda *a, **k: 0.2)
    result = send_bulk(messages(150), key="news")
    assert (result.accepted, result.queued) == (150, 0)
    assert books(emulator) == customers(150)


def test_trouble_that_lasts_ends_the_bulk(is_direct, no_patience, emulator, messages, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RETRY_BUDGET": 0}
    emulator.faults.rate("error_500", 1)
    with pytest.raises(BulkInterrupted, match="no requests at present") as caught:
        send_bulk(messages(350), key="news")
    assert caught.value.result.queued == caught.value.result.messages == 200


def test_a_few_that_have_to_wait_are_left_in_the_outbox(
    is_direct, no_patience, emulator, messages, settings, monkeypatch
):
    settings.TRUNCUS = {**settings.TRUNCUS, "RETRY_BUDGET": 0}
    emulator.faults.next("error_500")
    monkeypatch.setattr("truncus_django.outbox.retry_policy.pause_s", lambda *a, **k: 1000)
    told = []
    result = send_bulk(
        messages(250), key="news", on_result=lambda each, status: told.append(status.status)
    )
    assert (result.accepted, result.queued) == (150, 100)
    assert (told.count(ACCEPTED), told.count("pending")) == (150, 100)


def test_a_deleted_record_is_no_endless_wait(is_direct, emulator, messages, monkeypatch):
    drain = Dispatcher.drain

    def drain_and_delete(dispatcher: Dispatcher, **options: Any) -> Any:
        OutboxEntry.objects.all().delete()
        Email.objects.all().delete()
        return drain(dispatcher, **options)

    monkeypatch.setattr(Dispatcher, "drain", drain_and_delete)
    result = send_bulk(messages(2))
    assert (result.failed, result.errors) == (2, {"failed": 2})


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


def test_the_plain_send_path_knows_nothing_of_bulks(put):
    with CaptureQueriesContext(connection) as seen:
        put(100)
    assert seen.captured_queries
    assert not any("bulk" in query["sql"] for query in seen.captured_queries)


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
