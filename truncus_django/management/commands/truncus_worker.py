"""``manage.py truncus_worker``: sends what is in the outbox."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db import DatabaseError, connections
from django.db.models import Q

from truncus_django.ages import span
from truncus_django.conf import get_settings, mailers
from truncus_django.db.clock import Clock, moment_of
from truncus_django.management.base import CommandWithExamples
from truncus_django.models import OutboxAccount, OutboxEntry, database
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.dispatcher import RunStats
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.worker import Result, Watcher, Worker
from truncus_django.progress import Progress

_REPORT_EVERY_S = 60.0
"""How often a worker that is busy says how far it is."""

_EXAMPLES = """\
examples:
  manage.py truncus_worker                  send until SIGTERM or Ctrl-C
  manage.py truncus_worker --concurrency 4  four requests at a time, within the account's limits
  manage.py truncus_worker --once           send what is due, then end; for cron or after a deploy
  manage.py truncus_worker --verbosity 2    a line for each request

Run any number of workers on any number of machines: each email is sent once. On PostgreSQL a
worker is notified of emails as they are committed, elsewhere it looks each second. At SIGTERM or
Ctrl-C the requests in progress are finished and written down (a request takes up to TIMEOUT
seconds, 30 by default, and 20 more to connect at worst); a second signal ends the worker at once,
and the next worker goes on where it was, without sending anything twice.

with systemd, in /etc/systemd/system/truncus-worker.service:
  [Service]
  WorkingDirectory=/srv/shop
  ExecStart=/srv/shop/venv/bin/python manage.py truncus_worker
  Restart=always
  TimeoutStopSec=60
  [Install]
  WantedBy=multi-user.target

with supervisor:
  command=/srv/shop/venv/bin/python manage.py truncus_worker
  stopwaitsecs=60

with cron, where nothing may run for long, or as a safety net beside Django Tasks:
  * * * * *  cd /srv/shop && venv/bin/python manage.py truncus_worker --once --verbosity 0

