"""When to try again: the pure decision, as a table."""

import pytest

from truncus_django.api.errors import (
    AnswerLost,
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    ServerError,
)
from truncus_django.api.retry import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, RetryPolicy

LOST = AnswerLost("Lost", retryable=True, ambiguous=True)
UNREACHED = ConnectionFailed("Unreached", retryable=True)
FAILED = ServerError("Failed", retryable=True)
REFUSED = InvalidRequest("No")
UNKNOWN_KEY = AuthenticationError("No")
QUOTA = QuotaExceeded("Used up", retry_after=1)


def burst(retry_after: float | None = None) -> RateLimited:
    return RateLimited("Wait", retry_after=retry_after, retryable=True)


CASES = [
    # error, retries, waited, jitter → seconds to wait, or None for never
    # Full jitter: anything from nothing to the exponential bound.
    (FAILED, 0, 0, 0.0, 0),
    (FAILED, 0, 0, 1.0, 0.5),
    (FAILED, 1, 0, 1.0, 1.0),
    (FAILED, 2, 0, 1.0, 2.0),
    (LOST, 0, 0, 0.5, 0.25),
    (UNREACHED, 0, 0, 0.5, 0.25),
    # Not after the last retry.
    (FAILED, 3, 0, 0.0, None),
    # What was refused for what it is stays refused.
    (REFUSED, 0, 0, 0.0, None),
    (UNKNOWN_KEY, 0, 0, 0.0, None),
    # A quota is not a burst, whatever it asks for.
    (QUOTA, 0, 0, 0.0, None),
    # What the answer asks for is waited, and a little more so that not all come at once.
    (burst(5), 0, 0, 0.0, 5),
    (burst(5), 0, 0, 1.0, 5.0625),
    (burst(0), 0, 0, 0.0, 0),
    (burst(), 0, 0, 1.0, 0.5),
    # More than what is left of the budget is not waited at all.
    (burst(30), 0, 0, 0.0, 30),
    (burst(31), 0, 0, 0.0, None),
    (burst(20), 1, 11, 0.0, None),
    (FAILED, 2, 29.5, 1.0, None),
]


@pytest.mark.parametrize(("error", "retries", "waited_s", "jitter", "expected"), CASES)
def test_wait_before_the_next_try(error, retries, waited_s, jitter, expected):
    policy = RetryPolicy(max_retries=3, budget_s=30)
    wait_s = policy.wait_s(error, retries=retries, waited_s=waited_s, jitter=jitter)
    assert wait_s == expected


def test_backoff_grows_no_longer_than_its_bound():
    policy = RetryPolicy(max_retries=1000, budget_s=30)
    assert policy.wait_s(FAILED, retries=900, waited_s=0, jitter=1.0) == LONGEST_BACKOFF_S
    assert FIRST_BACKOFF_S < LONGEST_BACKOFF_S


def test_no_retries_means_one_try():
    assert RetryPolicy(max_retries=0).wait_s(FAILED, retries=0, waited_s=0, jitter=0) is None
