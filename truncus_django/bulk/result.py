"""What came of a bulk."""

from collections import Counter
from dataclasses import dataclass, field

from truncus_django.api.errors import TruncusError

__all__ = ["BulkInterrupted", "BulkResult"]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """How many messages of a bulk became what.

    Attributes:
        messages: how many were read from the iterable.
        accepted: emails that Truncus accepted.
        queued: emails that wait in the outbox.
        skipped: messages that were sent under the key before, or have no recipients.
        failed: emails that were not sent.
        unknown: emails that may have been accepted, now or in an earlier run with the key; a
            person must decide.
        cancelled: emails that a receiver of ``pre_send`` or a person cancelled.
        errors: how often each reason of the ``failed`` and ``unknown`` came: a code of Truncus,
            or the name of an error's class.
        first_at: by reason, the place of its first message, counted from 1.
    """

    messages: int = 0
    accepted: int = 0
    queued: int = 0
    skipped: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    first_at: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [
            f"{count} {name}"
            for name in ("accepted", "queued", "skipped", "failed", "unknown", "cancelled")
            if (count := getattr(self, name))
        ]
        told = ", ".join(counts) or "nothing was sent"
        return f"{self.messages} message{'' if self.messages == 1 else 's'}: {told}"


class BulkInterrupted(TruncusError):
    """A bulk ended too soon; the cause is its ``__cause__`` where there is one.

    Attributes:
        result: what was sent until then, a :class:`BulkResult`.
    """

    def __init__(self, message: str, *, result: BulkResult | None = None) -> None:
        super().__init__(message)
        self.result = result or BulkResult()
