"""send_bulk() where messages, callbacks, processes or the account fail."""

import pickle
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.utils import timezone

from tests.outbox.bulk_messages import ACCEPTED, books, customers
from tests.outbox.conftest import NO_LIMITS
from truncus_django.api.errors import MessageError
from truncus_django.bulk import BulkInterrupted, direct, send_bulk
from truncus_django.message import TruncusStatus
from truncus_django.models import Email, OutboxBatch, OutboxEntry
from truncus_django.outbox.dispatcher import Dispatcher

pytestmark = pytest.mark.django_db


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
    assert "ValueError in broken() (test_bulk_interrupted.py, line" in str(caught.value)
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


def test_a_deleted_record_is_no_endless_wait(is_direct, emulator, messages, monkeypatch):
    drain = Dispatcher.drain

    def drain_and_delete(dispatcher: Dispatcher, **options: Any) -> Any:
        OutboxEntry.objects.all().delete()
        Email.objects.all().delete()
        return drain(dispatcher, **options)

    monkeypatch.setattr(Dispatcher, "drain", drain_and_delete)
    result = send_bulk(messages(2))
    assert (result.failed, result.errors) == (2, {"failed": 2})


# An account that makes no requests ----------------------------------------------------------------


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing but the account's limits."""
    monkeypatch.setattr(direct, "lease_s", lambda settings: 0.0)
    monkeypatch.setattr(direct, "MARGIN_S", 0.0)


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


def test_trouble_that_lasts_ends_the_bulk(
    is_direct, no_patience, emulator, messages, settings, monkeypatch
):
    settings.TRUNCUS = {**settings.TRUNCUS, "RETRY_BUDGET": 0}
    emulator.faults.rate("error_500", 1)
    # By chance a pause may be over before anybody looks at it.
    monkeypatch.setattr("truncus_django.outbox.retry_policy.pause_s", lambda *a, **k: 1000)
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
