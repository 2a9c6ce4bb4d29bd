"""TruncusBackend: lists of messages, and what one of them costs the others."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.mail import EmailMessage

from tests.messages import bad_message, message, messages
from truncus_django.api.errors import (
    AuthenticationError,
    InvalidRequest,
    MessagesNotSent,
    ServerError,
)
from truncus_django.backend import TruncusBackend

pytestmark = pytest.mark.usefixtures("naps")


def test_no_messages_are_no_request(truncus):
    assert TruncusBackend().send_messages([]) == 0
    assert TruncusBackend().send_messages(None) == 0
    assert TruncusBackend().send_messages(iter(())) == 0
    assert truncus.seen == []


def test_250_messages_are_three_requests(truncus):
    sent = messages(250)
    assert TruncusBackend().send_messages(sent) == 250
    assert [len(seen.emails) for seen in truncus.seen] == [100, 100, 50]
    subjects = [subject for seen in truncus.seen for subject in seen.subjects]
    assert subjects == [str(number) for number in range(250)]
    assert sent[249].truncus_status.id == "id-3-49"
    assert sent[249].truncus_status.batch_size == 50


def test_a_generator_of_messages_is_taken(truncus):
    assert TruncusBackend().send_messages(message() for _ in range(3)) == 3
    assert len(truncus.last.emails) == 3


def test_one_duplicate_for_a_repeated_batch_counts_all_as_accepted(truncus):
    truncus.answers(200, {"status": "duplicate", "message_id": "b", "email_status": "sent"})
    sent = messages(3)
    for one in sent:
        one.content_subtype = "html"  # a form that every account takes
    assert TruncusBackend().send_messages(sent) == 3
    assert [one.truncus_status.id for one in sent] == [None] * 3


def test_threads_send_at_the_same_time(truncus):
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda number: message(str(number)).send(), range(40)))
    assert counts == [1] * 40
    assert len(set(truncus.keys)) == 40


def test_messages_with_a_key_of_their_own_go_alone(truncus):
    sent = [message("0"), message("1", idempotency_key="invoice-1"), message("2")]
    assert TruncusBackend().send_messages(sent) == 3
    by_key = {seen.key: seen.subjects for seen in truncus.seen}
    assert by_key.pop("invoice-1") == ["1"]
    assert list(by_key.values()) == [["0", "2"]]


def test_sandbox_and_real_messages_never_share_a_request(truncus):
    sent = [message(str(number), sandbox=number % 2 == 0) for number in range(4)]
    assert TruncusBackend().send_messages(sent) == 4
    told = {tuple(seen.subjects): seen.headers.get("X-Truncus-Sandbox") for seen in truncus.seen}
    assert told == {("0", "2"): "true", ("1", "3"): None}


# One that fails -----------------------------------------------------------------------------------


def test_one_bad_message_never_costs_the_others(truncus):
    sent = [message("0"), bad_message(), message("2")]
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert truncus.last.subjects == ["0", "2"]
    assert caught.value.accepted == 2
    (failure,) = caught.value.failures
    assert (failure.index, failure.message) == (1, sent[1])
    assert [one.truncus_status.status for one in sent] == ["sent", "failed", "sent"]


def test_a_message_that_raises_when_read_costs_the_others_nothing(truncus):
    class Broken(str):
        def __str__(self):
            raise RuntimeError("private")

    sent = messages(3)
    sent[1].subject = Broken("x")

    with pytest.raises(MessagesNotSent, match="RuntimeError") as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value.failures] == [1]
    assert "private" not in str(caught.value)


def test_what_is_no_message_is_refused_before_anything_is_sent(truncus):
    with pytest.raises(TypeError, match="not str"):
        TruncusBackend().send_messages([*messages(1), "Hello"])
    assert truncus.seen == []


def test_a_skipped_message_leaves_the_others_their_places_in_the_list(truncus):
    sent = [EmailMessage("Nobody", "Text"), bad_message()]
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value] == [1]
    assert caught.value.accepted == 0


def test_a_message_refused_in_a_batch_carries_its_own_status(truncus):
    truncus.answers(200, {"results": [
        {"index": 0, "status": "sent", "message_id": "m-0"},
        {"index": 1, "status": "blocked", "code": "ALL_RECIPIENTS_SUPPRESSED"},
    ]})  # fmt: skip
    sent = messages(2)
    with pytest.raises(MessagesNotSent, match="1 of 2 emails were not sent") as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value] == [1]
    assert caught.value.accepted == 1
    assert [one.truncus_status.status for one in sent] == ["sent", "blocked"]


def test_one_of_100_that_the_api_refuses_is_found_and_the_others_are_sent(truncus):
    truncus.refuses("37")
    sent = messages(100)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert caught.value.accepted == 99
    assert [failure.index for failure in caught.value] == [37]
    assert isinstance(caught.value.failures[0].error, InvalidRequest)
    assert len(truncus.seen) < 20
    assert len(set(truncus.keys)) == len(truncus.seen)


def test_an_app_that_catches_what_smtp_raises_goes_on_after_a_list(truncus):
    with pytest.raises(OSError, match="1 of 2 emails were not sent"):
        TruncusBackend().send_messages([message(), bad_message()])


# An account or a service that fails ---------------------------------------------------------------


def test_a_refused_key_stops_the_rest(truncus):
    truncus.always_answers(401, {"error": "Invalid API key", "code": "INVALID_API_KEY"})
    sent = messages(250)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend(fail_silently=True).send_messages(sent)
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert len(truncus.seen) == 1
    assert {type(one.truncus_status.error) for one in sent} == {AuthenticationError}


def test_a_server_error_of_one_batch_does_not_stop_the_next(truncus):
    truncus.answers(500, {"error": "transient_failure"}, times=4)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages(101))
    assert caught.value.accepted == 1
    assert isinstance(caught.value.failures[0].error, ServerError)


def test_a_service_that_hangs_is_not_asked_for_every_batch(truncus, naps):
    truncus.loses_the_answer(times=4)

    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages(250))

    assert len(truncus.seen) == 4
    assert [f.error.ambiguous for f in caught.value.failures] == [True] * 100 + [False] * 150


def test_a_service_that_fails_twice_in_a_row_is_left_alone(truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})

    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages(messages(1000))

    assert len(truncus.seen) == 2 * 4
