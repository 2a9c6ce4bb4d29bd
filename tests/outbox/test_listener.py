"""Listening: a worker is notified at once on PostgreSQL, and polls on other databases."""

import threading
import time

import pytest
from django.core.mail import EmailMessage
from django.db import connection, connections, transaction

from truncus_django.backend import TruncusBackend
from truncus_django.conf import get_settings
from truncus_django.outbox import listener as listener_module
from truncus_django.outbox.listener import CHANNEL, Listener
from truncus_django.outbox.notify import notify_after_commit

pytestmark = pytest.mark.django_db(transaction=True)


def send() -> None:
    message = EmailMessage("Hello", "Hello", "shop@example.com", ["ann@example.org"])
    assert TruncusBackend().send_messages([message]) == 1


def can_listen() -> bool:
    return connection.vendor == "postgresql"


def test_a_listener_hears_of_a_commit():
    with Listener("default") as listener:
        assert listener.is_listening is can_listen()
        with transaction.atomic():
            send()
        assert listener.wait(60 if can_listen() else 0.01) is can_listen()
        assert listener.wait(0.01) is False


def test_a_deaf_listener_goes_by_the_clock():
    with Listener("default", is_deaf=True) as listener:
        send()
        assert not listener.is_listening
        assert listener.wait(0.01) is False


def test_a_listener_can_be_interrupted_before_it_waits_and_while():
    with Listener("default") as listener:
        listener.interrupt()
        began = time.monotonic()
        assert listener.wait(600) is False
        threading.Timer(0.05, listener.interrupt).start()
        assert listener.wait(600) is False
        assert time.monotonic() - began < 300
    listener.interrupt()  # nobody waits any more


def test_a_listener_that_lost_its_connection_says_so_and_listens_again():
    with Listener("default") as listener:
        with connection.cursor() as cursor:
            if can_listen():
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query = %s AND datname = current_database()",
                    [f"LISTEN {CHANNEL}"],
                )
        while listener.is_listening:
            assert listener.wait(60)
        # What came in between may have been missed.
        assert listener.wait(60 if can_listen() else 0.01) is can_listen()
        assert listener.is_listening is can_listen()
        notify_after_commit("default", get_settings())
        assert listener.wait(60 if can_listen() else 0.01) is can_listen()


def test_a_listener_without_a_server_waits_by_the_clock(monkeypatch):
    monkeypatch.setattr(listener_module, "LISTEN_RETRY_S", 0.01)
    monkeypatch.setattr(
        type(connections["default"]), "connect", lambda self: (_ for _ in ()).throw(OSError)
    )
    with Listener("default") as listener:
        assert not listener.is_listening
        assert listener.wait(600 if can_listen() else 0.01) is False
