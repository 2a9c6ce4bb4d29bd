"""``truncus_doctor`` about the outbox: how deep it is, how old, what keeps it, and what to do."""

from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from truncus_django import doctor
from truncus_django.db.clock import Clock
from truncus_django.doctor import Finding, Level, examine, examine_outbox
from truncus_django.models import Email, OutboxEntry, database
from truncus_django.outbox.claim import Claim, claim
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def findings():
    return {finding.what: finding for finding in examine_outbox()}


def age(seconds):
    moment = timezone.now() - timedelta(seconds=seconds)
    Email.objects.update(created_at=moment)
    OutboxEntry.objects.update(created_at=moment)


@pytest.fixture
def busy(settings, put, emulator, dispatcher):
    """An outbox whose account has just made a request, and in which three emails wait."""
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_MINUTE": 1}
    put(1)
    dispatcher.drain()
    put(3)


def test_it_is_part_of_the_examination():
    assert "outbox" in {finding.what for finding in examine(network=False)}


def test_without_an_outbox_there_is_nothing_to_tell(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    assert findings() == {}


def test_an_empty_one_is_in_order(emulator):
    assert findings() == {"outbox": Finding(Level.OK, "outbox", "0 emails wait, 0 in requests.")}


@pytest.mark.parametrize(
    ("age_s", "level"), [(60, Level.OK), (20 * 60, Level.WARN), (2 * 3600, Level.FAIL)]
)
def test_depth_and_age_are_told(busy, age_s, level):
    age(age_s)

    found = findings()["outbox"]

    assert found.level is level
    assert found.found.startswith("3 emails wait, 0 in requests, the oldest for ")
    assert bool(found.advice) is (level is not Level.OK)


def test_many_are_not_counted_to_the_end(busy, monkeypatch):
    monkeypatch.setattr(doctor, "health", lambda: health_up_to(2))
    assert findings()["outbox"].found.startswith("2+ emails wait")


def health_up_to(limit):
    from truncus_django.outbox.health import health

    return health(count_up_to=limit)


def test_that_no_worker_runs_is_told(put):
    put(1)
    age(400)

    found = findings()["outbox"]

    assert found.level is Level.FAIL
    assert "No worker seems to run" in found.found
    assert "truncus_worker" in found.advice


def test_a_dead_worker_is_told(put, emulator, travel):
    put(1)
    assert isinstance(claim(Clock(database())), Claim)
    travel(600)

    found = findings()["outbox"]

    assert found.level is Level.FAIL
    assert "A worker has died" in found.found


def test_a_paused_account_is_told_with_its_reason(put, emulator, dispatcher):
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(1)
    dispatcher.drain()

    found = findings()["outbox: account"]

    assert found.level is Level.WARN
    assert "invalid_api_key" in found.found
    assert found.advice
    assert "tr_test" not in found.found


def test_a_mailer_that_is_gone_is_told(put, dispatcher):
    put(1)
    OutboxEntry.objects.update(mailer="gone")
    dispatcher.drain()

    assert "gone" in findings()["outbox: account"].found


def test_unknown_ones_are_told():
    Email.objects.create(state=State.UNKNOWN)

    found = findings()["outbox: unknown"]

    assert found.level is Level.WARN
    assert found.found.startswith("1 email may have been sent")
    assert "decide in the admin" in found.advice


def test_tables_without_transactions_are_told(monkeypatch):
    monkeypatch.setattr(connection.features, "supports_transactions", False)
    assert "InnoDB" in next(examine_outbox()).advice


def test_a_database_that_is_down_is_told_elsewhere(monkeypatch):
    def down() -> None:
        raise DatabaseError

    monkeypatch.setattr(doctor, "health", down)
    assert list(examine_outbox()) == []
