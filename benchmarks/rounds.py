"""The rounds: every contender in a process of its own, all of them one after another in each.

Only one works at a time. Contenders are interleaved so that a slow moment of the machine meets
them alike, and each round begins with another.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.contenders import CONTENDERS, Job, Mode
from benchmarks.mails import BODY_BYTES, mails, recipients
from benchmarks.processes import WrongWork
from benchmarks.sink_process import Addresses, Arrived, SinkProcess
from benchmarks.sinks import digest_of
from benchmarks.workers import Worker

WARM_UP_MAILS = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in one mode."""

    contender: str
    mode: Mode

    @property
    def title(self) -> str:
        """Its name in a table."""
        return f"{CONTENDERS[self.contender].title}, {self.mode}"


@dataclass(frozen=True, slots=True)
class Round:
    """What one contender took to send all emails once, and what arrived."""

    cpu_s: float
    wall_s: float
    arrived: Arrived


@dataclass(frozen=True, slots=True)
class Figures:
    """All rounds of an entry at one latency."""

    entry: Entry
    latency_ms: float
    mails: int
    rounds: Sequence[Round]

    @property
    def cpu_per_mail_us(self) -> float:
        """Median, in microseconds."""
        return statistics.median(self.all_cpu_per_mail_us)

    @property
    def all_cpu_per_mail_us(self) -> list[float]:
        """Of each round, in microseconds."""
        return [each.cpu_s / self.mails * 1e6 for each in self.rounds]

    @property
    def wall_s(self) -> float:
        """Median, in seconds."""
        return statistics.median(each.wall_s for each in self.rounds)

    @property
    def requests(self) -> int:
        """The most of any round; in SMTP, messages."""
        return max(each.arrived.requests for each in self.rounds)

    @property
    def connections(self) -> int:
        """The most of any round."""
        return max(each.arrived.connections for each in self.rounds)

    def as_json(self) -> dict[str, Any]:
        """Return all rounds, for a file."""
        return {
            "contender": self.entry.contender,
            "mode": self.entry.mode,
            "latency_ms": self.latency_ms,
            "mails": self.mails,
            "cpu_per_mail_us": self.cpu_per_mail_us,
            "wall_s": self.wall_s,
            "rounds": [asdict(each) for each in self.rounds],
        }


def entries(names: Sequence[str]) -> list[Entry]:
    """Return the entries of these contenders."""
    return [Entry(name, mode) for name in names for mode in CONTENDERS[name].modes]


def run(
    chosen: Sequence[Entry],
    sink: SinkProcess,
    *,
    mail_count: int,
    plan: Sequence[tuple[float, int]],
    progress: Callable[[str], None],
) -> list[Figures]:
    """Return the figures of all entries.

    Args:
        plan: pairs of a latency in ms and a number of rounds.
        progress: is told what begins.

    Raises:
        WrongWork: an email did not arrive, or arrived twice, or was not whole.
    """
    with ExitStack() as stack:
        workers = {
            entry: stack.enter_context(Worker(entry.title, _serve, entry, sink.addresses))
            for entry in chosen
        }
        found: dict[tuple[Entry, float], list[Round]] = {}
        steps = list(_steps(chosen, plan))
        for number, (latency_ms, turn, entry) in enumerate(steps, 1):
            progress(f"[{number}/{len(steps)}] {latency_ms:g} ms, round {turn + 1}: {entry.title}")
            series = f"{number:04}"
            each, accepted = _measure(workers[entry], sink, mail_count, series, latency_ms)
            _check(entry, each.arrived, accepted, mail_count, series)
            found.setdefault((entry, latency_ms), []).append(each)
    return [
        Figures(entry, latency_ms, mail_count, found[entry, latency_ms])
        for latency_ms, _ in plan
        for entry in chosen
    ]


def _steps(
    chosen: Sequence[Entry], plan: Sequence[tuple[float, int]]
) -> Iterator[tuple[float, int, Entry]]:
    for latency_ms, turns in plan:
        for turn in range(turns):
            first = turn * 3 % max(1, len(chosen))
            for entry in (*chosen[first:], *chosen[:first]):
                yield latency_ms, turn, entry


def _measure(
    worker: Worker, sink: SinkProcess, mail_count: int, series: str, latency_ms: float
) -> tuple[Round, int]:
    """Return what a round took, and how many emails the contender says were accepted."""
    sink.reset()
    worker.ask(("prepare", mail_count, series))
    sink.reset(latency_ms=latency_ms)
    cpu_s, wall_s, accepted = worker.ask(("send",))
    arrived = sink.report()
    worker.ask(("finish",))
    return Round(cpu_s, wall_s, arrived), accepted


def _check(entry: Entry, arrived: Arrived, accepted: int, mail_count: int, series: str) -> None:
    """Raise :class:`WrongWork` unless each recipient got one whole email."""
    contender = CONTENDERS[entry.contender]
    if accepted != mail_count and contender.arrives:
        raise WrongWork(f"{entry.title} says that {accepted} of {mail_count} were accepted")
    expected = mail_count if contender.arrives else 0
    if arrived.mails != expected:
        raise WrongWork(f"{entry.title}: {arrived.mails} emails arrived, not {expected}")
    if expected and arrived.recipients != digest_of(recipients(mail_count, series)):
        raise WrongWork(f"{entry.title}: the recipients are not those of the emails")
    whole = expected * 2 * BODY_BYTES
    # In SMTP, headers and encodings come on top.
    if arrived.body_bytes != whole if contender.is_http else arrived.body_bytes < whole:
        raise WrongWork(f"{entry.title}: {arrived.body_bytes} bytes of bodies arrived, not {whole}")


def _serve(entry: Entry, sinks: Addresses) -> Callable[[Any], Any]:
    """Return what answers the orders of :func:`_measure` in the process of ``entry``."""
    contender = CONTENDERS[entry.contender](sinks)
    jobs: list[Job] = []

    def respond(order: tuple[Any, ...]) -> Any:
        match order:
            case ("prepare", count, series):
                own, others = mails(count, series), mails(WARM_UP_MAILS, f"{series}w")
                jobs.append(contender.prepare(entry.mode, own, others))
            case ("send",):
                return _timed(jobs[-1].send)
            case ("finish",):
                jobs.pop().finish()
        return None

    return respond


def _timed(send: Callable[[], int]) -> tuple[float, float, int]:
    """Return CPU seconds of this process (user and system), wall-clock seconds, and accepted."""
    wall, cpu = time.perf_counter(), time.process_time()
    accepted = send()
    return time.process_time() - cpu, time.perf_counter() - wall, accepted
