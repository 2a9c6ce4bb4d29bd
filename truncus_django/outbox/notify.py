"""Tells workers that there is work. Losing it costs a delay, never an email.

Nothing that fails here reaches whoever sends an email: the email is in the outbox by then.
"""

import logging
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Self

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from truncus_django.api.errors import ConfigurationError
from truncus_django.conf import Settings

logger = logging.getLogger("truncus_django")

CHANNEL = "truncus_outbox"
"""Of PostgreSQL's NOTIFY."""
NOTIFIERS = {
    "worker": "truncus_django.outbox.notify.notify_workers",
    "celery": "truncus_django.outbox.queues.celery.notify",
    "tasks": "truncus_django.outbox.queues.django_tasks.notify",
}
"""What notifies whoever sends, for each value of ``DISPATCHER``; called with the database's alias.

Imported when it is called: a site needs only the queue that it uses.
"""
REST_S = 30.0
"""For how long a queue that failed is left alone: each try may cost the caller some time."""
LISTEN_RETRY_S = 5.0
LOOK_BACK = 100
"""How many of a transaction's callbacks are looked through for one of these."""

_here = threading.local()
_trouble: dict[str, set[str]] = {}
"""What kinds of trouble were logged of each dispatcher since it last worked."""
_resting_until: dict[str, float] = {}
"""Monotonic seconds until which each dispatcher is left alone."""


# Waking -------------------------------------------------------------------------------------------


def notify_after_commit(using: str, settings: Settings) -> None:
    """Wake whoever sends once the open transaction is committed; once for each transaction.

    Args:
        using: the alias of the outbox's database.
        settings: ``dispatcher`` says who is to be woken.
    """
    connection = connections[using]
    if settings.dispatcher == "worker" and connection.vendor != "postgresql":
        return  # workers look for themselves
    if getattr(_here, "is_sending", False):
        return  # and comes upon it in its next step
    call = _Notification(using, settings.dispatcher)
    pending: Sequence[Any] = connection.run_on_commit  # stubs know it without ``robust``
    for savepoints, known, _ in islice(reversed(pending), LOOK_BACK):
        if known == call:
            if savepoints <= set(connection.savepoint_ids):
                return  # it will be called if what is written now is committed
            call = known  # whose savepoint may yet be rolled back: once more, with this one's
            break
    transaction.on_commit(call, using=using)


@contextmanager
def while_sending() -> Iterator[None]:
    """Wake nobody for emails that are written in this thread: it is the one that sends.

    Otherwise a receiver that sends an email about each one would, where tasks run in the process
    that queues them, be called inside itself without end.
    """
    before = getattr(_here, "is_sending", False)
    _here.is_sending = True
    try:
        yield
    finally:
        _here.is_sending = before


@dataclass(slots=True)
class _Notification:
    """What is called after a commit, perhaps several times, and acts once."""

    using: str
    dispatcher: str
    is_over: bool = field(default=False, compare=False)

    def __call__(self) -> None:
        if not self.is_over:
            self.is_over = True
            notify(self.using, self.dispatcher)


def notify(using: str, dispatcher: str) -> None:
    """Wake whoever sends, now; nothing is raised, and each kind of trouble is logged once.

    Args:
        using: the alias of the outbox's database.
        dispatcher: one of the values of :attr:`~truncus_django.conf.Settings.dispatcher`.
    """
    if time.monotonic() < _resting_until.get(dispatcher, 0.0):
        return
    try:
        import_string(NOTIFIERS[dispatcher])(using)
    except Exception as exc:  # noqa: BLE001  the emails are in the outbox; see the module
        _resting_until[dispatcher] = time.monotonic() + REST_S
        report(dispatcher, exc)
    else:
        _trouble.pop(dispatcher, None)


def notify_workers(using: str) -> None:
    """Wake listening workers. Inside the transaction, all commits would wait for one another."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")


def report(dispatcher: str, exc: Exception) -> None:
    """Log a kind of trouble with a dispatcher's queue, once until it works again.

    A log handler may send email, which comes here again. What a queue's exception says is not
    logged: it may hold the password of a broker.
    """
    kind = type(exc).__name__
    known = _trouble.setdefault(dispatcher, set())
    if kind not in known:
        known.add(kind)
        logger.error(
            "Emails are in the outbox, and whoever sends them (DISPATCHER %r) could not be woken: "
            "%s. They are sent later. Further ones are not logged.",
            dispatcher,
            str(exc) if isinstance(exc, ConfigurationError) else kind,
        )


def forget_trouble() -> None:
    """Wake at once again after trouble; for tests."""
    _trouble.clear()
    _resting_until.clear()


# Being woken --------------------------------------------------------------------------------------


class Listener:
    """Waits for emails in the outbox: woken at once on PostgreSQL, else by the clock alone.

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
        """Whether emails are heard of at once."""
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
        self._hang_up()
        self._receiver.close()
        self._sender.close()

    def interrupt(self) -> None:
        """End the present :meth:`wait`, or the next one."""
        with suppress(OSError):  # full: there is enough to wake it; closed: nobody waits
            self._sender.send(b"\0")

    def wait(self, timeout_s: float) -> bool:
        """Wait until emails come, somebody interrupts, or for ``timeout_s`` seconds.

        Returns:
            Whether there may be emails: they were heard of, or some could have been missed while
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
            _close(connection)
            logger.info("Not listening for emails of the outbox: %s", type(exc).__name__)
            return False
        self._connection = connection
        return True

    def _read(self, raw: Any) -> None:
        """Read what the server says, which is nothing but that there are emails, or that it ends.

        Where it hung up, what came then may have been missed.
        """
        try:
            _forget_notifications(raw)
        except Exception:  # noqa: BLE001  of psycopg's two versions; it is over in any case
            self._hang_up()
            self._next_try_at = 0.0

    def _hang_up(self) -> None:
        if self._connection is not None:
            _close(self._connection)
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


def _close(connection: BaseDatabaseWrapper) -> None:
    with suppress(Exception):
        connection.close()
