"""Every fault at every step: exactly one email, or an error that tells the truth about it."""

import itertools
from collections import Counter
from typing import Any

import pytest
from django.core.mail import EmailMessage

from tests.waiting import PATIENCE_S
from truncus_django.api.errors import MessagesNotSent, TruncusError
from truncus_django.emulator.faults import Fault, Strike

DELAYS = {Fault.DELAY, Fault.DELAY_AFTER}
DELAY_S = 1.6
FAULTS = [*Fault]
ACCEPTED_ALL_THE_SAME = {
    Fault.RESET_AFTER,
    Fault.TRUNCATED,
    Fault.DELAY,
    Fault.DELAY_AFTER,
    Fault.ERROR_500_AFTER,
}


def strike(fault: Fault) -> Strike:
    return Strike(fault, seconds=DELAY_S, retry_after=0)


def timeout_of(fault: Fault) -> float:
    """Return the seconds that a client waits: less than a delay, more than a busy machine takes."""
    return DELAY_S / 2 if fault in DELAYS else PATIENCE_S


def strike_requests(emulator: Any, fault: Fault, *numbers: int) -> list[int]:
    """Let ``fault`` strike the requests with these numbers, counted from 1.

    Returns the list of those that it struck, which grows as they come.
    """
    counter, struck = itertools.count(1), []

    def take(path: str, endpoint: str) -> Strike | None:
        number = next(counter)
        if number not in numbers:
            return None
        struck.append(number)
        return strike(fault)

    emulator.faults.take = take
    return struck


def sent_to(emulator: Any) -> Counter[str]:
    return Counter(email.to[0] for email in emulator.emails)


def once_each(messages: list[Any]) -> Counter[str]:
    return Counter(message.to[0] for message in messages)


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_survived_with_one_email(truncus_emulator, backend, messages, fault, dialect):
    truncus_emulator.reset(dialect=dialect)
    [message] = messages(1)
    # In the SDK's dialect the first request is the one that teaches: the second sends.
    number = 1 if dialect == "manual" else 2
    struck = strike_requests(truncus_emulator, fault, number)

    assert backend(timeout=timeout_of(fault)).send_messages([message]) == 1

    truncus_emulator.wait_for(lambda emulator: emulator.accepted == 1)
    assert sent_to(truncus_emulator) == once_each([message])
    assert message.truncus_status.is_accepted
    assert struck == [number]


