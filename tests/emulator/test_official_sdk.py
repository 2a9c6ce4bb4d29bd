"""The vendor's own Python client, call by call, against the emulator."""

import dataclasses
import time

import pytest
from truncus import EmailDetails, Truncus, TruncusError

from .conftest import API_KEY, an_email

SEND = {"to": "ada@example.com", "from_": "a@mail.example.com", "subject": "Hi", "html": "<p>Hi"}


def official(client, **options):
    made = Truncus(API_KEY, base_url=client.emulator.url, **options)
    made._session.trust_env = False
    return made


@pytest.fixture
def truncus(sdk):
    return official(sdk)


def test_sent(truncus, sdk):
    result = truncus.send(**SEND, cc=["bob@example.com"], metadata={"order": "1"}, text="Hi")
    assert (result.status, result.id) == ("sent", sdk.emulator.emails[0].id)
    assert result.provider_message_id.startswith("ses-")


def test_idempotency_replay(truncus, sdk):
    first = truncus.send(**SEND, idempotency_key="order-1")
    again = truncus.send(**SEND, idempotency_key="order-1")
    assert (again.status, again.id) == ("duplicate", first.id)
    assert sdk.emulator.accepted == 1


@pytest.mark.parametrize("copies", [None, ["bob@example.com"]])
def test_suppressed(truncus, copies):
    result = truncus.send(**{**SEND, "to": "suppressed@example.com"}, cc=copies)
    assert result.status == "blocked"
    assert result.id


def test_content_dedup(start):
    truncus = official(start(dialect="sdk", dedup_window_s=60))
    truncus.send(**SEND)
    again = truncus.send(**SEND)
    assert (again.status, again.id) == ("duplicate", None)
    assert again.original_global_message_id.startswith("tr_gmid_")


def test_sandbox(sdk):
    result = official(sdk, sandbox=True).send(**SEND)
    assert result.status == "sent"
    assert result.provider_message_id.startswith("sandbox-")
    assert sdk.emulator.emails[0].sandbox


def test_scheduled(truncus):
    result = truncus.send(**SEND, send_at="2099-10-01T09:00:00Z")
    assert (result.status, result.send_at) == ("scheduled", "2099-10-01T09:00:00.000Z")


def test_queued(truncus):
    assert truncus.send(**{**SEND, "to": "deferred@example.com"}).status == "queued"


def test_attachment(truncus, sdk):
    truncus.send(**SEND, attachments=[{"filename": "a.txt", "content": "aGk="}])
    assert sdk.emulator.emails[0].payload["attachments"][0]["filename"] == "a.txt"


def test_batch(truncus):
    emails = [SEND, {**SEND, "to": "suppressed@example.com"}, {**SEND, "subject": ""}]
    result = truncus.batch(emails, idempotency_key="batch-1")
    counts = (result.total, result.sent, result.queued, result.blocked, result.failed)
    assert counts == (3, 1, 0, 1, 1)
    sent, blocked, failed = result.results
    assert sent.message_id
    assert sent.provider_message_id
    assert blocked.reason == "All recipients are suppressed"
    assert failed.error == "subject must not be empty"
    again = truncus.batch(emails, idempotency_key="batch-1")
    assert again == result


def test_validate(truncus, sdk):
    result = truncus.validate(to="info@example.com", from_="a@x.example", subject="Hi", html="Hi")
    assert result.valid is True
    assert 0 < result.confidence_score <= 1
    assert result.checks["to_address_role_based"] is True
    assert result.warnings == ["Recipient is a role-based address (higher bounce risk)"]
    assert result.recommendation == "safe_to_send"
    assert sdk.emulator.accepted == 0


def test_get_email_has_every_field(start, clock):
    sdk = start(dialect="sdk", clock=clock)
    truncus = official(sdk)
    result = truncus.send(
        to="deferred@example.com",
        from_="a@mail.example.com",
        subject="Hi",
        template_id="tmpl_1",
        variables={"name": "Ada"},
        metadata={"order": "1"},
        send_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now + 60)),
    )
    clock.jump(70)
    email = truncus.get_email(result.id)
    empty = [f.name for f in dataclasses.fields(EmailDetails) if getattr(email, f.name) is None]
    assert empty == []
    assert email.status == "delivered"
    assert [event["type"] for event in email.events] == ["queued", "sent", "delivered"]
    assert None not in email.latency.values()


def test_unauthorized(sdk):
    stranger = Truncus("sk_wrong", base_url=sdk.emulator.url)
    with pytest.raises(TruncusError) as caught:
        stranger.send(**SEND)
    assert (caught.value.code, caught.value.status) == ("INVALID_API_KEY", 401)


def test_domain_error_has_its_reason(start):
    truncus = official(start(dialect="sdk", domains={"mail.example.com": "not_found"}))
    with pytest.raises(TruncusError) as caught:
        truncus.send(**SEND)
    assert (caught.value.code, caught.value.status) == ("DOMAIN_NOT_FOUND", 400)
    assert str(caught.value) == "Sending domain not found or not configured for this project"


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("rate_limit", "RATE_LIMIT_MINUTE", 429),
        ("provider_502", "PROVIDER_ERROR", 502),
        ("html_502", "UNKNOWN_ERROR", 502),
        ("reset_after", "NETWORK_ERROR", 0),
    ],
)
def test_trouble(truncus, sdk, fault, code, status):
    sdk.emulator.faults.next(fault)
    with pytest.raises(TruncusError) as caught:
        truncus.send(**SEND)
    assert (caught.value.code, caught.value.status) == (code, status)


def test_invalid_request(truncus):
    with pytest.raises(TruncusError, match="Either html, react, or template_id is required"):
        truncus.send(to="ada@example.com", from_="a@mail.example.com", subject="Hi", text="Hi")


def test_manual_dialect_serves_the_official_client_too(manual):
    truncus = official(manual)
    result = truncus.send(**SEND, idempotency_key="order-1")
    assert result.status == "delivered"
    assert truncus.send(**SEND, idempotency_key="order-1") == result
    assert truncus.get_email(result.id).status == "delivered"
    assert truncus.batch([SEND], idempotency_key="batch-1").sent == 1
    assert truncus.send(**{**SEND, "to": "bounce@example.com"}).status == "bounced"
    assert official(manual, sandbox=True).send(**SEND).status == "sandbox"
    with pytest.raises(TruncusError) as caught:
        truncus.send(**{**SEND, "subject": ""})
    assert (str(caught.value), caught.value.status) == ("invalid_payload", 400)


def test_client_and_emulator_agree_on_the_payload(truncus, sdk):
    truncus.send(**SEND)
    assert sdk.emulator.emails[0].payload == an_email(
        from_="a@mail.example.com", subject="Hi", html="<p>Hi"
    )
