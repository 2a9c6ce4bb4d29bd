"""Many rows with values of their own, in one statement."""

import pytest
from django.db import DataError, transaction
from django.utils import timezone

from truncus_django.db.bulk import insert, update_each, update_rows
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture
def emails():
    return Email.objects.bulk_create(Email(state=State.SENT, subject="Old") for _ in range(600))


def _update_each(rows, names):
    return update_each(Email.objects.all(), rows, names)


def _update_rows(rows, names):
    return update_rows(Email, rows, names, using="default")


@pytest.mark.parametrize("update", [_update_each, _update_rows])
def test_each_row_gets_its_own_values_and_other_fields_stay(update, emails):
    moment = timezone.now()
    for number, email in enumerate(emails):
        email.state = State.DELIVERED
        email.open_count = number
        email.delivered_at = moment if number % 2 else None
        email.message_id = f"m-{number}" if number % 3 else None
        email.subject = "New"
    names = ["state", "open_count", "delivered_at", "message_id"]
    assert update(emails, names) == len(emails)
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


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_query_updates_rows_and_tells_how_many_are_left(
    count, emails, django_assert_num_queries
):
    rows = emails[:count]
    Email.objects.filter(pk__in=[email.pk for email in rows[1:]]).delete()
    with django_assert_num_queries(min(count, 1)):
        assert update_rows(Email, rows, ["subject"], using="default") == min(count, 1)


def test_rows_outside_the_query_set_stay(emails):
    for email in emails[:2]:
        email.subject = "New"
    assert update_each(Email.objects.filter(pk=emails[0].pk), emails[:2], ["subject"]) == 1
    assert update_each(Email.objects.all(), [], ["subject"]) == 0


ODD_TEXTS = [
    "",
    "NULL",
    "null",
    "{}",
    '{"a",b}',
    "it's",
    'a "b" \\ c',
    "100 %s %%",
    "é 🙂\n\t",
    " ",
]


def test_what_is_inserted_comes_back_as_it_was():
    moment = timezone.now()
    written = [
        Email(
            state=State.SENT,
            subject=text,
            reason="the same for all",
            metadata={"number": number, "text": text},
            to=[text, "second@example.org"],
            track_opens=[None, True, False][number % 3],
            delivered_at=moment if number % 2 else None,
            open_count=number,
        )
        for number, text in enumerate(ODD_TEXTS)
    ]
    insert(written, using="default")
    found = Email.objects.in_bulk([email.pk for email in written])
    names = [field.attname for field in Email._meta.concrete_fields]
    for email in written:
        stored = found[email.pk]
        assert [getattr(stored, name) for name in names] == [getattr(email, name) for name in names]


@pytest.mark.parametrize("update", [_update_each, _update_rows])
def test_odd_texts_are_written_to_the_rows_they_belong_to(update, emails):
    several = emails[: len(ODD_TEXTS)]
    for email, text in zip(several, ODD_TEXTS, strict=True):
        email.subject = text
    update(several, ["subject"])
    found = Email.objects.in_bulk([email.pk for email in several])
    assert [found[email.pk].subject for email in several] == ODD_TEXTS


@pytest.mark.parametrize("values", [[1, True, 1.0], [0, False, 0.0]])
def test_values_that_are_equal_but_not_the_same_are_kept_apart(values):
    written = [Email(state=State.SENT, metadata={"paid": value}) for value in values]
    insert(written, using="default")
    found = Email.objects.in_bulk([email.pk for email in written])
    types = [type(found[email.pk].metadata["paid"]) for email in written[:2]]
    assert types == [int, bool]


def test_what_is_too_long_is_never_cut_off():
    rows = [Email(state=State.SENT, reason=text * 301) for text in "ab"]
    try:
        with transaction.atomic():
            insert(rows, using="default")
    except DataError:
        assert not Email.objects.exists()
    else:  # SQLite has no lengths
        assert {len(email.reason) for email in Email.objects.all()} == {301}
