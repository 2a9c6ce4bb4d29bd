"""PostgreSQL's LISTEN and NOTIFY, which notify a worker of new emails at once."""

import logging
import selectors
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from django.db import connections

logger = logging.getLogger("truncus_django")

CHANNEL = "truncus_outbox"
LISTEN_RETRY_S = 5.0


def can_notify(using: str) -> bool:
    """Return whether a database notifies workers; where it does not, they look for themselves."""
    return connections[using].vendor == "postgresql"


def notify_workers(using: str) -> None:
    """Notify listening workers. After a commit: inside transactions, all commits would queue up."""
    with connections[using].cursor() as cursor:
        cursor.execute(f"NOTIFY {CHANNEL}")


class Listener:
    """Waits for emails in the outbox: notified at once on PostgreSQL, else by the clock alone.

    It belongs to one thread, and uses this thread's connection, which nothing else may use
    meanwhile; a connection that is lost is made again. :meth:`interrupt` may be called from any
    thread, and from a signal handler.

    Args:
        using: the alias of the outbox's database.
        is_deaf: go by the clock alone on PostgreSQL, too.
    """

    def __init__(self, using: str, *, is_deaf: bool = False) -> None:
        self._using = using
        self._can_listen = not is_deaf and can_notify(using)
        self._is_listening = False
        self._next_try_at = 0.0
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    @property
    def is_listening(self) -> bool:
        """Whether notifications arrive at once."""
        return self._is_listening

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_listening:
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
        if self._is_listening and connections[self._using].connection is None:
            self._close()  # somebody closed the connection of this thread
            self._next_try_at = 0.0
        has_missed = not self._is_listening and self._listen()
        if has_missed:
            return True
        if self._can_listen and not self._is_listening:
            timeout_s = min(timeout_s, LISTEN_RETRY_S)
        with selectors.DefaultSelector() as selector:
            selector.register(self._receiver, selectors.EVENT_READ)
            if self._is_listening:
                raw = connections[self._using].connection
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
        try:
            with connections[self._using].cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
        except Exception as exc:  # noqa: BLE001  the clock is enough to go by
            self._close()
            kind = type(exc).__name__
            logger.info(
                "Not listening for emails of the outbox: %s",
                kind,
                extra={"truncus_event": "outbox_not_listening", "truncus_error": kind},
            )
            return False
        self._is_listening = True
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
        self._is_listening = False
        with suppress(Exception):
            connections[self._using].close()


def _forget_notifications(raw: Any) -> None:
    """Read the notifications on a connection of psycopg 3, or of psycopg 2."""
    if hasattr(raw, "pgconn"):
        raw.pgconn.consume_input()
        while raw.pgconn.notifies() is not None:
            pass
    else:
        raw.poll()
        raw.notifies.clear()
