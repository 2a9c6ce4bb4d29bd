"""What a refusal means, and what an acceptance says."""

import logging
from unittest.mock import ANY

import pytest

from truncus_django.api.errors import (
    AuthenticationError,
    DomainError,
    EmailRefused,
    QuotaExceeded,
    RateLimited,
    ScopeError,
    ServerError,
)
from truncus_django.api.results import SendResult
from truncus_django.sending.requests import note_acceptance, refusal_of


@pytest.mark.parametrize(("code", "kind", "retryable"), [
    ("MONTHLY_LIMIT_EXCEEDED", QuotaExceeded, False),
    ("WARMUP_CAP_EXCEEDED", QuotaExceeded, False),
    ("RATE_LIMIT_MINUTE", RateLimited, True),
    ("rate_limit_exceeded", RateLimited, True),
    ("transient_failure", ServerError, True),
    ("TRANSIENT_FAILURE", ServerError, True),
    ("API_KEY_REVOKED", AuthenticationError, False),
    ("SCOPE_REQUIRED", ScopeError, False),
    ("DOMAIN_PAUSED", DomainError, False),
    ("domain_not_verified", DomainError, False),
    ("PROVIDER_ERROR", EmailRefused, True),
    ("INVALID_REQUEST", EmailRefused, False),
    ("ALL_RECIPIENTS_SUPPRESSED", EmailRefused, False),
    ("SOMETHING_NEW", EmailRefused, False),
])  # fmt: skip
def test_the_code_of_an_email_means_what_it_means_as_an_answer(code, kind, retryable):
    error = refusal_of(SendResult("failed", code=code, error="In words", attempts=2))
    assert type(error) is kind
    assert (error.code, error.retryable, error.ambiguous) == (code, retryable, False)
    assert (error.attempts, error.status, error.is_from_truncus) == (2, None, True)
    assert error.message == "Truncus failed the email: In words"


@pytest.mark.parametrize(("told", "kind", "code", "message"), [
    ({"reason": "domain_not_verified"}, DomainError, "domain_not_verified", ""),
    ({"reason": "transient_failure"}, ServerError, "transient_failure", ""),
    ({"error": "transient_failure", "reason": "Busy"}, ServerError, "transient_failure", ": Busy"),
    ({"reason": "suppression_list"}, EmailRefused, "suppression_list", ""),
    ({"reason": "invalid_address", "error": "No"}, EmailRefused, "invalid_address", ": No"),
    ({"reason": "In words"}, EmailRefused, None, ": In words"),
    ({"code": "OTHER", "reason": "transient_failure"}, EmailRefused, "OTHER", ANY),
    ({}, EmailRefused, None, ""),
])  # fmt: skip
def test_a_code_is_known_in_the_place_of_words(told, kind, code, message):
    error = refusal_of(SendResult("rejected", **told))
    assert (type(error), error.code) == (kind, code)
    assert message == ANY or error.message == f"Truncus rejected the email{message}"


def test_a_duplicate_of_a_refused_email_is_refused_whatever_its_code():
    result = SendResult("duplicate", email_status="failed", code="rate_limit_exceeded")
    assert type(refusal_of(result)) is EmailRefused


def test_the_failure_of_its_own_request_is_the_error_of_an_email():
    cause = RateLimited("Wait", retry_after=9, retryable=True)
    assert refusal_of(SendResult("failed", code="rate_limit_exceeded", cause=cause)) is cause


@pytest.mark.parametrize(("result", "warning"), [
    (SendResult("sent", message_id="m-1"), None),
    (SendResult("duplicate", message_id="m-1"), None),
    (SendResult("duplicate", original_global_message_id="g-1"), "same content: g-1"),
    (SendResult("sent", message_id="m-1", warnings=("ann@example.org",)), "m-1 with 1 warnings"),
])  # fmt: skip
def test_what_a_sender_may_not_expect_is_logged_as_a_warning(caplog, result, warning):
    with caplog.at_level(logging.WARNING, "truncus_django"):
        note_acceptance(result)
    assert (warning or "") in caplog.text
    assert bool(caplog.records) is (warning is not None)
    assert "ann@" not in caplog.text
