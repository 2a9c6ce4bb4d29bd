"""Errors: which answer means which, what they say, and that they survive a task queue."""

import copy
import inspect
import pickle
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from truncus_django.api import contract, errors
from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.errors import (
    AnswerLost,
    APIError,
    AuthenticationError,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    DomainError,
    EmailRefused,
    Failure,
    InvalidAnswer,
    InvalidRequest,
    MessageError,
    MessagesNotSent,
    NetworkError,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ScopeError,
    SendCancelled,
    ServerError,
    TLSError,
    TruncusError,
    kind_of,
    redacted,
    refusal,
    retry_after_s,
    rules_out_acceptance,
)

NOW = 1_767_225_600.0
CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, TruncusError)
]


def answered(status, body, headers=None) -> APIError:
    return refusal(status, body, headers or {}, now=NOW)


# The table of the contract ------------------------------------------------------------------------

TABLE = [
    # status, code → class, retryable
    (400, "invalid_payload", InvalidRequest, False),
    (400, "invalid_address", InvalidRequest, False),
    (400, "INVALID_REQUEST", InvalidRequest, False),
    (400, "MISSING_IDEMPOTENCY_KEY", InvalidRequest, False),
    (400, "DOMAIN_NOT_FOUND", DomainError, False),
    (404, "DOMAIN_NOT_FOUND", DomainError, False),
    (400, "DOMAIN_NOT_VERIFIED", DomainError, False),
    (400, "DOMAIN_PAUSED", DomainError, False),
    (401, "invalid_api_key", AuthenticationError, False),
    (401, "MISSING_API_KEY", AuthenticationError, False),
    (401, "INVALID_API_KEY", AuthenticationError, False),
    (401, "API_KEY_REVOKED", AuthenticationError, False),
    (403, "domain_not_verified", DomainError, False),
    (403, "SCOPE_REQUIRED", ScopeError, False),
    (403, "DOMAIN_TYPE_MISMATCH", DomainError, False),
    (404, "NOT_FOUND", NotFound, False),
    (409, "NOT_SCHEDULED", Conflict, False),
    (413, "TOO_LARGE", InvalidRequest, False),
    (422, "ALL_RECIPIENTS_SUPPRESSED", EmailRefused, False),
    (429, "rate_limit_exceeded", RateLimited, True),
    (429, "RATE_LIMIT_MINUTE", RateLimited, True),
    (429, "RATE_LIMIT_SECOND", RateLimited, True),
    (429, "MONTHLY_LIMIT_EXCEEDED", QuotaExceeded, False),
    (429, "WARMUP_CAP_EXCEEDED", QuotaExceeded, False),
    (500, "transient_failure", ServerError, True),
    (502, "PROVIDER_ERROR", ServerError, True),
    (503, "SERVICE_UNAVAILABLE", ServerError, True),
    (408, "REQUEST_TIMEOUT", ServerError, True),
    (418, "A_TEAPOT", APIError, False),
    (302, "MOVED_AWAY", InvalidAnswer, False),
]


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), TABLE)
def test_code_in_its_own_field_means(status, code, kind, retryable):
    error = answered(status, {"error": "Told in words", "code": code})
    assert type(error) is kind
    assert (error.code, error.status, error.retryable) == (code, status, retryable)
    assert error.message == "Told in words"


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), TABLE)
def test_code_in_place_of_the_error_means_the_same(status, code, kind, retryable):
    error = answered(status, {"error": code, "message": "Told in words"})
    assert type(error) is kind
    assert (error.code, error.status, error.retryable) == (code, status, retryable)
    assert error.message == "Told in words"


@pytest.mark.parametrize("field", ["error", "message", "reason"])
def test_text_is_found_under_each_of_its_names(field):
    error = answered(400, {field: "Told in words", "code": "INVALID_REQUEST", "status": 400})
    assert error.message == "Told in words"


def test_text_without_a_code_is_enough():
    error = answered(400, {"error": "Told in words"})
    assert (error.code, error.message) == (None, "Told in words")


@pytest.mark.parametrize("body", [{}, {"error": None}, {"code": 5, "message": ["x"]}])
def test_a_body_that_tells_nothing_still_makes_an_error(body):
    assert str(answered(400, body)) == "Truncus refused the request with HTTP 400 (HTTP 400)."


def test_provider_error_tells_that_the_email_was_not_taken():
    body = {"status": "failed", "message_id": "m", "error": "SES", "code": "PROVIDER_ERROR"}
    assert not answered(502, body).ambiguous
    assert answered(500, {"error": "transient_failure"}).ambiguous


