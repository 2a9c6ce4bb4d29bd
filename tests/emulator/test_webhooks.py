"""Signed webhooks at a real receiver: verified, repeated, replayed, late and twice."""

import json
import threading
import time

import pytest

from tests.waiting import PATIENCE_S
from truncus_django.api.errors import WebhookVerificationError
from truncus_django.api.webhooks import verify

SECRET = "whsec_test"


@pytest.fixture
def options(receiver):
    return {
        "webhook_url": receiver.url,
        "webhook_secret": SECRET,
        "webhook_backoff_s": (0.01, 0.01),
    }


def bodies(receiver):
    return [json.loads(body) for body, _ in receiver.received]


def check(body, headers, *, age_s=0):
    """Verify a webhook as a receiver would have done ``age_s`` seconds ago."""
    verify(
        body,
        signature=headers["Truncus-Signature"],
        timestamp=headers["Truncus-Timestamp"],
        secrets=[SECRET],
        now=time.time() - age_s,
    )


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_delivery_is_told_with_a_good_signature(start, options, receiver, dialect):
    client = start(dialect=dialect, **options)
    message_id = client.send().json()["message_id"]
    receiver.wait_for(1)
    [(body, headers)] = receiver.received
    check(body, headers)
    told = json.loads(body)
    assert set(told) == {"event", "message_id", "status", "timestamp"}
    assert (told["event"], told["status"]) == ("email.delivery", "delivered")
    assert told["message_id"] == message_id


def test_each_event_has_its_name(start, options, receiver):
    client = start(dialect="sdk", **options)
    for to in ("bounce", "complaint", "click"):
        client.send(to=f"{to}@example.com")
    receiver.wait_for(6)
    told = {(body["event"], body["status"], body.get("reason")) for body in bodies(receiver)}
    assert told == {
        ("email.delivery", "bounced", "mailbox_does_not_exist"),
        ("email.delivery", "delivered", None),
        ("email.complaint", "complained", "abuse"),
        ("email.open", "opened", None),
        ("email.click", "clicked", None),
    }


@pytest.mark.parametrize("status", [202, 302, 400, 500])
def test_only_200_acknowledges(start, options, receiver, status):
    receiver.statuses = [status]
    client = start(**options)
    client.send()
    client.emulator.wait_for(lambda e: e.webhooks_are_idle() and len(e.webhook_attempts) == 2)
    assert [attempt.status for attempt in client.emulator.webhook_attempts] == [status, 200]
    assert receiver.received[0][0] == receiver.received[1][0]


@pytest.mark.parametrize(("status", "why"), [
    (403, "HTTP 403: the receiver has another secret, or none"),
    (404, "HTTP 404: the receiver has no such URL"),
    (500, "HTTP 500"),
])  # fmt: skip
def test_a_refusal_is_logged_and_shown_in_the_inbox_until_one_is_acknowledged(
    start, options, receiver, caplog, status, why
):
    receiver.statuses = [status] * 6
    client = start(**options)
    for count in (3, 6):
        client.send()
        client.emulator.wait_for(
            lambda e: e.webhooks_are_idle() and len(e.webhook_attempts) == count  # noqa: B023
        )
    (logged,) = [record.getMessage() for record in caplog.records]
    assert why in logged
    assert why in client.session.get(client.emulator.inbox_url, timeout=PATIENCE_S).text

    client.send()
    client.emulator.wait_for(lambda e: len(e.webhook_attempts) == 7)
    assert "Webhooks" not in client.session.get(client.emulator.inbox_url, timeout=PATIENCE_S).text


def test_webhooks_that_are_bad_on_purpose_are_no_news(start, options, receiver, caplog):
    receiver.statuses = [403, 403]
    client = start(webhook_bad_signatures=1.0, webhook_stale=1.0, **options)
    client.send()
    client.emulator.wait_for(lambda e: len(e.webhook_attempts) == 3)
    assert [attempt.status for attempt in client.emulator.webhook_attempts] == [403, 403, 200]
    assert caplog.records == []


def test_webhook_is_given_up_after_the_last_repetition(start, options, receiver):
    receiver.statuses = [500] * 5
    client = start(**options)
    client.send()
    client.emulator.wait_for(lambda e: e.webhooks_are_idle() and len(e.webhook_attempts) == 3)
    assert len(receiver.received) == 3


def test_nobody_listening_is_repeated_too(start):
    client = start(
        webhook_url="http://127.0.0.1:9/hook", webhook_secret=SECRET, webhook_backoff_s=(0.01,)
    )
    client.send()
    client.emulator.wait_for(lambda e: len(e.webhook_attempts) == 2)
    assert {attempt.status for attempt in client.emulator.webhook_attempts} == {0}


