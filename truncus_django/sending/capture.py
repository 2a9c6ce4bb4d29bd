"""Messages that are captured on their way: a preview that sends one is shown, and sends nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.core.mail import EmailMessage

from truncus_django.conf import Settings
from truncus_django.message import TruncusStatus


@dataclass(frozen=True, slots=True, eq=False)
class CapturedMessage:
    """A message that would have been sent, and the settings it would have been sent by."""

    message: EmailMessage
    settings: Settings


_captured: ContextVar[list[CapturedMessage] | None] = ContextVar("captured", default=None)


@contextmanager
def capturing() -> Iterator[list[CapturedMessage]]:
    """Let ``TruncusBackend`` put all messages into a list, for the length of a ``with`` block.

    That holds for this thread and for what takes its context along; others send as ever.
    """
    captured: list[CapturedMessage] = []
    token = _captured.set(captured)
    try:
        yield captured
    finally:
        _captured.reset(token)


def is_capturing() -> bool:
    """Return whether messages are captured here."""
    return _captured.get() is not None


def capture(messages: Iterable[EmailMessage], settings: Settings) -> None:
    """Put messages into the list of the block that captures them."""
    captured = _captured.get()
    if captured is not None:
        for message in messages:
            captured.append(CapturedMessage(message, settings))
            message.truncus_status = TruncusStatus("cancelled")  # type: ignore[attr-defined]
