"""Sending from coroutines, and what becomes of a send that is cancelled."""

import asyncio
import threading
from contextvars import copy_context

import pytest
from asgiref.sync import sync_to_async
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connections

from tests.waiting import PATIENCE_S
from truncus_django.api.errors import ConfigurationError, EmailRefused
from truncus_django.awaited_send import current_awaited_send
from truncus_django.message import TruncusMessage, asend, asend_messages
from truncus_django.models import Email, OutboxEntry
from truncus_django.signals import pre_send
from truncus_django.states import State


@pytest.fixture
def emulator(truncus_emulator, shared_database, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    return truncus_emulator


def message(number=0, **options):
    to = options.pop("to", [f"customer-{number}@example.org"])
    return TruncusMessage(f"Order {number}", "Text", "shop@example.com", to, **options)


def run(coroutine):
    """Run a coroutine, and close the connections of the threads that it used."""

    async def all_of_it():
        try:
            return await coroutine
        finally:
            await sync_to_async(close_connections)()

    return asyncio.run(all_of_it())


def close_connections():
    """The thread stays for the next test."""
    connections.close_all()


async def cancel(task):
    """Cancel a task, and see that it was."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def stop_before_send():
    """Return two events: the send of a message has begun, and it may go on."""
    begun, may_go_on = threading.Event(), threading.Event()

    def wait(**kwargs):
        begun.set()
        assert may_go_on.wait(PATIENCE_S)

    pre_send.connect(wait)
    yield begun, may_go_on
    pre_send.disconnect(wait)


def test_a_message_is_sent_and_recorded_once(emulator):
    sent = message()
    assert run(sent.asend()) == 1
    assert sent.truncus_status.status == "delivered"
    assert Email.objects.get().pk == sent.truncus_status.email_pk
    assert "_truncus_ambiguous_sends" not in vars(sent) or not any(
        vars(sent)["_truncus_ambiguous_sends"].values()
    )
    # A send that is over is over: the same message again is another email.
    assert run(asend(sent)) == 1
    assert emulator.accepted == 2


def test_messages_go_out_in_batches(emulator):
    assert run(asend_messages(message(number) for number in range(150))) == 150
    assert len(emulator.requests) == 2
    assert Email.objects.count() == 150


def test_messages_of_another_backend_are_sent_too():
    plain = EmailMessage("Hello", "Text", "shop@example.com", ["ann@example.org"])
    assert run(asend(plain)) == 1
    assert run(asend_messages([plain])) == 1
    assert len(mail.outbox) == 2


def test_an_error_is_raised_where_it_is_awaited(emulator):
    with pytest.raises(EmailRefused):
        run(message(to=["suppressed@example.org"]).asend())
    assert Email.objects.get().state == State.REJECTED


@pytest.mark.parametrize("count", [1, 3])
def test_a_send_that_is_cancelled_on_its_way_is_no_second_email(emulator, count):
    emulator.faults.next("delay_after")
    sent = [message(number) for number in range(count)]

    async def send_twice():
        task = asyncio.ensure_future(asend_messages(sent))
        await asyncio.to_thread(emulator.wait_for, lambda each: each.accepted == count)
        await cancel(task)
        assert {each.truncus_status.status for each in sent} == {"delivered"}
        return await asend_messages(sent)

    assert run(send_twice()) == count
    assert emulator.accepted == count
    assert len({each.headers["idempotency-key"] for each in emulator.requests}) == 1
    assert Email.objects.count() == count


def test_to_cancel_again_ends_nothing_early(emulator):
    emulator.faults.next("delay_after")
    sent = message()

    async def send():
        task = asyncio.ensure_future(sent.asend())
        await asyncio.to_thread(emulator.wait_for, lambda each: each.accepted == 1)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        await cancel(task)

    run(send())
    assert sent.truncus_status.status == "delivered"


def test_what_is_cancelled_is_not_tried_again(emulator):
    emulator.faults.next("error_503", times=4)
    sent = message()

    async def send():
        task = asyncio.ensure_future(sent.asend())
        await asyncio.to_thread(emulator.wait_for, lambda each: len(each.requests) >= 1)
        await cancel(task)
        emulator.faults.clear()
        return await sent.asend()

    assert run(send()) == 1
    assert emulator.accepted == 1
    assert len({each.headers["idempotency-key"] for each in emulator.requests}) == 1


def test_what_is_no_message_is_told():
    with pytest.raises(TypeError, match=r"asend_messages\(\) takes several"):
        run(asend([message()]))
    with pytest.raises(TypeError, match=r"asend\(\) takes one"):
        run(asend_messages(message()))


def test_what_is_cancelled_before_its_request_makes_none(emulator, stop_before_send):
    begun, may_go_on = stop_before_send
    sent = [message(number, idempotency_key=f"own-{number}") for number in range(2)]

    async def send():
        task = asyncio.ensure_future(asend_messages(sent))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        await cancel(task)

    run(send())
    assert emulator.requests == []
    assert current_awaited_send() is None


def test_what_has_not_begun_is_cancelled_at_once(emulator):
    sent, busy = message(), threading.Event()

    async def send():
        other = asyncio.ensure_future(sync_to_async(busy.wait)(PATIENCE_S))
        await asyncio.sleep(0)
        task = asyncio.create_task(sent.asend())
        await asyncio.sleep(0.01)
        await cancel(task)
        assert not busy.is_set()
        busy.set()
        await other

    run(send())
    assert emulator.requests == []
    assert sent.truncus_status is None


def test_a_send_in_a_context_that_is_left_over_is_one_of_its_own(emulator):
    contexts = []
    pre_send.connect(keep := lambda **kwargs: contexts.append(copy_context()))
    try:
        run(message().asend())
    finally:
        pre_send.disconnect(keep)
    later = message(2)
    assert run(sync_to_async(lambda: contexts[0].run(later.send))()) == 1
    assert "_truncus_ambiguous_sends" not in vars(later)


# Through the outbox -------------------------------------------------------------------------------


@pytest.fixture
def outbox(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}


@pytest.mark.usefixtures("outbox")
def test_a_message_is_put_into_the_outbox():
    sent = message()
    assert run(sent.asend()) == 1
    assert sent.truncus_status.status == "pending"
    assert OutboxEntry.objects.get().email_id == sent.truncus_status.email_pk


@pytest.mark.usefixtures("outbox")
def test_what_is_cancelled_before_the_commit_is_not_put_in(stop_before_send):
    begun, may_go_on = stop_before_send
    sent = message()

    async def send():
        task = asyncio.ensure_future(sent.asend())
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        await cancel(task)
        assert await sync_to_async(OutboxEntry.objects.count)() == 0
        return await sent.asend()

    assert run(send()) == 1
    assert OutboxEntry.objects.count() == 1


@pytest.mark.usefixtures("outbox")
def test_send_in_a_coroutine_says_what_to_call_instead():
    async def send():
        return message().send()

    with pytest.raises(ConfigurationError, match=r"await asend\(message\)"):
        run(send())


def test_without_an_event_loop_the_error_says_what_to_call_instead():
    coroutine = message().asend()
    with pytest.raises(RuntimeError, match=r"In synchronous code, call send\(\) instead"):
        coroutine.send(None)
