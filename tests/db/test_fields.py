"""Ids that differ in case only are two ids, on every database."""

from datetime import UTC, datetime

import pytest

from truncus_django.db.large_tables import distinct_values
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_message_ids_that_differ_in_case_are_two():
    rows = [Email.objects.create(message_id=name, state=State.SENT) for name in ("msg_a", "msg_A")]
    ingest([IncomingEvent("msg_A", "delivered", NOON, "e-1")])

    for row in rows:
        row.refresh_from_db()
    assert [row.state for row in rows] == [State.SENT, State.DELIVERED]


def test_event_ids_that_differ_in_case_are_two_events():
    Email.objects.create(message_id="m-1", state=State.SENT)
    ingest(
        [
            IncomingEvent("m-1", "opened", NOON, "evt_a"),
            IncomingEvent("m-1", "opened", NOON, "evt_A"),
        ]
    )

    assert EmailEvent.objects.count() == 2
    assert Email.objects.get().open_count == 2


@pytest.mark.parametrize(
    "name",
    ["global_message_id", "provider_message_id", "idempotency_key", "tenant_id", "mailer"],
)
def test_other_ids_are_found_letter_by_letter(name):
    for value in ("acme", "Acme"):
        Email.objects.create(state=State.SENT, **{name: value})

    assert Email.objects.filter(**{name: "acme"}).count() == 1


@pytest.mark.parametrize("name", ["tenant_id", "mailer"])
def test_filters_offer_both(name):
    for value in ("b", "acme", "Acme", "acme"):
        Email.objects.create(state=State.SENT, **{name: value})

    assert sorted(distinct_values(Email.objects.all(), name, limit=10)) == ["Acme", "acme", "b"]


def test_a_letter_outside_ascii_stays_itself():
    for value in ("e", "é", "E"):
        Email.objects.create(state=State.SENT, tenant_id=value)

    assert Email.objects.filter(tenant_id="é").count() == 1
