"""Request limits and quotas, with a clock that is moved by hand."""

import pytest

from .conftest import Client, an_email


def test_second_limit_is_refused_with_its_end(start, clock):
    client = start(dialect="sdk", requests_per_second=2, clock=clock)
    assert [client.send().status_code for _ in range(3)] == [200, 200, 429]
    refused = client.send()
    assert refused.json()["code"] == "RATE_LIMIT_SECOND"
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["X-RateLimit-Limit"] == "2"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.headers["X-RateLimit-Reset"] == str(int(clock.now) + 1)
    clock.jump(1)
    assert client.send().status_code == 200


def test_minute_limit_tells_the_seconds_in_header_and_body(start, clock):
    client = start(dialect="manual", requests_per_minute=1, clock=clock)
    clock.now -= clock.now % 60
    clock.jump(18)
    client.send()
    refused = client.send()
    assert refused.status_code == 429
    assert refused.json()["error"] == "rate_limit_exceeded"
    assert refused.json()["retry_after"] == 42
    assert refused.headers["Retry-After"] == "42"
    clock.jump(42)
    assert client.send().status_code == 200


def test_refused_requests_do_not_count(start, clock):
    client = start(requests_per_second=1, requests_per_minute=3, clock=clock)
    client.send()
    for _ in range(5):
        assert client.send().status_code == 429
    for _ in range(2):
        clock.jump(1)
        assert client.send().status_code == 200


def test_each_key_has_its_own_limit_and_a_batch_is_one_request(start, clock):
    client = start(requests_per_second=1, clock=clock)
    assert client.batch(*[an_email()] * 100).status_code == 200
    assert client.send().status_code == 429
    assert Client(client.emulator, "tr_other").send().status_code == 200


def test_python_has_no_limits_by_default(manual):
    assert {manual.send().status_code for _ in range(70)} == {200}


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_monthly_limit_counts_accepted_emails_only(start, clock, dialect):
    client = start(dialect=dialect, monthly_limit=3, clock=clock)
    client.send(subject=None)
    client.send(to="suppressed@example.com")
    client.send(sandbox=True)
    client.send(key="a")
    client.send(key="a")
    last = client.batch(an_email(), an_email(), an_email()).json()
    assert [result["status"] for result in last["results"]].count("failed") == 1
    refused = client.send()
    code = "MONTHLY_LIMIT_EXCEEDED" if dialect == "sdk" else "rate_limit_exceeded"
    assert refused.status_code == 429
    assert code in refused.json().values()
    assert int(refused.headers["Retry-After"]) > 3600
    clock.jump(int(refused.headers["Retry-After"]))
    assert client.send().status_code == 200


def test_daily_limit_belongs_to_the_domain(start, clock):
    client = start(dialect="sdk", daily_limit=1, clock=clock)
    client.send()
    assert client.send().json()["code"] == "WARMUP_CAP_EXCEEDED"
    assert client.send(from_="a@other.example").status_code == 200
    clock.jump(24 * 3600)
    assert client.send().status_code == 200


def test_successes_tell_the_monthly_quota(start):
    client = start(monthly_limit=3)
    client.send()
    headers = client.send().headers
    assert headers["X-Monthly-Limit"] == "3"
    assert headers["X-Monthly-Sent"] == "2"
    assert headers["X-Monthly-Remaining"] == "1"
