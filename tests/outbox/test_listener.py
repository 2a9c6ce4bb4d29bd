"""Listening: a worker is notified at once on PostgreSQL, and polls on other databases."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.mail import EmailMessage
from django.db import connection, connections

from tests.waiting import PATIENCE_S
from truncus_django.backend import TruncusBackend
from truncus_django.outbox import listener as listener_module
from truncus_django.outbox.listener import CHANNEL, Listener

pytestmark = pytest.mark.django_db(transaction=True)


def send() -> None:
    message = EmailMessage("Hello", "Hello", "shop@example.com", ["ann@example.org"])
    assert TruncusBackend().send_messages([message]) == 1


def can_listen() -> bool:
    return connection.vendor == "postgresql"


def by_another_connection(function: Callable[[], object]) -> None:
    """Do what another process does; an SQLite in memory has one connection for all."""

    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    if can_listen():
        with ThreadPoolExecutor(1) as executor:
            executor.submit(run).result()
    else:
        function()


def end_listening() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query = %s AND datname = current_database()",
            [f"LISTEN {CHANNEL}"],
        )


def test_a_listener_hears_of_a_commit():
    with Listener("default") as listener:
        assert listener.is_listening is can_listen()
        by_another_connection(send)
        assert listener.wait(PATIENCE_S if can_listen() else 0.01) is can_listen()
        assert listener.wait(0.01) is False


def test_a_deaf_listener_goes_by_the_clock():
    with Listener("default", is_deaf=True) as listener:
        by_another_connection(send)
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
        if can_listen():
            by_another_connection(end_listening)
        while listener.is_listening:
            assert listener.wait(PATIENCE_S)
        # What came in between may have been missed.
        assert listener.wait(PATIENCE_S if can_listen() else 0.01) is can_listen()
        assert listener.is_listening is can_listen()
        by_another_connection(send)
        assert listener.wait(PATIENCE_S if can_listen() else 0.01) is can_listen()


def test_a_listener_whose_connection_was_closed_in_this_thread_listens_again():
    with Listener("default") as listener:
        connection.close()
        # What came in between may have been missed.
        assert listener.wait(0.01) is can_listen()
        assert listener.is_listening is can_listen()


def test_a_listener_without_a_server_waits_by_the_clock(monkeypatch):
    monkeypatch.setattr(listener_module, "LISTEN_RETRY_S", 0.01)
    monkeypatch.setattr(
        type(connections["default"]), "connect", lambda self: (_ for _ in ()).throw(OSError)
    )
    connection.close()
    with Listener("default") as listener:
        assert not listener.is_listening
        assert listener.wait(600 if can_listen() else 0.01) is False
