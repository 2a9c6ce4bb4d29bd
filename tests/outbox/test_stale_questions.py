"""Questions about emails of the outbox that are answered late: nothing goes out twice."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.admin.pages import CHANGED, answer, confirm, messages_of, run
from tests.outbox.conftest import reload
from truncus_django.forget.forgetting import Forgetting
from truncus_django.forget.person import Person
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox import operations
from truncus_django.signals import pre_send
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_what_was_sent_again_meanwhile_is_not_tried_again(
    admin_client, failed, dispatcher, emulator
):
    question = run(admin_client, "retry", failed[0])
    assert "sent again before" not in question.text
    confirm(admin_client, "resend", failed[0])
    dispatcher.drain()

    told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    dispatcher.drain()
    assert emulator.accepted == 1
    assert "its recipients get it twice" in run(admin_client, "retry", failed[0]).text


def test_what_was_tried_again_meanwhile_is_not_sent_again(
    admin_client, failed, dispatcher, emulator
):
    question = run(admin_client, "resend", failed[0])
    confirm(admin_client, "retry", failed[0])
    for _ in range(2):
        assert CHANGED in messages_of(admin_client, answer(admin_client, question))
        dispatcher.drain()

    assert emulator.accepted == 1


@pytest.mark.parametrize("action", ["decide_send", "decide_sent", "decide_not_sent"])
def test_a_decision_holds_for_the_attempt_that_it_was_about(
    admin_client, unknown, dispatcher, emulator, travel, action
):
    question, late = (run(admin_client, each, unknown[0]) for each in ("decide_send", action))
    answer(admin_client, question)
    emulator.faults.next("reset_after")
    dispatcher.step()
    travel(25 * 3600)
    dispatcher.drain()
    assert reload(unknown[0]).state == State.UNKNOWN

    told = messages_of(admin_client, answer(admin_client, late))

    assert CHANGED in told
    dispatcher.drain()
    assert reload(unknown[0]).state == State.UNKNOWN
    assert emulator.accepted == 1


def test_a_resend_that_was_not_sent_when_asked_and_is_now_counts(
    admin_client, failed, dispatcher, emulator
):
    confirm(admin_client, "resend", failed[0])
    again = Email.objects.get(resend_of=failed[0])
    confirm(admin_client, "cancel", again)
    question = run(admin_client, "resend", failed[0])
    confirm(admin_client, "retry", again)
    dispatcher.drain()

    told = messages_of(admin_client, answer(admin_client, question))

    assert "Was already sent again, and not sent now." in told
    dispatcher.drain()
    assert emulator.accepted == 1


def test_what_waits_may_be_tried_again_now_though_it_was_tried_meanwhile(
    admin_client, put, dispatcher, emulator
):
    [email] = put(1)
    emulator.faults.next("provider_502")
    emulator.faults.next("provider_502")
    dispatcher.step()
    question = run(admin_client, "retry", email)
    OutboxBatch.objects.update(due_at=timezone.now())
    dispatcher.step()

    assert CHANGED not in messages_of(admin_client, answer(admin_client, question))


# At the same moment -------------------------------------------------------------------------------


@contextmanager
def before(word: str, do: Callable[[], Any]) -> Iterator[None]:
    """Do something once, before the first statement of this thread that holds ``word``."""
    todo = [do]

    def wrapper(execute: Any, sql: str, *arguments: Any) -> Any:
        if word in sql and todo:
            todo.pop()()
        return execute(sql, *arguments)

    with connection.execute_wrapper(wrapper):
        yield
    assert not todo


def test_what_is_sent_again_at_this_moment_is_not_tried_again(
    admin_client, failed, dispatcher, emulator
):
    """The resend is written when a retry is about to take its locks."""
    question = run(admin_client, "retry", failed[0])

    with before(OutboxAccount._meta.db_table, lambda: confirm(admin_client, "resend", failed[0])):
        told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    dispatcher.drain()
    assert emulator.accepted == 1


@contextmanager
def at_pre_send(do: Callable[[], Any]) -> Iterator[None]:
    """Do something when a message is about to be put into the outbox."""

    def receiver(message: Any, **facts: Any) -> None:
        copy.deepcopy(message)  # which is any receiver's right
        do()

    pre_send.connect(receiver)
    try:
        yield
    finally:
        pre_send.disconnect(receiver)


def test_what_is_tried_again_at_this_moment_is_not_sent_again(
    admin_client, failed, dispatcher, emulator
):
    question = run(admin_client, "resend", failed[0])

    with at_pre_send(lambda: operations.retry([failed[0].pk])):
        told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    dispatcher.drain()
    assert emulator.accepted == 1


def test_who_is_forgotten_at_this_moment_is_sent_nothing(
    admin_client, failed, dispatcher, emulator
):
    """What the log stores of the email is as good for a resend as what the outbox stores."""
    Email.objects.filter(pk=failed[0].pk).update(text_body="Hello.")
    OutboxEntry.objects.filter(pk=failed[0].pk).delete()
    question = run(admin_client, "resend", failed[0])

    with at_pre_send(lambda: Forgetting(person=Person(failed[0].to[0])).run()):
        told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    dispatcher.drain()
    assert emulator.accepted == 0
    assert not Email.objects.filter(resend_of=failed[0]).exists()


def test_whose_payload_is_scrubbed_at_this_moment_is_sent_nothing(
    admin_client, failed, dispatcher, emulator
):
    question = run(admin_client, "resend", failed[0])

    def scrub() -> None:
        entry = OutboxEntry.objects.get(pk=failed[0].pk)
        payload = entry.payload.replace("Order", "[removed]")
        OutboxEntry.objects.filter(pk=entry.pk).update(payload=payload, size=len(payload))

    with at_pre_send(scrub):
        assert CHANGED in messages_of(admin_client, answer(admin_client, question))
    dispatcher.drain()
    assert emulator.accepted == 0


def test_two_who_resend_at_this_moment_write_one_email(admin_client, failed, dispatcher, emulator):
    question, late = (run(admin_client, "resend", failed[0]) for _ in range(2))
    answers = iter([lambda: answer(admin_client, question)])

    with at_pre_send(lambda: next(answers, str)()):
        told = messages_of(admin_client, answer(admin_client, late))

    assert "Was already sent again, and not sent now." in told
    assert Email.objects.filter(resend_of=failed[0]).count() == 1
    dispatcher.drain()
    assert emulator.accepted == 1


@pytest.mark.django_db(transaction=True)
def test_a_resend_holds_no_lock_while_its_receivers_run(admin_client, failed):
    found = []

    with at_pre_send(lambda: found.append(connection.in_atomic_block)):
        confirm(admin_client, "resend", failed[0])

    assert found == [False]


@pytest.mark.django_db(transaction=True)
def test_in_the_transaction_of_a_request_the_others_are_sent(
    admin_client, failed, dispatcher, emulator, monkeypatch
):
    """One that has changed takes back neither the others nor what the user is told."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    question = run(admin_client, "resend", *failed)

    with at_pre_send(lambda: operations.retry([failed[0].pk])):
        told = messages_of(admin_client, answer(admin_client, question))

    assert CHANGED in told
    assert "Queued to be sent." in told
    dispatcher.drain()
    assert emulator.accepted == 2
