"""Keys, scopes and domains: who may send what from where."""

import pytest

from .conftest import Client


def refusal(answer):
    body = answer.json()
    return answer.status_code, body.get("code") or body["error"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "MISSING_API_KEY"),
        ("Bearer ", "MISSING_API_KEY"),
        ("Basic dHJfYTpi", "MISSING_API_KEY"),
        ("Bearer sk_live_a", "INVALID_API_KEY"),
    ],
)
def test_request_without_a_valid_key_is_refused(either, authorization, code):
    either.session.headers["Authorization"] = authorization
    is_sdk = either.emulator.options.dialect == "sdk"
    assert refusal(either.send()) == (401, code if is_sdk else "invalid_api_key")


def test_only_named_keys_are_accepted(start):
    emulator = start(dialect="sdk", api_keys={"tr_a": ["send"]}, revoked_keys=["tr_b"]).emulator
    assert Client(emulator, "tr_a").send().status_code == 200
    assert refusal(Client(emulator, "tr_b").send()) == (401, "API_KEY_REVOKED")
    assert refusal(Client(emulator, "tr_c").send()) == (401, "INVALID_API_KEY")


def test_scopes_separate_sending_and_reading(start):
    keys = {"tr_sender": ["send"], "tr_reader": ["read_events"]}
    emulator = start(dialect="sdk", api_keys=keys).emulator
    sender, reader = Client(emulator, "tr_sender"), Client(emulator, "tr_reader")
    message_id = sender.send().json()["message_id"]
    path = f"/api/v1/emails/{message_id}"
    assert refusal(sender.call("GET", path)) == (403, "SCOPE_REQUIRED")
    assert reader.call("GET", path).status_code == 200
    assert refusal(reader.send()) == (403, "SCOPE_REQUIRED")
    assert refusal(reader.call("DELETE", path)) == (403, "SCOPE_REQUIRED")


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        ("new.example", "DOMAIN_NOT_VERIFIED"),
        ("bad.example", "DOMAIN_PAUSED"),
        ("other.example", "DOMAIN_NOT_FOUND"),
    ],
)
@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_domain_that_may_not_send_is_refused(start, dialect, domain, code):
    client = start(
        dialect=dialect,
        verified_domains=["Mail.Example.com"],
        domains={"new.example": "not_verified", "bad.example": "paused"},
    )
    assert client.send().status_code == 200
    answer = client.send(from_=f"a@{domain}")
    if dialect == "sdk":
        assert refusal(answer) == (400, code)
        assert answer.json()["status"] == "blocked"
        assert answer.json()["reason"]
    else:
        assert refusal(answer) == (403, "domain_not_verified")
