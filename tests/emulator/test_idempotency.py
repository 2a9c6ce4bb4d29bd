"""One key, one email: for 24 hours, per API key, and at the same time from many threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Client, an_email

DAY_S = 24 * 60 * 60


def test_manual_replays_the_first_answer(manual):
    first = manual.send(key="order-1")
    assert manual.send(key="order-1", subject="Changed").json() == first.json()
    assert manual.emulator.accepted == 1


def test_sdk_answers_duplicate_with_the_state_of_the_first(sdk):
    first = sdk.send(key="order-1").json()
    sdk.emulator.wait_for(lambda e: e.emails[0].status == "delivered")
    second = sdk.send(key="order-1").json()
    assert set(second) == {"status", "message_id", "email_status", "created_at"}
    assert second["status"] == "duplicate"
    assert second["message_id"] == first["message_id"]
    assert second["email_status"] == "delivered"


def test_key_is_forgotten_after_24_hours(start, clock):
    client = start(clock=clock)
    client.send(key="order-1")
    clock.jump(DAY_S - 1)
    client.send(key="order-1")
    assert client.emulator.accepted == 1
    clock.jump(1)
    client.send(key="order-1")
    assert client.emulator.accepted == 2


def test_same_key_of_two_accounts_is_two_emails(either):
    either.send(key="order-1")
    Client(either.emulator, api_key="tr_live_other").send(key="order-1")
    assert either.emulator.accepted == 2


def test_refusal_is_not_kept_under_the_key(either):
    assert either.send(key="order-1", subject=None).status_code == 400
    either.emulator.faults.next("error_500")
    assert either.send(key="order-1").status_code == 500
    assert either.send(key="order-1").json()["status"] in {"sent", "delivered"}


def test_sdk_needs_a_key_and_manual_does_not(either):
    answer = either.call("POST", "/api/v1/emails/send", json=an_email())
    if either.emulator.options.dialect == "sdk":
        assert (answer.status_code, answer.json()["code"]) == (400, "MISSING_IDEMPOTENCY_KEY")
    else:
        assert answer.status_code == 200


def test_batch_always_needs_a_key(either):
    answer = either.call("POST", "/api/v1/emails/batch", json={"emails": [an_email()]})
    assert answer.status_code == 400


def test_repeated_batch_key_answers_the_first_answer_again(either):
    first = either.batch(an_email(), an_email(subject=None))
    assert either.batch(an_email(), an_email(subject=None)).json() == first.json()
    assert either.emulator.accepted == 1


def test_repeated_batch_key_can_answer_one_duplicate(start):
    client = start(dialect="sdk", batch_replay="duplicate")
    client.batch(an_email())
    assert client.batch(an_email()).json()["status"] == "duplicate"
    assert client.emulator.accepted == 1


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_simultaneous_requests_with_one_key_are_one_email(start, dialect):
    emulator = start(dialect=dialect, latency_s=0.01).emulator

    def send(_number: int) -> str:
        client = Client(emulator)
        with client.session:
            return client.send(key="order-1").json()["message_id"]

    with ThreadPoolExecutor(16) as pool:
        ids = set(pool.map(send, range(48)))
    assert len(ids) == 1
    assert emulator.accepted == 1
