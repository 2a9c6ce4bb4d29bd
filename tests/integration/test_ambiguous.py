"""Messages whose send may have been accepted: what happens to them before they are sent again."""

import copy
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.utils import translation
from django.utils.translation import gettext_lazy

from truncus_django.api.errors import (
    MessagesNotSent,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TruncusError,
)
from truncus_django.message import TruncusMessage
from truncus_django.signals import pre_send


def a_message(**options: Any) -> TruncusMessage:
    return TruncusMessage("Hi", "Text", "a@example.com", ["b@example.org"], html="<p>", **options)


@pytest.fixture
def ambiguous(truncus_emulator: Any, backend: Any) -> Any:
    """Return a function that sends messages whose answer is lost after they were accepted."""

    def lose(*messages: EmailMessage, **options: Any) -> None:
        truncus_emulator.faults.next("reset_after")
        with pytest.raises(TruncusError) as caught:
            backend(max_retries=0, **options).send_messages(messages)
        assert caught.value.ambiguous

    return lose


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_rehearsal_does_not_forget_the_ambiguous_send(
    truncus_emulator, backend, ambiguous, is_lost
):
    message = a_message()
    ambiguous(message)
    if is_lost:
        ambiguous(message, sandbox=True)
    else:
        assert backend(sandbox=True).send_messages([message]) == 1

    assert backend().send_messages([message]) == 1
    assert [email.sandbox for email in truncus_emulator.emails] == [False, True]


def test_a_copy_that_is_another_email_does_not_forget_the_ambiguous_send(
    truncus_emulator, backend, ambiguous
):
    message = a_message()
    ambiguous(message)
    other = copy.copy(message)
    other.subject = "Other"
    backend().send_messages([other])

    assert backend().send_messages([message]) == 1
    assert truncus_emulator.accepted == 2


def test_a_message_changed_back_is_recognised(truncus_emulator, backend, ambiguous):
    message = a_message()
    ambiguous(message)
    message.subject = "Other"
    backend().send_messages([message])
    message.subject = "Hi"

    assert backend().send_messages([message]) == 1
    assert truncus_emulator.accepted == 2


@pytest.fixture
def raising_receiver() -> Iterator[None]:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError

    yield pre_send.connect(fail, weak=False, dispatch_uid="raising")
    pre_send.disconnect(dispatch_uid="raising")


def test_receivers_are_not_asked_again(truncus_emulator, backend, ambiguous, request):
    message = a_message()
    ambiguous(message)
    request.getfixturevalue("raising_receiver")

    assert backend().send_messages([message]) == 1
    assert truncus_emulator.accepted == 1


def test_a_message_with_a_key_of_its_own_stays_in_doubt(truncus_emulator, backend, ambiguous):
    message = a_message(idempotency_key="invoice-7")
    ambiguous(message)
    truncus_emulator.faults.next("rate_limit", retry_after=100)

    with pytest.raises(RateLimited) as caught:
        backend().send_messages([message])
    assert caught.value.ambiguous
    assert message.truncus_status.status == "unknown"


def test_what_a_provider_failed_to_take_may_be_sent_one_by_one(truncus_emulator, backend):
    messages = [a_message(metadata={"number": number}) for number in range(2)]
    truncus_emulator.faults.next("provider_502")
    with pytest.raises(MessagesNotSent) as caught:
        backend(max_retries=0).send_messages(messages)
    assert not caught.value.ambiguous
    assert isinstance(caught.value.failures[0].error, ServerError)

    for message in messages:
        assert backend().send_messages([message]) == 1
    assert truncus_emulator.accepted == 2


def test_another_account_is_sent_the_message_as_it_is_there(truncus_emulator, backend, ambiguous):
    message = a_message()
    ambiguous(message, tenant_id="first")

    backend(api_key="tr_test_other", tenant_id="second").send_messages([message])

    assert [email.tenant_id for email in truncus_emulator.emails] == ["first", "second"]


def test_a_lazy_text_is_the_same_in_any_language(truncus_emulator, backend, ambiguous):
    message = a_message()
    message.subject = gettext_lazy("Yes")
    with translation.override("de"):
        ambiguous(message)

    assert backend().send_messages([message]) == 1
    assert [email.subject for email in truncus_emulator.emails] == ["Ja"]


@pytest.mark.parametrize("pinned", ["auto", "sdk"])
def test_a_form_that_was_refused_in_silence_is_not_believed_later(
    truncus_emulator, backend, messages, pinned
):
    truncus_emulator.reset(dialect="sdk", batch_replay="duplicate")
    many = messages(250)
    truncus_emulator.faults.next("reset_after")
    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(many)
    unsent = [failure.message for failure in caught.value.failures]
    assert (len(unsent), truncus_emulator.accepted) == (100, 150)

    with pytest.raises(MessagesNotSent) as caught:
        backend(dialect=pinned).send_messages(unsent)
    assert {type(failure.error) for failure in caught.value.failures} == {OutcomeUnknown}


def test_what_kept_a_lesson_from_being_applied_is_told(truncus_emulator, backend, messages):
    truncus_emulator.reset(dialect="sdk")
    many = messages(3)
    take, seen = truncus_emulator.faults.take, iter([None, "rate_limit"])

    def second_is_limited(path: str, endpoint: str) -> Any:
        fault = next(seen, None)
        if fault:
            truncus_emulator.faults.next(fault, retry_after=100)
        return take(path, endpoint)

    truncus_emulator.faults.take = second_is_limited

    with pytest.raises(MessagesNotSent, match="limit"):
        backend().send_messages(many)
    error = many[0].truncus_status.error
    assert isinstance(error, RateLimited)
    assert (error.retryable, error.retry_after, error.ambiguous) == (True, 100, False)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert [dict(frame.f_locals) for frame in frames] == [{}] * len(frames)  # no emails


@pytest.mark.parametrize("spoken", ["manual", "sdk"])
@pytest.mark.parametrize("limit", ["monthly_limit", "daily_limit"])
def test_a_quota_met_within_a_batch_is_told_as_a_limit(
    truncus_emulator, backend, messages, spoken, limit
):
    truncus_emulator.reset(dialect=spoken, **{limit: 50})
    with pytest.raises(MessagesNotSent) as caught:
        backend(dialect=spoken).send_messages(messages(60))

    kind = RateLimited if spoken == "manual" else QuotaExceeded  # the manual has one code for both
    assert {type(failure.error) for failure in caught.value.failures} == {kind}
    assert (caught.value.accepted, truncus_emulator.accepted) == (50, 50)
