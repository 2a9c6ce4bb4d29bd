"""Notifying: once after each commit, whatever is rolled back, and without harm to anybody."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.utils.module_loading import import_string

from truncus_django import tasks
from truncus_django.backend import TruncusBackend
from truncus_django.conf import get_settings
from truncus_django.models import OutboxEntry
from truncus_django.outbox import notify as notify_module
from truncus_django.outbox.notify import (
    NOTIFIERS,
    notify,
    while_sending,
)
from truncus_django.queues import celery as celery_queue

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def notified(settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whom emails notify, in place of notifying them; here it is Celery."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": "celery"}
    found: list[str] = []
    monkeypatch.setattr(notify_module, "notify", lambda using, dispatcher: found.append(dispatcher))
    return found


def send() -> None:
    message = EmailMessage("Hello", "Hello", "shop@example.com", ["ann@example.org"])
    assert TruncusBackend().send_messages([message]) == 1


class Undone(Exception):
    """Rolls a transaction back."""


# Once after a commit --------------------------------------------------------------------------


def test_each_email_of_its_own_notifies(notified):
    send()
    send()
    assert notified == ["celery", "celery"]


def test_a_transaction_notifies_once_when_it_is_committed(notified):
    with transaction.atomic():
        for _ in range(3):
            send()
        assert notified == []
    assert notified == ["celery"]


def test_what_is_rolled_back_notifies_nobody_and_nothing_is_lost_afterwards(notified):
    with suppress(Undone), transaction.atomic():
        send()
        raise Undone
    assert notified == []
    send()
    assert notified == ["celery"]


def test_a_savepoint_that_is_rolled_back_takes_no_notification_with_it(notified):
    with transaction.atomic():
        with suppress(Undone), transaction.atomic():
            send()
            raise Undone
        send()
        with suppress(Undone), transaction.atomic():
            send()
            raise Undone
    assert notified == ["celery"]


def test_a_notification_inside_a_savepoint_may_be_rolled_back_after_another_was_asked_for(notified):
    with transaction.atomic():
        with suppress(Undone), transaction.atomic():
            with transaction.atomic():
                send()
            send()
            raise Undone
        with transaction.atomic():
            send()
    assert notified == ["celery"]


def test_savepoints_that_are_released_notify_once_together(notified):
    with transaction.atomic():
        for _ in range(3):
            with transaction.atomic():
                send()
        send()
    assert notified == ["celery"]


def test_other_callbacks_of_the_transaction_are_left_alone(notified):
    told: list[int] = []
    with transaction.atomic():
        for number in range(5):
            transaction.on_commit(lambda number=number: told.append(number))
            send()
    assert told == [0, 1, 2, 3, 4]
    assert notified == ["celery"]


def test_an_email_that_another_callback_sends_is_notified_with_those_of_the_transaction(notified):
    with transaction.atomic():
        transaction.on_commit(send)
        send()
        send()
    assert notified == ["celery"]


def test_mailers_of_several_queues_notify_each_of_them_once(notified, settings):
    with transaction.atomic():
        for dispatcher in ("celery", "tasks") * 2:
            settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": dispatcher}
            send()
    assert notified == ["celery", "tasks"]


def test_whoever_sends_is_not_notified(notified):
    with while_sending():
        send()
    assert notified == []
    send()
    assert notified == ["celery"]


def test_workers_are_notified_where_the_database_can_do_it(monkeypatch, settings):
    found: list[str] = []
    monkeypatch.setattr(notify_module, "notify", lambda using, dispatcher: found.append(dispatcher))
    send()
    assert found == (["worker"] if connection.vendor == "postgresql" else [])


@pytest.mark.parametrize("dispatcher", NOTIFIERS)
def test_each_dispatcher_has_what_notifies_it(dispatcher, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": dispatcher}
    assert get_settings().dispatcher == dispatcher
    assert callable(import_string(NOTIFIERS[dispatcher]))


# Trouble --------------------------------------------------------------------------------------


@pytest.fixture
def broken(settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A queue that fails, and with what secrets; each call is noted."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": "celery"}
    calls: list[str] = []

    def fail(using: str) -> None:
        calls.append(using)
        raise ConnectionError("amqp://shop:password@broker")

    monkeypatch.setattr(celery_queue, "notify", fail)
    return calls


def test_a_broken_queue_harms_no_sender_and_is_logged_once(broken, caplog, monkeypatch):
    monkeypatch.setattr(notify_module, "PAUSE_S", 0.0)
    send()
    with transaction.atomic():
        send()
    assert OutboxEntry.objects.count() == 2
    assert len(broken) == 2
    [record] = caplog.records
    assert "(DISPATCHER 'celery') could not be notified: ConnectionError." in record.getMessage()
    assert "password" not in caplog.text


def test_a_broken_queue_is_left_alone_for_a_while(broken):
    send()
    send()
    assert len(broken) == 1


def test_trouble_is_logged_again_after_it_was_over(broken, caplog, monkeypatch):
    monkeypatch.setattr(notify_module, "PAUSE_S", 0.0)
    send()
    with monkeypatch.context() as patched:
        patched.setattr(celery_queue, "notify", lambda using: None)
        send()
    send()
    assert len(caplog.records) == 2


def test_what_is_missing_is_said(monkeypatch, caplog):
    monkeypatch.setattr(tasks, "dispatch", None)
    notify("default", "celery")
    assert 'pip install "truncus-django[celery]"' in caplog.text


def test_a_queue_that_hangs_holds_nobody_up():
    ends = threading.Event()
    with pytest.raises(TimeoutError):
        celery_queue._within(0.01, lambda: ends.wait(60) and None)
    ends.set()
