"""Messages that are sent again after a send that may have been accepted."""

import copy
import pickle
import time
from uuid import uuid4

import pytest

from tests.conftest import HTML_REQUIRED
from tests.messages import message, messages
from truncus_django.api.errors import (
    AnswerLost,
    MessagesNotSent,
    OutcomeUnknown,
    RateLimited,
    ServerError,
)
from truncus_django.backend import TruncusBackend
from truncus_django.signals import pre_send

pytestmark = pytest.mark.usefixtures("naps")


DAY = 24 * 60 * 60


def lose(truncus, sent):
    """Send messages whose answers are all lost."""
    truncus.loses_the_answer(times=4)
    with pytest.raises((AnswerLost, MessagesNotSent)) as caught:
        TruncusBackend().send_messages(sent)
    assert caught.value.ambiguous
    return truncus.last.key


def test_an_unchanged_message_is_sent_again_under_the_same_key(truncus):
    sent = message()
    key = lose(truncus, [sent])
    sent.send()
    assert truncus.last.key == key
    assert sent.truncus_status.idempotency_key == key


def test_a_changed_message_gets_another_key(truncus):
    sent = message()
    key = lose(truncus, [sent])
    sent.subject = "Another"
    sent.send()
    assert truncus.last.key != key


def test_once_it_is_known_the_next_send_has_a_new_key(truncus):
    sent = message()
    key = lose(truncus, [sent])
    sent.send()
    sent.send()
    assert truncus.keys[-2] == key != truncus.last.key


def test_an_ambiguous_send_survives_a_limit_met_after_the_lost_answer(truncus):
    truncus.loses_the_answer()
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": "999"})
    sent = message()
    with pytest.raises(RateLimited) as caught:
        sent.send()
    assert caught.value.ambiguous
    sent.send()
    assert len(set(truncus.keys)) == 1


def test_an_ambiguous_send_survives_pickling_of_the_message(truncus):
    sent = message()
    key = lose(truncus, [sent])
    pickle.loads(pickle.dumps(sent)).send()
    assert truncus.last.key == key


def test_an_ambiguous_send_survives_ctrl_c(truncus):
    truncus.breaks(KeyboardInterrupt())
    sent = message()
    with pytest.raises(KeyboardInterrupt):
        sent.send()
    sent.send()
    assert truncus.keys[0] == truncus.keys[1]


