"""States: which outranks which, what Truncus's words mean, when to ask again."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from truncus_django.api import contract
from truncus_django.states import (
    FINAL_STATES,
    RANKS,
    UNSENT_STATES,
    State,
    next_sync,
    outranks,
    state_of,
    state_of_event,
)

SENT_AT = datetime(2026, 11, 1, tzinfo=UTC)

# Each gives way to those after it, and to none before.
IN_ORDER = [
    "pending", "sending", "unknown", "scheduled", "deferred", "sent", "expired", "cancelled",
    "failed", "rejected", "delivered", "bounced", "complained",
]  # fmt: skip


def test_each_state_gives_way_to_those_after_it_only():
    assert (
        sorted(RANKS, key=lambda state: RANKS[state])
        == IN_ORDER
        == sorted(State, key=IN_ORDER.index)
    )
    for old, new in pairwise(IN_ORDER):
        assert outranks(new, old)
        assert not outranks(old, new)


@pytest.mark.parametrize("state", State)
def test_no_state_outranks_itself(state):
    assert not outranks(state, state)


def test_no_final_state_is_unsent():
    assert not FINAL_STATES & UNSENT_STATES


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("sent", State.SENT),
        ("sandbox", State.SENT),
        ("delivered", State.DELIVERED),
        ("Delivered", State.DELIVERED),
        ("queued", State.DEFERRED),
        ("blocked", State.REJECTED),
        ("bounce", State.BOUNCED),
        ("complaint", State.COMPLAINED),
        ("opened", None),
        ("new_word", None),
        ("", None),
        (None, None),
    ],
)
def test_truncus_words_mean_states(word, state):
    assert state_of(word) is state


def test_the_event_queued_begins_every_life_and_moves_nothing():
    assert state_of_event("queued") is None
    assert state_of_event("deferred") is State.DEFERRED


@pytest.mark.parametrize("word", sorted(set(contract.EVENT_TYPES) - {"queued"}))
def test_every_published_event_means_a_state_or_engagement(word):
    assert state_of_event(word) is not None or word in {"opened", "clicked"}


@pytest.mark.parametrize(
    ("age", "pause"),
    [
        (timedelta(0), timedelta(minutes=1)),
        (timedelta(minutes=9), timedelta(minutes=1)),
        (timedelta(minutes=10), timedelta(minutes=10)),
        (timedelta(hours=2), timedelta(hours=1)),
        (timedelta(days=2), timedelta(hours=6)),
        (timedelta(days=8), timedelta(days=1)),
        (timedelta(days=89), timedelta(days=7)),
    ],
)
def test_the_older_an_email_the_more_seldom_it_is_asked_about(age, pause):
    now = SENT_AT + age

    assert next_sync(State.SENT, sent_at=SENT_AT, now=now) == now + pause


def test_nothing_is_asked_after_90_days():
    assert next_sync(State.SENT, sent_at=SENT_AT, now=SENT_AT + timedelta(days=90)) is None


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_nothing_is_asked_about_a_final_state(state):
    assert next_sync(state, sent_at=SENT_AT, now=SENT_AT) is None


def test_a_scheduled_email_is_not_asked_about_before_its_time():
    now = SENT_AT - timedelta(days=3)

    assert next_sync(State.SCHEDULED, sent_at=SENT_AT, now=now) > SENT_AT
