"""Pacing: a long job keeps under the request limits ahead of time."""

import pytest

from tests.clocks import Time
from truncus_django.api.rate_limit import Pacer


@pytest.fixture
def time() -> Time:
    return Time()


def pacer(time: Time, per_second: int, per_minute: int) -> Pacer:
    return Pacer(per_second=per_second, per_minute=per_minute, clock=time.clock, sleep=time.sleep)


def moments(time: Time, paced: Pacer, count: int) -> list[float]:
    """Return when each of ``count`` requests may go, in seconds since the first."""
    gone = []
    for _ in range(count):
        with paced.request():
            gone.append(time.now_s - 50.0)
    return gone


def test_without_limits_nothing_waits(time):
    paced = pacer(time, 0, 0)
    assert moments(time, paced, 1000) == [0.0] * 1000
    assert time.naps == []


def test_a_second_holds_no_more_than_its_limit(time):
    assert moments(time, pacer(time, 2, 0), 6) == [0, 0, 1, 1, 2, 2]


def test_a_minute_holds_no_more_than_its_limit(time):
    assert moments(time, pacer(time, 0, 3), 7) == [0, 0, 0, 60, 60, 60, 120]


def test_the_stricter_of_both_limits_counts(time):
    assert moments(time, pacer(time, 2, 5), 7) == [0, 0, 1, 1, 2, 60, 60]


@pytest.mark.parametrize(("per_second", "per_minute"), [(10, 60), (3, 7), (1, 0), (0, 1)])
def test_every_window_of_any_start_keeps_within_the_limit(time, per_second, per_minute):
    paced = pacer(time, per_second, per_minute)
    gone = []
    for number in range(200):
        with paced.request():
            gone.append(time.now_s)
        time.now_s += number % 7 * 0.11  # what the requests themselves take
    for span_s, limit in ((1.0, per_second), (60.0, per_minute)):
        for first, last in zip(gone, gone[limit:], strict=False) if limit else ():
            assert last - first >= span_s - 1e-9


def test_time_that_passes_by_itself_is_not_waited_again(time):
    paced = pacer(time, 1, 0)
    moments(time, paced, 1)
    time.now_s += 0.75
    assert paced.pause_s() == 0.25
    with paced.request() as waited_s:
        assert waited_s == 0.25
    time.now_s += 5
    with paced.request() as waited_s:
        assert waited_s == 0.0
    assert time.naps == [0.25]


def test_a_request_counts_from_its_answer(time):
    paced = pacer(time, 1, 0)
    with paced.request():
        time.now_s += 0.75
    time.now_s += 0.5
    assert paced.pause_s() == 0.5


def test_asking_for_the_pause_notes_no_request(time):
    paced = pacer(time, 1, 0)
    assert [paced.pause_s() for _ in range(3)] == [0.0] * 3
