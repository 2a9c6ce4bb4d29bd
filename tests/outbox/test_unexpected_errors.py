"""An exception that nobody expects, in the middle of a request: a bug, of whoever's code."""

import pytest

from tests.outbox.conftest import keys_of, reload
from truncus_django.models import OutboxBatch
from truncus_django.outbox import dispatcher as dispatcher_module

pytestmark = pytest.mark.django_db


@pytest.fixture
def stumble(monkeypatch):
    """Return a function that has requests raise what nobody expects, where a test says so."""

    def stumble(does_it, *, after_the_request=False):
        real = dispatcher_module.request_results

        def request_results(client, emails, **options):
            if after_the_request:
                real(client, emails, **options)
            if does_it(emails):
                raise LookupError("ann@example.org")
            return real(client, emails, **options)

        monkeypatch.setattr(dispatcher_module, "request_results", request_results)

    return stumble


def drain_stumbling(dispatcher):
    """Do what a worker does: go on after each step, whatever it raised; return how often."""
    stumbles = 0
    while True:
        try:
            dispatcher.drain()
        except LookupError:
            stumbles += 1
            continue
        return stumbles


def test_what_a_bug_keeps_from_being_sent_stands_alone_in_the_end_and_fails(
    emulator, put, dispatcher, stumble, travel, states
):
    emails = put(8)
    stumble(lambda sent: any(email["subject"] == "Order 5" for email in sent))

    assert drain_stumbling(dispatcher) == 4  # for 8, 4, 2 and 1
    assert states() == ["delivered"] * 5 + ["sending"] + ["delivered"] * 2
    assert reload(emails[5]).error_code == "unexpected_error"
    assert "LookupError in test_unexpected_errors.py" in emails[5].error
    assert "ann@" not in emails[5].error
    assert not emails[5].outbox_entry.batch.is_ambiguous
    travel(24 * 60 * 60)
    drain_stumbling(dispatcher)

    assert reload(emails[5]).state == "failed"
    assert len(emulator.emails) == 7


def test_after_a_bug_with_an_answer_the_very_same_request_is_made_again(
    emulator, put, dispatcher, stumble, travel, states
):
    put(3)
    stumbles = iter([True])
    stumble(lambda sent: next(stumbles, False), after_the_request=True)
    with pytest.raises(LookupError):
        dispatcher.step()
    assert OutboxBatch.objects.get().is_ambiguous
    travel(60)
    dispatcher.drain()

    assert states() == ["delivered"] * 3
    assert len(set(keys_of(emulator))) == 1
    assert len(emulator.emails) == 3


def test_a_bug_that_stays_ends_an_ambiguous_batch_with_its_key(
    emulator, put, dispatcher, stumble, travel, states
):
    emulator.faults.next("reset_after")
    put(3)
    dispatcher.step()
    stumble(lambda sent: True)
    for _ in range(3):
        travel(60)
        drain_stumbling(dispatcher)
    assert states() == ["sending"] * 3
    travel(24 * 60 * 60)
    drain_stumbling(dispatcher)

    assert states() == ["unknown"] * 3