The exit status is 0, also after a signal and where emails were refused; 1 where the worker could
not work."""


class Command(CommandWithExamples):
    """Send what is in the outbox."""

    help = (
        "Sends the emails in the outbox (TRUNCUS['DELIVERY'] = 'outbox'), in batches and within "
        "REQUESTS_PER_SECOND and REQUESTS_PER_MINUTE, which all workers share. It survives a "
        "database or network that is gone for a while."
    )
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take how to run."""
        parser.add_argument(
            "--once",
            action="store_true",
            help="send what is due, waiting for the account's limits, then end",
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            default=1,
            metavar="N",
            help="requests at a time (1), each in a thread with a database connection of its own",
        )
        parser.add_argument(
            "--poll",
            type=float,
            metavar="SECONDS",
            help="how often to look for emails: 1, or 5 where PostgreSQL tells of them",
        )

    def handle(self, **options: Any) -> None:
        """Run the worker; what keeps it from working becomes exit status 1."""
        if not 1 <= options["concurrency"] <= 100:
            raise CommandError("--concurrency must be from 1 to 100.")
        if options["poll"] is not None and not 0 < options["poll"] <= 3600:
            raise CommandError("--poll must be more than 0, and at most 3600 seconds.")
        self._check_settings()
        self._check_tables(is_once=options["once"])
        output = _Output(self.stdout, options["verbosity"], is_once=options["once"])
        worker = Worker(
            concurrency=options["concurrency"],
            poll_s=options["poll"],
            is_once=options["once"],
            watcher=output,
        )
        with _stopped_by_signals(worker):
            result = worker.run()
        output.close(result)
        if result.is_cut_short:
            raise CommandError("The worker could not go on; see the log for the error.")

    def _check_settings(self) -> None:
        settings = [get_settings(options) for _, options in mailers()]
        if not settings:
            settings = [get_settings()] if get_settings().api_key else []
        if not settings:
            raise CommandError(
                "No mailer of this project is Truncus: there is no "
                "'truncus_django.backend.TruncusBackend' in MAILERS or EMAIL_BACKEND."
            )
        if all(found.delivery != "outbox" for found in settings):
            self._warn(
                "TRUNCUS['DELIVERY'] is 'direct': nothing is put into the outbox. Set it to "
                "'outbox'; until then only what is in it already is sent."
            )

    def _check_tables(self, *, is_once: bool) -> None:
        connection = connections[database()]
        try:
            names = connection.introspection.table_names()
        except DatabaseError as exc:
            if is_once:
                raise CommandError(
                    f"The database {connection.alias!r} does not answer: {type(exc).__name__}"
                ) from None
            self._warn(
                f"The database {connection.alias!r} does not answer ({type(exc).__name__}); "
                "waiting for it."
            )
            return
        finally:
            connection.close()
        if OutboxAccount._meta.db_table not in names:
            raise CommandError(
                f"The database {connection.alias!r} has no tables for the outbox. Run: "
                f"manage.py migrate --database {connection.alias}"
            )

    def _warn(self, text: str) -> None:
        self.stderr.write(text)


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """Stop the worker at SIGTERM or Ctrl-C; a second signal does what it does by default."""
    if threading.current_thread() is not threading.main_thread():
        yield  # call_command() in a thread: whoever owns the process owns its signals
        return
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        worker.stop()

    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class _Output(Watcher):
    """Says in lines of text what a worker does: counts and ids only."""

    def __init__(self, stream: OutputWrapper, verbosity: int, *, is_once: bool) -> None:
        self._stream = stream
        self._verbosity = verbosity
        self._is_once = is_once
        self._lock = threading.RLock()
        self._began_at = self._reported_at = time.monotonic()
        self._unreported = RunStats()
        self._paused: set[str] = set()
        self._held_back: set[str] = set()
        self._progress: Progress | None = None

    def on_listening(self, is_listening: bool) -> None:
        """Say how emails are found."""
        if self._is_once:
            if self._verbosity > 0:
                total = _count_due()
                self._progress = Progress(total, "emails", stream=sys.stderr)
            return
        how = "notified by PostgreSQL" if is_listening else "looking for emails"
        self._say(f"The outbox's worker runs, {how}. Ctrl-C or SIGTERM ends it.")

    def on_dispatched(self, dispatched: DispatchResult) -> None:
        """Count, and say now and then how far it is."""
        with self._lock:
            self._unreported.add(dispatched)
            if self._verbosity > 1:
                self._say(_line(dispatched))
            if self._progress is not None:
                done = dispatched.accepted + dispatched.failed + dispatched.unknown
                self._progress.advance(done)
            elif time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
                self._report_counts()

    def on_idle(self, idle: Idle) -> None:
        """Say what was done since it was idle last, and why nothing more is."""
        with self._lock:
            if self._progress is None and not idle.is_pace:
                self._report_counts()
            for mailer, why in idle.paused.items():
                if mailer not in self._paused:
                    name = f"Mailer {mailer!r}" if mailer else "The mailer"
                    self._say(f"{name} is paused: {why}")
            self._paused = set(idle.paused)
            for mailer, why in idle.held_back.items():
                if mailer not in self._held_back:
                    name = f"Mailer {mailer!r}" if mailer else "The mailer"
                    self._say(f"{name} holds emails of low priority back: {why}.")
            self._held_back = set(idle.held_back)

    def close(self, result: Result) -> None:
        """Say what the whole run has done."""
        with self._lock:
            if self._progress is not None:
                self._progress.close()
            stats = result.stats
            took = span(time.monotonic() - self._began_at)
            self._say(f"{_counts(stats)}, in {took}.{_what_is_left(stats.idle)}")
            self._say_reasons(stats)

    def _report_counts(self) -> None:
        self._reported_at = time.monotonic()
        if self._unreported != RunStats():
            self._say(f"{_counts(self._unreported)}.")
            self._say_reasons(self._unreported)
            self._unreported = RunStats()

    def _say_reasons(self, stats: RunStats) -> None:
        for reason, count in stats.reasons.most_common(10):
            self._say(f"  {_of(count, 'request')}: {reason}")

    def _say(self, text: str) -> None:
        if self._verbosity < 1:
            return
        with suppress(OSError):  # a reader that is gone keeps no email from being sent
            self._stream.write(text)
            self._stream.flush()


def _counts(stats: RunStats) -> str:
    parts = [f"{stats.failed} failed"] if stats.failed else []
    if stats.unknown:
        parts.append(f"{stats.unknown} are ambiguous")
    if stats.postponed:
        parts.append(f"{stats.postponed} put off")
    others = "".join(f", {part}" for part in parts)
    if not stats.requests and not parts:
        return "Sent nothing"
    return f"Sent {_of(stats.accepted, 'email')} in {_of(stats.requests, 'request')}{others}"


def _of(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _line(dispatched: DispatchResult) -> str:
    counts = RunStats()
    counts.add(dispatched)
    return f"{_counts(counts)}: {dispatched.error}" if dispatched.error else _counts(counts)


def _what_is_left(idle: Idle) -> str:
    if idle.due_at is None:
        return ""
    try:
        wait_s = idle.due_at - Clock(database()).now()
    except DatabaseError:
        return ""
    return f" The next attempt is due in {span(max(wait_s, 0.0))}."


def _count_due() -> int:
    """Return how many emails are due, as far as the database answers."""
    try:
        now = moment_of(Clock(database()).now())
        is_due = Q(is_waiting=True) | Q(batch__due_at__lte=now)
        return OutboxEntry.objects.filter(is_due).count()
    except DatabaseError:
        return 0
