"""A purge of half of a log on PostgreSQL, and how long a sender waits meanwhile.

The sender has a process of its own. In each turn it sends an email and records it, puts one into
the outbox, sends that as a worker does, and receives a webhook. It does so for a while alone, then
as long as the purge lasts.
"""

import io
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from benchmarks.contenders import API_KEY
from benchmarks.mailer import default_backend, mailer
from benchmarks.mails import SENDER, Mail, mails
from benchmarks.memory import peak_mb
from benchmarks.processes import WrongWork, without_extras
from benchmarks.sink_process import Addresses, SinkProcess
from benchmarks.tables import table
from benchmarks.webhook import SECRET, environ_of, signed_request
from benchmarks.workers import Worker

ALONE_S = 120.0
TURN_S = 0.05
"""A turn of the sender begins so long after the one before, or later."""
_TURNS = 50
"""The sender is asked for so many at a time."""
_PARTS = 10
_TOLD_EVERY_S = 5

KINDS = ("send and record", "enqueue", "send from the outbox", "webhook")


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did, and what it took.

    Attributes:
        emails, events: how many it has deleted.
        seconds: of the clock.
        rates: emails per second, of each tenth or so in turn.
        peak_mb: the most that its process has held.
    """

    emails: int
    events: int
    seconds: float
    rates: Sequence[float]
    peak_mb: float

    @property
    def slowdown(self) -> float:
        """The fastest tenth beside the last."""
        return max(self.rates) / self.rates[-1]


@dataclass(frozen=True, slots=True)
class Purging:
    """A purge, and the milliseconds of the sender's steps, by kind: alone and meanwhile."""

    purged: Purged
    alone_ms: Mapping[str, Sequence[float]]
    meanwhile_ms: Mapping[str, Sequence[float]]

    def p99_ratio(self, kind: str) -> float:
        """Return the 99th percentile of a kind of step meanwhile, beside that alone."""
        return percentile(self.meanwhile_ms[kind], 0.99) / percentile(self.alone_ms[kind], 0.99)


def run(
    database: Mapping[str, Any],
    emails: int,
    alone_s: float = ALONE_S,
    progress: Callable[[str], None] = lambda text: None,
) -> Purging:
    """Purge the oldest emails of a filled log.

    Raises:
        WrongWork: other emails went, or a step of the sender failed.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(SinkProcess())
        sender = stack.enter_context(Worker("sender", serve_sender, database, sink.addresses))
        purger = stack.enter_context(Worker("purge", serve_purge, database))
        sender.ask(_TURNS)  # warm-up
        alone: dict[str, list[float]] = {kind: [] for kind in KINDS}
        meanwhile: dict[str, list[float]] = {kind: [] for kind in KINDS}
        progress(f"the sender alone, {alone_s:g} s")
        until = time.monotonic() + alone_s
        while time.monotonic() < until:
            _add(sender.ask(_TURNS), alone)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        purging = pool.submit(purger.ask, emails, progress)
        while not purging.done():
            _add(sender.ask(_TURNS), meanwhile)
        return Purging(purging.result(), alone, meanwhile)


def _add(taken_ms: Mapping[str, Sequence[float]], to: Mapping[str, list[float]]) -> None:
    for kind, values in taken_ms.items():
        to[kind] += values


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the others, 0 to 1, is not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def as_tables(found: Purging) -> str:
    """Return what :func:`run` found, to print."""
    purged = found.purged
    purge = table(
        ["truncus_purge", "seconds", "emails/s", "fastest tenth", "last tenth", "peak MB"],
        [
            [
                f"{purged.emails:,} emails, {purged.events:,} events",
                f"{purged.seconds:,.0f}",
                f"{purged.emails / purged.seconds:,.0f}",
                f"{max(purged.rates):,.0f}",
                f"{purged.rates[-1]:,.0f}",
                f"{purged.peak_mb:.1f}",
            ]
        ],
    )
    steps = [
        [f"{kind}, {when}", f"{len(taken):,}"]
        + [f"{percentile(taken, share):.1f}" for share in (0.5, 0.99, 0.999, 1)]
        for kind in KINDS
        for when, taken in (
            ("alone", found.alone_ms[kind]),
            ("during the purge", found.meanwhile_ms[kind]),
        )
    ]
    head = ["sender", "times", "median ms", "p99 ms", "p99.9 ms", "longest ms"]
    return f"{purge}\n\n{table(head, steps)}"


# The processes ------------------------------------------------------------------------------------


def _set_up(database: Mapping[str, Any], **own: Any) -> None:
    import django
    from django.conf import settings

    without_extras()
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["truncus_django"],
        DATABASES={"default": dict(database)},
        TRUNCUS={"API_KEY": API_KEY, **own},
        **mailer("truncus_django.backend.TruncusBackend", {}, {}),
    )
    django.setup()


def serve_purge(database: Mapping[str, Any]) -> Callable[[int], Generator[str, None, Purged]]:
    """Be the process of ``manage.py truncus_purge``; an order is how many emails are to go."""
    _set_up(database)
    return _purge


def _purge(emails: int) -> Generator[str, None, Purged]:
    from truncus_django.models import Email

    oldest = Email.objects.order_by("created_at").values_list("created_at", flat=True)
    before = oldest[emails]
    lines = _Lines()
    with ThreadPoolExecutor(1) as pool, redirect_stderr(lines):
        purging = pool.submit(_purge_before, before)
        while wait([purging], timeout=_TOLD_EVERY_S).not_done:
            yield f"{lines.marks[-1][0]:,} of {emails:,} emails"
    ended_at = time.monotonic()
    printed = purging.result()
    told = re.search(r"Deleted (\d+) emails, their (\d+) events", printed)
    if told is None or int(told[1]) != emails or oldest[0] != before:
        raise WrongWork(f"not {emails} emails were purged: {printed}")
    began_at = lines.marks[0][1]
    if lines.marks[-1][0] < emails:
        lines.marks.append((emails, ended_at))
    return Purged(emails, int(told[2]), ended_at - began_at, rates(lines.marks), peak_mb())


def _purge_before(moment: datetime) -> str:
    from django.core.management import call_command
    from django.db import connection

    printed = io.StringIO()
    try:
        call_command("truncus_purge", "--older-than", moment.isoformat(), stdout=printed)
    finally:
        connection.close()  # that of this thread
    return printed.getvalue()


class _Lines(io.StringIO):
    """The lines of the command's progress, and when it wrote them."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = [(0, time.monotonic())]

    def write(self, text: str) -> int:
        """Note a line, which begins with how many emails are done."""
        self.marks.append((int(text.split()[0]), time.monotonic()))
        return len(text)


