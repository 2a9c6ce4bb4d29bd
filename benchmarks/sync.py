"""Asking Truncus about 10,000 recorded emails: ``python -m benchmarks.sync``.

The emulator, without request limits, has a process of its own, and so has the client, whose log is
a file of SQLite. CPU is the client's, from the first question to the last write; beside it, what a
bare ``requests`` session takes to read the same emails. Sending them before is not counted.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.emulator_process import NO_LIMITS, emulator_process
from benchmarks.mailer import default_backend, mailer
from benchmarks.processes import WrongWork
from benchmarks.tables import ratio, table
from benchmarks.workers import Worker

EMAILS = 10_000
BARE_EMAILS = 2_000
_DELIVERED_WITHIN_S = 60.0

# The local parts tell the emulator what becomes of an email; of 20, so many each.
_FATES = {"customer": 12, "open": 5, "click": 1, "bounce": 1, "complaint": 1}
_STATES = {"bounce": "bounced", "complaint": "complained"}


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync of all emails, and bare requests."""

    emails: int
    cpu_s: float
    wall_s: float
    queries: int
    requests: int
    bare_cpu_per_email_us: float

    @property
    def cpu_per_email_us(self) -> float:
        """In microseconds."""
        return self.cpu_s / self.emails * 1e6

    @property
    def queries_per_100(self) -> float:
        """Queries of the database for 100 emails."""
        return self.queries / self.emails * 100


def run(emails: int = EMAILS, progress: Callable[[str], None] = lambda text: None) -> Sync:
    """Send, let deliver, sync, and check that each email's state and engagement are right."""
    with (
        emulator_process(keep=100_000, **NO_LIMITS) as emulator,
        Worker("sync", serve, emulator.url) as worker,
    ):
        progress(f"sync: sending {emails:,} emails")
        worker.ask(("send", emails))
        before = emulator.requests()
        progress(f"sync: asking about {emails:,} emails")
        cpu_s, wall_s, queries = worker.ask(("sync", emails))
        requests = emulator.requests() - before
        progress("sync: bare requests")
        bare_us = worker.ask(("bare", min(emails, BARE_EMAILS)))
    return Sync(emails, cpu_s, wall_s, queries, requests, bare_us)


def as_table(found: Sync) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        [
            f"sync of {found.emails:,} emails, SQLite",
            "CPU/email µs",
            "÷ bare requests",
            "wall s",
            "requests",
            "queries per 100",
        ],
        [
            [
                "truncus_django.log.sync",
                f"{found.cpu_per_email_us:.0f}",
                ratio(found.cpu_per_email_us, found.bare_cpu_per_email_us),
                f"{found.wall_s:.1f}",
                f"{found.requests:,}",
                f"{found.queries_per_100:.2f}",
            ],
            [
                "bare requests, only reading",
                f"{found.bare_cpu_per_email_us:.0f}",
                ratio(1, 1),
                *("–",) * 3,
            ],
        ],
    )


# The client's process ---------------------------------------------------------------------------

_API_KEY = "tr_test_benchmarks"


def serve(url: str) -> Callable[[Any], Any]:
    """Be the client's process: return what answers ``send``, ``sync`` and ``bare``."""
    client = _Client(url)

    def respond(order: tuple[str, int]) -> Any:
        what, count = order
        match what:
            case "send":
                return client.send(count)
            case "sync":
                return client.sync(count)
            case _:
                return client.read_barely(count)

    return respond


class _Client:
    """A Django project with a log."""

    def __init__(self, url: str) -> None:
        import django
        from django.conf import settings
        from django.core.management import call_command

        self.url = url
        self._directory = TemporaryDirectory(prefix="truncus_bench_")
        settings.configure(
            SECRET_KEY="benchmarks",
            USE_TZ=True,
            INSTALLED_APPS=["truncus_django"],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": Path(self._directory.name) / "log.sqlite3",
                }
            },
            TRUNCUS={
                "API_KEY": _API_KEY,
                "BASE_URL": url,
                "REQUESTS_PER_SECOND": 0,
                "REQUESTS_PER_MINUTE": 0,
            },
            **mailer("truncus_django.backend.TruncusBackend", {}, {}),
        )
        django.setup()
        call_command("migrate", verbosity=0)

    def send(self, count: int) -> None:
        """Send ``count`` emails, wait until all are delivered and opened, and make them due."""
        from django.core.mail import EmailMessage
        from django.utils import timezone

        from truncus_django.models import Email

        messages = [
            EmailMessage(
                f"Order {number}", "Hello", "shop@example.com", [f"{fate}+{number}@ex.org"]
            )
            for number, fate in enumerate(_fates(count))
        ]
        if default_backend().send_messages(messages) != count:
            raise WrongWork("not every email was accepted")
        self._wait_for_last_step()
        if Email.objects.update(next_sync_at=timezone.now()) != count:
            raise WrongWork("not every email is recorded")

    def _wait_for_last_step(self) -> None:
        """Steps are taken in the order of time, and the last click comes last."""
        from truncus_django.api import TruncusClient
        from truncus_django.models import Email

        clicked = Email.objects.filter(search_text__startswith="click+").latest("created_at")
        client = TruncusClient(_API_KEY, base_url=self.url)
        until = time.monotonic() + _DELIVERED_WITHIN_S
        while not client.get_email(str(clicked.message_id)).click_count:
            if time.monotonic() > until:
                raise WrongWork("the emulator has not delivered every email")
            time.sleep(0.1)

    def sync(self, count: int) -> tuple[float, float, int]:
        """Sync; return CPU seconds, wall-clock seconds and queries."""
        from django.db import connection

        from truncus_django.log.sync import SyncJob

        queries = 0

        def note(execute: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal queries
            queries += 1
            return execute(*arguments)

        with connection.execute_wrapper(note):
            wall, cpu = time.perf_counter(), time.process_time()
            result = SyncJob().run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if result.asked != count or not result.is_clean:
            raise WrongWork(f"{result.asked} of {count} were asked about, {result.failed} failed")
        self._check(count)
        return cpu, wall, queries

    def _check(self, count: int) -> None:
        """Raise :class:`WrongWork` unless each email is where the emulator has brought it."""
        from truncus_django.models import Email

        expected = Counter(
            (_STATES.get(fate, "delivered"), int(fate in {"open", "click"}), int(fate == "click"))
            for fate in _fates(count)
        )
        found = Counter(Email.objects.values_list("state", "open_count", "click_count"))
        if found != expected:
            raise WrongWork(f"states, opens and clicks are {found}, not {expected}")

    def read_barely(self, count: int) -> float:
        """Return what a ``requests`` session takes to read an email, in µs of CPU."""
        import requests

        from truncus_django.models import Email

        ids = list(Email.objects.values_list("message_id", flat=True)[:count])
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {_API_KEY}"
        cpu = time.process_time()
        for message_id in ids:
            answer = session.get(f"{self.url}/api/v1/emails/{message_id}", timeout=30)
            answer.raise_for_status()
            if not answer.json():
                raise WrongWork("an answer is empty")
        return (time.process_time() - cpu) / len(ids) * 1e6


def _fates(count: int) -> Iterator[str]:
    """Yield what is to become of each of ``count`` emails, in turns."""
    turn = [fate for fate, share in _FATES.items() for _ in range(share)]
    return islice(cycle(turn), count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=__doc__)
    parser.add_argument("--emails", type=int, default=EMAILS, help="how many to ask about")
    options = parser.parse_args(arguments)
    print(as_table(run(options.emails, lambda text: print(text, file=sys.stderr))))


if __name__ == "__main__":
    main()
