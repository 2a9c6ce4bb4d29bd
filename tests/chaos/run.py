"""The run: processes are started, killed and replaced; at the end all books are compared."""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import django
from django.db import connections

from tests.chaos import pace
from tests.chaos.books import compare, compare_features, count_features, count_requests, read_books
from tests.chaos.crew import Crew
from tests.chaos.fallback import BACKEND, FALLBACK, read_handed
from tests.chaos.processes import ended, start
from tests.chaos.writer import ALLOWED, REDIRECT_TO
from tests.waiting import PATIENCE_S
from truncus_django.emulator.faults import Fault

DATABASES = ("sqlite", "postgresql", "mariadb")
RUNNERS = ("worker", "celery")
TIMEOUT_S, DELAY_S = 2.0, 2.5
"""Workers wait less long than a delay of the local Truncus takes: those answers come too late."""
EMPTY_WITHIN_S = 300.0
"""For so long after the last email and the last kill the outbox may take to become empty."""
STOP_S = 2 * TIMEOUT_S + 7
"""For so long workers stand still: longer than their leases."""
HANDOVER_LEASE_S = STOP_S + 4
"""Nobody can take a handover back, so that it outlasts this, too. It is ten minutes elsewhere."""
API_KEY = "tr_test_chaos"
KEY_WORKS_S, KEY_FAILS_S = 10.0, 4.0
"""With a fallback mailer, the API key is revoked again and again."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens in one run; everything that is left to chance follows from the seed."""

    database: str
    runner: str
    broker: str = field(repr=False)
    mails: int
    kills: int
    writers: int
    workers: int
    fault_rate: float
    replay: str
    all_features: bool
    write_seconds: float
    seed: int


def run(plan: Plan) -> tuple[list[str], dict[str, Any]]:
    """Run ``plan``; return what differs at the end, and the numbers of the run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        database = stack.enter_context(_database(plan.database, folder))
        truncus = stack.enter_context(_truncus(plan))
        handovers = folder / "handovers"
        handovers.mkdir()
        _set_up(plan, database, truncus.url, handovers)
        ledgers = [folder / f"writer-{number}" for number in range(plan.writers)]
        writers = [
            stack.enter_context(ended(_start_writer(plan, number, ledger)))
            for number, ledger in enumerate(ledgers)
        ]
        crew = Crew(runner=plan.runner, workers=plan.workers, seed=plan.seed, folder=folder)
        stack.callback(crew.end)
        _let_die(plan, crew, writers)
        problems = [f"writer {w.args} ended with {w.returncode}" for w in writers if w.wait()]
        problems += _wait_until_empty(crew)
        crew.stop()
        told = truncus.tell()
        books = read_books(ledgers)
        handed = read_handed(handovers)
        differences = problems + compare(
            books, told, handed, crew.killed, is_replay_told=plan.replay == "first"
        )
        if plan.all_features:
            differences += compare_features(books, handed)
        if crew.kills < plan.kills:
            differences.append(f"{crew.kills} kills only; the work was done before")
        numbers = {
            "committed": len(books.committed),
            "rolled back": len(books.rolled_back),
            "kills": crew.kills,
            "stops": crew.stops,
            **count_requests(told["requests"]),
            **(count_features(books, handed) if plan.all_features else {}),
        }
        return differences, numbers


def run_pace(name: str, *, seconds: float, workers: int, latency_s: float) -> pace.Use:
    """Let workers send under the limits of a real account; return how well they used them."""
    with TemporaryDirectory() as folder, _database(name, Path(folder)) as database:
        _set_up_django({"database": database, "truncus": pace.TRUNCUS})
        from truncus_django.backend import TruncusBackend
        from truncus_django.message import TruncusMessage

        messages = [
            TruncusMessage(
                f"Order {number}",
                "It is on its way.",
                "shop@example.com",
                ["customer@example.org"],
                idempotency_key=f"alone-{number}",  # a request for each
            )
            for number in range(pace.allowed_in(pace.START_UP_S + seconds) + pace.PER_MINUTE)
        ]
        TruncusBackend().send_messages(messages)
        connections.close_all()
        return pace.measure(database, seconds=seconds, workers=workers, latency_s=latency_s)


# The processes ------------------------------------------------------------------------------------


@contextmanager
def _database(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings of an empty database, which is dropped at the end."""
    if name == "sqlite":
        # As the documentation advises. A killed process loses nothing that it has written.
        options = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        }
        yield {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "chaos.sqlite3"),
            "OPTIONS": options,
        }
        return
    from tests.databases import database

    settings = {**database(name), "NAME": f"truncus_chaos_{os.getpid()}"}
    settings.pop("TEST", None)
    _on_server(name, settings, f"CREATE DATABASE {settings['NAME']}")
    try:
        yield settings
    finally:
        force = " WITH (FORCE)" if name == "postgresql" else ""
        _on_server(name, settings, f"DROP DATABASE {settings['NAME']}{force}")


