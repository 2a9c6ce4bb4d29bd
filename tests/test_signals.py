"""pre_send, post_send and send_failed."""

import logging

import pytest
from django.utils.log import AdminEmailHandler

from tests.conftest import FakeTruncus
from truncus_django import signals
from truncus_django.api.errors import (
    AnswerLost,
    EmailRefused,
    InvalidAddress,
    InvalidRequest,
    MessageError,
    MessagesNotSent,
    SendCancelled,
)
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.signals import post_send, pre_send, send_failed, send_safely


@pytest.fixture(autouse=True)
def _nothing_is_known_to_fail():
    signals._trouble.clear()


@pytest.fixture
def listen():
    """Connect receivers for the length of a test."""
    connected = []

    def connect(signal, receiver):
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


def message(subject="Hello"):
    return TruncusMessage(subject, "Text", "shop@example.com", ["ann@example.org"])


def send(*sent, **options):
    return TruncusBackend(**options).send_messages(sent)


def test_pre_send_may_change_the_payload(truncus: FakeTruncus, listen):
    def add_footer(sender, message, payload, alias, **kwargs):
        payload["text"] += "\nUnsubscribe"

    listen(pre_send, add_footer)
    send(message())
    assert truncus.last.body["text"] == "Text\nUnsubscribe"


def test_pre_send_may_change_the_message(truncus, listen):
    def filter_and_mark(message, **kwargs):
        message.to.remove("bob@example.org")
        message.extra_headers["X-Campaign"] = "spring"
        message.idempotency_key = "spring-1"
        message.sandbox = True

    listen(pre_send, filter_and_mark)
    changed = message()
    changed.to.append("bob@example.org")
    assert send(changed) == 1
    assert truncus.last.body["to"] == "ann@example.org"
    assert truncus.last.body["headers"] == {"X-Campaign": "spring"}
    assert truncus.last.key == "spring-1"
    assert truncus.last.headers["X-Truncus-Sandbox"] == "true"


def test_changes_of_the_message_and_of_the_payload_are_both_kept(truncus, listen):
    def change_payload(payload, **kwargs):
        payload.setdefault("headers", {})["X-Payload"] = "1"
        payload["metadata"]["deployment"] = "blue"
        payload["text"] += "\nUnsubscribe"
        del payload["track_opens"]

    def change_message(message, **kwargs):
        message.extra_headers["X-Message"] = "2"
        message.metadata = {"order": "43"}
        message.subject = "Changed"

    listen(pre_send, change_payload)
    listen(pre_send, change_message)
    sent = message()
    sent.metadata = {"order": "42"}
    sent.track_opens = False
    send(sent)
    assert truncus.last.body == {
        "from": "shop@example.com", "to": "ann@example.org", "subject": "Changed",
        "text": "Text\nUnsubscribe", "headers": {"X-Message": "2", "X-Payload": "1"},
        "metadata": {"order": "43", "deployment": "blue"},
    }  # fmt: skip


def test_a_recipient_taken_out_of_the_message_does_not_come_back_by_the_payload(truncus, listen):
    def take_bob_out(message, **kwargs):
        message.to.remove("bob@example.org")

    def add_audit(payload, **kwargs):
        payload["to"] = [*payload["to"], "audit@example.com"]

    listen(pre_send, take_bob_out)
    listen(pre_send, add_audit)
    sent = message()
    sent.to.append("bob@example.org")
    with pytest.raises(MessageError, match="'to' of the message and of the payload") as caught:
        send(sent)
    assert "@" not in str(caught.value)
    assert truncus.seen == []


def test_the_same_change_of_message_and_payload_is_one_change(truncus, listen):
    def rename(message, payload, **kwargs):
        message.subject = payload["subject"] = "Changed"

    listen(pre_send, rename)
    assert send(message()) == 1
    assert truncus.last.body["subject"] == "Changed"


