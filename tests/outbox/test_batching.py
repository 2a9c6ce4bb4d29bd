"""Which emails share a request."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.outbox.conftest import put_all, reload
from truncus_django.models import OutboxBatch

pytestmark = pytest.mark.django_db

SOON = datetime.now(UTC) + timedelta(hours=12)


@pytest.mark.parametrize(
    ("options", "requests"),
    [
        pytest.param([{}, {"idempotency_key": "order-2"}, {}], 2, id="own keys go alone"),
        pytest.param(
            2 * [{}, {"sandbox": True}, {"expires_at": timedelta(minutes=10)}],
            3,
            id="the sandbox and what expires go by themselves",
        ),
        pytest.param(
            [{"expires_at": SOON + timedelta(seconds=number)} for number in range(250)],
            3,
            id="those that expire at about the same moment share requests",
        ),
        pytest.param(
            [{}, {"expires_at": timedelta(days=2)}, {}],
            1,
            id="what expires after its key goes with what never expires",
        ),
    ],
)
def test_which_share_a_request(emulator, message, dispatcher, options, requests):
    put_all([message(number, **given) for number, given in enumerate(options)])

    assert dispatcher.drain().requests == requests
    assert len(emulator.emails) == len(options)


def test_the_same_own_key_is_one_email(emulator, message, dispatcher):
    first, second = put_all([message(1, idempotency_key="k"), message(1, idempotency_key="k")])
    dispatcher.drain()

    assert len(emulator.emails) == 1
    assert reload(first).state == reload(second).state == "delivered"
    assert sorted([first.message_id or "", second.message_id or ""])[0] == ""


def test_a_request_holds_no_more_than_it_may(emulator, message, dispatcher, monkeypatch):
    monkeypatch.setattr("truncus_django.outbox.batching.MAX_BATCH_BYTES", 5_000)
    mails = []
    for number in range(3):
        mail = message(number)
        mail.attach("data.bin", b"\x00" * 3_000, "application/octet-stream")
        mails.append(mail)
    put_all(mails)

    assert dispatcher.drain().requests == 3


def test_what_comes_to_expire_within_a_keys_life_gets_a_request_of_its_own(
    emulator, message, dispatcher, travel, states
):
    """They share a request that fails for a day; from then on, one would expire while ambiguous."""
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put_all([message(1), message(2, expires_at=timedelta(days=2)), message(3)])
    dispatcher.step()
    travel(30 * 60 * 60)
    emulator.reset()
    emulator.faults.next("reset_before", times=2)
    dispatcher.step()
    travel(60)
    dispatcher.step()
    assert OutboxBatch.objects.filter(is_ambiguous=True).count() == 2
    travel(20 * 60 * 60)
    dispatcher.drain()

    assert states() == ["delivered", "unknown", "delivered"]
