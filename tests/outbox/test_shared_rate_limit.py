"""Questions about emails keep within what the outbox's workers leave of the limits."""

import time

import pytest

from truncus_django.db.clock import Clock, moment_of
from truncus_django.log.sync import SyncJob
from truncus_django.mailers import get_mailer
from truncus_django.models import OutboxAccount
from truncus_django.outbox.idle import Idle
from truncus_django.rate_limit import SharedPacer, limits, next_request_at

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def limited(settings, emulator):
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_SECOND": 4, "REQUESTS_PER_MINUTE": 6}


@pytest.fixture(autouse=True)
def _still(monkeypatch):
    """Let the clock stand still but for ``travel``: a busy machine takes a second for anything."""
    now = time.time()
    monkeypatch.setattr(Clock, "now", lambda clock: now)


@pytest.fixture
def pacer(travel):
    mailer = get_mailer("")
    return SharedPacer(mailer.client.account, mailer.settings, sleep=travel)


def test_requests_under_way_count_as_of_now_and_those_of_a_clock_that_was_set_back_not_at_all(
    pacer,
):
    allowed = limits(get_mailer("").settings)

    under_way = OutboxAccount(recent_requests=[1004.0] * 4)
    assert 1000 < next_request_at(under_way, allowed, now=1000.0) < 1002
    set_back = OutboxAccount(recent_requests=[5000.0] * 4)
    assert next_request_at(set_back, allowed, now=1000.0) == 1000


def test_half_of_the_limits_is_left_to_what_is_sent(pacer, put, dispatcher):
    waits = []
    for _ in range(4):
        with pacer.request() as waited_s:
            waits.append(waited_s > 0)
    assert waits == [False, False, True, True]

    put(1)
    assert dispatcher.step().accepted == 1


def test_a_question_counts_from_its_answer(pacer, travel):
    for way_s in (4, 0):
        with pacer.request():
            travel(way_s)

    assert pacer.pause_s() > 0


def test_a_question_under_way_counts_for_as_long_as_it_may_arrive(pacer, travel):
    with pacer.request(), pacer.request():
        travel(2)
        assert pacer.pause_s() > 0


def test_what_is_sent_counts(pacer, message, dispatcher, travel, put):
    for _ in range(3):
        put(1)
        assert dispatcher.step().accepted == 1

    assert pacer.pause_s() > 50
    assert isinstance(dispatcher.step(), Idle)
    with pacer.request() as waited_s:
        assert 50 < waited_s < 62


def test_a_pause_of_the_account_is_one_for_all(pacer, put, dispatcher):
    put(1)
    dispatcher.step()
    OutboxAccount.objects.update(paused_until=moment_of(Clock("default").now() + 500))

    assert 490 < pacer.pause_s() < 501


def test_the_sync_asks_within_it(put, dispatcher, travel):
    put(1)
    dispatcher.step()
    travel(120)
    before = OutboxAccount.objects.get().recent_requests

    job = SyncJob(sleep=travel)
    job.ask_about(job._selection.due(moment_of(Clock("default").now() + 10**6)))

    assert job.result.asked == 1
    assert len(OutboxAccount.objects.get().recent_requests) == len(before) + 1