@pytest.mark.parametrize(("status", "kind"), [
    (400, InvalidAnswer), (401, AuthenticationError), (403, InvalidAnswer), (404, InvalidAnswer),
    (413, InvalidRequest), (429, RateLimited), (502, ServerError), (504, ServerError),
])  # fmt: skip
def test_an_answer_without_json_is_not_taken_for_the_apis_own_word(status, kind):
    error = answered(status, None)
    assert type(error) is kind
    assert "no JSON" in error.message


# Whose word it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "body", "expected"), [
    (400, {"error": "invalid_payload", "message": "No"}, True),
    (400, {"error": "No", "code": "INVALID_REQUEST"}, True),
    (422, {"status": "blocked", "reason": "No", "code": "INVALID_REQUEST"}, True),
    (429, {"error": "rate_limit_exceeded"}, True),
    (413, {"message": "Request size limit exceeded"}, False),  # as gateways say it
    (413, {}, False),
    (413, {"error": None, "code": 413}, False),
    (413, {"error": "", "code": ""}, False),
    (413, None, False),
    (502, None, False),
])  # fmt: skip
def test_only_a_json_object_with_an_error_is_truncus_own_word(status, body, expected):
    assert answered(status, body).is_from_truncus is expected


@pytest.mark.parametrize(("error", "expected"), [
    (answered(400, {"error": "invalid_payload"}), True),
    (answered(413, {"error": "TOO_LARGE"}), True),
    (answered(422, {"error": "No", "code": "INVALID_REQUEST"}), True),
    (answered(413, None), False),
    (answered(400, {}), False),
    (answered(422, {"error": "No", "code": "ALL_RECIPIENTS_SUPPRESSED"}), False),
    (answered(403, {"error": "domain_not_verified"}), False),
    (answered(429, {"error": "rate_limit_exceeded"}), False),
    (answered(502, {"error": "SES", "code": "PROVIDER_ERROR"}), False),
    (MessageError("Not asked"), False),
    (NetworkError("Lost"), False),
])  # fmt: skip
def test_only_truncus_refusal_of_the_content_rules_out_acceptance(error, expected):
    assert rules_out_acceptance(error) is expected


# Codes without an HTTP status ---------------------------------------------------------------------

DEPENDS_ON_THE_STATUS = (InvalidRequest, EmailRefused, NotFound, Conflict, InvalidAnswer)


@pytest.mark.parametrize(("status", "code", "kind", "retryable"), [
    row for row in TABLE
    if row[2] not in DEPENDS_ON_THE_STATUS and row[2] is not APIError
    and row[1] not in {"PROVIDER_ERROR", "SERVICE_UNAVAILABLE", "REQUEST_TIMEOUT"}
])  # fmt: skip
def test_a_code_alone_means_what_it_means_as_an_answer(status, code, kind, retryable):
    assert kind_of(code) is kind


@pytest.mark.parametrize("code", [
    None, "", "No", "PROVIDER_ERROR", "invalid_address", "suppression_list", "RATE", "NOT_FOUND",
])  # fmt: skip
def test_other_codes_alone_mean_nothing_more(code):
    assert kind_of(code) is None


def test_a_passing_failure_is_known_in_either_case():
    assert kind_of("TRANSIENT_FAILURE") is ServerError


# Whose failure it is ------------------------------------------------------------------------------

ACCOUNT_WIDE, SERVICE, RETRYABLE = "is_account_wide", "is_service_failure", "retryable"
WRONG = "is_misconfiguration"


