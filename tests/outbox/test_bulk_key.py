"""send_bulk() under a key: who is skipped, and what is sent again."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.outbox.bulk_messages import ACCEPTED, books, customers
from tests.outbox.conftest import NO_LIMITS
from truncus_django.bulk import send_bulk
from truncus_django.log.purge import Purge
from truncus_django.models import BulkEmail, Email
from truncus_django.outbox.operations import OperationResult, retry

pytestmark = pytest.mark.django_db


def test_a_second_run_sends_to_whom_is_new(delivery, emulator, messages, dispatcher):
    send_bulk(messages(150), key="news")
    result = send_bulk(messages(170), key="news")
    dispatcher.drain()

    assert (result.skipped, result.accepted + result.queued) == (150, 20)
    assert books(emulator) == customers(170)


def test_a_day_later_nobody_is_sent_a_second_one(is_direct, emulator, messages, travel):
    send_bulk(messages(120), key="news")
    travel(25 * 3600)
    emulator.reset(**NO_LIMITS)  # it knows no key any more

    assert send_bulk(messages(120), key="news").skipped == 120
    assert not books(emulator)


def test_two_bulks_know_nothing_of_each_other(is_direct, emulator, messages):
    send_bulk(messages(3), key="may")
    assert send_bulk(messages(3), key="june").accepted == 3
    assert Email.objects.filter(bulk__key="june").count() == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"to": ["ann@example.org"]}, {"to": ["Ann Lee <Ann@Example.ORG>"]}),
        ({"to": ["ann@example.org"]}, {"to": ['"Lee, Ann <3" <ann@example.org>']}),
        ({"to": ["ann@bücher.example"]}, {"to": ["ann@xn--bcher-kva.example"]}),
        (
            {"to": ["ann@example.org"], "cc": ["bob@example.org"]},
            {"to": ["bob@example.org"], "bcc": ["ann@example.org"]},
        ),
        (
            {"to": ["ann@example.org"], "idempotency_key": "order-1"},
            {"to": ["bob@example.org"], "idempotency_key": "order-1"},
        ),
    ],
)
def test_the_same_recipients_or_the_same_key_are_skipped(is_direct, emulator, message, one, other):
    both = [message(1, **one), message(2, **other)]
    assert send_bulk(both, key="a").skipped == 1
    assert send_bulk(both[:1], key="b").accepted == 1
    assert send_bulk(both[1:], key="b").skipped == 1
    assert both[1].truncus_status.status == ACCEPTED


@pytest.mark.parametrize(
    "other",
    [
        {"to": ["bob@example.org"]},
        {"to": ["ann@example.org", "bob@example.org"]},
        {"to": ["ann@example.org"], "idempotency_key": "order-1"},
        {"to": ["ann@example.org"], "sandbox": True},
    ],
)
def test_others_are_not_skipped(is_direct, emulator, message, other):
    result = send_bulk([message(1, to=["ann@example.org"]), message(2, **other)], key="news")
    assert (result.accepted, result.skipped) == (2, 0)


def test_what_failed_is_tried_again_and_cannot_be_sent_from_the_admin_as_well(
    is_direct, emulator, messages
):
    emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
    result = send_bulk(messages(3), key="news")
    assert (result.failed, result.errors) == (3, {"domain_not_verified": 3})
    assert result.first_at == {"domain_not_verified": 1}
    earlier = list(Email.objects.values_list("pk", flat=True))

    emulator.reset(**NO_LIMITS)
    assert send_bulk(messages(3), key="news").accepted == 3
    assert set(retry(earlier).values()) == {OperationResult.NOT_STORED}
    assert books(emulator) == customers(3)
    assert send_bulk(messages(3), key="news").skipped == 3


def test_what_somebody_retries_is_not_sent_by_the_next_run(emulator, messages, failed, dispatcher):
    Email.objects.all().delete()
    emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
    send_bulk(messages(2), key="news")
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    retry(Email.objects.values_list("pk", flat=True))

    assert send_bulk(messages(2), key="news").skipped == 2
    dispatcher.drain()
    assert books(emulator) == customers(2)


def test_what_may_have_been_accepted_is_not_sent_again(emulator, messages, dispatcher, travel):
    send_bulk(messages(2), key="news")
    emulator.faults.next("reset_after")
    dispatcher.step()
    travel(25 * 3600)
    dispatcher.drain()

    result = send_bulk(messages(2), key="news")
    assert (result.unknown, result.queued, result.skipped) == (2, 0, 0)
    assert result.errors == {"unknown": 2}
    assert books(emulator) == customers(2)


def test_the_log_forgets_a_bulk_with_its_emails(is_direct, emulator, messages):
    send_bulk(messages(3), key="news")
    Purge(before=timezone.now() + timedelta(days=1)).run()
    assert not BulkEmail.objects.exists()
    assert send_bulk(messages(3), key="news").accepted == 3
