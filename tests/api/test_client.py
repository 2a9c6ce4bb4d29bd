"""The client: one method for each endpoint."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest
import requests

from tests.api.conftest import EMAIL
from tests.conftest import API_KEY
from truncus_django.api import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    AuthenticationError,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    InvalidAnswer,
    MessageError,
    MessageTooLarge,
    NotFound,
    RateLimited,
    ServerError,
)

# Sending ------------------------------------------------------------------------------------------


def test_send_posts_the_email_as_json_with_key_and_authorization(client, truncus):
    client.send(EMAIL, idempotency_key="order-42")
    request = truncus.last
    assert (request.method, request.path) == ("POST", "/api/v1/emails/send")
    assert request.body == EMAIL
    assert request.headers["Authorization"] == f"Bearer {API_KEY}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == "order-42"


def test_every_send_has_an_idempotency_key_of_its_own(client, truncus):
    client.send(EMAIL)
    client.send(EMAIL)
    assert len(set(truncus.keys)) == 2


def test_every_documented_field_goes_on_the_wire_as_it_is(client, truncus):
    email = EMAIL | {
        "html": "<p>Hello</p>",
        "reply_to": "help@example.com",
        "headers": {"X-Order": "42"},
        "cc": ["bob@example.org"],
        "bcc": ["eve@example.org"],
        "metadata": {"order": "42"},
        "tenant_id": "acme",
        "send_at": "2030-01-01T00:00:00Z",
        "track_opens": False,
        "track_clicks": True,
        "attachments": [{"filename": "a.txt", "content": "YQ==", "content_type": "text/plain"}],
        "template_id": "welcome",
        "variables": {"name": "Änn"},
    }
    client.send(email)
    assert truncus.last.body == email


def test_fields_that_are_none_are_left_out(client, truncus):
    client.send(EMAIL | {"html": None, "cc": None})
    client.send_batch([EMAIL | {"html": None}], idempotency_key="k")
    assert truncus.seen[0].body == EMAIL
    assert truncus.seen[1].emails == [EMAIL]


@pytest.mark.parametrize(("client_sandbox", "call", "header"), [
    (False, None, None),
    (True, None, "true"),
    (False, True, "true"),
    (True, False, None),
])  # fmt: skip
def test_sandbox_header_follows_the_call_then_the_client(truncus, client_sandbox, call, header):
    TruncusClient(API_KEY, sandbox=client_sandbox).send(EMAIL, sandbox=call)
    assert truncus.last.headers.get("X-Truncus-Sandbox") == header


def test_monthly_quota_comes_back_from_the_headers(client, truncus):
    quota = {"X-Monthly-Limit": "3000", "X-Monthly-Sent": "12", "X-Monthly-Remaining": "2988"}
    truncus.answers(200, {"status": "sent", "message_id": "m"}, quota)
    result = client.send(EMAIL)
    assert result.quota is not None
    assert (result.quota.limit, result.quota.sent, result.quota.remaining) == (3000, 12, 2988)


@pytest.mark.parametrize("key", ["line\nbreak", " padded ", "ünïcode", "x" * 256])
def test_impossible_idempotency_keys_are_refused_before_any_request(client, truncus, key):
    with pytest.raises(MessageError, match="idempotency key"):
        client.send(EMAIL, idempotency_key=key)
    assert truncus.seen == []


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800"])
def test_what_json_cannot_carry_is_an_error_of_the_message(client, truncus, value):
    with pytest.raises(MessageError):
        client.send(EMAIL | {"metadata": {"bad": value}})
    assert truncus.seen == []


def test_an_answer_without_a_status_leaves_the_send_ambiguous(client, truncus):
    truncus.answers(200, {"hello": "world"})
    with pytest.raises(InvalidAnswer) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous


# Batches ------------------------------------------------------------------------------------------


def test_batch_is_one_request_and_tells_of_each_email(client, truncus):
    batch = client.send_batch([EMAIL, EMAIL], idempotency_key="k")
    assert truncus.last.path == "/api/v1/emails/batch"
    assert truncus.last.body == {"emails": [EMAIL, EMAIL]}
    assert [result.message_id for result in batch.results] == ["id-1-0", "id-1-1"]
    assert batch.count("sent") == 2


@pytest.mark.parametrize("size", [0, 101])
def test_batches_hold_1_to_100_emails(client, truncus, size):
    with pytest.raises(MessageTooLarge):
        client.send_batch([EMAIL] * size, idempotency_key="k")
    assert truncus.seen == []


def test_batch_of_100_is_taken(client):
    assert len(client.send_batch([EMAIL] * 100, idempotency_key="k").results) == 100


# The other endpoints ------------------------------------------------------------------------------


def test_validate_sends_only_its_five_fields_and_no_key(client, truncus):
    truncus.answers(200, {
        "valid": True, "confidence_score": 0.9, "checks": {"mx": True}, "warnings": ["new domain"],
        "recommendation": "send_with_caution",
    })  # fmt: skip
    validation = client.validate(EMAIL | {"html": "<p>", "cc": ["x@example.org"], "metadata": {}})
    assert truncus.last.path == "/api/v1/emails/validate"
    assert truncus.last.body == EMAIL | {"html": "<p>"}
    assert "Idempotency-Key" not in truncus.last.headers
    assert validation.is_valid
    assert validation.recommendation == "send_with_caution"
    assert validation.warnings == ("new domain",)


def test_get_email_tells_when_truncus_answered(client, truncus):
    date = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}
    truncus.answers(200, {"id": "m-1", "status": "delivered"}, headers=date)
    assert client.get_email("m-1").answered_at == datetime(2026, 1, 1, tzinfo=UTC)

    truncus.answers(200, {"id": "m-1", "status": "delivered"})
    assert client.get_email("m-1").answered_at is None


def test_get_email_reads_one_email(client, truncus):
    truncus.answers(200, {"id": "m-1", "status": "delivered"})
    assert client.get_email("m-1").status == "delivered"
    assert (truncus.last.method, truncus.last.path) == ("GET", "/api/v1/emails/m-1")


def test_ids_are_quoted_so_that_they_stay_one_part_of_the_path(client, truncus):
    truncus.answers(200, {"id": "x", "status": "sent"})
    client.get_email("../events?x=1")
    assert truncus.last.path == "/api/v1/emails/..%2Fevents%3Fx%3D1"
    with pytest.raises(MessageError):
        client.get_email("..")


def test_cancel_deletes_a_scheduled_email(client, truncus):
    truncus.answers(200, {"id": "m-1", "status": "cancelled"})
    assert client.cancel("m-1").status == "cancelled"
    assert (truncus.last.method, truncus.last.path) == ("DELETE", "/api/v1/emails/m-1")


def test_cancelling_what_is_not_scheduled_is_a_conflict(client, truncus):
    truncus.answers(409, {"error": "Email is not scheduled", "code": "INVALID_STATE"})
    with pytest.raises(Conflict):
        client.cancel("m-1")


def test_list_events_asks_by_message_id(client, truncus):
    truncus.answers(200, {"events": [
        {"event_id": "e-1", "message_id": "m&1", "status": "bounced", "timestamp": 1767225600},
    ]})  # fmt: skip
    (event,) = client.list_events("m&1")
    assert truncus.last.path == "/api/v1/events?message_id=m%261"
    assert event.timestamp == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("call", "path"), [
    ("replay_event", "/api/v1/events/x-1/replay"),
    ("replay_message", "/api/v1/messages/x-1/replay"),
])  # fmt: skip
def test_replays_ask_for_webhooks_again(client, truncus, call, path):
    truncus.answers(200, {"replayed": True, "message_id": "m-1", "event_id": "e-1",
                          "dispatched_at": "2026-01-01T00:00:00Z"})  # fmt: skip
    replay = getattr(client, call)("x-1")
    assert (truncus.last.method, truncus.last.path) == ("POST", path)
    assert replay.is_replayed
    assert replay.dispatched_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_unknown_id_is_not_found(client, truncus):
    truncus.answers(404, {"error": "Email not found", "code": "NOT_FOUND"})
    with pytest.raises(NotFound):
        client.get_email("nobody")


def test_a_lost_answer_to_a_question_is_not_told_as_an_ambiguous_send(client, truncus):
    truncus.loses_the_answer(times=4)
    with pytest.raises(AnswerLost) as caught:
        client.get_email("m-1")
    assert not caught.value.ambiguous
    assert "accepted" not in str(caught.value)


# check() ------------------------------------------------------------------------------------------


def test_check_creates_no_email_and_tells_the_latency(client, truncus):
    truncus.always_answers(200, {"valid": False})
    check = client.check()
    assert {seen.path for seen in truncus.seen} == {"/api/v1/emails/validate"}
    assert check.latency_s >= 0
    assert check.base_url == "https://truncus.co"


@pytest.mark.parametrize(("status", "code"), [
    (400, "INVALID_REQUEST"), (400, "DOMAIN_NOT_FOUND"), (403, "SCOPE_REQUIRED"),
    (403, "domain_not_verified"), (404, "DOMAIN_NOT_FOUND"), (422, "ALL_RECIPIENTS_SUPPRESSED"),
])  # fmt: skip
def test_check_takes_a_refused_content_as_proof_of_the_key(client, truncus, status, code):
    truncus.always_answers(status, {"error": "No", "code": code})
    assert client.check()


@pytest.mark.parametrize("status", [404, 405])
def test_check_works_where_there_is_no_validation(client, truncus, status):
    def answer(seen):
        missing = status if seen.path.endswith("validate") else 404
        return missing, {}, b'{"error": "Not found"}'

    truncus._always = answer
    assert client.check()
    assert truncus.last.path == "/api/v1/emails/check"


def test_check_raises_for_a_wrong_key(client, truncus):
    truncus.always_answers(401, {"error": "Invalid API key", "code": "INVALID_API_KEY"})
    with pytest.raises(AuthenticationError):
        client.check()


def test_check_raises_for_a_wrong_key_also_where_there_is_no_validation(client, truncus):
    truncus.answers(404, {"error": "Not found"})
    truncus.answers(401, {"error": "invalid_api_key", "message": "No"})
    with pytest.raises(AuthenticationError):
        client.check()


@pytest.mark.parametrize("status", [400, 403, 404])
def test_check_is_not_fooled_by_another_web_server(client, truncus, status):
    truncus.always_answers(status, "<html>nginx</html>")
    with pytest.raises(InvalidAnswer, match="BASE_URL"):
        client.check()


def test_check_raises_where_nothing_is_reachable(client, truncus):
    truncus.breaks(requests.exceptions.ConnectTimeout(), times=4)
    with pytest.raises(ConnectionFailed):
        client.check()


def test_check_does_not_prove_a_key_by_a_server_error_or_a_limit(client, truncus):
    truncus.always_answers(500, {"error": "transient_failure"})
    with pytest.raises(ServerError):
        client.check()
    truncus.always_answers(429, {"error": "rate_limit_exceeded"}, **{"Retry-After": "999"})
    with pytest.raises(RateLimited):
        client.check()


# Setting up ---------------------------------------------------------------------------------------


def test_from_env_reads_all_variables(truncus):
    client = TruncusClient.from_env({
        "TRUNCUS_API_KEY": API_KEY,
        "TRUNCUS_BASE_URL": "http://mail.internal:8080/",
        "TRUNCUS_PLAIN_HTTP_HOSTS": "other, mail.internal",
        "TRUNCUS_SANDBOX": "true",
        "TRUNCUS_TIMEOUT": "2.5",
        "TRUNCUS_MAX_RETRIES": "1",
        "TRUNCUS_RETRY_BUDGET": "7",
        "TRUNCUS_DIALECT": "sdk",
    })  # fmt: skip
    client.send(EMAIL | {"to": ["a@example.org", "b@example.org"]})
    request = truncus.last
    assert request.path == "http://mail.internal:8080/api/v1/emails/send"
    assert request.headers["X-Truncus-Sandbox"] == "true"
    assert request.kwargs["timeout"] == (2.5, 2.5)
    assert request.body["cc"] == ["b@example.org"]
    assert client._transport.policy.max_retries == 1
    assert client._transport.policy.budget_s == 7


def test_from_env_needs_no_more_than_the_key():
    assert "https://truncus.co" in repr(TruncusClient.from_env({"TRUNCUS_API_KEY": API_KEY}))


def test_from_env_takes_an_empty_variable_as_none():
    environ = {"TRUNCUS_API_KEY": API_KEY, "TRUNCUS_BASE_URL": "", "TRUNCUS_DIALECT": ""}
    assert "https://truncus.co" in repr(TruncusClient.from_env(environ))


@pytest.mark.parametrize(("name", "value"), [
    ("TRUNCUS_API_KEY", ""), ("TRUNCUS_API_KEY", "sk_123"),
    ("TRUNCUS_TIMEOUT", "soon"), ("TRUNCUS_TIMEOUT", "0"), ("TRUNCUS_TIMEOUT", "-1"),
    ("TRUNCUS_MAX_RETRIES", "nan"), ("TRUNCUS_RETRY_BUDGET", "inf"),
    ("TRUNCUS_SANDBOX", "maybe"), ("TRUNCUS_DIALECT", "klingon"),
    ("TRUNCUS_BASE_URL", "http://truncus.co"),
])  # fmt: skip
def test_from_env_refuses_wrong_values(name, value):
    with pytest.raises(ConfigurationError):
        TruncusClient.from_env({"TRUNCUS_API_KEY": API_KEY, name: value})


def test_repr_shows_the_host_and_never_the_key():
    text = repr(TruncusClient(API_KEY, sandbox=True))
    assert text == "<TruncusClient https://truncus.co, sandbox=True>"


def test_client_sends_without_ever_importing_django(emulator):
    program = """