def test_a_message_whose_recipients_are_all_taken_out_is_skipped(truncus, listen):
    told = []

    def take_out(message, **kwargs):
        if message.subject == "no":
            message.to.clear()

    listen(pre_send, take_out)
    listen(send_failed, lambda **facts: told.append(facts))
    dropped = message("no")
    assert send(dropped, message("yes")) == 1
    assert truncus.last.body["subject"] == "yes"
    assert dropped.truncus_status is None
    assert told == []


@pytest.mark.parametrize("value", [[], "", None])
def test_a_payload_whose_recipients_are_all_taken_out_is_skipped(truncus, listen, value):
    def take_out(payload, **kwargs):
        if payload["subject"] == "no":
            payload["to"] = value

    listen(pre_send, take_out)
    dropped = message("no")
    assert send(dropped, message("yes")) == 1
    assert truncus.last.body["subject"] == "yes"
    assert dropped.truncus_status is None


def test_a_payload_with_copies_alone_is_refused_before_the_request(truncus, listen):
    def move(payload, **kwargs):
        payload["cc"] = [payload.pop("to")]

    listen(pre_send, move)
    with pytest.raises(InvalidAddress, match="has no 'to'"):
        send(message())
    assert truncus.seen == []


@pytest.mark.parametrize("change", [
    {"merge_data": {}}, {"tags": ["welcome"]}, {"subject": "Line\nbreak"},
    {"encoding": "ascii"},
])  # fmt: skip
def test_what_makes_a_message_unsendable_is_told_when_a_receiver_does_it(truncus, listen, change):
    def spoil(message, **kwargs):
        vars(message).update(change)

    listen(pre_send, spoil)
    sent = message()
    sent.body = "Grüße".encode()
    with pytest.raises(MessageError):
        send(sent)
    assert truncus.seen == []


def test_a_message_in_doubt_that_a_receiver_had_changed_goes_again_as_it_was(truncus, listen):
    asked = []

    def append_footer(message, payload, **kwargs):
        asked.append(message)
        message.body += "\nUnsubscribe"
        payload["metadata"] = {"try": str(len(asked))}

    listen(pre_send, append_footer)
    sent = message()
    truncus.loses_the_answer()
    with pytest.raises(AnswerLost):
        send(sent, max_retries=0)
    assert send(sent) == 1
    assert len(asked) == 1
    first, second = truncus.seen
    assert first.key == second.key
    assert first.body == second.body
    assert second.body["text"] == "Text\nUnsubscribe"


def test_pre_send_may_cancel_one_message_which_is_no_error(truncus, listen):
    def cancel(message, **kwargs):
        if message.subject == "no":
            raise SendCancelled

    listen(pre_send, cancel)
    kept, dropped = message("yes"), message("no")
    assert send(kept, dropped) == 1
    assert truncus.last.subjects == ["yes"]
    assert dropped.truncus_status.status == "cancelled"
    assert not dropped.truncus_status.is_accepted


def test_a_failing_pre_send_receiver_costs_its_message_only(truncus, listen):
    def fail(message, **kwargs):
        if message.subject == "no":
            raise ZeroDivisionError

    listen(pre_send, fail)
    with pytest.raises(MessagesNotSent, match="ZeroDivisionError") as caught:
        send(message("yes"), message("no"))
    assert truncus.last.subjects == ["yes"]
    assert "ZeroDivisionError in fail()" in str(caught.value.failures[0].error)


def test_a_pre_send_receiver_may_refuse_with_an_error_of_its_own(truncus, listen):
    def refuse(**kwargs):
        raise MessageError("Not on Sundays.")

    listen(pre_send, refuse)
    with pytest.raises(MessageError, match="Not on Sundays"):
        send(message())
    assert truncus.seen == []


def test_a_value_that_json_cannot_carry_costs_its_message_only(truncus, listen):
    def spoil(message, payload, **kwargs):
        if message.subject == "no":
            payload["metadata"] = object()

    listen(pre_send, spoil)
    with pytest.raises(MessagesNotSent) as caught:
        send(message("0"), message("no"), message("2"))
    assert caught.value.accepted == 2
    assert [failure.index for failure in caught.value] == [1]