@pytest.mark.parametrize(("kind", "code", "expected"), [
    (TruncusError, None, set()),
    (ConfigurationError, None, {ACCOUNT_WIDE, WRONG}),
    (MessageError, None, set()),
    (ConnectionFailed, contract.NETWORK_CODE, {ACCOUNT_WIDE, RETRYABLE}),
    (AnswerLost, contract.NETWORK_CODE, {SERVICE, RETRYABLE}),
    (AnswerLost, contract.TIMEOUT_CODE, {SERVICE, RETRYABLE}),
    (TLSError, None, {ACCOUNT_WIDE, WRONG}),
    *[(InvalidRequest, code, set()) for code in sorted(contract.INVALID_REQUEST_CODES)],
    *[(AuthenticationError, code, {ACCOUNT_WIDE, WRONG})
      for code in sorted(contract.AUTHENTICATION_CODES)],
    (ScopeError, contract.SCOPE_CODE, {ACCOUNT_WIDE, WRONG}),
    *[(DomainError, code, set()) for code in sorted(contract.DOMAIN_CODES)],
    (NotFound, "NOT_FOUND", set()),
    (Conflict, "NOT_SCHEDULED", set()),
    (RateLimited, "rate_limit_exceeded", {ACCOUNT_WIDE, RETRYABLE}),
    (RateLimited, "RATE_LIMIT_MINUTE", {ACCOUNT_WIDE, RETRYABLE}),
    (RateLimited, "RATE_LIMIT_SECOND", {ACCOUNT_WIDE, RETRYABLE}),
    (QuotaExceeded, contract.MONTHLY_CODE, {ACCOUNT_WIDE}),
    (QuotaExceeded, contract.WARMUP_CODE, set()),
    (ServerError, contract.TRANSIENT_CODE, {SERVICE, RETRYABLE}),
    (ServerError, contract.PROVIDER_ERROR_CODE, {SERVICE, RETRYABLE}),
    (InvalidAnswer, None, set()),
    (EmailRefused, contract.SUPPRESSED_CODE, set()),
    (EmailRefused, contract.PROVIDER_ERROR_CODE, {RETRYABLE}),
    (APIError, "A_TEAPOT", set()),
    (SendCancelled, None, set()),
])  # fmt: skip
def test_class_and_code_say_whose_failure_it_is(kind, code, expected):
    error = kind("What happened") if kind is SendCancelled else kind("What happened", code=code)
    told = {name for name in (ACCOUNT_WIDE, SERVICE, RETRYABLE, WRONG) if getattr(error, name)}
    assert told == expected


def test_who_raises_an_error_may_know_better_whether_to_repeat_the_request():
    assert InvalidAnswer("Broken", retryable=True).retryable
    assert not ServerError("Down for good", retryable=False).retryable


# How long to wait ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "body", "expected"), [
    (None, {}, None),
    ("30", {}, 30),
    ("0.5", {}, 0.5),
    (None, {"retry_after": 12}, 12),
    (None, {"retry_after": "12"}, 12),
    ("5", {"retry_after": 12}, 12),
    ("15", {"retry_after": 12}, 15),
    (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), {}, 90),
    (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), {}, 0),
    ("soon", {}, None),
    ("-1", {}, None),
    ("nan", {"retry_after": float("inf")}, None),
    ("", {"retry_after": True}, None),
    ("30", None, 30),
])  # fmt: skip
def test_the_longer_of_both_waits_counts(header, body, expected):
    headers = {} if header is None else {contract.RETRY_AFTER_HEADER: header}
    assert retry_after_s(headers, body, now=NOW) == expected


def test_retry_after_is_on_the_error_and_in_its_text():
    error = answered(429, {"error": "rate_limit_exceeded", "message": "Slow down"},
                     {"Retry-After": "30"})  # fmt: skip
    assert error.retry_after == 30
    assert str(error) == "Slow down (rate_limit_exceeded, HTTP 429, retry after 30 s)."


# Texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [
    "ann@example.org", "<ann@example.org>", "Bob <ann.b+c@example.org>", "mailto:ann@example.org",
    '"ann b"@example.org', "ann@[127.0.0.1]", "jürgen@exämple.org", "tr_live_" + "0" * 64,
])  # fmt: skip
def test_texts_of_the_api_are_freed_of_addresses_and_keys(secret):
    text = str(answered(400, {"error": f"Recipient {secret} is wrong", "code": "INVALID_REQUEST"}))
    assert "ann" not in text.lower()
    assert "@" not in text
    assert "0000" not in text
    assert "is wrong" in text


def test_texts_are_one_line_and_not_endless():
    assert redacted("a\r\nb\tc") == "a b c"
    assert len(redacted("word " * 1000)) <= 301


def test_what_a_terminal_obeys_and_no_encoding_has_is_replaced():
    assert redacted("\x1b[31mred \ud800 a\x00b é") == "�[31mred � a�b é"


@pytest.mark.parametrize(("status", "code", "hint"), [
    (401, "invalid_api_key", "TRUNCUS_API_KEY"),
    (401, "MISSING_API_KEY", "TRUNCUS_API_KEY"),
    (401, "INVALID_API_KEY", "TRUNCUS_API_KEY"),
    (401, "API_KEY_REVOKED", "new API key"),
    (403, "SCOPE_REQUIRED", "read_events"),
    (403, "domain_not_verified", "DEFAULT_FROM_EMAIL"),
    (400, "DOMAIN_NOT_VERIFIED", "DNS"),
    (400, "DOMAIN_NOT_FOUND", "DEFAULT_FROM_EMAIL"),
    (400, "DOMAIN_PAUSED", "dashboard"),
    (403, "DOMAIN_TYPE_MISMATCH", "transactional"),
    (429, "MONTHLY_LIMIT_EXCEEDED", "plan"),
    (429, "WARMUP_CAP_EXCEEDED", "warming up"),
    (422, "ALL_RECIPIENTS_SUPPRESSED", "do not retry"),
])  # fmt: skip
def test_error_says_what_to_do(status, code, hint):
    error = answered(status, {"error": "No", "code": code})
    assert hint in (error.hint or "")
    assert hint in str(error)


