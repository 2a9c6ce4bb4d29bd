"""What tests of forgetting share: all is recorded, and the whole database is searched."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from tests.log.conftest import in_threads, other_database, shared_database
from tests.people import may
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, database

__all__ = ["in_threads", "may", "other_database", "shared_database"]


@pytest.fixture(autouse=True)
def recording(settings: Any) -> None:
    settings.TRUNCUS = {
        "API_KEY": "tr_test_forget",
        "STORE_BODIES": True,
        "SUPPRESS": "learn",
        "WEBHOOK_SECRETS": ["a secret"],
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }


@pytest.fixture
def emulator(recording: None, truncus_emulator: Any) -> Any:
    truncus_emulator.reset(requests_per_second=0, requests_per_minute=0)
    return truncus_emulator


@pytest.fixture
def send(emulator: Any) -> Callable[..., Email]:
    """Return a function that sends an email, and returns its record."""

    def send(*to: str, subject: str = "Hello", text: str = "Text", **options: Any) -> Email:
        options.setdefault("html", f"<p>{text}</p>")
        message = TruncusMessage(subject, text, "shop@example.com", list(to), **options)
        TruncusBackend(fail_silently=True).send_messages([message])
        return Email.objects.get(pk=message.truncus_status.email_pk)

    return send


def dump() -> str:
    """Return all that any table holds, as text in small letters."""
    connection = connections[database()]
    cells = []
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")
            cells += [str(cell) for row in cursor.fetchall() for cell in row]
    text = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), "\n".join(cells))
    return text.replace('\\"', '"').lower()


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("truncus_forget", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()
