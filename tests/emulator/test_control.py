"""The control API, as another process uses it."""

import pytest


def control(client, method, name, **options):
    url = f"{client.emulator.url}/_emulator/{name}"
    return client.session.request(method, url, timeout=5, **options)


def test_state_counts_emails_requests_and_connections(manual):
    manual.send()
    manual.send()
    manual.send(subject=None)
    state = control(manual, "GET", "state").json()
    assert (state["accepted"], state["refused"], state["connections"]) == (2, 0, 1)
    assert {"method": "POST", "endpoint": "send", "status": 200, "count": 2} in state["requests"]
    assert {"method": "POST", "endpoint": "send", "status": 400, "count": 1} in state["requests"]
    assert state["options"]["dialect"] == "manual"


def test_emails_are_listed_newest_first(manual):
    for number in range(3):
        manual.send(subject=f"Order {number}")
    listed = control(manual, "GET", "emails?limit=2").json()
    assert listed["total"] == 3
    assert [email["subject"] for email in listed["emails"]] == ["Order 2", "Order 1"]
    found = control(manual, "GET", "emails?q=order+1").json()
    assert [email["payload"]["subject"] for email in found["emails"]] == ["Order 1"]


def test_requests_are_listed_without_the_key(manual):
    manual.send(key="order-1")
    [request] = control(manual, "GET", "requests").json()["requests"]
    assert request["path"] == "/api/v1/emails/send"
    assert request["headers"]["idempotency-key"] == "order-1"
    assert "authorization" not in request["headers"]
    assert request["answer"]["status"] == "delivered"


def test_fault_is_pushed_and_cleared(manual):
    control(manual, "POST", "faults", json={"fault": "error_500", "times": 2})
    assert manual.send().status_code == 500
    assert control(manual, "DELETE", "faults", json={}).json() == {"pending": 0}
    assert manual.send().status_code == 200
    control(manual, "POST", "faults", json={"fault": "error_503", "rate": 1, "path": "send"})
    assert manual.send().status_code == 503


def test_address_is_suppressed_and_released(manual):
    address = {"address": "ada@example.com"}
    control(manual, "POST", "suppressions", json=address)
    assert manual.send().json()["status"] == "rejected"
    control(manual, "DELETE", "suppressions", json=address)
    assert manual.send().json()["status"] == "delivered"


def test_reset_takes_options(manual):
    manual.send()
    assert control(manual, "POST", "reset", json={"dialect": "sdk"}).status_code == 200
    assert manual.emulator.accepted == 0
    assert manual.send().json()["status"] == "sent"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("faults", {"fault": "earthquake"}),
        ("faults", {}),
        ("faults", []),
        ("suppressions", {}),
        ("reset", {"dialect": "klingon"}),
        ("reset", {"no_such": 1}),
    ],
)
def test_wrong_bodies_are_refused(manual, name, body):
    assert control(manual, "POST", name, json=body).status_code == 400


def test_changes_need_json_and_no_other_site(manual):
    assert control(manual, "POST", "reset", data="{}").status_code == 403
    foreign = {"Origin": "https://evil.example"}
    assert control(manual, "POST", "reset", json={}, headers=foreign).status_code == 403
    assert control(manual, "GET", "reset").status_code == 404