def test_hints_say_where_a_project_keeps_what_is_to_be_corrected(monkeypatch):
    monkeypatch.setattr(errors, "_HINTS", dict(errors._HINTS))
    errors.set_hints({"API_KEY_REVOKED": "Ask the office."})
    assert str(answered(401, {"error": "No", "code": "API_KEY_REVOKED"})).endswith(
        "Ask the office."
    )


def test_ambiguous_error_says_how_to_go_on():
    assert "cannot send it twice" in str(TruncusError("Lost", ambiguous=True))
    assert "cannot send it twice" not in str(TruncusError("Lost"))


def test_unknown_outcome_is_ambiguous_and_promises_nothing_more():
    error = OutcomeUnknown("Find out.")
    assert error.ambiguous
    assert str(error) == "Find out."


# The tree and pickling ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_drawn_in_the_tree_at_the_top_of_the_module(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__doc__


FAILED_SENDS = (MessageError, NetworkError, APIError, OutcomeUnknown, MessagesNotSent)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_failed_send_is_an_os_error_as_smtps_are_and_wrong_settings_are_none(kind):
    assert issubclass(kind, OSError) is issubclass(kind, FAILED_SENDS)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("copied", [
    lambda e: e, lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy,
], ids=["itself", "pickled", "copied", "copied deeply"])  # fmt: skip
def test_every_error_survives_pickling_with_all_attributes(kind, copied):
    error = kind("What happened")
    error.__dict__ |= {
        "code": "DOMAIN_PAUSED", "status": 400, "retry_after": 1.5, "request_id": "r",
        "retryable": True, "ambiguous": True, "attempts": 3, "is_from_truncus": True,
        "wire_format": WireFormat(Capabilities(html_required=True), is_pinned=False),
    }  # fmt: skip
    again = copied(error)
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert str(again) == str(error)
    assert "What happened" in str(again)
    assert again.args == error.args == ("What happened",)
    assert getattr(again, "errno", None) is None
    assert getattr(again, "strerror", None) is None
    assert getattr(again, "filename", None) is None


def test_messages_not_sent_survives_pickling_with_its_failures_but_without_their_emails():
    cause = RateLimited("Wait", retry_after=9, retryable=True)
    error = MessagesNotSent("1 of 2", failures=[Failure(1, cause, message=object())], accepted=1)
    again = pickle.loads(pickle.dumps(error))
    (failure,) = again.failures
    assert (again.accepted, failure.index, failure.message) == (1, 1, None)
    assert isinstance(failure.error, RateLimited)
    assert failure.error.retry_after == 9
    assert again.retryable


def test_messages_not_sent_groups_equal_reasons():
    failures = [Failure(index, MessageError("Empty.")) for index in range(3)]
    error = MessagesNotSent("4 of 9 emails were not sent.", failures=[
        *failures, Failure(7, EmailRefused("Blocked.")),
    ])  # fmt: skip
    assert str(error) == "4 of 9 emails were not sent. 3 × Empty. · 1 × Blocked."
    assert [failure.index for failure in error] == [0, 1, 2, 7]


def test_messages_not_sent_shows_no_more_than_five_reasons():
    failures = [Failure(index, MessageError(f"Reason {index}")) for index in range(8)]
    assert str(MessagesNotSent("8.", failures=failures)).endswith("and 3 other reasons")


def test_messages_not_sent_is_ambiguous_if_one_of_them_is():
    sure, unsure = MessageError("No"), NetworkError("Lost", ambiguous=True)
    assert not MessagesNotSent("", failures=[Failure(0, sure)]).ambiguous
    assert MessagesNotSent("", failures=[Failure(0, sure), Failure(1, unsure)]).ambiguous


def test_representation_of_a_failure_shows_no_email():
    assert "secret" not in repr(Failure(0, MessageError("No"), message="secret"))


def test_cancelling_needs_no_words():
    assert "pre_send" in str(SendCancelled())


def test_the_reset_of_a_limit_is_waited_for_where_nothing_else_is_told():
    headers = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1042"}
    assert retry_after_s(headers, None, now=1000.0) == 42
    assert retry_after_s(headers | {"Retry-After": "7"}, None, now=1000.0) == 7
