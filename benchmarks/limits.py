"""3,000 emails within the limits of a real account, and what one request for each would take.

Ours is run: the emulator refuses what goes over 10 requests a second or 60 a minute. What one
request for each email takes is three quarters of an hour and more, so it is computed, from the
same rule; and, to show that the rule is right, run with fewer emails and shorter minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from benchmarks.emulator_process import REAL_LIMITS, emulator_process
from benchmarks.mails import mails
from benchmarks.processes import WrongWork
from benchmarks.queues import ThisOutbox, Took, timed
from benchmarks.sink_process import Addresses, SinkProcess
from benchmarks.tables import table
from benchmarks.workers import Worker

MAILS = 3_000
PER_SECOND, PER_MINUTE = 10, 60
SCALED_MAILS = 600
SCALE = 1 / 20
"""So long is a second of the scaled run, in seconds; its minute is 3."""


@dataclass(frozen=True, slots=True)
class Limited:
    """Seconds by the clock."""

    mails: int
    requests: int
    wall_s: float
    one_each_s: float
    """Computed."""
    scaled_mails: int
    scaled_one_each_s: float
    scaled_computed_s: float


def run(progress: Callable[[str], None] = lambda text: None) -> Limited:
    """Drain in batches within the real limits, and one by one within scaled ones.

    Raises:
        WrongWork: not every email was accepted once, or a request was refused.
    """
    progress(f"outbox: {MAILS:,} emails, {PER_SECOND}/s and {PER_MINUTE}/min")
    with (
        emulator_process(keep=100_000, **REAL_LIMITS) as emulator,
        Worker("limits", serve, Addresses(emulator.url, 0), 1.0) as worker,
    ):
        took: Took = worker.ask((MAILS, False))
        accepted, statuses = emulator.counts()
    if accepted != MAILS or set(statuses) != {200}:
        raise WrongWork(f"{accepted} of {MAILS} were accepted, answers: {statuses}")
    progress(f"outbox: {SCALED_MAILS} emails one by one, a minute of {60 * SCALE:g} s")
    with SinkProcess() as sink, Worker("limits", serve, sink.addresses, SCALE) as worker:
        scaled: Took = worker.ask((SCALED_MAILS, True))
        arrived = sink.report()
    if (arrived.mails, arrived.requests) != (SCALED_MAILS, SCALED_MAILS):
        raise WrongWork(f"{arrived.mails} emails arrived in {arrived.requests} requests")
    return Limited(
        mails=MAILS,
        requests=sum(statuses.values()),
        wall_s=took.wall_s,
        one_each_s=computed_s(MAILS),
        scaled_mails=SCALED_MAILS,
        scaled_one_each_s=scaled.wall_s,
        scaled_computed_s=computed_s(SCALED_MAILS) * SCALE,
    )


def computed_s(requests: int) -> float:
    """Return how long so many requests take that take no time themselves."""
    from truncus_django.api.rate_limit import free_at, limits_of

    rule = limits_of(per_second=PER_SECOND, per_minute=PER_MINUTE)
    moments: list[float] = []
    for _ in range(requests):
        moments.append(free_at(moments, rule, now=moments[-1] if moments else 0.0))
    return moments[-1]


def serve(sinks: Addresses, scale: float) -> Callable[[Any], Any]:
    """Be the process of an outbox that keeps within the limits."""
    project = _LimitedOutbox(None, sinks)

    def respond(order: tuple[int, bool]) -> Took:
        from truncus_django import rate_limit

        count, is_one_each = order
        project.fill(count, is_one_each=is_one_each)
        with patch.object(rate_limit, "TIME_SCALE", scale):
            return timed(lambda: project.drain("batches"))

    return respond


class _LimitedOutbox(ThisOutbox):
    def truncus(self) -> dict[str, Any]:
        """Return the limits of a real account."""
        limits = {"REQUESTS_PER_SECOND": PER_SECOND, "REQUESTS_PER_MINUTE": PER_MINUTE}
        return {**super().truncus(), **limits}

    def fill(self, count: int, *, is_one_each: bool) -> None:
        """Enqueue; an email with a key of its own has a request of its own."""
        from truncus_django.message import TruncusMessage

        messages = [
            TruncusMessage(
                mail.subject, mail.text, "shop@example.com", [mail.recipient], html=mail.html
            )
            for mail in mails(count, "limited")
        ]
        if is_one_each:
            for number, message in enumerate(messages):
                message.idempotency_key = f"order-{number}"
        self.send_list(messages)


def as_table(found: Limited) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        [
            f"drain within {PER_SECOND}/s and {PER_MINUTE}/min",
            "emails",
            "requests",
            "seconds",
            "minutes",
        ],
        [
            _row("this outbox", found.mails, found.requests, found.wall_s),
            _row("one request each, computed", found.mails, found.mails, found.one_each_s),
            *(
                _row(f"{title}, a minute of {60 * SCALE:g} s", count, count, seconds)
                for title, count, seconds in [
                    ("one request each, run", found.scaled_mails, found.scaled_one_each_s),
                    ("one request each, computed", found.scaled_mails, found.scaled_computed_s),
                ]
            ),
        ],
    )


def _row(title: str, mail_count: int, requests: int, seconds: float) -> list[str]:
    return [title, f"{mail_count:,}", f"{requests:,}", f"{seconds:,.1f}", f"{seconds / 60:.2f}"]
