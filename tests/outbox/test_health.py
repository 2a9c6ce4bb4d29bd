"""How much waits in the outbox, since when, and what keeps it."""

from datetime import timedelta

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from truncus_django.db.clock import Clock, moment_of
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox.claim import Claim, claim, lease_s
from truncus_django.outbox.health import HeldBack, OutboxHealth, _of_queues, health, is_in_use
from truncus_django.outbox.operations import retry
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def age(emails, seconds):
    moment = timezone.now() - timedelta(seconds=seconds)
    ids = [email.pk for email in emails]
    Email.objects.filter(pk__in=ids).update(created_at=moment)
    OutboxEntry.objects.filter(pk__in=ids).update(created_at=moment)


def test_an_empty_outbox_is_healthy():
    found = health()

    assert found == OutboxHealth(
        at=found.at,
        pending=0,
        sending=0,
        unknown=0,
        failed=0,
        counted_up_to=10_000,
        oldest_age_s=None,
        next_attempt_at=None,
        last_request_at=None,
        last_error="",
        overdue_leases=0,
    )
    assert found.is_healthy()


def test_each_is_counted_where_it_is(emulator, put, dispatcher):
    emulator.reset(requests_per_second=0, requests_per_minute=0, domains={"example.com": "paused"})
    put(2)
    dispatcher.drain()
    emulator.reset(requests_per_second=0, requests_per_minute=0)
    emulator.faults.next("provider_502")
    put(1)
    dispatcher.drain()
    put(3)
    Email.objects.create(state=State.FAILED)  # sent directly: no payload is stored
    Email.objects.create(state=State.UNKNOWN)

    found = health()

    assert (found.pending, found.sending, found.unknown, found.failed) == (3, 1, 1, 2)
    assert found.next_attempt_at == OutboxBatch.objects.get().due_at
    assert "PROVIDER_ERROR" in found.last_error


def test_the_oldest_is_what_waits_longest_wherever(put):
    first, second = put(2)
    age([first], 300)
    assert 299 < health().oldest_age_s < 330

    age([second], 1000)
    found = health()

    assert 999 < found.oldest_age_s < 1030
    assert not found.is_healthy()
    assert found.is_healthy(max_age_s=3600)


def test_a_request_that_is_tried_again_waits_since_it_was_first_made(
    put, emulator, dispatcher, travel
):
    emulator.faults.next("error_500")
    put(1)
    dispatcher.step()
    travel(1000)

    assert 999 < health().oldest_age_s < 1030


def test_what_awaits_its_send_at_or_was_put_back_by_hand_does_not_wait_for_long(
    put, emulator, dispatcher, travel
):
    [email] = put(1)
    age([email], 1000)
    emulator.faults.next("provider_502")
    dispatcher.step()
    OutboxBatch.objects.update(error_code="awaits_send_at")
    assert health().oldest_age_s is None

    OutboxBatch.objects.update(due_at=timezone.now() - timedelta(days=1), error_code="")
    OutboxEntry.objects.update(batch=None, is_waiting=False)
    Email.objects.update(state=State.FAILED)
    OutboxBatch.objects.all().delete()
    retry([email.pk])
    assert health().oldest_age_s < 60


def test_a_worker_that_died_is_no_trouble_while_its_account_is_paused(
    put, emulator, dispatcher, travel
):
    put(1)
    taken = claim(dispatcher.clock)
    travel(lease_s(taken.settings) + 120)
    assert health().overdue_leases == 1
    OutboxAccount.objects.update(paused_until=moment_of(dispatcher.clock.now() + 600), failures=1)

    found = health()
    assert found.overdue_leases == 0
    assert not found.is_unattended


def test_a_paused_account_tells_its_mailers_and_why(emulator, put, dispatcher, settings):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(1)
    dispatcher.drain()

    [paused] = health().paused

    row = OutboxAccount.objects.get()
    assert (paused.account, paused.until) == (row.account, row.paused_until)
    assert paused.error_code == row.error_code
    assert paused.reason in health().last_error
    assert paused.mailers
    assert "tr_test" not in repr(health())


@pytest.mark.parametrize("name", ["gone", "g" * 100])
def test_a_mailer_that_is_gone_is_named(emulator, put, dispatcher, name):
    OutboxEntry.objects.filter(pk__in=[email.pk for email in put(1)]).update(mailer=name)
    dispatcher.drain()

    [paused] = health().paused

    assert paused.mailers == (name,)
    assert paused.error_code == "configuration"
    assert paused.is_misconfigured


