"""Many rows with values of their own, in one statement."""

import pytest
from django.utils import timezone

from truncus_django.bulk import update_each
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture
def emails():
    return Email.objects.bulk_create(Email(state=State.SENT, subject="Old") for _ in range(600))


def test_each_row_gets_its_own_values_and_other_fields_stay(emails):
    moment = timezone.now()
    for number, email in enumerate(emails):
        email.state = State.DELIVERED
        email.open_count = number
        email.delivered_at = moment if number % 2 else None
        email.message_id = f"m-{number}" if number % 3 else None
        email.subject = "New"
    assert update_each(
        Email.objects.all(), emails, ["state", "open_count", "delivered_at", "message_id"]
    ) == len(emails)
    for number, email in enumerate(Email.objects.order_by("open_count")):
        assert email.open_count == number
        assert email.delivered_at == (moment if number % 2 else None)
        assert email.message_id == (f"m-{number}" if number % 3 else None)
        assert (email.state, email.subject) == (State.DELIVERED, "Old")


def test_a_relation_is_written_by_its_id(emails):
    event = EmailEvent.objects.create(
        message_id="m", event_id="e", type="opened", occurred_at=timezone.now()
    )
    event.email = emails[0]
    update_each(EmailEvent.objects.all(), [event], ["email"])
    event.refresh_from_db()
    assert event.email == emails[0]


def test_rows_outside_the_query_set_stay(emails):
    for email in emails[:2]:
        email.subject = "New"
    assert update_each(Email.objects.filter(pk=emails[0].pk), emails[:2], ["subject"]) == 1
    assert update_each(Email.objects.all(), [], ["subject"]) == 0
