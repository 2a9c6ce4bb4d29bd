"""The body of a webhook → an event."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from truncus_django.log.webhook_payload import read_event

NOW = 1_790_000_000


def read(**fields: Any) -> Any:
    told = {"event": "email.delivery", "message_id": "m-1", "status": "sent", **fields}
    return read_event(json.dumps(told).encode(), signed_at=NOW)


@pytest.mark.parametrize(
    ("event", "status", "word"),
    [
        ("email.delivery", "delivered", "delivered"),
        ("email.delivery", "Bounced", "bounced"),
        ("email.delivery", None, "delivery"),
        ("email.open", "opened", "opened"),
        ("email.open", "delivered", "opened"),
        ("email.click", None, "clicked"),
        ("email.bounce", None, "bounced"),
        ("email.complaint", "x", "complained"),
        ("email.delivered", None, "delivered"),
        ("open", None, "opened"),
        (None, "opened", "opened"),
        ("domain.verified", "x", "domain.verified"),
    ],
)
def test_event_and_status_make_one_word(event, status, word):
    assert read(event=event, status=status).type == word


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        (NOW - 60, NOW - 60),
        (NOW - 0.5, NOW - 0.5),
        (str(NOW - 60), NOW - 60),
        ("2026-09-21T13:00:00Z", datetime(2026, 9, 21, 13, tzinfo=UTC).timestamp()),
        ("2026-09-21T15:00:00+02:00", datetime(2026, 9, 21, 13, tzinfo=UTC).timestamp()),
        ("2026-09-21T13:00:00", datetime(2026, 9, 21, 13, tzinfo=UTC).timestamp()),
        # What makes no sense gives way to the header's.
        (None, NOW),
        (True, NOW),
        ("yesterday", NOW),
        (0, NOW),
        (-(10**20), NOW),
        (NOW * 1000, NOW),
        (NOW + 2 * 86400, NOW),
        (10**400, NOW),
        (float("nan"), NOW),
        (float("inf"), NOW),
        ("0001-01-01T00:00:00+14:00", NOW),
        ([NOW], NOW),
    ],
)
def test_the_time_of_an_event_is_read_in_every_form(timestamp, moment):
    assert read(timestamp=timestamp).occurred_at == datetime.fromtimestamp(moment, UTC)


def test_an_events_own_id_tells_it_from_others():
    assert read(event_id="e-1").event_id == "e-1"
    assert read(event_id=7).event_id == "7"
    assert len(read(id="e-2").event_id) == 64  # whose id it is, nobody says


@pytest.mark.parametrize(
    "fields", [{"id": "m-1"}, {"event_id": "e" * 256}, {"event_id": ""}, {"id": True}]
)
def test_without_an_id_of_its_own_an_event_is_told_by_its_body(fields):
    assert len(read(**fields).event_id) == 64
    assert read(**fields).event_id == read(**fields).event_id != read(reason="x").event_id