def test_post_send_tells_of_each_accepted_message(truncus, listen):
    known_events = []
    listen(post_send, lambda **facts: known_events.append(facts))
    sent = [message("0"), message("1")]
    send(*sent)
    assert [facts["message"] for facts in known_events] == sent
    assert [facts["status"] for facts in known_events] == [one.truncus_status for one in sent]
    assert known_events[0]["sender"] is TruncusBackend
    assert known_events[0]["alias"] is None


@pytest.mark.parametrize(("status", "answer", "kind"), [
    (400, {"error": "invalid_payload"}, InvalidRequest),
    (200, {"status": "blocked", "reason": "suppression_list"}, EmailRefused),
])  # fmt: skip
def test_send_failed_tells_why(truncus, listen, status, answer, kind):
    accepted, failed = [], []
    listen(post_send, lambda **facts: accepted.append(facts))
    listen(send_failed, lambda **facts: failed.append(facts))
    truncus.answers(status, answer)
    with pytest.raises(kind):
        send(refused := message())
    assert accepted == []
    assert failed[0]["message"] is refused
    assert type(failed[0]["error"]) is kind


def test_send_failed_tells_of_messages_refused_before_any_request(truncus, listen):
    failed = []
    listen(send_failed, lambda error, **facts: failed.append(error))
    send(message("Line\nbreak"), fail_silently=True)
    assert isinstance(failed[0], MessageError)


@pytest.mark.parametrize("signal", [post_send, send_failed])
def test_failing_receivers_after_a_send_harm_nothing_and_are_logged_once(
    truncus, listen, caplog, signal
):
    def fail(**kwargs):
        raise ValueError("ann@example.org")

    listen(signal, fail)
    for _ in range(3):
        send(message("Line\nbreak" if signal is send_failed else "Hello"), fail_silently=True)
    told = [record.getMessage() for record in caplog.records if "ValueError" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("fail fails: ValueError")
    assert "ann@example.org" not in caplog.text


@pytest.fixture
def told_admins():
    """Have the package's errors emailed to the admins, with Django's own as always."""
    handler = AdminEmailHandler()
    handler.setLevel(logging.ERROR)
    logging.getLogger("truncus_django").addHandler(handler)
    yield
    logging.getLogger("truncus_django").removeHandler(handler)


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
def test_a_failing_receiver_is_told_to_the_admins_by_email_once_and_not_without_end(
    truncus, listen, told_admins, kind
):
    def fail(**kwargs):
        raise ValueError

    async def fail_later(**kwargs):
        raise ValueError

    listen(post_send, fail if kind == "plain" else fail_later)
    send(message())
    send(message())
    assert len(truncus.seen) == 3
    assert "The receiver" in truncus.seen[1].body["subject"]


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
def test_a_telling_within_a_telling_leaves_djangos_log_line_out(listen, caplog, kind):
    def nest(**kwargs):
        if kwargs["signal"] is post_send:
            send_safely(send_failed, sender=None)

    def fail(**kwargs):
        raise ValueError("ann@example.org")

    async def fail_later(**kwargs):
        raise ValueError("ann@example.org")

    listen(post_send, nest)
    listen(post_send, fail if kind == "plain" else fail_later)
    send_safely(post_send, sender=None)
    assert {record.name for record in caplog.records} == {"truncus_django"}
    assert "ann@example.org" not in caplog.text


def test_an_accepted_email_stays_accepted_where_the_admins_cannot_be_told(
    truncus, listen, told_admins
):
    def fail(**kwargs):
        truncus.always_answers(401, {"error": "INVALID_API_KEY"})
        raise ValueError

    listen(post_send, fail)
    assert send(message()) == 1
    assert len(truncus.seen) == 2


def test_alias_of_the_mailer_is_told(truncus, listen):
    known_events = []
    listen(pre_send, lambda alias, **facts: known_events.append(alias))
    listen(post_send, lambda alias, **facts: known_events.append(alias))
    send(message(), alias="marketing")
    assert known_events == ["marketing", "marketing"]