def test_a_pause_that_is_over_and_one_of_a_replaced_key_are_none(put):
    now = timezone.now()
    OutboxAccount.objects.create(account="mailer:shop", paused_until=now - timedelta(seconds=9))
    OutboxAccount.objects.create(account="0123abcd", paused_until=now + timedelta(seconds=99))

    assert health().paused == ()


def test_a_dead_worker_is_noticed_when_nobody_takes_over(put, emulator, travel):
    put(1)
    assert isinstance(claim(Clock(database())), Claim)
    assert health().overdue_leases == 0

    travel(600)

    assert health().overdue_leases == 1
    assert not health().is_healthy(max_age_s=10_000)


def test_an_outbox_that_nobody_empties_is_noticed(put, emulator, dispatcher, travel):
    emails = put(1)
    assert not health().is_unattended
    age(emails, 1000)
    assert health().is_unattended

    dispatcher.drain()
    assert not health().is_unattended


def test_a_next_try_that_nobody_makes_is_noticed(put, emulator, dispatcher, travel):
    put(1)
    emulator.faults.next("provider_502")
    dispatcher.drain()
    assert not health().is_unattended

    travel(3600)
    assert health().is_unattended


def test_a_paused_account_is_no_lack_of_workers(put, emulator, dispatcher):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    age(put(1), 1000)
    dispatcher.drain()

    assert not health().is_unattended


def test_a_paused_mailer_hides_no_lack_of_workers_for_others(put, emulator, dispatcher):
    OutboxEntry.objects.filter(pk__in=[email.pk for email in put(1)]).update(mailer="gone")
    dispatcher.drain()
    OutboxEntry.objects.update(created_at=timezone.now() - timedelta(seconds=1000))
    assert health().paused
    assert not health().is_unattended

    age(put(1), 1000)
    assert health().is_unattended


def test_a_paused_mailer_hides_no_next_try_that_nobody_makes(put, emulator, dispatcher, travel):
    put(1)
    emulator.faults.next("provider_502")
    dispatcher.drain()
    OutboxEntry.objects.filter(pk__in=[email.pk for email in put(1)]).update(mailer="gone")
    dispatcher.drain()
    OutboxBatch.objects.update(due_at=timezone.now() - timedelta(seconds=1000))
    assert health().paused
    assert health().is_unattended


def test_the_last_request_is_told(put, emulator, dispatcher, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_MINUTE": 600}
    put(1)
    dispatcher.drain()

    [moment] = OutboxAccount.objects.get().recent_requests
    assert health().last_request_at == moment_of(moment)


def test_counting_ends_where_it_is_told(put):
    put(5)
    assert health(count_up_to=3).pending == 3
    assert health(count_up_to=None).pending == 5


def test_numbers_for_monitoring(put):
    put(2)
    numbers = health().as_dict()

    assert numbers["truncus_outbox_pending"] == 2
    assert numbers["truncus_outbox_paused"] == 0
    assert numbers["truncus_outbox_oldest_age_s"] >= 0
    assert {type(number) for number in numbers.values()} == {float}


def test_it_asks_as_much_about_many_as_about_few(put):
    def queries():
        with CaptureQueriesContext(connections[database()]) as captured:
            health()
        return len(captured)

    put(2)
    few = queries()
    put(40)
    Email.objects.update(state=State.SENDING)
    put(40)

    assert few <= queries() <= 12


def test_any_number_of_tenants_may_be_held_back(put):
    put(1, priority="low")
    held = [
        HeldBack(mailer="", tenant=f"t{n}", emails=1, left=0, reserved=1, until=timezone.now())
        for n in range(1_500)
    ]
    assert not OutboxEntry.objects.filter(_of_queues(held)).exists()
    OutboxEntry.objects.update(tenant="t7")
    assert OutboxEntry.objects.filter(_of_queues(held)).exists()


@pytest.mark.skipif(connection.vendor == "mysql", reason="it scans a small table in any case")
def test_the_oldest_and_the_counts_use_an_index(put):
    """However many wait, no row is read that is not counted."""
    put(3)
    with CaptureQueriesContext(connection) as captured:
        health()
    emails = [query["sql"] for query in captured if "truncus_django_email" in query["sql"]]
    assert emails
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        if not is_sqlite:  # or it scans a small table, too
            cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in emails:
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{sql}")
            plan = " ".join(str(row[-1]) for row in cursor.fetchall())
            assert "truncus_django_email" in plan
            assert "SCAN truncus_django_email" not in plan
            assert "Seq Scan on truncus_django_email" not in plan
            assert "TEMP B-TREE" not in plan


def test_whether_it_is_in_use(settings, put):
    assert is_in_use()

    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    assert not is_in_use()

    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    put(1)
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    assert is_in_use()
