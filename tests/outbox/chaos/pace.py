"""Several workers under the limits of a real account, in time that runs faster.

Truncus counts requests in whole seconds and minutes of its clock. Its clock and the workers' limits
run ``speed`` times as fast as real time; nothing else does, so that this is harder than reality:
what a process is late by counts for so many times as much.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

PER_SECOND, PER_MINUTE = 10, 60
TRUNCUS = {"API_KEY": "tr_test_pace", "DELIVERY": "outbox"}
"""With the limits of a real account, which are the defaults."""


@dataclass(frozen=True, slots=True)
class Use:
    """How well the limits were used.

    Attributes:
        minutes: requests that were let through in each minute that was full of work.
        requests: all, those before and after these minutes among them.
        refused: how many were answered 429.
    """

    minutes: Sequence[int]
    requests: int
    refused: int

    @property
    def used(self) -> float:
        """The share of the limit that was used."""
        return sum(self.minutes) / (PER_MINUTE * len(self.minutes))

    @property
    def refused_share(self) -> float:
        """The share of requests that were answered 429."""
        return self.refused / self.requests


def use_of(requests: Sequence[Mapping[str, Any]]) -> Use:
    """Return how well the limits were used, by the requests that Truncus noted.

    The first and the last minute do not count: work began and ended in the middle of them.
    """
    minutes = Counter(int(told["at"] // 60) for told in requests if told["status"] == 200)
    full = range(min(minutes) + 1, max(minutes))
    refused = sum(told["status"] == 429 for told in requests)
    return Use([minutes[minute] for minute in full], len(requests), refused)


def measure(database: Mapping[str, Any], *, speed: float, minutes: int, workers: int) -> Use:
    """Let workers send e-mails that need a request each, for so many full minutes and a little.

    Args:
        database: settings of a database that other processes can open, and whose outbox is full.
        speed: how many times as fast as real time limits and Truncus run.
        minutes: of that faster time.
        workers: processes, each making one request at a time.
    """
    options = {
        "requests_per_second": PER_SECOND,
        "requests_per_minute": PER_MINUTE,
        "clock_speed": speed,
        "keep": 100_000,
    }
    with ExitStack() as stack:
        truncus = stack.enter_context(process("tests.outbox.chaos.truncus", json.dumps(options)))
        assert truncus.stdout is not None
        chaos = {
            "database": database,
            "truncus": {**TRUNCUS, "BASE_URL": json.loads(truncus.stdout.readline())},
            "clock_speed": speed,
        }
        for _ in range(workers):
            stack.enter_context(process("django", "truncus_worker", "--verbosity=0", chaos=chaos))
        time.sleep((minutes + 1.5) * 60 / speed)
        told, _ = truncus.communicate("\n", timeout=60)
    return use_of(json.loads(told)["requests"])


@contextmanager
def process(
    module: str, *arguments: str, chaos: Mapping[str, Any] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Run a module in a process for the length of a ``with`` block."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.outbox.chaos.settings"}
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**environment, "CHAOS": json.dumps(chaos)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()
