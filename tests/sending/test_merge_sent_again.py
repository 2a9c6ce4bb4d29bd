"""Merge data: a message that is sent again reaches nobody twice."""

import copy
import pickle
from collections import Counter

import pytest
from django.utils import translation
from django.utils.translation import gettext_lazy

from tests.sending.merged import merged
from truncus_django.api.errors import MessagesNotSent, NetworkError
from truncus_django.backend import TruncusBackend
from truncus_django.models import Email
from truncus_django.sending import direct
from truncus_django.sending.ambiguous import MergedSends
from truncus_django.sending.merge import Merge
from truncus_django.signals import post_send, send_failed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("emulator")]


def pickled(message):
    return pickle.loads(pickle.dumps(message))


def test_a_lost_answer_is_no_second_email(emulator):
    emulator.faults.rate("reset_after", 1.0)
    message = merged()
    with pytest.raises(MessagesNotSent) as caught:
        message.send()
    assert message.truncus_status.status == "unknown"
    assert isinstance(message.truncus_status.error, NetworkError)
    emulator.faults.rate("reset_after", 0)

    assert message.send() == 2
    assert emulator.accepted == 2
    assert Email.objects.count() == 2

    # Also where the emails of the error are sent again, and not the whole.
    again = [failure.message for failure in caught.value.failures]
    assert TruncusBackend().send_messages(again) == 2
    assert emulator.accepted == 2


@pytest.mark.parametrize("copied", [lambda each: each, copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("replay", ["first", "duplicate"])
def test_after_an_answer_lost_in_the_middle_nobody_gets_it_twice(
    emulator, settings, copied, replay
):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    emulator.reset(batch_replay=replay)
    message = merged(to=[f"customer{number}@example.org" for number in range(250)])
    take, seen = emulator.faults.take, iter([None, "reset_after", None])

    def second_is_lost(path, endpoint):
        fault = next(seen, None)
        if fault:
            emulator.faults.next(fault)
        return take(path, endpoint)

    emulator.faults.take = second_is_lost
    with pytest.raises(MessagesNotSent) as caught:
        message.send()
    assert caught.value.ambiguous
    assert message.truncus_status.status == "mixed"

    assert copied(message).send() == 250
    assert Counter(email.to for email in emulator.emails).most_common(1)[0][1] == 1
    assert emulator.accepted == 250
    assert Email.objects.count() == 250


def test_a_lost_answer_of_the_first_of_two_is_not_forgotten_for_the_second(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    message = merged()
    emulator.faults.next("reset_after")
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages([message, message])
    assert emulator.accepted == 4

    assert TruncusBackend().send_messages([message, message]) == 4
    assert emulator.accepted == 4
    assert "_truncus_ambiguous_sends" not in vars(message)


@pytest.mark.parametrize("fails", ["first", "last"])
def test_another_send_of_the_message_forgets_nothing_of_this_one(emulator, settings, fails):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    message = merged(to=[f"customer{number}@example.org" for number in range(150)])
    others = []

    def send_as_another_thread_would(**kwargs):
        if not others:
            others.append(None)
            others[0] = TruncusBackend().send_messages([message])

    emulator.faults.next("reset_after")
    signal = send_failed if fails == "first" else post_send
    signal.connect(send_as_another_thread_would)
    try:
        with pytest.raises(MessagesNotSent):
            message.send()
    finally:
        signal.disconnect(send_as_another_thread_would)
    assert others == [150]

    assert message.send() == 150
    assert set(Counter(email.to for email in emulator.emails).values()) == {2}


def test_after_a_break_nobody_gets_it_twice(emulator):
    message = merged(to=[f"customer{number}@example.org" for number in range(150)])

    def stop(message, **kwargs):
        if message.to == ["customer120@example.org"]:
            raise KeyboardInterrupt

    post_send.connect(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            message.send()
    finally:
        post_send.disconnect(stop)
    assert message.send() == 150
    assert emulator.accepted == 150


@pytest.mark.parametrize("step", ["_forget", "_remember_failure"])
def test_a_break_while_an_answer_is_noted_is_no_second_email(emulator, settings, monkeypatch, step):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    if step == "_remember_failure":
        emulator.faults.next("reset_after")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    message = merged()
    with monkeypatch.context() as patched:
        patched.setattr(direct, step, stop)
        with pytest.raises(KeyboardInterrupt):
            message.send()
    assert message.send() == 2
    assert emulator.accepted == 2
    assert Email.objects.count() == 2


def test_a_break_while_a_whole_send_is_noted_is_no_second_email(emulator, settings, monkeypatch):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    message = merged(to=[f"customer{number}@example.org" for number in range(150)])
    emulator.faults.next("reset_after")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MergedSends, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            message.send()
    assert message.send() == 150
    assert emulator.accepted == 150


def test_what_was_sent_as_a_whole_is_sent_anew(emulator):
    message = merged()
    for _ in range(2):
        assert message.send() == 2
    assert emulator.accepted == 4
    assert "_truncus_ambiguous_sends" not in vars(message)


def test_a_repeat_in_another_language_is_the_same_email(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    message = merged(
        to=["ann@example.org"],
        merge_global_data={"word": gettext_lazy("Password"), "number": 1234.5},
    )
    message.subject = "{{ word }} {{ number }}"
    emulator.faults.next("reset_after")
    with translation.override("en"), pytest.raises(NetworkError):
        message.send()
    with translation.override("de"):
        assert message.send() == 1
    assert emulator.accepted == 1


def test_a_copy_knows_nothing_of_earlier_sends():
    message = merged()
    message.__dict__["_truncus_ambiguous_sends"] = {0: ()}
    message.truncus_status = object()
    found = Merge(message).message_for("bob@example.org")
    assert found.truncus_status is None
    assert "_truncus_ambiguous_sends" not in found.__dict__
