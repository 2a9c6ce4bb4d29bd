"""The emulator in a process of its own, and what it says it has done."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import urlopen

from benchmarks.processes import WrongWork

NO_LIMITS = ("--requests-per-second", "0", "--requests-per-minute", "0")


@contextmanager
def emulator_process(*options: str) -> Iterator[str]:
    """Run the emulator, with the limits of a real account unless told otherwise; yield its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "truncus_django.emulator", "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = re.search(r"http://[\d.:]+", process.stdout.readline())
            if url is None:
                raise WrongWork("the emulator did not start")
            yield url[0]
        finally:
            process.send_signal(signal.SIGTERM)


def state_of(url: str) -> dict[str, Any]:
    """Return its counts, see :mod:`truncus_django.emulator.control`."""
    with urlopen(f"{url}/_emulator/state") as answer:
        state: dict[str, Any] = json.loads(answer.read())
    return state


def requests_of(url: str) -> int:
    """Return how many requests its API has answered."""
    return sum(each["count"] for each in state_of(url)["requests"])
