"""The emulator as a Python object: what it counts and shows, and what can be changed."""

import pytest


def test_it_counts_emails_requests_and_connections(manual):
    manual.send()
    manual.send()
    manual.send(subject=None)
    emulator = manual.emulator
    assert (emulator.accepted, len(emulator.refused_emails), emulator.connections) == (2, 0, 1)
    assert emulator.request_counts == {("POST", "send", 200): 2, ("POST", "send", 400): 1}


def test_requests_are_shown_without_the_key(manual):
    manual.send(key="order-1")
    [request] = manual.emulator.requests
    assert request.path == "/api/v1/emails/send"
    assert request.headers["idempotency-key"] == "order-1"
    assert "authorization" not in request.headers
    assert request.answer["status"] == "delivered"


def test_faults_are_cleared(manual):
    manual.emulator.faults.next("error_500", times=2)
    assert manual.send().status_code == 500
    manual.emulator.faults.clear()
    assert manual.send().status_code == 200
    manual.emulator.faults.rate("error_503", 1, path="send")
    assert manual.send().status_code == 503


def test_address_is_suppressed_and_released(manual):
    manual.emulator.suppress("ada@example.com")
    assert manual.send().json()["status"] == "rejected"
    manual.emulator.unsuppress("ada@example.com")
    assert manual.send().json()["status"] == "delivered"


def test_reset_takes_options(manual):
    manual.send()
    manual.emulator.reset(dialect="sdk")
    assert manual.emulator.accepted == 0
    assert manual.emulator.options.dialect == "sdk"
    with pytest.raises(TypeError):
        manual.emulator.reset(colour="blue")
    with pytest.raises(ValueError, match="dialect"):
        manual.emulator.reset(dialect="latin")
