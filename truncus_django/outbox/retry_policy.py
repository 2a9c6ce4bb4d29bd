"""What to do with a batch whose request failed: pure decisions, nothing else."""

from dataclasses import dataclass
from enum import Enum, auto

from truncus_django.api import contract
from truncus_django.api.errors import (
    APIError,
    InvalidAnswer,
    MessageError,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    TruncusError,
    rules_out_acceptance,
)
from truncus_django.api.retry import pause_s

KEY_LIFE_S = contract.IDEMPOTENCY_LIFE_S - 70 * 60.0
"""For how long a key is relied upon: Truncus's 24 hours, less what clocks may differ by, and less
the hour by which moments without a time zone are wrong in one night of the year."""
GIVE_UP_AFTER_S = 24 * 60 * 60.0
"""Emails that fail for so long, for a fault of their own request, are given up."""
LONGEST_RETRY_S = 600.0
LONGEST_PAUSE_S = 60.0
"""What the pauses of an account grow to while the service is down: its end is noticed soon."""
QUOTA_RETRY_S = 900.0
"""Truncus does not say when a quota is free again; asking seldom costs little."""
LONGEST_WAIT_S = 3600.0
"""What asks for a longer wait is asked again after this."""
FAILURES_TO_PAUSE = 2
"""After so many requests in a row without success, the service is down, not the emails bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """What is known of a batch when a decision is due.

    Attributes:
        failures: requests in a row that had failed before.
        was_ambiguous: whether an earlier request may have been accepted.
        failing_s: seconds since the first of its failures in a row that count towards giving up.
        size: how many emails are in it.
        account_failures: requests of the account in a row that failed for no fault of the emails.
    """

    failures: int = 0
    was_ambiguous: bool = False
    failing_s: float = 0.0
    size: int = 1
    account_failures: int = 0


class RetryAction(Enum):
    """What becomes of a batch whose request failed."""

    RETRY = auto()
    SPLIT = auto()
    """In parts, each a request of its own: nothing of it was accepted."""
    FAIL = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """What follows from a failed request.

    Attributes:
        wait_s: seconds until the next try.
        pause_s: seconds for which the account makes no request at all.
        is_ambiguous: whether any request of the batch may have been accepted.
        is_account_failure: whether the fault is not with the emails.
        counts_towards_giving_up: whether the batch fails for good if it goes on like this for long
            enough: not for a quota, nor while the account is stopped.
    """

    action: RetryAction
    wait_s: float = 0.0
    pause_s: float = 0.0
    is_ambiguous: bool = False
    is_account_failure: bool = False
    counts_towards_giving_up: bool = False


_NOT_TRUNCUS = (InvalidAnswer, NotFound)
"""What answers is no Truncus, or not where BASE_URL says: a proxy, a wrong address."""


def after_failure(error: TruncusError, state: BatchState, *, jitter: float) -> RetryDecision:
    """Return what follows from a failed request.

    Args:
        error: why it failed.
        state: of the batch.
        jitter: a random number in [0, 1).
    """
    ambiguous = error.ambiguous or (state.was_ambiguous and not rules_out_acceptance(error))
    if isinstance(error, OutcomeUnknown):
        return RetryDecision(RetryAction.UNKNOWN, is_ambiguous=True)
    if stops_account(error):
        wait_s = account_pause_s(error, failures=state.account_failures, jitter=jitter)
        return RetryDecision(RetryAction.RETRY, wait_s, wait_s, ambiguous, is_account_failure=True)
    if error.retryable or isinstance(error, QuotaExceeded):
        if isinstance(error, MessageError) and not ambiguous and state.size > 1:
            return RetryDecision(RetryAction.SPLIT)  # nobody knows which of them it is about
        never_gives_up = isinstance(error, QuotaExceeded)
        if not ambiguous and not never_gives_up and state.failing_s >= GIVE_UP_AFTER_S:
            return RetryDecision(RetryAction.FAIL)
        wait_s = (
            QUOTA_RETRY_S * (1 + jitter) if never_gives_up else _backoff_s(error, state, jitter)
        )
        is_down = error.is_service_failure and state.account_failures + 1 >= FAILURES_TO_PAUSE
        pause = account_pause_s(error, failures=state.account_failures, jitter=jitter)
        return RetryDecision(
            RetryAction.RETRY,
            wait_s,
            pause if is_down else 0.0,
            ambiguous,
            is_account_failure=error.is_service_failure,
            counts_towards_giving_up=not never_gives_up,
        )
    if ambiguous:
        return RetryDecision(RetryAction.UNKNOWN, is_ambiguous=True)
    return RetryDecision(RetryAction.SPLIT if state.size > 1 else RetryAction.FAIL)


def account_pause_s(error: TruncusError, *, failures: int, jitter: float) -> float:
    """Return for how long an account is paused after a fault that each of its requests would meet.

    Args:
        error: the fault.
        failures: how many requests in a row had failed before.
        jitter: a random number in [0, 1).
    """
    if isinstance(error, QuotaExceeded):
        return min(error.retry_after or QUOTA_RETRY_S, LONGEST_WAIT_S)
    if error.is_misconfiguration or is_not_truncus(error):
        # A person must act; until then, one look now and then.
        return min(LONGEST_RETRY_S, 15.0 * 2.0 ** min(failures, 10))
    pause = pause_s(error, retries=failures, jitter=jitter, longest_s=LONGEST_PAUSE_S)
    return min(pause, LONGEST_WAIT_S)


def is_not_truncus(error: TruncusError) -> bool:
    """Return whether the answer is none that Truncus gives to a send."""
    return isinstance(error, _NOT_TRUNCUS) or type(error) is APIError


def _backoff_s(error: TruncusError, state: BatchState, jitter: float) -> float:
    wait_s = pause_s(error, retries=state.failures, jitter=jitter, longest_s=LONGEST_RETRY_S)
    return min(wait_s, LONGEST_WAIT_S)


def stops_account(error: TruncusError) -> bool:
    """Return whether the account is to make no request for a while.

    After what every request would meet, and also where something else than Truncus answers: the
    outbox is patient, and its emails wait until Truncus does.
    """
    return error.is_account_wide or is_not_truncus(error)