import sys
sys.modules["django"] = None  # importing it would fail
from truncus_django.api import TruncusClient, TruncusError
client = TruncusClient.from_env()
email = {"from": "a@example.com", "to": "b@example.org", "subject": "Hi", "text": "Hello"}
print(client.send(email).status)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"TRUNCUS_API_KEY": API_KEY, "TRUNCUS_BASE_URL": emulator.url},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("delivered\n", "")


def test_package_tells_of_names_it_does_not_have():
    import truncus_django.api

    with pytest.raises(AttributeError, match="Klient"):
        truncus_django.api.Klient  # noqa: B018


def test_a_cancellation_whose_answer_was_lost_is_found_to_have_worked(truncus, client):
    truncus.loses_the_answer()
    truncus.answers(409, {"error": "not_scheduled", "message": "It is cancelled"})
    truncus.answers(200, {"id": "id-1", "status": "cancelled"})

    assert client.cancel("id-1").status == "cancelled"


def test_a_conflict_after_a_lost_answer_stays_one_if_the_email_was_sent(truncus, client):
    truncus.loses_the_answer()
    truncus.answers(409, {"error": "not_scheduled", "message": "It is sent"})
    truncus.answers(200, {"id": "id-1", "status": "delivered"})

    with pytest.raises(Conflict):
        client.cancel("id-1")
