"""Our own ids: version 7 UUIDs in the order of time."""

import time
import uuid

from truncus_django.db.uuid7 import time_ordered_uuid


def test_it_is_a_version_7_uuid():
    made = time_ordered_uuid()

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_it_begins_with_the_milliseconds_of_its_making():
    before = time.time_ns() // 1_000_000
    made = time_ordered_uuid().int >> 80

    assert before <= made <= time.time_ns() // 1_000_000


def test_later_ones_are_larger(monkeypatch):
    moments = iter(range(1_700_000_000_000_000_000, 1_700_000_000_100_000_000, 1_000_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    made = [time_ordered_uuid() for _ in range(100)]

    assert sorted(made) == sorted(made, key=str) == made


def test_no_two_are_equal():
    assert len({time_ordered_uuid() for _ in range(10_000)}) == 10_000
