"""Which errors of Truncus let another mailer send the email."""

import pytest

from truncus_django.api import contract, errors
from truncus_django.api.errors import TruncusError, refusal
from truncus_django.api.results import SendResult
from truncus_django.sending.requests import refusal_of

CODES = {
    "API_KEY_REVOKED": True,
    "INVALID_API_KEY": True,
    "MISSING_API_KEY": True,
    "invalid_api_key": True,
    "SCOPE_REQUIRED": True,
    "MONTHLY_LIMIT_EXCEEDED": True,
    "WARMUP_CAP_EXCEEDED": False,
    "RATE_LIMIT_EXCEEDED": False,
    "invalid_payload": False,
    "invalid_address": False,
    "INVALID_REQUEST": False,
    "MISSING_IDEMPOTENCY_KEY": False,
    "domain_not_verified": False,
    "DOMAIN_NOT_FOUND": False,
    "DOMAIN_NOT_VERIFIED": False,
    "DOMAIN_PAUSED": False,
    "DOMAIN_TYPE_MISMATCH": False,
    "ALL_RECIPIENTS_SUPPRESSED": False,
    "PROVIDER_ERROR": False,
    "transient_failure": False,
}

STATUSES = {
    contract.AUTHENTICATION_CODES: 401,
    contract.DOMAIN_CODES: 403,
    contract.INVALID_REQUEST_CODES: 400,
    frozenset({contract.SCOPE_CODE}): 403,
    contract.QUOTA_CODES | {"RATE_LIMIT_EXCEEDED"}: 429,
    frozenset({contract.SUPPRESSED_CODE}): 422,
    frozenset({contract.PROVIDER_ERROR_CODE}): 502,
    frozenset({contract.TRANSIENT_CODE}): 500,
}


@pytest.mark.parametrize(("code", "allows"), CODES.items())
def test_each_code_says_whether_another_mailer_may_send(code, allows):
    status = next(status for codes, status in STATUSES.items() if code in codes)
    of_request = refusal(status, {"error": "No", "code": code}, {}, now=0.0)
    of_request.attempts = 1
    assert of_request.allows_fallback is allows
    assert refusal_of(SendResult(status="failed", code=code)).allows_fallback is allows
    of_request.ambiguous = True
    assert not of_request.allows_fallback


@pytest.mark.parametrize(("wait_s", "allows"), [(60, False), (86_400, False), (86_401, True)])
def test_the_one_code_of_the_manual_means_the_month_if_it_asks_for_more_than_a_day(wait_s, allows):
    body = {"error": "rate_limit_exceeded", "message": "No", "retry_after": wait_s}
    error = refusal(429, body, {}, now=0.0)
    error.attempts = 1
    assert error.allows_fallback is allows


def test_the_table_has_every_code_of_the_contract():
    assert {code for codes in STATUSES for code in codes} == CODES.keys()


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_each_class_says_whether_another_mailer_may_send(kind):
    if not issubclass(kind, TruncusError):
        return
    error = kind("No")
    error.attempts = 1
    assert error.allows_fallback is (kind.__name__ in {"ConnectionFailed", "TLSError"})


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503])
def test_what_a_proxy_says_allows_nothing(status):
    error = refusal(status, None, {}, now=0.0)
    error.attempts = 1
    assert not error.allows_fallback


@pytest.mark.parametrize("kind", [errors.AnswerLost, errors.ServerError])
def test_a_failure_of_the_service_lets_those_go_that_it_was_not_asked_about(kind):
    error = kind("No", ambiguous=True)
    assert error.is_outage
    error.ambiguous = False
    assert error.allows_fallback
