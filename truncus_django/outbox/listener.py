"""PostgreSQL's LISTEN and NOTIFY, which tell a worker of new emails at once."""

import logging
import selectors
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("truncus_django")

CHANNEL = "truncus_outbox"
LISTEN_RETRY_S = 5.0


def notify_workers(using: str) -> None:
    """Notify listening workers; other databases than PostgreSQL cannot."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        # After the commit: inside of transactions, NOTIFY makes all commits wait for one another.
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")


class Listener:
    """Waits for emails in the outbox: notified at once on PostgreSQL, else by the clock alone.

    Has a connection of its own, from Django's settings of the database, made again when it is
    lost. :meth:`wait` belongs to one thread; :meth:`interrupt` may be called from any, and from a
    signal handler.

    Args:
        using: the alias of the outbox's database.
        is_deaf: go by the clock alone on PostgreSQL, too.
    """

    def __init__(self, using: str, *, is_deaf: bool = False) -> None:
        self._using = using
        self._can_listen = not is_deaf and connections[using].vendor == "postgresql"
        self._connection: BaseDatabaseWrapper | None = None
        self._next_try_at = 0.0
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    @property
    def is_listening(self) -> bool:
        """Whether notifications arrive at once."""
        return self._connection is not None

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        self._receiver.close()
        self._sender.close()

    def interrupt(self) -> None:
        """End the present :meth:`wait`, or the next one."""
        with suppress(OSError):  # full: it will end anyway; closed: nobody waits
            self._sender.send(b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until emails come, somebody interrupts, or for ``timeout_s`` seconds.

        Returns:
            Whether there may be emails: a notification came, or one may have been missed while
            nobody listened.
        """
        has_missed = self._connection is None and self._listen()
        if has_missed:
            return True
        if self._can_listen and self._connection is None:
            timeout_s = min(timeout_s, LISTEN_RETRY_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            raw = self._connection.connection if self._connection is not None else None
            if raw is not None:
                selector.register(raw.fileno(), selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(max(timeout_s, 0.0))]
        if self._receiver in ready:
            self._receiver.recv(4096)
            ready.remove(self._receiver)
        if ready:
            self._read(raw)
        return bool(ready)

    def _listen(self) -> bool:
        """Begin to listen, where that is possible; whether it began."""
        if not self._can_listen or time.monotonic() < self._next_try_at:
            return False
        self._next_try_at = time.monotonic() + LISTEN_RETRY_S
        template = connections[self._using]
        settings = {**template.settings_dict, "OPTIONS": {**template.settings_dict["OPTIONS"]}}
        settings["OPTIONS"].pop("pool", None)  # whose connections come and go
        connection = type(template)(settings, self._using)
        connection.inc_thread_sharing()  # made here, and closed by whoever closes this
        try:
            connection.connect()
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
        except Exception as exc:  # noqa: BLE001  the clock is enough to go by
            _close_quietly(connection)
            logger.info("Not listening for emails of the outbox: %s", type(exc).__name__)
            return False
        self._connection = connection
        return True

    def _read(self, raw: Any) -> None:
        """Read what the server says, which is nothing but that there are emails, or that it ends.

        If it closed the connection, notifications may have been missed.
        """
        try:
            _forget_notifications(raw)
        except Exception:  # noqa: BLE001  of psycopg's two versions; it is over in any case
            self._close()
            self._next_try_at = 0.0

    def _close(self) -> None:
        if self._connection is not None:
            _close_quietly(self._connection)
            self._connection = None


def _forget_notifications(raw: Any) -> None:
    """Read the notifications on a connection of psycopg 3, or of psycopg 2."""
    if hasattr(raw, "pgconn"):
        raw.pgconn.consume_input()
        while raw.pgconn.notifies() is not None:
            pass
    else:
        raw.poll()
        raw.notifies.clear()


def _close_quietly(connection: BaseDatabaseWrapper) -> None:
    with suppress(Exception):
        connection.close()
