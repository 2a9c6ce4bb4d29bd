"""The servers that take the emails: HTTP for Truncus and Resend alike, and SMTP.

``python -m benchmarks.sinks`` prints their addresses as JSON and serves until its standard input
ends. Both count what arrives. ``latency`` is the time between a request (in SMTP: a command, the
connection, and a message's end) and its answer; opening a TCP connection has none.

Control, on the HTTP port and not counted: ``POST /_sink/reset?latency_ms=30`` and
``GET /_sink/report``.
"""

import asyncio
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_HEADERS = (
    "HTTP/1.1 {status}\r\nDate: Mon, 05 Jan 2026 09:00:00 GMT\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
)
_TRUNCUS_HEADERS = "X-Monthly-Limit: 250000\r\nX-Monthly-Sent: 1200\r\nX-Monthly-Remaining: 9\r\n"
_RESEND_HEADERS = "ratelimit-limit: 100000\r\nratelimit-remaining: 9\r\nratelimit-reset: 1\r\n"


def digest_of(recipients: Iterable[str]) -> str:
    """Return a digest of who got an email, and how often."""
    return hashlib.sha256("\n".join(sorted(recipients)).encode()).hexdigest()


@dataclass
class Ledger:
    """What has arrived since the last reset. ``latency_s`` goes for both servers."""

    latency_s: float = 0.0
    requests: int = 0
    recipients: list[str] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)
    body_bytes: int = 0
    last_id: int = 0
    """Of any email ever: two never have the same, and a log may rely on that."""

    def reset(self, latency_s: float) -> None:
        """Count from nothing."""
        self.latency_s, self.requests, self.body_bytes = latency_s, 0, 0
        self.recipients, self.connections = [], set()

    def report(self) -> dict[str, Any]:
        """Return the counts. ``connections`` are those that brought an email."""
        return {
            "mails": len(self.recipients),
            "recipients": digest_of(self.recipients),
            "requests": self.requests,
            "connections": len(self.connections),
            "body_bytes": self.body_bytes,
        }


class _Connection(asyncio.Protocol):
    """A TCP connection; asyncio sets TCP_NODELAY on it."""

    count = 0

    def __init__(self, ledger: Ledger) -> None:
        type(self).count += 1
        self.number = type(self).count
        self.ledger = ledger
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def answer(self, content: bytes) -> None:
        if self.ledger.latency_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self.ledger.latency_s, self.transport.write, content)
        else:
            self.transport.write(content)


class HTTPConnection(_Connection):
    """Truncus (``/api/v1/emails/…``) and Resend (``/emails``), kept alive."""

    wanted = 0

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self.buffer += data
        while len(self.buffer) >= self.wanted:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            length = _CONTENT_LENGTH.search(head)
            self.wanted = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < self.wanted:
                return
            body = bytes(self.buffer[end + 4 : self.wanted])
            del self.buffer[: self.wanted]
            self.wanted = 0
            self._take(head.split(b" ", 2)[1].decode(), body)

    def _take(self, path: str, body: bytes) -> None:
        if path.startswith("/_sink/"):
            self.transport.write(_response(self._control(path)))
            return
        self.ledger.requests += 1
        self.ledger.connections.add(self.number)
        if path == "/api/v1/emails/send":
            answer = _truncus_response(self._takemail(json.loads(body)))
        elif path == "/api/v1/emails/batch":
            answer = _truncus_response(self._take_batch(json.loads(body)["emails"]))
        elif path == "/emails":
            answer = _resend_response(self._takemail(json.loads(body)))
        else:
            answer = _response({"error": "Not found"}, status="404 Not Found")
        self.answer(answer)

    def _takemail(self, email: dict[str, Any]) -> dict[str, Any]:
        ledger, to = self.ledger, email["to"]
        ledger.recipients.extend([to] if isinstance(to, str) else to)
        ledger.body_bytes += len(email["text"].encode()) + len(email["html"].encode())
        ledger.last_id += 1
        number = ledger.last_id
        return {
            "status": "sent",
            "message_id": f"cm6wq{number:020}",
            "global_message_id": f"gm_0af1{number:020}",
            "provider_message_id": f"0100019{number:033}-000000",
        }

    def _take_batch(self, emails: list[dict[str, Any]]) -> dict[str, Any]:
        count = len(emails)
        results = [{"index": index} | self._takemail(mail) for index, mail in enumerate(emails)]
        return {
            "total": count,
            "sent": count,
            "queued": 0,
            "blocked": 0,
            "failed": 0,
            "results": results,
        }

    def _control(self, path: str) -> dict[str, Any]:
        name, _, query = path.partition("?")
        if name == "/_sink/reset":
            self.ledger.reset(float(parse_qs(query)["latency_ms"][0]) / 1000)
        return self.ledger.report()


def _response(answer: dict[str, Any], *, status: str = "200 OK", more: str = "") -> bytes:
    body = json.dumps(answer)
    return (_HEADERS.format(status=status, length=len(body), more=more) + body).encode()


def _truncus_response(answer: dict[str, Any]) -> bytes:
    return _response(answer, more=_TRUNCUS_HEADERS)


def _resend_response(answer: dict[str, Any]) -> bytes:
    return _response({"id": answer["message_id"]}, more=_RESEND_HEADERS)


class SMTPConnection(_Connection):
    """A mail server that takes everything. Each of its replies waits for the latency."""

    in_data = False
    recipients: list[str]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        super().connection_made(transport)
        self.recipients = []
        self.answer(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Reply to every line and every message that is complete."""
        self.buffer += data
        while True:
            mark = b"\r\n.\r\n" if self.in_data else b"\r\n"
            end = self.buffer.find(mark)
            if end < 0:
                return
            part = bytes(self.buffer[:end])
            del self.buffer[: end + len(mark)]
            if self.in_data:
                self._take_message(part)
            else:
                self._take_command(part.decode())

    def _take_command(self, line: str) -> None:
        command = line[:4].upper()
        if command == "EHLO":
            self.answer(b"250-sink\r\n250-8BITMIME\r\n250 SIZE 52428800\r\n")
        elif command == "DATA":
            self.in_data = True
            self.answer(b"354 Go on\r\n")
        elif command == "QUIT":
            self.answer(b"221 Bye\r\n")
        else:
            if command == "RCPT":
                self.recipients.append(line.partition("<")[2].partition(">")[0])
            self.answer(b"250 OK\r\n")

    def _take_message(self, content: bytes) -> None:
        self.in_data = False
        self.ledger.requests += 1
        self.ledger.connections.add(self.number)
        self.ledger.recipients.extend(self.recipients)
        self.ledger.body_bytes += len(content)
        self.recipients = []
        self.answer(b"250 OK\r\n")


async def serve() -> None:
    """Serve both on free ports of this machine until standard input ends."""
    loop = asyncio.get_running_loop()
    ledger = Ledger()
    http = await loop.create_server(lambda: HTTPConnection(ledger), "127.0.0.1", 0, backlog=1024)
    smtp = await loop.create_server(lambda: SMTPConnection(ledger), "127.0.0.1", 0, backlog=1024)
    ports = [server.sockets[0].getsockname()[1] for server in (http, smtp)]
    print(
        json.dumps({"http_url": f"http://127.0.0.1:{ports[0]}", "smtp_port": ports[1]}), flush=True
    )
    ended = asyncio.Event()

    def wait_for_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve())
