"""What sending an email costs while few or many others wait.

Counted is a whole step of the worker but for its request: choosing a batch, writing down that it
is being sent, reading it, and writing down the answers. On PostgreSQL CPU includes the server's
process, where the operating system tells it: that is where a queue that is searched would show.
After each step the queue is filled up again, which is not counted.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import scratch
from benchmarks.mails import mails
from benchmarks.processes import WrongWork
from benchmarks.queues import ThisOutbox
from benchmarks.sink_process import Addresses, SinkProcess
from benchmarks.tables import ratio, table
from benchmarks.workers import Worker

LEVELS = (1_000, 10_000, 100_000)
STEPS = 20
WARM_UP_STEPS = 3
BATCH = 100
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians of the steps, each for an email."""

    database: str
    waiting: int
    cpu_per_mail_us: float
    wall_per_mail_us: float
    queries_per_batch: float
    has_server: bool
    """Whether CPU includes the database server's."""


def run(database: str, progress: Callable[[str], None] = lambda text: None) -> list[Cost]:
    """Return the costs on one database at each of :data:`LEVELS`."""
    with ExitStack() as stack:
        sink = stack.enter_context(SinkProcess())
        settings: dict[str, Any] | None = None
        if database == "PostgreSQL":
            settings = stack.enter_context(scratch.scratch_database("pending"))
        worker = stack.enter_context(Worker("pending", serve, database, settings, sink.addresses))
        costs = []
        for level in LEVELS:
            progress(f"outbox, {database}: {level:,} waiting")
            costs.append(worker.ask(level))
    return costs


def as_table(costs: Sequence[Cost]) -> str:
    """Return what :func:`run` found, to print."""
    first = {each.database: each for each in reversed(costs)}
    return table(
        [
            f"claim and record, {STEPS} batches of {BATCH}",
            "CPU/email µs",
            "÷ fewest",
            "wall/email µs",
            "÷ fewest",
            "queries/batch",
        ],
        [
            [
                f"{each.database}{' with its server' * each.has_server}, {each.waiting:,} waiting",
                f"{each.cpu_per_mail_us:.0f}",
                ratio(each.cpu_per_mail_us, first[each.database].cpu_per_mail_us),
                f"{each.wall_per_mail_us:.0f}",
                ratio(each.wall_per_mail_us, first[each.database].wall_per_mail_us),
                f"{each.queries_per_batch:g}",
            ]
            for each in costs
        ],
    )


# The worker's process -----------------------------------------------------------------------------


def serve(
    database: str, settings: dict[str, Any] | None, sinks: Addresses
) -> Callable[[int], Cost]:
    """Be the process of a worker, and of those who enqueue."""
    project = _Project(ThisOutbox(settings, sinks))

    def respond(waiting: int) -> Cost:
        project.fill_up_to(waiting)
        steps = [project.step() for _ in range(WARM_UP_STEPS + STEPS)][WARM_UP_STEPS:]
        return Cost(
            database,
            waiting,
            statistics.median(step.cpu_s for step in steps) / BATCH * 1e6,
            statistics.median(step.wall_s for step in steps) / BATCH * 1e6,
            statistics.median(step.queries for step in steps),
            has_server=project.server is not None,
        )

    return respond


@dataclass(slots=True)
class _Step:
    cpu_s: float = 0.0
    wall_s: float = 0.0
    queries: int = 0


class _Project:
    def __init__(self, outbox: ThisOutbox) -> None:
        from truncus_django.outbox.dispatcher import Dispatcher

        self._outbox = outbox
        self._dispatcher = Dispatcher()
        self._filled = 0
        self.server = _server_process()

    def fill_up_to(self, waiting: int) -> None:
        """Enqueue until so many wait."""
        from truncus_django.models import OutboxEntry

        missing = waiting - OutboxEntry.objects.filter(is_waiting=True).count()
        while missing > 0:
            count = min(missing, _CHUNK)
            self._filled += 1
            self._outbox.prepare("as a list", list(mails(count, f"{self._filled}")))()
            missing -= count

    def step(self) -> _Step:
        """Send one batch, tell what it took without the request, and fill the queue up again."""
        from django.db import connection

        from truncus_django.outbox import dispatcher
        from truncus_django.outbox.answers import DispatchResult

        request, step = dispatcher.__dict__["request_results"], _Step()

        def uncounted_request(*arguments: Any, **options: Any) -> Any:
            cpu, wall = self._cpu_s(), time.perf_counter()
            try:
                return request(*arguments, **options)
            finally:
                step.cpu_s -= self._cpu_s() - cpu
                step.wall_s -= time.perf_counter() - wall

        def note(execute: Callable[..., Any], *arguments: Any) -> Any:
            step.queries += 1
            return execute(*arguments)

        with (
            patch.object(dispatcher, "request_results", uncounted_request),
            connection.execute_wrapper(note),
        ):
            cpu, wall = self._cpu_s(), time.perf_counter()
            done = self._dispatcher.step()
            step.cpu_s += self._cpu_s() - cpu
            step.wall_s += time.perf_counter() - wall
        if not isinstance(done, DispatchResult) or done.accepted != BATCH:
            raise WrongWork(f"a step did not send {BATCH} emails, but {done}")
        self._outbox.prepare("as a list", list(mails(BATCH, f"{self._filled}")))()
        return step

    def _cpu_s(self) -> float:
        own = time.process_time()
        return own if self.server is None else own + _ran_for_s(self.server)


def _server_process() -> Path | None:
    """Return where Linux tells of PostgreSQL's process for our connection, if it does."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        process = Path("/proc") / str(cursor.fetchone()[0])
    try:
        is_it = (process / "comm").read_text().startswith("postgres")
        _ran_for_s(process)
    except OSError:
        return None
    return process if is_it else None


def _ran_for_s(process: Path) -> float:
    return int((process / "schedstat").read_text().split()[0]) / 1e9
