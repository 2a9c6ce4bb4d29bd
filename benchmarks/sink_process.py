"""The sinks in a process of their own, and what they say arrived."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the sinks listen."""

    http_url: str
    smtp_port: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """What arrived since the last reset; see :class:`benchmarks.sinks.Ledger`."""

    mails: int
    recipients: str
    requests: int
    connections: int
    body_bytes: int


class SinkProcess(AbstractContextManager["SinkProcess"]):
    """The process of the sinks, as long as the ``with`` lasts."""

    addresses: Addresses

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sinks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.addresses = Addresses(**json.loads(self._process.stdout.readline()))
        self._host = urlsplit(self.addresses.http_url).netloc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its standard input, which ends it

    def reset(self, *, latency_ms: float = 0) -> None:
        """Count from nothing, and answer ``latency_ms`` after each request from now on."""
        self._control("POST", f"/_sink/reset?latency_ms={latency_ms}")

    def report(self) -> Arrived:
        """Return what arrived since the last reset."""
        return Arrived(**self._control("GET", "/_sink/report"))

    def _control(self, method: str, path: str) -> dict[str, Any]:
        connection = HTTPConnection(self._host, timeout=10)
        try:
            connection.request(method, path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer
