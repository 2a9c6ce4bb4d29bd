"""The long-running loop: sends what is in the outbox until it is stopped.

The process stays alive whatever fails: it waits for a database that is gone, and pauses after an
error in a step.
"""

import logging
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, connections, reset_queries

from truncus_django.models import database
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.dispatcher import Dispatcher, RunStats
from truncus_django.outbox.expiry import expire_overdue
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.listener import Listener
from truncus_django.outbox.notify import while_sending
from truncus_django.trouble_log import TroubleLog

logger = logging.getLogger("truncus_django")

POLL_S = 1.0
"""How often a worker looks into the outbox where it is not notified."""
POLL_LISTENING_S = 5.0
"""The same where it is notified: a notification may get lost."""
EXPIRE_EVERY_S = 30.0
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 10.0
TRIES_OF_ONE_RUN = 8
"""After so many failed steps in a row a worker that is to run once gives up: about 40 seconds."""


class Watcher:
    """Called with what a worker does, from several threads. This base class does nothing."""

    def on_dispatched(self, dispatched: DispatchResult) -> None:
        """A request was made."""

    def on_idle(self, idle: Idle) -> None:
        """Nothing is to be sent now."""

    def on_listening(self, is_listening: bool) -> None:
        """The worker begins; whether it is notified of emails."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a worker's run.

    Attributes:
        stats: what was sent.
        is_cut_short: whether it ended for an error that stayed.
    """

    stats: RunStats
    is_cut_short: bool = False


class Worker:
    """Sends what is in the outbox, in one thread or several.

    Args:
        concurrency: threads; each makes one request at a time.
        poll_s: seconds between two looks into an outbox where nothing is due; by default 5 where
            PostgreSQL notifies of emails, else 1.
        is_once: end when nothing is due any more.
        watcher: its methods are called with what happens.
    """

    def __init__(
        self,
        *,
        concurrency: int = 1,
        poll_s: float | None = None,
        is_once: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        self._using = database()
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._is_once = is_once
        self._watcher = watcher or Watcher()
        self._listener = Listener(self._using, is_deaf=is_once)
        self._condition = _Condition()
        self._is_stopping = False
        self._stopped = threading.Event()
        self._is_cut_short = False
        self._stats = RunStats()
        self._trouble = TroubleLog()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End after the requests that are being made. May be called by a signal handler."""
        self._is_stopping = True
        self._listener.interrupt()

    def run(self) -> Result:
        """Send, until :meth:`stop` is called or, of one run, nothing is due any more."""
        threads = [
            threading.Thread(target=self._send, args=(number,), name=f"truncus-worker-{number}")
            for number in range(self._concurrency)
        ]
        with self._listener:
            self._watcher.on_listening(self._listener.is_listening)
            for thread in threads:
                thread.start()
            try:
                while not self._is_stopping and self._is_running(threads):
                    if self._listener.wait(self._pause_s()):
                        self._condition.notify()
            finally:
                self._is_cut_short |= not self._is_once and not self._is_stopping
                self._stopped.set()
                self._condition.notify()
                for thread in threads:
                    thread.join()
        return Result(self._stats, self._is_cut_short)

    def _is_running(self, threads: list[threading.Thread]) -> bool:
        """Whether threads do what they are for: of a run that ends by itself, any of them."""
        return (any if self._is_once else all)(thread.is_alive() for thread in threads)

    # One thread -------------------------------------------------------------------------------

    def _send(self, number: int) -> None:
        """Make one request after the other."""
        try:
            with while_sending():
                self._go_on_sending(number)
        finally:
            connections.close_all()
            self._listener.interrupt()  # whoever waits for this thread

    def _go_on_sending(self, number: int) -> None:
        dispatcher: Dispatcher | None = None
        failures = 0
        expired_at = 0.0
        while not self._stopped.is_set():
            known = self._condition.notifications
            reset_queries()  # with DEBUG Django keeps them all
            try:
                dispatcher = dispatcher or Dispatcher()
                if number == 0 and time.monotonic() - expired_at > EXPIRE_EVERY_S:
                    expire_overdue(dispatcher.clock)
                    expired_at = time.monotonic()
                step = dispatcher.step()
                if isinstance(step, DispatchResult):
                    self._note(step)
                else:
                    self._watcher.on_idle(step)
                    wait_s = step.wait_s(dispatcher.clock.now())
            except Exception as exc:  # noqa: BLE001  a worker stays alive
                failures += 1
                if not self._recover(exc, failures):
                    return
                continue
            failures = 0
            if self._trouble.clear():
                logger.info(
                    "The outbox's worker goes on", extra={"truncus_event": "worker_recovered"}
                )
            if isinstance(step, DispatchResult):
                continue
            if self._is_once and not step.is_pace:
                self._note_idle(step)
                return
            self._close_idle_connections()
            self._condition.wait(known, min(wait_s, self._pause_s()))

    def _note(self, dispatched: DispatchResult) -> None:
        with self._lock:
            self._stats.add(dispatched)
        self._watcher.on_dispatched(dispatched)

    def _note_idle(self, idle: Idle) -> None:
        with self._lock:
            self._stats.idle = idle

    def _pause_s(self) -> float:
        if self._poll_s is not None:
            return self._poll_s
        return POLL_LISTENING_S if self._listener.is_listening else POLL_S

    def _recover(self, exc: Exception, failures: int) -> bool:
        """Pause after an error, with a new connection; whether to go on."""
        self._report(exc)
        with suppress(Exception):  # what is broken may break by that, too
            connections[self._using].close()
        if self._is_once and failures >= TRIES_OF_ONE_RUN:
            self._is_cut_short = True
            return False
        self._stopped.wait(min(FIRST_BACKOFF_S * 2 ** min(failures - 1, 10), LONGEST_BACKOFF_S))
        return True

    def _report(self, exc: Exception) -> None:
        """Log a kind of error; not what it says, which may hold what was to be written."""
        if isinstance(exc, DatabaseError | InterfaceError):
            self._trouble.failed(
                exc,
                "The outbox's database fails: %s. The worker tries again.",
                event="outbox_database_failed",
            )
            return
        kind = type(exc).__name__
        place = traceback.extract_tb(exc.__traceback__)[-1]
        self._trouble.error(
            kind,
            "A step of the outbox failed: %s in %s, line %s. The worker goes on.",
            kind,
            place.filename,
            place.lineno,
            extra={"truncus_event": "worker_step_failed", "truncus_error": kind},
        )

    def _close_idle_connections(self) -> None:
        """Close what receivers of signals opened, as old as the settings let it become."""
        for connection in connections.all(initialized_only=True):
            if connection.alias != self._using:
                connection.close_if_unusable_or_obsolete()


class _Condition:
    """Notifies all threads; one that was busy finds out when it waits the next time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.notifications = 0

    def notify(self) -> None:
        with self._condition:
            self.notifications += 1
            self._condition.notify_all()

    def wait(self, known: int, timeout_s: float) -> None:
        """Wait until there are other notifications than ``known``."""
        with self._condition:
            self._condition.wait_for(lambda: self.notifications != known, timeout_s)