def test_ctrl_c_in_a_list_tells_what_was_sent_and_remembers_the_rest(truncus):
    sent = messages(250)
    truncus.answers(200, {"results": [{"status": "sent", "message_id": "m"}] * 100})
    truncus.breaks(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        TruncusBackend().send_messages(sent)
    assert sent[0].truncus_status.status == "sent"
    assert sent[100].truncus_status.status == "unknown"
    assert sent[249].truncus_status is None
    key = truncus.last.key
    assert TruncusBackend().send_messages(sent[100:]) == 150
    assert [len(seen.emails) for seen in truncus.seen] == [100, 100, 50, 100]
    assert truncus.last.key == key


def test_a_whole_list_sent_again_is_the_same_batch_under_the_same_key(truncus):
    sent = messages(5)
    key = lose(truncus, sent)
    assert TruncusBackend().send_messages(reversed(sent)) == 5
    assert truncus.last.key == key
    assert truncus.last.subjects == ["0", "1", "2", "3", "4"]


def test_a_list_sent_again_with_new_messages_sends_those_apart(truncus):
    sent = messages(2)
    key = lose(truncus, sent)
    assert TruncusBackend().send_messages([*sent, message("new")]) == 3
    assert [seen.subjects for seen in truncus.seen[-2:]] == [["new"], ["0", "1"]]
    assert truncus.last.key == key


def test_a_part_of_an_ambiguous_batch_is_refused_without_a_request(truncus):
    sent = messages(3)
    lose(truncus, sent)
    before = len(truncus.seen)
    with pytest.raises(OutcomeUnknown, match="batch of 3") as caught:
        TruncusBackend().send_messages(sent[:1])
    assert caught.value.ambiguous
    assert len(truncus.seen) == before
    assert TruncusBackend().send_messages(sent) == 3


def test_a_key_older_than_24_hours_is_not_sent_blindly(truncus, monkeypatch):
    sent = message()
    lose(truncus, [sent])
    now = time.time()
    monkeypatch.setattr("truncus_django.backend.time.time", lambda: now + DAY + 60)
    with pytest.raises(OutcomeUnknown, match="24 hours"):
        sent.send()
    assert len(truncus.seen) == 4


def test_messages_never_tried_are_not_ambiguous(truncus):
    truncus.loses_the_answer()
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": "999"})
    sent = messages(101)
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages(sent)
    assert sent[0].truncus_status.error.ambiguous
    assert not sent[100].truncus_status.error.ambiguous
    assert sent[100].truncus_status.attempts == 0


def test_text_sent_again_with_html_after_a_refusal_is_one_send(truncus):
    truncus.answers(400, HTML_REQUIRED)
    sent = message()
    assert sent.send() == 1
    assert sent.truncus_status.attempts == 2


def test_a_lost_answer_is_one_email_and_no_error(truncus, naps):
    truncus.loses_the_answer()
    sent = message()
    assert sent.send() == 1
    assert sent.truncus_status.attempts == 2
    assert len(set(truncus.keys)) == 1
    assert len(naps) == 1


def test_one_object_given_twice_is_two_emails_and_each_keeps_its_place(truncus):
    [one] = messages(1)
    truncus.loses_the_answer()
    backend = TruncusBackend(max_retries=0)
    with pytest.raises(MessagesNotSent):
        backend.send_messages([one, one])

    assert backend.send_messages([one, one]) == 2
    assert len(truncus.last.emails) == 2
    assert len(set(truncus.keys)) == 1


def test_what_receivers_add_does_not_make_an_ambiguous_message_a_new_one(truncus):
    def mark(payload, **kwargs):
        payload["metadata"] = {"at": str(uuid4())}

    [one] = messages(1)
    truncus.loses_the_answer()
    backend = TruncusBackend(max_retries=0)
    pre_send.connect(mark)
    try:
        with pytest.raises(AnswerLost):
            backend.send_messages([one])
        assert backend.send_messages([one]) == 1
    finally:
        pre_send.disconnect(mark)
    assert len(set(truncus.keys)) == 1


def test_a_provider_that_failed_is_asked_again_under_the_same_key(truncus):
    [one] = messages(1)
    truncus.answers(502, {"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"})
    backend = TruncusBackend(max_retries=0)
    with pytest.raises(ServerError) as caught:
        backend.send_messages([one])

    assert not caught.value.ambiguous
    assert backend.send_messages([one]) == 1
    assert len(set(truncus.keys)) == 1


def test_a_refused_domain_after_a_lost_answer_leaves_it_ambiguous(truncus):
    sent = messages(4)
    for number, one in enumerate(sent):
        one.from_email = f"shop@{number % 2}.example.com"
    backend = TruncusBackend(max_retries=0)
    truncus.loses_the_answer()
    with pytest.raises(MessagesNotSent):
        backend.send_messages(sent)
    truncus.answers(403, {"error": "domain_not_verified", "message": "No"})

    with pytest.raises(MessagesNotSent) as caught:
        backend.send_messages(sent)

    assert caught.value.ambiguous
    assert len(set(truncus.keys)) == 1  # never under a new key: it may have been accepted
    assert len(truncus.seen) == 2


def test_an_untried_message_of_an_earlier_call_stays_ambiguous(truncus):
    [one] = messages(1)
    backend = TruncusBackend(max_retries=0)
    truncus.loses_the_answer()
    with pytest.raises(AnswerLost):
        backend.send_messages([one])
    truncus.always_answers(401, {"error": "Revoked", "code": "API_KEY_REVOKED"})

    with pytest.raises(MessagesNotSent) as caught:
        backend.send_messages([*messages(1), one])

    assert [failure.error.ambiguous for failure in caught.value.failures] == [False, True]


def test_an_ambiguous_scheduled_message_is_recognised_after_its_time(truncus):
    [one] = messages(1)
    one.send_at = time.time() + 0.05
    backend = TruncusBackend(max_retries=0)
    truncus.loses_the_answer()
    with pytest.raises(AnswerLost):
        backend.send_messages([one])
    one_later = copy.copy(one)
    while time.time() < one.send_at:
        pass

    assert backend.send_messages([one_later]) == 1
    assert len(set(truncus.keys)) == 1


def test_a_rehearsal_whose_answer_was_lost_is_no_send(truncus):
    [one] = messages(1)
    truncus.loses_the_answer()
    with pytest.raises(AnswerLost):
        TruncusBackend(sandbox=True, max_retries=0).send_messages([one])

    assert TruncusBackend().send_messages([one]) == 1
    assert len(set(truncus.keys)) == 2
