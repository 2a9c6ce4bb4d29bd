"""The migrations: back to nothing and forward again, with emails and events in the log."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from tests.admin.pages import make
from truncus_django.models import Email, EmailEvent


@pytest.fixture
def migrate(transactional_db: None) -> Iterator[Any]:
    """Return a function that migrates the log; in the end all migrations are there again."""

    def to(name: str | None = None) -> None:
        target = [] if name is None else [name]
        call_command("migrate", "truncus_django", *target, verbosity=0)

    yield to
    to()


def fill() -> None:
    """Record an email, its resend, an event of it and one that waits for its email."""
    email = make(metadata={"order": "42"}, html_body="<p>Grüße 😀</p>")
    make(resend_of=email)
    for number, owner in enumerate((email, None)):
        EmailEvent.objects.create(
            email=owner,
            message_id=f"msg-{number}",
            event_id=f"event-{number}",
            type="opened",
            occurred_at=timezone.now(),
            source="webhook",
        )


def indexes() -> set[str]:
    with connection.cursor() as cursor:
        return set(connection.introspection.get_constraints(cursor, Email._meta.db_table))


def tables() -> set[str]:
    return {name for name in connection.introspection.table_names() if name.startswith("truncus")}


def test_the_log_can_be_taken_away_and_made_anew_with_data_in_it(migrate):
    before = tables(), indexes()
    fill()

    migrate("zero")
    assert tables() == set()

    migrate()
    # Django gives a foreign key's constraint its name, which is the same each time.
    assert (tables(), indexes()) == before
    assert not Email.objects.exists()
    fill()
    assert (Email.objects.count(), EmailEvent.objects.count()) == (2, 2)
