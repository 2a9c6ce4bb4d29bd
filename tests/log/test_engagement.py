"""Each open and click counts once, in whatever order webhooks and answers report it."""

from collections.abc import Callable

import pytest

from tests.log.events import (
    A_LITTLE_LATER,
    OPENS,
    START,
    answered,
    email,
    fields_of,
    incoming,
    minute,
)
from truncus_django.api.results import EmailDetails, ReportedEvent
from truncus_django.log.ingest import apply_details, ingest

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("webhook_first", [True, False])
def test_opens_reported_by_webhook_and_sync_count_once(webhook_first):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming(word, minute) for word, minute in OPENS]),
        lambda: apply_details({"m-1": answered("delivered", *OPENS)}),
    ]
    for step in steps if webhook_first else reversed(steps):
        step()

    assert (fields_of(row)["open_count"], fields_of(row)["click_count"]) == (2, 1)


def test_opens_that_were_only_counted_are_not_counted_again_when_their_webhooks_come():
    row = email()
    apply_details({"m-1": answered(open_count=2, click_count=1, first_opened_at=START)})
    ingest([incoming(word, minute) for word, minute in OPENS])

    assert (fields_of(row)["open_count"], fields_of(row)["click_count"]) == (2, 1)


def test_sync_makes_up_for_webhooks_that_were_lost():
    row = email()
    ingest([incoming("opened", 1)])
    apply_details({"m-1": answered("delivered", *OPENS)}, now=minute(8))
    ingest([incoming("opened", 9)])

    assert fields_of(row)["open_count"] == 3


FORMS: dict[str, Callable[..., EmailDetails]] = {
    "listed": lambda *minutes, **fields: answered(
        "delivered", *[("opened", at) for at in minutes], **fields
    ),
    "counted": lambda *minutes, **fields: answered(
        open_count=len(minutes), first_opened_at=min(map(minute, minutes), default=None), **fields
    ),
}


@pytest.fixture(params=FORMS)
def opened(request: pytest.FixtureRequest) -> Callable[..., EmailDetails]:
    """Return a function that makes an answer about an email opened at these minutes."""
    return FORMS[request.param]


@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
def test_one_open_reported_with_two_times_counts_once(opened, shift):
    row = email()
    ingest([incoming("opened", 1 + shift)])
    apply_details({"m-1": opened(1)}, now=minute(5))

    assert fields_of(row)["open_count"] == 1


@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
def test_a_late_webhook_about_an_open_of_an_answer_counts_nothing(opened, shift):
    row = email()
    apply_details({"m-1": opened(1, 2)}, now=minute(5))
    for at in (1, 2):
        ingest([incoming("opened", at + shift)])
        assert fields_of(row)["open_count"] == 2


def test_an_open_after_sync_is_one_more_though_its_forerunners_had_no_webhooks(opened):
    row = email()
    apply_details({"m-1": opened(1, 2)}, now=minute(5))
    for _ in range(2):
        ingest([incoming("opened", 6)])
    ingest([incoming("opened", 2 + A_LITTLE_LATER)])
    assert fields_of(row)["open_count"] == 3

    apply_details({"m-1": opened(1, 2, 6 - A_LITTLE_LATER)}, now=minute(7))
    ingest([incoming("opened", 8), incoming("opened", 9)])
    assert fields_of(row)["open_count"] == 5


def test_an_answer_older_than_a_webhook_takes_no_open_back(opened):
    row = email()
    ingest([incoming("opened", 1), incoming("opened", 2)])
    apply_details({"m-1": opened(1)}, now=minute(5))

    assert fields_of(row)["open_count"] == 2


SKEWS = [-10, -1, -0.4, 0, 0.4, 1, 10]
"""Minutes by which Truncus's clock, which dates webhooks and events, is ahead of ours."""


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
@pytest.mark.parametrize("webhook_first", [True, False])
@pytest.mark.parametrize("is_dated", [True, False])
def test_one_open_counts_once_however_far_truncuss_clock_is_ahead(
    opened, webhook_first, shift, skew, is_dated
):
    row = email()
    dated = {"answered_at": minute(1.2 + skew)} if is_dated else {}
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming("opened", 1 + skew + shift)]),
        lambda: apply_details({"m-1": opened(1 + skew, **dated)}, now=minute(1.2)),
    ]
    for step in steps if webhook_first else reversed(steps):
        step()

    assert fields_of(row)["open_count"] == 1


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("shift", [A_LITTLE_LATER, -A_LITTLE_LATER])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_two_opens_and_one_after_the_answer_count_as_three_by_any_clock(opened, shift, skew, order):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: ingest([incoming("opened", 1 + skew + shift)]),
        lambda: ingest([incoming("opened", 2 + skew + shift)]),
        lambda: ingest([incoming("opened", 4 + skew + shift)]),
        lambda: apply_details(
            {"m-1": opened(1 + skew, 2 + skew, answered_at=minute(3 + skew))}, now=minute(3)
        ),
    ]
    for place in order:
        steps[place]()

    assert fields_of(row)["open_count"] == 3


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("answer_first", [True, False])
def test_an_open_after_the_answer_is_one_more_though_the_first_had_no_webhook(
    opened, skew, answer_first
):
    row = email()
    steps: list[Callable[[], object]] = [
        lambda: apply_details(
            {"m-1": opened(1 + skew, answered_at=minute(2 + skew))}, now=minute(2)
        ),
        lambda: ingest([incoming("opened", 3 + skew)]),
    ]
    for step in steps if answer_first else reversed(steps):
        step()

    assert fields_of(row)["open_count"] == 2


def test_a_count_that_was_too_high_is_mended_by_the_next_answer():
    """Ours stands in for the answer's clock; it was half a minute behind."""
    row = email()
    apply_details({"m-1": FORMS["counted"](1, 5)}, now=minute(5))
    ingest([incoming("opened", 5.4)])
    assert fields_of(row)["open_count"] == 3

    apply_details({"m-1": FORMS["counted"](1, 5)}, now=minute(7))
    assert fields_of(row)["open_count"] == 2


def test_an_event_without_time_and_id_comes_again_with_each_answer_and_counts_once():
    row = email()
    undated = ReportedEvent(None, "opened", None)
    for hour in (1, 2):
        answer = EmailDetails("m-1", "sent", open_count=2, events=(undated, undated))
        apply_details({"m-1": answer}, now=minute(60 * hour))

    assert (row.events.count(), fields_of(row)["open_count"]) == (2, 2)


def test_clicks_are_counted_apart_from_opens():
    row = email()
    apply_details({"m-1": answered("delivered", *OPENS)}, now=minute(5))
    ingest([incoming("clicked", 6)])

    assert (fields_of(row)["open_count"], fields_of(row)["click_count"]) == (2, 2)


def test_two_opens_in_one_second_with_ids_count_as_two():
    row = email()
    ingest([incoming("opened", event_id="e-1"), incoming("opened", event_id="e-2")])

    assert fields_of(row)["open_count"] == 2