def rates(marks: Sequence[tuple[int, float]]) -> list[float]:
    """Return how many are done per second, in up to ten parts of equal length.

    Args:
        marks: how many were done at which second.
    """
    length = max(1, (len(marks) - 1) // _PARTS)
    return [
        (done - done_before) / (at - at_before)
        for (done_before, at_before), (done, at) in pairwise(marks[::length])
    ]


def serve_sender(
    database: Mapping[str, Any], sinks: Addresses
) -> Callable[[int], dict[str, list[float]]]:
    """Be the process of a sender; an order is a number of turns."""
    _set_up(
        database,
        BASE_URL=sinks.http_url,
        DELIVERY="outbox",
        REQUESTS_PER_SECOND=0,
        REQUESTS_PER_MINUTE=0,
        WEBHOOK_SECRETS=[SECRET],
    )
    return _Sender().turns


class _Sender:
    def __init__(self) -> None:
        from truncus_django.backend import TruncusBackend
        from truncus_django.outbox.dispatcher import Dispatcher

        self._direct = TruncusBackend(delivery="direct")
        self._outbox = default_backend()
        self._dispatcher = Dispatcher()
        self._orders = 0
        self._next_at = time.monotonic()

    def turns(self, count: int) -> dict[str, list[float]]:
        """Take so many turns; return the milliseconds of their steps, by kind."""
        from truncus_django.models import Email

        self._orders += 1
        taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
        ids = []
        both = list(mails(2 * count, f"purging{self._orders}"))
        for mail, queued in zip(both[::2], both[1::2], strict=True):
            time.sleep(max(0.0, self._next_at - time.monotonic()))
            self._next_at = time.monotonic() + TURN_S
            steps, message_id = self._turn(mail, queued)
            ids.append(message_id)
            for kind, ms in steps.items():
                taken[kind].append(ms)
        arrived = Email.objects.filter(message_id__in=ids, state="delivered").count()
        if arrived != count:
            raise WrongWork(f"{arrived} of {count} emails are recorded as delivered")
        return taken

    def _turn(self, mail: Mail, queued: Mail) -> tuple[dict[str, float], str]:
        from django.core.handlers.wsgi import WSGIRequest

        from truncus_django.outbox.answers import DispatchResult
        from truncus_django.views import webhook

        direct, waiting = _message(mail), _message(queued)
        marks = [time.perf_counter()]
        sent = self._direct.send_messages([direct])
        marks.append(time.perf_counter())
        enqueued = self._outbox.send_messages([waiting])
        marks.append(time.perf_counter())
        dispatched = self._dispatcher.step()
        marks.append(time.perf_counter())
        message_id = direct.truncus_status.id
        answer = webhook(WSGIRequest(environ_of(*signed_request("delivered", message_id))))
        marks.append(time.perf_counter())
        is_dispatched = isinstance(dispatched, DispatchResult) and dispatched.accepted == 1
        if (sent, enqueued, is_dispatched, answer.status_code) != (1, 1, True, 200):
            raise WrongWork(f"the sender: {sent}, {enqueued}, {dispatched}, {answer.status_code}")
        steps = [(later - earlier) * 1000 for earlier, later in pairwise(marks)]
        return dict(zip(KINDS, steps, strict=True)), message_id


def _message(mail: Mail) -> Any:
    from django.core.mail import EmailMultiAlternatives

    message = EmailMultiAlternatives(mail.subject, mail.text, SENDER, [mail.recipient])
    message.attach_alternative(mail.html, "text/html")
    return message