@pytest.mark.parametrize("batch_replay", ["first", "duplicate"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_in_any_batch_of_a_list_is_survived(
    truncus_emulator, backend, messages, fault, number, batch_replay
):
    truncus_emulator.reset(batch_replay=batch_replay)
    many = messages(205, html="<p>On its way.</p>")
    struck = strike_requests(truncus_emulator, fault, number)

    assert backend(timeout=timeout_of(fault)).send_messages(many) == 205
    assert struck == [number]

    truncus_emulator.wait_for(lambda emulator: emulator.accepted == 205)
    assert sent_to(truncus_emulator) == once_each(many)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_ends_in_an_error_that_tells_the_truth(
    truncus_emulator, backend, messages, fault
):
    [message] = messages(1)
    strike_requests(truncus_emulator, fault, 1, 2, 3)
    mailer = backend(timeout=timeout_of(fault), max_retries=2)

    with pytest.raises(TruncusError) as caught:
        mailer.send_messages([message])

    error = caught.value
    assert error.retryable
    assert error.attempts == 3
    if fault in ACCEPTED_ALL_THE_SAME:
        truncus_emulator.wait_for(lambda emulator: emulator.accepted == 1)
        assert error.ambiguous
    else:
        assert truncus_emulator.accepted == 0
    assert "customer-0" not in str(error)

    # Whatever the truth was: the same message object is sent once in all.
    assert mailer.send_messages([message]) == 1
    assert sent_to(truncus_emulator) == once_each([message])
    assert message.truncus_status.is_accepted


@pytest.mark.parametrize("batch_replay", ["first", "duplicate"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_list_sent_again_after_a_lasting_fault_is_sent_once(
    truncus_emulator, backend, messages, fault, batch_replay
):
    truncus_emulator.reset(batch_replay=batch_replay)
    many = messages(120)
    mailer = backend(timeout=timeout_of(fault), max_retries=1)
    strike_requests(truncus_emulator, fault, 1, 2)  # the first batch; the second passes

    with pytest.raises(MessagesNotSent) as caught:
        mailer.send_messages(many)
    unsent = [failure.message for failure in caught.value.failures]
    assert caught.value.accepted + len(unsent) == 120

    assert mailer.send_messages(unsent) == len(unsent)
    truncus_emulator.wait_for(lambda emulator: emulator.accepted == 120)
    assert sent_to(truncus_emulator) == once_each(many)


# Refused by the item: a batch, its refused items again, the second batch. Refused as a whole:
# a batch, again with HTML, again with one recipient in "to", the second batch.
@pytest.mark.parametrize(
    ("batch_refusal", "number"),
    [("item", 1), ("item", 2), ("item", 3)] + [("whole", number) for number in (1, 2, 3, 4)],
)
@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.HTML_502])
def test_faults_while_a_dialect_is_learned_cost_no_email(
    truncus_emulator, backend, messages, fault, number, batch_refusal
):
    truncus_emulator.reset(dialect="sdk", batch_refusal=batch_refusal)
    many = messages(150)
    many[7].to.append("second@example.org")
    struck = strike_requests(truncus_emulator, fault, number)

    assert backend().send_messages(many) == 150
    assert struck == [number]

    assert sent_to(truncus_emulator) == once_each(many)


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_one_duplicate_for_a_batch_is_no_proof_that_its_form_was_taken(
    truncus_emulator, backend, messages, dialect
):
    truncus_emulator.reset(dialect=dialect, batch_replay="duplicate")
    many = messages(3)
    strike_requests(truncus_emulator, Fault.RESET_AFTER, 1)

    # The lost answer accepted all (manual), or refused all for lack of HTML (sdk).
    with pytest.raises(MessagesNotSent, match="Find out in Truncus") as caught:
        backend().send_messages(many)
    assert caught.value.ambiguous
    assert truncus_emulator.accepted == (3 if dialect == "manual" else 0)


def test_one_duplicate_is_believed_where_the_account_has_shown_what_it_takes(
    truncus_emulator, backend, messages
):
    truncus_emulator.reset(batch_replay="duplicate")
    backend().send_messages(messages(1))
    many = messages(3)
    strike_requests(truncus_emulator, Fault.RESET_AFTER, 1)

    assert backend().send_messages(many) == 3
    assert truncus_emulator.accepted == 4
    assert many[0].truncus_status.id is None


def test_an_attached_message_does_not_make_a_message_in_doubt_a_new_one(truncus_emulator, backend):
    inner = EmailMessage("Inner", "Text", "a@example.com", ["b@example.org"])
    message = EmailMessage("Outer", "Text", "a@example.com", ["b@example.org"])
    message.attach("inner.eml", inner, "message/rfc822")
    truncus_emulator.faults.next("reset_after")
    with pytest.raises(TruncusError):
        backend(max_retries=0).send_messages([message])

    assert backend(metadata={"deployed": "later"}).send_messages([message]) == 1
    assert truncus_emulator.accepted == 1


def test_lost_answers_in_doubt_are_repeated_under_the_same_key(truncus_emulator, backend, messages):
    [message] = messages(1)
    strike_requests(truncus_emulator, Fault.RESET_AFTER, 1, 2)

    backend().send_messages([message])

    keys = {request.headers["idempotency-key"] for request in truncus_emulator.requests}
    assert len(truncus_emulator.requests) == 3
    assert len(keys) == 1


def test_random_faults_never_double_and_never_lose_in_silence(truncus_emulator, backend, messages):
    rates = dict.fromkeys(set(Fault) - DELAYS, 0.06)
    truncus_emulator.reset(fault_rates=rates, seed=20261120)
    mailer = backend(max_retries=2)
    outstanding = everything = messages(400)

    for _ in range(40):
        if not outstanding:
            break
        try:
            mailer.send_messages(outstanding)
        except MessagesNotSent as error:
            outstanding = [failure.message for failure in error.failures]
        except TruncusError:
            continue
        else:
            outstanding = []

    assert not outstanding
    assert sent_to(truncus_emulator) == once_each(everything)
