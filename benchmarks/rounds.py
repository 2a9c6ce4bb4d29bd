"""The rounds: every contender in a process of its own, all of them one after another in each.

Only one works at a time. Contenders are interleaved so that a slow moment of the machine meets
them alike, and each round begins with another.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.contenders import CONTENDERS, Mode
from benchmarks.mails import BODY_BYTES, mails, recipients
from benchmarks.processes import WrongWork
from benchmarks.sink_process import Addresses, Arrived, SinkProcess
from benchmarks.sinks import digest_of

WARM_UP_MAILS = 10
_ANSWER_S = 600.0


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
    """What one contender took to send all e-mails once, and what arrived."""

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
        WrongWork: an e-mail did not arrive, or arrived twice, or was not whole.
    """
    with ExitStack() as stack:
        workers = {entry: stack.enter_context(_Worker(entry, sink.addresses)) for entry in chosen}
        found: dict[tuple[Entry, float], list[Round]] = {}
        steps = list(_steps(chosen, plan))
        for number, (latency_ms, turn, entry) in enumerate(steps, 1):
            progress(f"[{number}/{len(steps)}] {latency_ms:g} ms, round {turn + 1}: {entry.title}")
            series = f"{number:04}"
            each = _measure(workers[entry], sink, mail_count, series, latency_ms)
            _check(entry, each.arrived, mail_count, series)
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
    worker: "_Worker", sink: SinkProcess, mail_count: int, series: str, latency_ms: float
) -> Round:
    sink.reset()
    worker.ask(("prepare", mail_count, series))
    sink.reset(latency_ms=latency_ms)
    cpu_s, wall_s, accepted = worker.ask(("send",))
    arrived = sink.report()
    worker.ask(("finish",))
    if accepted != mail_count and CONTENDERS[worker.entry.contender].arrives:
        raise WrongWork(f"{worker.entry.title} says that {accepted} of {mail_count} were accepted")
    return Round(cpu_s, wall_s, arrived)


def _check(entry: Entry, arrived: Arrived, mail_count: int, series: str) -> None:
    """Raise :class:`WrongWork` unless each recipient got one whole e-mail."""
    contender = CONTENDERS[entry.contender]
    expected = mail_count if contender.arrives else 0
    if arrived.mails != expected:
        raise WrongWork(f"{entry.title}: {arrived.mails} e-mails arrived, not {expected}")
    if expected and arrived.recipients != digest_of(recipients(mail_count, series)):
        raise WrongWork(f"{entry.title}: the recipients are not those of the e-mails")
    whole = expected * 2 * BODY_BYTES
    # In SMTP, headers and encodings come on top.
    if arrived.body_bytes != whole if contender.is_http else arrived.body_bytes < whole:
        raise WrongWork(f"{entry.title}: {arrived.body_bytes} bytes of bodies arrived, not {whole}")


class _Worker:
    """The parent's end of a contender's process."""

    def __init__(self, entry: Entry, sinks: Addresses) -> None:
        self.entry = entry
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(self._theirs, entry, sinks), daemon=True
        )

    def __enter__(self) -> "_Worker":
        self._process.start()
        self._theirs.close()  # so that its death is seen as an end of the pipe
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # it may have died
            self._pipe.send(None)
        self._process.join(10)

    def ask(self, order: tuple[Any, ...]) -> Any:
        """Return what the process answers; raise what failed there."""
        with suppress(OSError):  # it may have died, which reading will tell
            self._pipe.send(order)
        if not self._pipe.poll(_ANSWER_S):
            raise WrongWork(f"{self.entry.title}: no answer in {_ANSWER_S:g} s")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise WrongWork(f"{self.entry.title}: its process died") from None
        if isinstance(answer, _Failed):
            raise WrongWork(f"{self.entry.title} failed with {answer.text}")
        return answer


@dataclass(frozen=True, slots=True)
class _Failed:
    text: str


def _work(pipe: "Connection[Any, Any]", entry: Entry, sinks: Addresses) -> None:
    """Be the process of ``entry``: do what the pipe says until it says ``None``."""
    contender, job = CONTENDERS[entry.contender](sinks), None
    while (order := pipe.recv()) is not None:
        answer: Any = None
        try:
            if order[0] == "prepare":
                _, count, series = order
                job = contender.prepare(
                    entry.mode, mails(count, series), mails(WARM_UP_MAILS, f"{series}w")
                )
            elif job is not None and order[0] == "send":
                answer = _timed(job.send)
            elif job is not None:
                job.finish()
                job = None
        except Exception as exc:  # noqa: BLE001  told to the parent, which ends the run
            answer = _Failed(f"{type(exc).__name__}: {exc}")
        pipe.send(answer)


def _timed(send: Callable[[], int]) -> tuple[float, float, int]:
    """Return CPU seconds of this process (user and system), wall-clock seconds, and accepted."""
    wall, cpu = time.perf_counter(), time.process_time()
    accepted = send()
    return time.process_time() - cpu, time.perf_counter() - wall, accepted
