"""Questions about emails of the outbox that are answered late: nothing goes out twice."""

import pytest
from django.utils import timezone

from tests.admin.pages import CHANGED, answer, confirm, messages_of, run
from tests.outbox.conftest import reload
from truncus_django.models import Email, OutboxBatch
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
