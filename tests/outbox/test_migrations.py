"""The migration of the outbox: it is not taken back while emails are still to be sent."""

from collections.abc import Callable, Iterator

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from truncus_django.models import Email, OutboxEntry
from truncus_django.states import State


@pytest.fixture
def migrate(transactional_db: None) -> Iterator[Callable[[str], None]]:
    """Return a function that migrates; in the end all migrations are there again."""

    def to(*name: str) -> None:
        call_command("migrate", "truncus_django", *name, verbosity=0)

    yield to
    to()


def has_outbox() -> bool:
    return OutboxEntry._meta.db_table in connection.introspection.table_names()


def test_what_waits_or_is_in_a_request_is_not_dropped(migrate, put, emulator, dispatcher):
    emulator.faults.next("error_500")
    put(2)
    dispatcher.step()
    put(1)
    states = list(Email.objects.values_list("state", flat=True))
    assert set(states) == {State.SENDING, State.PENDING}

    with pytest.raises(CommandError, match="holds 3 emails that are still to be sent"):
        migrate("zero")

    assert has_outbox()
    assert OutboxEntry.objects.count() == 3
    assert list(Email.objects.values_list("state", flat=True)) == states


def test_one_is_one_too_many(migrate, put):
    put(1)
    with pytest.raises(CommandError, match="holds 1 email that is still to be sent"):
        migrate("zero")
    assert OutboxEntry.objects.count() == 1


def test_an_outbox_that_is_done_is_taken_back_and_made_anew(migrate, put, emulator, dispatcher):
    put(2)
    dispatcher.drain()
    put(1, to=["nobody@example.org"])
    Email.objects.filter(state=State.PENDING).update(state=State.FAILED)
    OutboxEntry.objects.update(is_waiting=False)  # stored for a person to retry

    migrate("zero")
    assert not has_outbox()

    migrate()
    assert not OutboxEntry.objects.exists()
