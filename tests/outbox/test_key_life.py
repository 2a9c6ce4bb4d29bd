"""An idempotency key is kept for 24 hours: what is repeated under it, and what is not."""

import pytest

from tests.outbox.conftest import keys_of
from truncus_django.models import Email, OutboxBatch, OutboxEntry

pytestmark = pytest.mark.django_db


def test_past_the_keys_life_an_ambiguous_batch_is_left_to_a_person(
    emulator, put, dispatcher, travel, states
):
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert len(keys_of(emulator)) == 1
    assert OutboxBatch.objects.count() == 0
    assert OutboxEntry.objects.filter(is_waiting=False, batch=None).count() == 2
    assert "24 hours" in Email.objects.first().error


def test_the_keys_life_counts_from_its_first_request(emulator, put, dispatcher, travel, states):
    emulator.faults.rate("reset_after", 1)
    put(2)
    dispatcher.step()
    travel(12 * 60 * 60)
    dispatcher.step()
    assert len(keys_of(emulator)) == 2
    travel(12 * 60 * 60)
    dispatcher.drain()

    assert states() == ["unknown"] * 2
    assert len(keys_of(emulator)) == 2


def test_a_new_key_has_a_life_of_its_own(emulator, put, dispatcher, travel, states):
    emulator.faults.next("rate_limit")
    put(2)
    dispatcher.step()
    travel(24 * 60 * 60)
    emulator.faults.next("reset_after")
    dispatcher.step()
    travel(12 * 60 * 60)
    dispatcher.drain()

    first, *repeated = keys_of(emulator)
    assert len(repeated) == 2
    assert set(repeated).isdisjoint({first})
    assert len(set(repeated)) == 1
    assert states() == ["delivered"] * 2


@pytest.mark.parametrize(("own_key", "keys"), [(None, 2), ("order-42", 1)])
def test_past_the_keys_life_a_failure_goes_on_under_a_new_key_unless_it_is_its_own(
    emulator, put, dispatcher, travel, states, own_key, keys
):
    emulator.faults.next("rate_limit")
    put(1, idempotency_key=own_key)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.drain()

    assert len(keys_of(emulator)) == 2
    assert len(set(keys_of(emulator))) == keys
    assert states() == ["delivered"]


def test_a_day_of_failures_is_enough(emulator, put, dispatcher, travel, states):
    emulator.faults.rate("provider_502", 1)
    put(1)
    dispatcher.step()
    travel(24 * 60 * 60)
    dispatcher.step()

    assert states() == ["failed"]
    assert OutboxEntry.objects.filter(is_waiting=False, batch=None).count() == 1


def test_a_day_counts_from_the_first_failure_of_its_own(emulator, put, dispatcher, travel, states):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(1)
    dispatcher.step()
    travel(25 * 60 * 60)
    emulator.reset()
    emulator.faults.next("provider_502")
    dispatcher.step()

    assert states() == ["sending"]
    travel(60)
    dispatcher.drain()
    assert states() == ["delivered"]
