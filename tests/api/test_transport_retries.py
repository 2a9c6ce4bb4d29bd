"""Which requests are made again, after which wait, and what is known when all have failed."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from tests.api.conftest import EMAIL
from tests.conftest import API_KEY
from truncus_django.api import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    APIError,
    AuthenticationError,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    ServerError,
)
from truncus_django.api.transport import Transport

NOW = 1_767_225_600.0


def test_lost_answer_is_retried_under_the_same_key(client, truncus, naps):
    truncus.loses_the_answer()
    result = client.send(EMAIL)
    assert result.attempts == 2
    assert truncus.keys[0] == truncus.keys[1]
    assert truncus.seen[0].body == truncus.seen[1].body
    assert naps == [0.25]


@pytest.mark.parametrize("ask", [
    lambda client: client.get_email("m-1"), lambda client: client.validate(EMAIL),
    lambda client: client.cancel("m-1"),
])  # fmt: skip
def test_a_lost_answer_to_what_sends_nothing_is_not_ambiguous(client, truncus, ask):
    truncus.loses_the_answer(times=4)
    with pytest.raises(AnswerLost) as caught:
        ask(client)
    assert caught.value.attempts == 4
    assert not caught.value.ambiguous


@pytest.mark.parametrize(("status", "body"), [
    (408, {"error": "Timeout", "code": "TIMEOUT"}),
    (429, {"error": "rate_limit_exceeded", "message": "Slow down", "retry_after": 1}),
    (429, {"error": "Slow down", "code": "RATE_LIMIT_MINUTE"}),
    (500, {"error": "transient_failure", "message": "Try again"}),
    (502, {"status": "failed", "message_id": "m", "error": "SES", "code": "PROVIDER_ERROR"}),
    (502, "<html>Bad gateway</html>"),
    (503, ""),
    (200, '{"status": "sent", "message'),
    (200, "<html>Welcome</html>"),
])  # fmt: skip
def test_what_may_pass_is_tried_again_under_the_same_key(client, truncus, status, body):
    truncus.answers(status, body)
    assert client.send(EMAIL).status == "sent"
    assert len(truncus.seen) == 2
    assert len(set(truncus.keys)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 301])
def test_what_is_refused_is_not_tried_again(client, truncus, naps, status):
    truncus.always_answers(status, {"error": "No"})
    with pytest.raises(APIError, match=f"HTTP {status}"):
        client.send(EMAIL)
    assert len(truncus.seen) == 1
    assert naps == []


def test_backoff_doubles_until_the_retries_are_used_up(client, truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})
    with pytest.raises(ServerError) as caught:
        client.send(EMAIL)
    assert naps == [0.25, 0.5, 1.0]
    assert caught.value.attempts == 4


def test_retry_after_in_seconds_is_waited(client, truncus, naps):
    truncus.answers(429, {"error": "Slow down", "code": "RATE_LIMIT_MINUTE"}, {"Retry-After": "7"})
    client.send(EMAIL)
    assert naps == [pytest.approx(7, abs=0.1)]


def test_retry_after_as_a_date_is_waited(truncus):
    slept: list[float] = []
    transport = Transport("https://truncus.co", sleep=slept.append, jitter=lambda: 0.0,
                          clock=lambda: NOW)  # fmt: skip
    moment = format_datetime(datetime.fromtimestamp(NOW + 9, UTC), usegmt=True)
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": moment})
    TruncusClient(API_KEY, transport=transport).send(EMAIL)
    assert slept == [9]


def test_retry_after_in_the_body_is_waited(client, truncus, naps):
    truncus.answers(429, {"error": "rate_limit_exceeded", "message": "Wait", "retry_after": 4})
    client.send(EMAIL)
    assert naps == [pytest.approx(4, abs=0.1)]


@pytest.mark.parametrize("asked", [{"Retry-After": "31"}, {"Retry-After": "86400"}])
def test_more_than_the_budget_is_raised_at_once(client, truncus, naps, asked):
    truncus.answers(429, {"error": "rate_limit_exceeded"}, asked)
    with pytest.raises(RateLimited) as caught:
        client.send(EMAIL)
    assert caught.value.retry_after == float(asked["Retry-After"])
    assert caught.value.retryable
    assert naps == []


def test_budget_is_of_all_waiting_together(client, truncus, naps):
    truncus.always_answers(429, {"error": "rate_limit_exceeded"}, **{"Retry-After": "14"})
    with pytest.raises(RateLimited):
        client.send(EMAIL)
    assert len(naps) == 2


@pytest.mark.parametrize("code", ["MONTHLY_LIMIT_EXCEEDED", "WARMUP_CAP_EXCEEDED"])
def test_quotas_are_not_retried_in_the_call(client, truncus, naps, code):
    truncus.answers(429, {"error": "Used up", "code": code}, {"Retry-After": "1"})
    with pytest.raises(QuotaExceeded):
        client.send(EMAIL)
    assert len(truncus.seen) == 1
    assert naps == []


def test_ctrl_c_is_not_swallowed(client, truncus):
    truncus.breaks(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        client.send(EMAIL)
    assert len(truncus.seen) == 1


def test_log_of_a_retry_carries_no_address_and_no_key(client, truncus, caplog):
    caplog.set_level("DEBUG", logger="truncus_django")
    truncus.answers(500, {"error": "transient_failure", "message": "ann@example.org failed"})
    client.send(EMAIL)
    (record,) = caplog.records
    assert "retry 1 of 3" in record.message
    assert "@" not in caplog.text
    assert API_KEY not in caplog.text


# What is known when it ends -----------------------------------------------------------------------


def test_lost_answers_leave_the_send_ambiguous(client, truncus):
    truncus.loses_the_answer(times=4)
    with pytest.raises(AnswerLost) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous
    assert caught.value.code == "TIMEOUT"


def test_a_send_stays_ambiguous_where_the_retries_met_a_limit(client, truncus):
    truncus.loses_the_answer()
    truncus.always_answers(429, {"error": "rate_limit_exceeded"})
    with pytest.raises(RateLimited) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous


def test_a_send_is_not_ambiguous_where_the_content_is_refused(client, truncus):
    truncus.loses_the_answer()
    truncus.answers(400, {"error": "invalid_payload", "message": "No"})
    with pytest.raises(InvalidRequest) as caught:
        client.send(EMAIL)
    assert not caught.value.ambiguous


@pytest.mark.parametrize("body", [
    "<html>Request Entity Too Large</html>", {"message": "Request size limit exceeded"}, [], "{",
])  # fmt: skip
def test_a_send_stays_ambiguous_where_a_proxy_refuses_the_size(client, truncus, body):
    truncus.loses_the_answer()
    truncus.answers(413, body or "[]")
    with pytest.raises(InvalidRequest) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous


@pytest.mark.parametrize(("status", "body", "ambiguous"), [
    (500, {"error": "transient_failure"}, True),
    (502, "<html>", True),
    (502, {"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"}, False),
    (429, {"error": "rate_limit_exceeded"}, False),
    (200, "{", True),
])  # fmt: skip
def test_errors_tell_whether_the_email_may_have_been_accepted(truncus, status, body, ambiguous):
    truncus.answers(status, body)
    with pytest.raises(APIError) as caught:
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)
    assert caught.value.ambiguous is ambiguous


def test_html_502_is_a_server_error_that_says_so(truncus):
    truncus.answers(502, "<html>Bad gateway</html>")
    with pytest.raises(ServerError, match=r"no JSON.*HTTP 502"):
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)


def test_request_id_is_kept_on_the_error(client, truncus):
    truncus.answers(401, {"error": "invalid_api_key"}, {"X-Request-Id": "req-7"})
    with pytest.raises(AuthenticationError) as caught:
        client.send(EMAIL)
    assert caught.value.request_id == "req-7"
    assert "req-7" in str(caught.value)
