"""When to try a request again: one pure decision, and whether anybody waits for it still."""

from contextvars import ContextVar
from dataclasses import dataclass
from threading import Event

from truncus_django.api.errors import TruncusError

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 8.0


no_more_tries: ContextVar[Event | None] = ContextVar("no_more_tries", default=None)
"""Set when whoever asked has gone: the try that is being made is the last."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a request is repeated, and how long it may wait between its tries.

    Attributes:
        max_retries: tries after the first one.
        budget_s: seconds of waiting, all tries of one call together. The requests themselves
            are bounded by their timeout.
    """

    max_retries: int = 3
    budget_s: float = 30.0

    def wait_s(
        self, error: TruncusError, *, retries: int, waited_s: float, jitter: float
    ) -> float | None:
        """Return the seconds to wait before the next try, or ``None`` for never.

        Full-jitter exponential backoff, at least as long as the answer asked for.

        Args:
            error: what the last try ended with.
            retries: how many retries were made already.
            waited_s: how many seconds this call has waited already.
            jitter: a random number in [0, 1).
        """
        if not error.retryable or retries >= self.max_retries:
            return None
        wait = pause_s(error, retries=retries, jitter=jitter)
        return wait if waited_s + wait <= self.budget_s else None


def pause_s(
    error: TruncusError, *, retries: int, jitter: float, longest_s: float = LONGEST_BACKOFF_S
) -> float:
    """Return the seconds to wait after ``error``: full-jitter exponential backoff.

    What the answer asks for is a floor; a little more keeps many clients from coming back in the
    same instant.

    Args:
        error: what the last try ended with.
        retries: how many retries were made already.
        jitter: a random number in [0, 1).
        longest_s: what the backoff grows to.
    """
    backoff = jitter * min(longest_s, FIRST_BACKOFF_S * 2.0 ** min(retries, 64))
    return max(backoff, error.retry_after + backoff / 8) if error.retry_after else backoff
