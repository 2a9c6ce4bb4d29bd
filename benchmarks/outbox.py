"""The outbox beside its peers, under the account's limits, and with much waiting.

``python -m benchmarks --only outbox``. CPU is that of the process that enqueues or drains; each
app has its own process and its own database, and one works at a time.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks import limits, pending, scratch
from benchmarks.contenders import Mode
from benchmarks.limits import Limited
from benchmarks.mails import BODY_BYTES, recipients
from benchmarks.pending import Cost
from benchmarks.processes import WrongWork
from benchmarks.queues import ONE_AT_A_TIME, QUEUES, Took, Way, serve
from benchmarks.sink_process import SinkProcess
from benchmarks.sinks import digest_of
from benchmarks.tables import ratio, table
from benchmarks.workers import Worker

MAILS = 2_000
ROUNDS = 3
WARM_UP_MAILS = 100
MODES: tuple[Mode, ...] = ("as a list", "one by one")
NOT_MEASURED = "The outbox on PostgreSQL: not measured, no server lets this user in."

Work = Mode | Way


@dataclass(frozen=True, slots=True)
class Figures:
    """All rounds of one app doing one thing: enqueueing in a mode, or draining in a way."""

    queue: str
    database: str
    work: Work
    mails: int
    rounds: Sequence[Took]

    @property
    def cpu_per_mail_us(self) -> float:
        """Median, in microseconds."""
        return statistics.median(each.cpu_s for each in self.rounds) / self.mails * 1e6

    @property
    def wall_s(self) -> float:
        """Median, in seconds."""
        return statistics.median(each.wall_s for each in self.rounds)

    @property
    def is_drain(self) -> bool:
        """Whether this is about delivering."""
        return self.work not in MODES

    @property
    def title(self) -> str:
        """What a table calls it."""
        name = QUEUES[self.queue].title
        return f"{name}, over {self.work}" if self.work in ONE_AT_A_TIME else name


@dataclass(frozen=True)
class Outbox:
    """All that was measured of the outbox."""

    figures: Sequence[Figures]
    limited: Limited
    costs: Sequence[Cost]

    @property
    def databases(self) -> list[str]:
        """Which databases it was measured on."""
        return list(dict.fromkeys(each.database for each in self.figures))

    def find(self, queue: str, database: str, work: Work) -> Figures:
        """Return the figures of an app doing something."""
        for each in self.figures:
            if (each.queue, each.database, each.work) == (queue, database, work):
                return each
        raise LookupError(f"{queue} was not measured {work} on {database}")

    def enqueue_ratio(self, database: str) -> float:
        """Return what enqueueing a list costs beside django-mailer, in CPU."""
        ours = self.find("truncus", database, "as a list")
        return ours.cpu_per_mail_us / self.find("mailer", database, "as a list").cpu_per_mail_us

    def fastest_drain(self, database: str, ways: Sequence[Way] = ONE_AT_A_TIME) -> Figures:
        """Return the peer that drains the fastest in any of these ways."""
        drains = [each for each in self.figures if each.work in ways]
        return min(
            (each for each in drains if each.database == database), key=lambda each: each.wall_s
        )

    def drain_ratio(self, database: str, ways: Sequence[Way] = ONE_AT_A_TIME) -> float:
        """Return how many times faster than the fastest peer this outbox drains."""
        ours = self.find("truncus", database, "batches")
        return self.fastest_drain(database, ways).wall_s / ours.wall_s

    def cost_ratio(self, database: str) -> float:
        """Return what an email costs with the most waiting, beside with the fewest."""
        costs = [each for each in self.costs if each.database == database]
        return costs[-1].cpu_per_mail_us / costs[0].cpu_per_mail_us


def run(
    mails: int = MAILS, rounds: int = ROUNDS, progress: Callable[[str], None] = lambda text: None
) -> Outbox:
    """Measure all of it.

    Raises:
        WrongWork: an email did not arrive, or arrived twice, or was not whole.
    """
    databases = ["SQLite", *(["PostgreSQL"] if scratch.answers() else [])]
    figures: list[Figures] = []
    costs: list[Cost] = []
    for database in databases:
        figures += _beside_peers(database, mails, rounds, progress)
    for database in databases:
        costs += pending.run(database, progress)
    return Outbox(figures, limits.run(progress), costs)


def _beside_peers(
    database: str, count: int, rounds: int, progress: Callable[[str], None]
) -> list[Figures]:
    found: dict[tuple[str, Work], list[Took]] = {}
    with ExitStack() as stack:
        sink = stack.enter_context(SinkProcess())
        workers = {name: stack.enter_context(_worker(name, database, sink)) for name in QUEUES}
        for name, worker in workers.items():
            progress(f"outbox, {database}: warm-up of {name}")
            for _ in _turns(name, worker, sink, WARM_UP_MAILS, "w"):
                pass
        for number in range(rounds):
            names = list(QUEUES)
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                progress(f"outbox, {database}, round {number + 1}: {name}")
                for work, took in _turns(name, workers[name], sink, count, f"{number}"):
                    found.setdefault((name, work), []).append(took)
    return [
        Figures(name, database, work, count, all_rounds)
        for (name, work), all_rounds in sorted(found.items())
    ]


@contextmanager
def _worker(name: str, database: str, sink: SinkProcess) -> Iterator[Worker]:
    with ExitStack() as stack:
        settings: dict[str, Any] | None = None
        if database == "PostgreSQL":
            settings = stack.enter_context(scratch.scratch_database(name))
        yield stack.enter_context(
            Worker(f"{name} on {database}", serve, name, settings, sink.addresses)
        )


def _turns(
    name: str, worker: Worker, sink: SinkProcess, count: int, series: str
) -> Iterator[tuple[Work, Took]]:
    """Yield what one round of an app took: it fills its queue and drains it, in each manner.

    All are filled twice and drained twice, also what has one way to drain.
    """
    ways = QUEUES[name].ways
    for number, mode in enumerate(MODES):
        way = ways[number % len(ways)]
        worker.ask(("clear",))
        sink.reset()
        own = f"{name}-{series}-{number}"
        filled = worker.ask(("fill", mode, count, own))
        if sink.report().mails:
            raise WrongWork(f"{name}: enqueueing sent emails")
        drained = worker.ask(("drain", way))
        _check(name, way, sink, count, own)
        yield mode, filled
        yield way, drained


def _check(name: str, way: Way, sink: SinkProcess, count: int, series: str) -> None:
    """Raise :class:`WrongWork` unless each recipient got one whole email."""
    arrived = sink.report()
    if arrived.mails != count or arrived.recipients != digest_of(recipients(count, series)):
        raise WrongWork(f"{name} over {way}: {arrived.mails} emails arrived, not {count} once")
    whole = count * 2 * BODY_BYTES
    # In SMTP, headers and encodings come on top.
    if arrived.body_bytes < whole if way == "SMTP" else arrived.body_bytes != whole:
        raise WrongWork(f"{name} over {way}: {arrived.body_bytes} bytes arrived, not {whole}")


# Tables -------------------------------------------------------------------------------------------


def as_tables(found: Outbox) -> str:
    """Return what :func:`run` found, to print."""
    parts = []
    for database in found.databases:
        parts += [
            _work_table(found, database, work, f"{database}, enqueue {work}") for work in MODES
        ]
        parts.append(_work_table(found, database, None, f"{database}, drain"))
    parts += [limits.as_table(found.limited), pending.as_table(found.costs)]
    if "PostgreSQL" not in found.databases:
        parts.append(NOT_MEASURED)
    return "\n\n".join(parts)


def _work_table(found: Outbox, database: str, work: Work | None, head: str) -> str:
    """Return the table of one mode of enqueueing, or (``None``) of draining."""
    rows = [
        each
        for each in found.figures
        if each.database == database and (each.work == work if work else each.is_drain)
    ]
    ours = next(each for each in rows if each.queue == "truncus")
    rounds = len(ours.rounds)
    return table(
        [
            f"{ours.mails:,} emails, {head}, {rounds} round" + "s" * (rounds > 1),
            "CPU/email µs",
            "÷ this",
            "wall s",
            "÷ this",
        ],
        [
            [
                each.title,
                f"{each.cpu_per_mail_us:.0f}",
                ratio(each.cpu_per_mail_us, ours.cpu_per_mail_us),
                f"{each.wall_s:.2f}",
                ratio(each.wall_s, ours.wall_s),
            ]
            for each in sorted(rows, key=lambda each: (each is not ours, each.wall_s))
        ],
    )
