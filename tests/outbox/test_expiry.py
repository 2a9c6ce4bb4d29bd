"""Emails that are to be sent in time, or at a time: ``expires_at`` and ``send_at``."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.outbox.conftest import keys_of, put_all, reload
from truncus_django.models import OutboxEntry

pytestmark = pytest.mark.django_db


def test_what_has_expired_is_never_sent(emulator, put, dispatcher, travel, states):
    put(2, expires_at=timedelta(minutes=10))
    travel(11 * 60)
    dispatcher.drain()

    assert states() == ["expired"] * 2
    assert OutboxEntry.objects.count() == 0
    assert emulator.requests == []


def test_what_expires_between_two_tries_is_taken_out(emulator, message, dispatcher, travel, states):
    emulator.faults.next("provider_502")
    put_all(
        [
            message(1, expires_at=timedelta(minutes=10)),
            message(2, expires_at=timedelta(minutes=10, seconds=50)),
        ]
    )
    dispatcher.step()
    travel(10 * 60 + 20)
    dispatcher.drain()

    assert states() == ["expired", "delivered"]
    first, second = keys_of(emulator)
    assert first != second  # another request, for it holds other emails


def test_one_that_expires_while_ambiguous_costs_none_that_is_good_for_longer(
    emulator, message, dispatcher, travel, states
):
    emulator.faults.next("reset_before", times=2)
    soon, later = timedelta(minutes=10), timedelta(hours=1)
    lives = [later, soon, later, later]
    put_all([message(number, expires_at=life) for number, life in enumerate(lives)])
    dispatcher.step()
    dispatcher.step()
    travel(11 * 60)
    dispatcher.drain()

    assert states() == ["delivered", "unknown", "delivered", "delivered"]
    assert len(set(keys_of(emulator))) == 2


def test_truncus_is_told_when_to_send(emulator, put, dispatcher):
    [email] = put(1, send_at=datetime.now(UTC) + timedelta(hours=1))
    dispatcher.drain()

    assert reload(email).state == "scheduled"
    assert OutboxEntry.objects.count() == 0


def test_a_time_to_send_that_is_over_means_now(emulator, put, dispatcher, travel):
    [email] = put(1, send_at=datetime.now(UTC) + timedelta(hours=1))
    travel(2 * 60 * 60)
    dispatcher.drain()

    assert reload(email).state == "delivered"
    assert [sent.send_at for sent in emulator.emails] == [None]