def test_sandbox_makes_no_webhook(start, options, receiver):
    client = start(**options)
    client.send(sandbox=True)
    client.send()
    receiver.wait_for(1)
    assert client.emulator.webhooks_are_idle() or len(receiver.received) == 1
    assert bodies(receiver)[0]["message_id"] == client.emulator.emails[1].id


def test_webhooks_can_come_twice_and_out_of_order(start, options, receiver):
    client = start(webhook_duplicates=1, webhook_shuffle_s=0.1, seed=3, **options)
    sent = [client.send().json()["message_id"] for _ in range(10)]
    receiver.wait_for(20)
    told = [body["message_id"] for body in bodies(receiver)]
    assert sorted(told) == sorted(sent * 2)
    assert list(dict.fromkeys(told)) != sent


def test_bad_webhooks_come_besides_the_good_ones(start, options, receiver):
    client = start(webhook_bad_signatures=1.0, webhook_stale=1.0, **options)
    client.send()
    receiver.wait_for(3)
    forged, stale, good = receiver.received
    assert forged[0] == stale[0] == good[0]
    check(*good)
    with pytest.raises(WebhookVerificationError, match="fits none"):
        check(*forged)
    with pytest.raises(WebhookVerificationError, match="too far"):
        check(*stale)
    check(*stale, age_s=600)


def test_bad_webhooks_are_recorded_as_such_and_not_repeated(start, options, receiver):
    receiver.statuses = [401, 401]
    client = start(webhook_bad_signatures=1.0, webhook_stale=1.0, **options)
    client.send()
    client.emulator.wait_for(lambda e: e.webhooks_are_idle() and len(e.webhook_attempts) == 3)
    tries = [(attempt.flaw, attempt.status) for attempt in client.emulator.webhook_attempts]
    assert tries == [("bad_signature", 401), ("stale", 401), (None, 200)]


def test_share_of_bad_webhooks_repeats_with_its_seed(start, options, receiver):
    def flawed(seed: int) -> list[str]:
        client = start(webhook_bad_signatures=0.3, webhook_stale=0.3, seed=seed, **options)
        sent = [client.send().json()["message_id"] for _ in range(20)]
        client.emulator.wait_for(lambda e: e.webhooks_are_idle() and len(e.webhook_attempts) >= 20)
        attempts = client.emulator.webhook_attempts
        told = [attempt.body["message_id"] for attempt in attempts if attempt.flaw is None]
        assert told == sent
        return [
            f"{sent.index(attempt.body['message_id'])} {attempt.flaw}"
            for attempt in attempts
            if attempt.flaw
        ]

    drawn = flawed(7)
    assert drawn == flawed(7) != flawed(8)
    assert 2 < len(drawn) < 30


def test_several_threads_post_at_the_same_time(start, options, receiver):
    together = threading.Barrier(3, timeout=PATIENCE_S)
    receiver.before_answer = together.wait
    client = start(webhook_threads=3, **options)
    for _ in range(3):
        client.send()
    client.emulator.wait_for(lambda e: len(e.webhook_attempts) == 3)
    assert {attempt.status for attempt in client.emulator.webhook_attempts} == {200}


def test_event_can_be_replayed_without_sending_again(start, options, receiver):
    client = start(webhook_event_ids=True, **options)
    message_id = client.send().json()["message_id"]
    receiver.wait_for(1)
    event_id = bodies(receiver)[0]["event_id"]
    answer = client.call("POST", f"/api/v1/events/{event_id}/replay").json()
    assert answer["replayed"] is True
    assert (answer["event_id"], answer["message_id"]) == (event_id, message_id)
    assert answer["dispatched_at"]
    receiver.wait_for(2)
    assert bodies(receiver)[0] == bodies(receiver)[1]
    assert client.emulator.accepted == 1


def test_message_replays_what_was_told_before(start, options, receiver):
    client = start(**options)
    message_id = client.send(to="complaint@example.com").json()["message_id"]
    receiver.wait_for(2)
    answer = client.call("POST", f"/api/v1/messages/{message_id}/replay").json()
    assert answer["message_id"] == message_id
    receiver.wait_for(4)
    assert bodies(receiver)[2:] == bodies(receiver)[:2]


def test_unknown_event_cannot_be_replayed(either):
    assert either.call("POST", "/api/v1/events/unknown/replay").status_code == 404
    assert either.call("POST", "/api/v1/messages/unknown/replay").status_code == 404


def test_url_without_secret_is_refused(start):
    with pytest.raises(ValueError, match="webhook_secret"):
        start(webhook_url="http://127.0.0.1:9/")
