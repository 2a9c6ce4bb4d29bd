"""When to try again, or never: each line of the decision."""

import pytest

from truncus_django.api.errors import (
    AnswerLost,
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    DomainError,
    EmailRefused,
    InvalidAnswer,
    InvalidRequest,
    MessageError,
    MessageTooLarge,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ScopeError,
    ServerError,
    TLSError,
)
from truncus_django.outbox import retry_policy
from truncus_django.outbox.retry_policy import (
    BatchState,
    RetryAction,
    after_failure,
)

DAY_S = 24 * 60 * 60.0

LOST = AnswerLost("lost", retryable=True, ambiguous=True)
FAILED = ServerError("failed", retryable=True)
AMBIGUOUS = ServerError("failed", retryable=True, ambiguous=True)
REFUSED = InvalidRequest("wrong")
REFUSED.is_from_truncus = True


def decision(error, *, jitter=0.5, **state):
    return after_failure(error, BatchState(**state), jitter=jitter)


def test_a_key_is_relied_upon_for_less_than_truncus_keeps_it():
    assert 60 * 60 < DAY_S - retry_policy.KEY_LIFE_S <= 2 * 60 * 60


# After a failure ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LOST, FAILED, AMBIGUOUS])
def test_what_is_safe_to_repeat_is_repeated(error):
    found = decision(error)

    assert found.action is RetryAction.RETRY
    assert found.is_ambiguous is error.ambiguous
    assert found.wait_s == pytest.approx(0.25)  # half of 0.5 · 2⁰


def test_waits_grow_up_to_ten_minutes():
    waits = [decision(FAILED, jitter=0.999, failures=failures).wait_s for failures in range(40)]

    assert waits == sorted(waits)
    assert 599 < max(waits) <= retry_policy.LONGEST_RETRY_S


def test_a_batch_stays_ambiguous_until_the_content_itself_is_refused():
    assert decision(FAILED, was_ambiguous=True).is_ambiguous
    assert decision(AuthenticationError("revoked"), was_ambiguous=True).is_ambiguous
    assert decision(EmailRefused("suppressed"), was_ambiguous=True).action is RetryAction.UNKNOWN
    assert decision(DomainError("paused"), was_ambiguous=True).action is RetryAction.UNKNOWN
    assert decision(REFUSED, was_ambiguous=True).action is RetryAction.FAIL
    assert decision(REFUSED, was_ambiguous=True, size=2).action is RetryAction.SPLIT
    # One that a proxy said, or that no request was made for, proves nothing.
    assert decision(InvalidRequest("413"), was_ambiguous=True, size=2).action is RetryAction.UNKNOWN
    assert (
        decision(MessageTooLarge("large"), was_ambiguous=True, size=2).action is RetryAction.UNKNOWN
    )


@pytest.mark.parametrize(
    "error", [REFUSED, MessageTooLarge("large"), EmailRefused("no"), DomainError("paused")]
)
def test_a_refusal_splits_a_batch_and_fails_one(error):
    assert decision(error, size=100).action is RetryAction.SPLIT
    assert decision(error, size=1).action is RetryAction.FAIL


def test_what_a_bug_keeps_from_being_asked_goes_in_parts_and_an_ambiguous_one_as_it_was():
    bug = MessageError("a bug", retryable=True)

    assert decision(bug, size=100, failing_s=DAY_S).action is RetryAction.SPLIT
    assert decision(bug, size=1).action is RetryAction.RETRY
    assert decision(bug, size=1, failing_s=DAY_S).action is RetryAction.FAIL
    found = decision(bug, size=100, was_ambiguous=True)
    assert (found.action, found.is_ambiguous) == (RetryAction.RETRY, True)
    assert not found.is_account_failure


def test_an_answer_that_tells_nothing_leaves_the_outcome_unknown():
    assert decision(OutcomeUnknown("?")).action is RetryAction.UNKNOWN


def test_what_fails_for_a_day_is_given_up_unless_ambiguous_or_over_quota():
    assert decision(FAILED, failing_s=DAY_S).action is RetryAction.FAIL
    assert decision(FAILED, failing_s=DAY_S - 1).action is RetryAction.RETRY
    # An ambiguous batch ends when its key is of no use any more.
    assert decision(LOST, failing_s=DAY_S).action is RetryAction.RETRY
    assert decision(QuotaExceeded("month"), failing_s=DAY_S).action is RetryAction.RETRY
    assert (
        decision(AuthenticationError("revoked"), failing_s=30 * DAY_S).action is RetryAction.RETRY
    )


# The account ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("revoked"),
        ConfigurationError("no key"),
        ScopeError("read only"),
        TLSError("certificate"),
        ConnectionFailed("no route", retryable=True),
        RateLimited("slowly", retryable=True, retry_after=7),
        QuotaExceeded("month"),
        InvalidAnswer("no JSON", ambiguous=True),
        NotFound("<html>"),
        APIError("a redirect", status=302),
    ],
)
def test_what_every_request_would_meet_stops_the_account(error):
    found = decision(error, size=100)

    assert found.action is RetryAction.RETRY
    assert found.pause_s == found.wait_s
    assert found.pause_s > 0
    assert found.is_account_failure


def test_a_429_says_for_how_long():
    assert 7 <= decision(RateLimited("slowly", retryable=True, retry_after=7)).pause_s < 10
    endless = RateLimited("slowly", retryable=True, retry_after=1e12)
    assert decision(endless).pause_s == retry_policy.LONGEST_WAIT_S


def test_a_domain_that_warms_up_stops_only_its_own_batch():
    found = decision(QuotaExceeded("today", code="WARMUP_CAP_EXCEEDED"))

    assert found.action is RetryAction.RETRY
    assert found.pause_s == 0
    assert found.wait_s >= retry_policy.QUOTA_RETRY_S


def test_one_failure_is_the_requests_and_two_in_a_row_are_the_services():
    assert decision(FAILED, account_failures=0).pause_s == 0
    assert decision(FAILED, account_failures=1).pause_s > 0
    assert decision(FAILED).is_account_failure
    assert decision(LOST).is_account_failure
    assert not decision(REFUSED).is_account_failure


def test_what_a_person_must_mend_is_looked_at_ever_more_seldom():
    error = AuthenticationError("revoked")
    pauses = [decision(error, account_failures=failures).pause_s for failures in range(10)]

    assert pauses[0] == 15
    assert pauses == sorted(pauses)
    assert pauses[-1] == retry_policy.LONGEST_RETRY_S
