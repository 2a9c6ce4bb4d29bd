"""A fallback mailer for tests, as each Django names one, and an SMTP server that takes its emails.

The server is that of no library, so that it can break off wherever a test wants.
"""

import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, ClassVar

import django
from django.core import mail
from django.core.mail.backends import locmem

from tests.waiting import PATIENCE_S
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.testing import BACKEND

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
UNREACHABLE = "http://127.0.0.1:9"
"""Port 9 is discard's, which nothing listens on here."""
HAS_MAILERS = django.VERSION >= (6, 1)


def use_fallback(
    settings: Any, backend: str = LOCMEM, options: Mapping[str, Any] | None = None
) -> str:
    """Give the project a fallback mailer; return its name."""
    name = "elsewhere" if HAS_MAILERS else backend
    if HAS_MAILERS:
        config = {"BACKEND": backend, "OPTIONS": dict(options or {})}
        settings.MAILERS = {"default": {"BACKEND": BACKEND}, name: config}
    else:
        for option, value in (options or {}).items():
            setattr(settings, f"EMAIL_{option.upper()}", value)
    settings.TRUNCUS = {**settings.TRUNCUS, "FALLBACK_MAILER": name}
    return name


def backend() -> TruncusBackend:
    """Return the backend that the fallback mailer stands behind."""
    return TruncusBackend(alias="default" if HAS_MAILERS else None)


def message(number: int = 0, **options: Any) -> TruncusMessage:
    to = options.pop("to", [f"customer-{number}@example.org"])
    return TruncusMessage(f"Order {number}", "Text", "shop@example.com", to, **options)


def subjects() -> list[str]:
    """Return the subjects of what the fallback mailer has sent, in order."""
    return [message.subject for message in mail.outbox]


@dataclass
class SmtpServer:
    """What an SMTP server was given.

    Attributes:
        port: on this machine.
        answers: what it says to a command instead of 250; ``None`` ends the connection. ``"."``
            stands for the end of the content.
        taken: the recipients of each email's envelope, and the email.
    """

    port: int
    answers: dict[str, bytes | list[bytes | None] | None] = field(default_factory=dict)
    taken: list[tuple[list[str], EmailMessage]] = field(default_factory=list)


@contextmanager
def smtp_server() -> Iterator[SmtpServer]:
    """Run an SMTP server."""

    class Handler(socketserver.StreamRequestHandler):
        def say(self, command: str, usual: bytes) -> bool:
            answer = server.answers.get(command, usual)
            if isinstance(answer, list):  # one after the other
                answer = answer.pop(0) if answer else usual
            if answer is not None:
                self.wfile.write(answer + b"\r\n")
            return answer is not None

        def handle(self) -> None:
            recipients: list[str] = []
            if not self.say("connect", b"220 ready"):
                return
            for line in iter(self.rfile.readline, b""):
                command = line[:4].decode().strip().upper()
                if command == "RCPT":
                    recipients.append(line.decode().partition("<")[2].partition(">")[0])
                if command == "DATA":
                    if not self.say(command, b"354 go on"):
                        return
                    content = b"".join(iter(self.rfile.readline, b".\r\n"))
                    server.taken.append(
                        (recipients, message_from_bytes(content, policy=policy.default))
                    )
                    recipients, command = [], "."
                if not self.say(command, b"221 bye" if command == "QUIT" else b"250 ok"):
                    return

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        server = SmtpServer(listening.server_address[1])
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


class SilentBackend(locmem.EmailBackend):
    """Says that it sent nothing."""

    def send_messages(self, messages: Sequence[Any]) -> int:
        """Send nothing."""
        return 0


class InterruptedBackend(locmem.EmailBackend):
    """Is broken into at its second email."""

    def send_messages(self, messages: Sequence[Any]) -> int:
        """Send the first email of a test."""
        if mail.outbox:
            raise KeyboardInterrupt
        return int(super().send_messages(messages))


class SlowBackend(locmem.EmailBackend):
    """Waits in the middle of its first email."""

    is_sending = threading.Event()
    may_go_on = threading.Event()

    def send_messages(self, messages: Sequence[Any]) -> int:
        """Send, when it may go on."""
        self.is_sending.set()
        assert self.may_go_on.wait(PATIENCE_S)
        return int(super().send_messages(messages))


class ImpatientBackend(locmem.EmailBackend):
    """Loses its connection where the project does something else meanwhile."""

    opened: ClassVar[set["ImpatientBackend"]] = set()

    def open(self) -> bool:
        """Connect."""
        self.opened.add(self)
        return True

    @classmethod
    def hang_up(cls, **kwargs: object) -> None:
        """End all connections, as their server may."""
        cls.opened.clear()

    def send_messages(self, messages: Sequence[Any]) -> int:
        """Send, if there is a connection."""
        if self not in self.opened:
            raise ConnectionResetError
        return int(super().send_messages(messages))
