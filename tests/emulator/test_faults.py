"""Every fault as a client meets it at the socket, and whether the email was accepted."""

import json
import socket
import time

import pytest
import requests

from tests.waiting import PATIENCE_S
from truncus_django.emulator import Emulator, Fault, Faults

from .conftest import an_email

SEND = "/api/v1/emails/send"


def raw_exchange(emulator: Emulator) -> bytes:
    """Send one email over a bare socket and return all that comes back."""
    host, port = emulator.url.removeprefix("http://").split(":")
    body = json.dumps(an_email()).encode()
    head = (
        f"POST {SEND} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer tr_a\r\n"
        f"Idempotency-Key: raw\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(head.encode() + body)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


@pytest.mark.parametrize(
    ("fault", "accepted"), [("refuse", 0), ("reset_before", 0), ("reset_after", 1)]
)
def test_connection_is_reset(either, fault, accepted):
    either.emulator.faults.next(fault)
    with pytest.raises(ConnectionResetError):
        raw_exchange(either.emulator)
    assert either.emulator.accepted == accepted
    [request] = either.emulator.requests
    assert (request.status, request.fault) == (0, fault)


def test_lost_answer_and_its_retry_are_one_email(either):
    either.emulator.faults.next("reset_after")
    with pytest.raises(requests.ConnectionError):
        either.send(key="order-1")
    assert either.send(key="order-1").status_code == 200
    assert either.emulator.accepted == 1
    assert either.emulator.connections == 2


@pytest.mark.parametrize(("fault", "accepted"), [("truncated", 1), ("truncated_before", 0)])
def test_body_is_shorter_than_its_length(either, fault, accepted):
    either.emulator.faults.next(fault)
    head, _, body = raw_exchange(either.emulator).partition(b"\r\n\r\n")
    [length] = [
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"Content-Length" in line
    ]
    assert head.startswith(b"HTTP/1.1 200")
    assert 0 < len(body) < length
    assert either.emulator.accepted == accepted


@pytest.mark.parametrize("fault", ["delay", "delay_after"])
def test_delay_holds_the_answer_back(either, fault):
    either.emulator.faults.next(fault, seconds=0.05)
    before = time.monotonic()
    assert either.send().status_code == 200
    assert time.monotonic() - before >= 0.05


def test_timeout_after_acceptance_leaves_one_email(either):
    either.emulator.faults.next("delay_after", seconds=30)
    with pytest.raises(requests.Timeout):
        either.session.post(
            either.emulator.url + SEND,
            json=an_email(),
            headers={"Idempotency-Key": "order-1"},
            timeout=0.1,
        )
    either.emulator.wait_for(lambda e: e.accepted == 1)
    assert either.send(key="order-1").status_code == 200
    assert either.emulator.accepted == 1


def test_rate_limit_tells_how_long(manual, sdk):
    for client in (manual, sdk):
        client.emulator.faults.next("rate_limit", retry_after=7)
    answer = manual.send()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["retry_after"] == 7
    assert sdk.send().json()["code"] == "RATE_LIMIT_MINUTE"
    assert manual.emulator.accepted == sdk.emulator.accepted == 0


@pytest.mark.parametrize(
    ("fault", "status", "accepted"),
    [("error_500", 500, 0), ("error_503", 503, 0), ("error_500_after", 500, 1)],
)
def test_server_errors(either, fault, status, accepted):
    either.emulator.faults.next(fault)
    answer = either.send()
    assert answer.status_code == status
    if either.emulator.options.dialect == "manual":
        assert answer.json()["error"] == "transient_failure"
    assert either.emulator.accepted == accepted


def test_provider_error_is_json_and_proxy_error_is_html(either):
    either.emulator.faults.next("provider_502")
    either.emulator.faults.next("html_502")
    provider, proxy = either.send(), either.send()
    assert provider.status_code == proxy.status_code == 502
    assert provider.json()["code"] == "PROVIDER_ERROR"
    assert provider.json()["status"] == "failed"
    assert proxy.headers["Content-Type"].startswith("text/html")
    assert either.emulator.accepted == 0


def test_faults_strike_in_order_and_only_their_path(manual):
    faults = manual.emulator.faults
    faults.next("error_500", times=2, path="batch")
    faults.next("error_503", path=SEND)
    assert faults.pending == 3
    assert manual.send().status_code == 503
    assert manual.send().status_code == 200
    assert [manual.batch(an_email()).status_code for _ in range(3)] == [500, 500, 200]
    assert faults.pending == 0
    assert faults.struck == {"error_500": 2, "error_503": 1}


def test_cleared_faults_do_not_strike(manual):
    manual.emulator.faults.next("error_500")
    manual.emulator.faults.rate("error_500", 1.0)
    manual.emulator.faults.clear()
    assert manual.send().status_code == 200


def test_random_faults_repeat_with_their_seed():
    def drawn(seed: int) -> list[bool]:
        faults = Faults({"error_500@send": 0.3}, seed=seed)
        return [faults.take(SEND, "send") is not None for _ in range(200)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert 30 < sum(drawn(7)) < 90


def test_random_rate_of_one_always_strikes_its_endpoint(start):
    client = start(fault_rates={"error_500@batch": 1.0})
    assert client.batch(an_email()).status_code == 500
    assert client.send().status_code == 200


def test_unknown_faults_and_impossible_rates_are_refused(manual):
    with pytest.raises(ValueError, match="reset_after"):
        manual.emulator.faults.next("earthquake")
    with pytest.raises(ValueError, match="between 0 and 1"):
        manual.emulator.faults.rate("error_500", 5)
    with pytest.raises(ValueError, match="at least 1"):
        manual.emulator.faults.next("error_500", times=0)


def test_docstring_lists_every_fault():
    assert all(f"{fault} " in (Fault.__doc__ or "") for fault in Fault)


def test_client_that_goes_away_disturbs_nobody(manual, capfd):
    host, port = manual.emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {SEND} HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf".encode())
    assert manual.send().status_code == 200
    manual.emulator.stop()
    assert capfd.readouterr().err == ""
