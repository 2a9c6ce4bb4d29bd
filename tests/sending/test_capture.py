"""Messages that are captured are not sent, and only here."""

from contextlib import suppress
from threading import Thread

import pytest
from asgiref.sync import async_to_sync
from django.core.mail import EmailMessage, send_mail

from truncus_django.api.errors import ConfigurationError
from truncus_django.message import asend
from truncus_django.sending.capture import capturing


def send(subject: str) -> int:
    return send_mail(subject, "Hello.", None, ["ann@example.org"])


def test_captured_messages_count_as_sent_and_are_not(truncus, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "TENANT_ID": "acme"}
    with capturing() as captured:
        assert send("One") + send("Two") == 2

    assert [one.message.subject for one in captured] == ["One", "Two"]
    assert captured[0].settings.tenant_id == "acme"
    assert truncus.seen == []
    assert send("Three") == 1
    assert len(captured) == 2


def test_capturing_needs_no_key(truncus, settings):
    settings.TRUNCUS = {"RECORD": False}
    with capturing() as captured:
        assert send("One") == 1

    assert len(captured) == 1
    with pytest.raises(ConfigurationError):
        send("Two")


def test_an_error_ends_capturing(truncus):
    with suppress(LookupError), capturing():
        raise LookupError

    send("One")
    assert truncus.last.subjects == ["One"]


def test_a_block_inside_another_captures_for_itself(truncus):
    with capturing() as outer:
        with capturing() as inner:
            send("Inner")
        send("Outer")

    assert [[one.message.subject for one in block] for block in (outer, inner)] == [
        ["Outer"],
        ["Inner"],
    ]


def test_what_a_coroutine_sends_is_captured(truncus):
    message = EmailMessage("One", "Hello.", to=["ann@example.org"])
    with capturing() as captured:
        assert async_to_sync(asend)(message) == 1

    assert [one.message for one in captured] == [message]
    assert truncus.seen == []


def test_other_threads_send_as_ever(truncus):
    message = EmailMessage("Elsewhere", "Hello.", to=["ann@example.org"])
    with capturing() as captured:
        thread = Thread(target=message.send)
        thread.start()
        thread.join()

    assert captured == []
    assert truncus.last.subjects == ["Elsewhere"]
