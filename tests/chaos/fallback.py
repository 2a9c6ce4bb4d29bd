"""A fallback mailer whose book is a folder: a file for each email that was handed to it."""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import django
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

BACKEND = "tests.chaos.fallback.FolderBackend"
FALLBACK = "folder" if django.VERSION >= (6, 1) else BACKEND
"""What names it in ``FALLBACK_MAILER``."""
LATENCY_S = 0.03
"""So long a handover takes before the email is sent, and so long after it."""
_BEGUN, _SENT = ".begun", ".sent"


@dataclass(frozen=True, slots=True)
class Handed:
    """An email that was handed to the fallback mailer.

    Attributes:
        recipients: all of them.
        process, thread: who did that.
        began_at: monotonic seconds, the same for all processes of a machine.
        is_sent: whether it came to that, before its process died.
    """

    subject: str
    recipients: list[str]
    process: int
    thread: int
    began_at: float
    is_sent: bool


class FolderBackend(BaseEmailBackend):
    """Sends nothing, but writes down what it was to send.

    Names of files change at once, so that a process that dies leaves one or the other.
    """

    def send_messages(self, messages: Sequence[EmailMessage]) -> int:
        """Write the emails down."""
        folder = Path(settings.CHAOS["handovers"])
        for message in messages:
            entry = folder / uuid4().hex
            told = {
                "subject": str(message.subject),
                "recipients": message.recipients(),
                "process": os.getpid(),
                "thread": threading.get_ident(),
                "began_at": time.monotonic(),
            }
            entry.write_text(json.dumps(told))
            begun = entry.rename(entry.with_suffix(_BEGUN))
            time.sleep(LATENCY_S)
            begun.rename(entry.with_suffix(_SENT))
            time.sleep(LATENCY_S)
        return len(messages)


def read_handed(folder: Path) -> list[Handed]:
    """Return what was handed over, oldest first."""
    found = [
        Handed(**json.loads(entry.read_text()), is_sent=entry.suffix == _SENT)
        for entry in folder.iterdir()
        if entry.suffix in {_BEGUN, _SENT}
    ]
    return sorted(found, key=lambda handed: handed.began_at)