def _on_server(name: str, settings: Mapping[str, Any], sql: str) -> None:
    if name == "postgresql":
        import psycopg

        with psycopg.connect(
            host=settings["HOST"], user=settings["USER"], dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(sql)
    else:
        import pymysql

        with pymysql.connect(
            host=settings["HOST"], user=settings["USER"], password=settings["PASSWORD"]
        ) as connection:
            connection.cursor().execute(sql)


class _Truncus:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.url: str = json.loads(process.stdout.readline())

    def tell(self) -> dict[str, Any]:
        told, _ = self._process.communicate("\n", timeout=PATIENCE_S)
        return json.loads(told)  # type: ignore[no-any-return]


@contextmanager
def _truncus(plan: Plan) -> Iterator[_Truncus]:
    options = {
        "requests_per_second": 0,
        "requests_per_minute": 0,
        "latency_s": 0.05,
        "delay_s": DELAY_S,
        "fault_rates": {fault.value: plan.fault_rate for fault in Fault},
        "seed": plan.seed,
        "keep": 100_000,
        "batch_refusal": "whole",
        "batch_replay": plan.replay,
    }
    if plan.all_features:
        options["revoked"] = [API_KEY, KEY_WORKS_S, KEY_FAILS_S]
    with ended(start("tests.chaos.truncus", json.dumps(options), pipes=True)) as process:
        yield _Truncus(process)


def _set_up(plan: Plan, database: dict[str, Any], url: str, handovers: Path) -> None:
    """Set the settings of this process and of all that it starts; make the tables."""
    features = {
        "ALLOW_RECIPIENTS": [ALLOWED],
        "REDIRECT_TO": [REDIRECT_TO],
        "SUPPRESS": "learn",
        "ON_SUPPRESSED": "drop",
        "FALLBACK_MAILER": FALLBACK,
    }
    _set_up_django(
        {
            "database": database,
            "truncus": {
                "API_KEY": API_KEY,
                "BASE_URL": url,
                "DELIVERY": "outbox",
                "DISPATCHER": plan.runner,
                "TIMEOUT": TIMEOUT_S,
                # Where a repeated batch is answered as a whole, emails that are the first of their
                # form become unknown: their first answer may have refused them for it.
                "DIALECT": "manual" if plan.replay == "duplicate" else "auto",
                "REQUESTS_PER_SECOND": 0,
                "REQUESTS_PER_MINUTE": 0,
                **(features if plan.all_features else {}),
            },
            "fallback": {FALLBACK: {"BACKEND": BACKEND}} if plan.all_features else {},
            "handovers": str(handovers),
            "handover_lease_s": HANDOVER_LEASE_S,
            # Half of all requests fail: real pauses would take hours.
            "longest_retry_s": 2.0,
            "first_backoff_s": 0.02,
            "fallback_pause_s": 2.0,
            "celery": {"broker": plan.broker, "queue": f"truncus-chaos-{os.getpid()}"},
        }
    )


def _set_up_django(chaos: Mapping[str, Any]) -> None:
    os.environ["CHAOS"] = json.dumps(chaos)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.chaos.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _start_writer(plan: Plan, number: int, ledger: Path) -> subprocess.Popen[str]:
    mails = plan.mails // plan.writers + (number < plan.mails % plan.writers)
    return start(
        "tests.chaos.writer",
        f"writer{number}",
        f"--mails={mails}",
        f"--seconds={plan.write_seconds}",
        f"--seed={plan.seed}",
        f"--ledger={ledger}",
        *(["--all-features"] if plan.all_features else []),
    )


def _let_die(plan: Plan, crew: Crew, writers: Sequence[subprocess.Popen[str]]) -> None:
    """Kill workers at random moments for as long as the writers write, and after."""
    chance = random.Random(f"{plan.seed} kills")
    mean_s = plan.write_seconds / max(1.3 * plan.kills, 1)
    kill_at = time.monotonic()
    while crew.kills < plan.kills or any(writer.poll() is None for writer in writers):
        kill_at += chance.uniform(0, 2 * mean_s)
        while time.monotonic() < kill_at:
            crew.look_after()
            time.sleep(min(0.05, max(0.0, kill_at - time.monotonic())))
        if not _is_busy() and all(writer.poll() is not None for writer in writers):
            return
        if crew.kills % 8 == 7:
            crew.stop_one(seconds=STOP_S)
        crew.kill_one()


def _is_busy() -> bool:
    from truncus_django.models import OutboxBatch, OutboxEntry

    return OutboxBatch.objects.exists() or OutboxEntry.objects.filter(is_waiting=True).exists()


def _wait_until_empty(crew: Crew) -> list[str]:
    deadline = time.monotonic() + EMPTY_WITHIN_S
    while _is_busy():
        crew.look_after()
        if time.monotonic() > deadline:
            from truncus_django.models import OutboxAccount, OutboxBatch

            return [
                f"the outbox is not empty after {EMPTY_WITHIN_S:.0f} s",
                *map(str, OutboxBatch.objects.values()),
                *map(str, OutboxAccount.objects.values()),
            ]
        time.sleep(0.2)
    return []
