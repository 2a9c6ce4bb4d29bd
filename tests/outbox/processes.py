"""A site's processes beside the tests: they share its database, and its email goes to an emulator.

The tests import what they use of these fixtures, and nothing else of this directory does.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.log.conftest import other_database, shared_database
from tests.waiting import PATIENCE_S, until
from truncus_django.models import database

__all__ = ["Process", "Site", "other_database", "shared_database", "site"]

ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    """A process whose lines are read as they come."""

    def __init__(self, *arguments: str, env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-u", *arguments],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # so that its children can be ended with it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def count(self, text: str) -> int:
        """Return how many lines hold a text."""
        return sum(text in line for line in list(self.lines))

    def says(self, text: str) -> None:
        """Wait for a line with this text."""
        until(lambda: self.count(text) or self._process.poll() is not None, f"{text!r} in a line")
        self._reader.join(None if self._process.poll() is not None else 0)
        assert self.count(text), self.output

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        print(self.output)  # pytest shows it where a test failed
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Site:
    """A Django site on the tests' database, or on one that is given.

    Attributes:
        given: what :mod:`tests.outbox.site_settings` reads.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self._processes: list[Process] = []

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start Python with these arguments."""
        own = ("TRUNCUS_", "COV_CORE", "DJANGO_SETTINGS")
        env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        env |= {
            "DJANGO_SETTINGS_MODULE": "tests.outbox.site_settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
            "SITE": json.dumps(self.given),
        }
        process = Process(*arguments, env=env | environment)
        self._processes.append(process)
        return process

    def manage(self, *arguments: str) -> Process:
        """Start a command of Django, in which whatever is deprecated is an error."""
        return self.start("-W", "error", "-m", "django", *arguments)

    def worker(self, *arguments: str) -> Process:
        return self.manage("truncus_worker", *arguments)

    def close(self) -> None:
        while self._processes:
            self._processes.pop().close()


@pytest.fixture
def site(outbox: None, shared_database: str, emulator: Any, settings: Any) -> Iterator[Site]:
    """A site whose database and emulator are those of the test."""
    given = connections[database()].settings_dict
    names = ("ENGINE", "NAME", "HOST", "PORT", "USER", "PASSWORD", "OPTIONS")
    found = {name: given[name] for name in names if given.get(name)}
    truncus = {name: value for name, value in settings.TRUNCUS.items() if name != "DATABASE"}
    made = Site({"database": {**found, "NAME": str(found["NAME"])}, "truncus": truncus})
    yield made
    made.close()
