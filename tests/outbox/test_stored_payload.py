"""Emails as the outbox stores them: what cannot be sent is neither written nor read."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.outbox.conftest import put_all
from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.errors import MessageError
from truncus_django.backend import TruncusBackend
from truncus_django.models import OutboxEntry
from truncus_django.outbox.claim import claim
from truncus_django.outbox.stored_payload import (
    payload_json,
    read_wire_format,
    stored_emails,
    stored_wire_format,
)

FIELDS = {"from": "shop@example.com", "to": "ann@example.org", "subject": "Order", "text": "Paid."}

NONSENSE = [
    {"from": None},
    {"from": 7},
    {"from": ["shop@example.com"]},
    {"to": None},
    {"to": 7},
    {"to": []},
    {"to": {"ann@example.org": "Ann"}},
    {"to": ["ann@example.org", 7]},
    {"to": [["ann@example.org"]]},
    {"cc": 7},
    {"cc": {"ann@example.org": "Ann"}},
    {"cc": ["ann@example.org", None]},
    {"bcc": True},
    {"bcc": [{}]},
    {"reply_to": 7},
    {"subject": 7},
    {"subject": ["Order"]},
    {"text": ["Your order"]},
    {"text": 7},
    {"html": {}},
    {"html": True},
    {"headers": ["X-Order: 1"]},
    {"headers": "X-Order: 1"},
    {"attachments": "JVBERi0="},
    {"attachments": {"filename": "a.pdf", "content": ""}},
    {"attachments": ["JVBERi0="]},
    {"attachments": [None]},
    {"template_id": {}},
    {"variables": ["name"]},
    {"metadata": "order=1"},
    {"tenant_id": 7},
    {"send_at": 1_800_000_000},
    {"send_at": ["tomorrow"]},
    {"track_opens": "no"},
    {"track_clicks": []},
    {"subject": float("nan")},
    {"metadata": {"order": float("inf")}},
    {"text": "\ud800"},
    {"text": float("inf")},
]


@pytest.fixture
def stored(put, dispatcher):
    """Return a function that returns what is read of an email of which ``text`` is stored."""

    def stored(text):
        put(1)
        taken = claim(dispatcher.clock)
        OutboxEntry.objects.update(payload=text)
        [email] = stored_emails(taken.batch, now=dispatcher.clock.now())
        return email

    return stored


@pytest.mark.parametrize("changes", NONSENSE, ids=json.dumps)
def test_nonsense_is_not_written(changes):
    with pytest.raises(MessageError):
        payload_json({**FIELDS, **changes})


@pytest.mark.django_db
@pytest.mark.parametrize("changes", NONSENSE, ids=json.dumps)
def test_nonsense_is_not_read(stored, changes):
    assert stored(json.dumps({**FIELDS, **changes})).fields is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '"text"',
        '{"from": "shop@example.com"}',
        "\ud7ff" * 9,
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_email_is_not_read(stored, text):
    assert stored(text).fields is None


@pytest.mark.django_db
def test_what_the_api_may_come_to_know_is_sent_as_it_is(stored):
    fields = {**FIELDS, "cc": None, "reply_to": ["ben@example.org"], "ip_pool": 7}

    assert stored(payload_json(fields).decode()).fields == fields


@pytest.mark.django_db
def test_a_send_at_that_is_over_is_left_out(stored):
    past = {**FIELDS, "send_at": "2020-01-01T00:00:00Z"}
    found = stored(json.dumps(past))

    assert (found.fields, found.send_at) == (FIELDS, None)


@pytest.mark.django_db
def test_a_send_at_that_lies_ahead_is_read(stored):
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    found = stored(json.dumps({**FIELDS, "send_at": ahead.isoformat()}))

    assert found.send_at == ahead
    assert found.fields["send_at"] == ahead.isoformat()


@pytest.mark.django_db
def test_a_wrong_field_is_refused_where_the_email_is_sent(message):
    with pytest.raises(MessageError, match=r"'cc' of the email's payload must be .*, not int"):
        TruncusBackend().send_messages([message(esp_extra={"cc": 7})])

    assert OutboxEntry.objects.count() == 0


@pytest.mark.django_db
def test_tuples_are_stored_as_lists(emulator, message, dispatcher):
    put_all([message(esp_extra={"cc": ("ben@example.org", "cid@example.org")})])
    dispatcher.drain()

    assert emulator.requests[0].body["cc"] == ["ben@example.org", "cid@example.org"]


@pytest.mark.parametrize("is_set", [True, False])
def test_a_wire_format_is_read_as_it_was_stored(is_set):
    capabilities = Capabilities(html_required=is_set, single_recipient=not is_set)
    wire_format = WireFormat(capabilities, is_pinned=is_set)

    assert read_wire_format(stored_wire_format(wire_format)) == wire_format


@pytest.mark.parametrize("odd", [None, {}, [], "x", 7])
def test_no_wire_format_is_none(odd):
    assert read_wire_format(odd) is None
