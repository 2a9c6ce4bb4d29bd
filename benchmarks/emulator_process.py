"""The emulator in a process of its own, and what it has counted.

``python -m benchmarks.emulator_process '{"keep": 100}'`` prints its URL, answers each line with its
counts as JSON, and stops at the end of its input.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import WrongWork
from truncus_django.emulator import Emulator

NO_LIMITS = {"requests_per_second": 0, "requests_per_minute": 0}
REAL_LIMITS = {"requests_per_second": 10, "requests_per_minute": 60}


@dataclass(frozen=True)
class EmulatorProcess:
    """A running emulator.

    Attributes:
        url: its base URL.
    """

    url: str
    process: "subprocess.Popen[str]"

    def counts(self) -> tuple[int, dict[int, int]]:
        """Return how many emails were accepted, and how many answers had each HTTP status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        accepted, statuses = json.loads(self.process.stdout.readline())
        return accepted, {int(status): count for status, count in statuses.items()}

    def requests(self) -> int:
        """Return how many requests its API has answered."""
        return sum(self.counts()[1].values())


@contextmanager
def emulator_process(**options: Any) -> Iterator[EmulatorProcess]:
    """Run an emulator with these options of :class:`~truncus_django.emulator.Emulator`."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.emulator_process", json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise WrongWork("the emulator did not start")
        try:
            yield EmulatorProcess(url, process)
        finally:
            process.stdin.close()


def main() -> None:
    """Serve until the input ends."""
    with Emulator(**json.loads(sys.argv[1])) as emulator:
        print(emulator.url, flush=True)
        for _ in sys.stdin:
            statuses: dict[int, int] = {}
            for (_, _, status), count in emulator.request_counts.items():
                statuses[status] = statuses.get(status, 0) + count
            print(json.dumps([emulator.accepted, statuses]), flush=True)


if __name__ == "__main__":
    main()
