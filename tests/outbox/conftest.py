"""What the tests of the outbox share: sending goes into it, and there are no limits."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.db import connection

from tests.people import may  # noqa: F401  a fixture
from truncus_django.api import retry
from truncus_django.backend import TruncusBackend
from truncus_django.db.clock import Clock
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, OutboxBatch, OutboxEntry
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.notify import forget_trouble
from truncus_django.states import State

NO_LIMITS = {"requests_per_second": 0, "requests_per_minute": 0}

_WITH_PROCESSES = {"shop", "site", "victim"}
"""Fixtures that start Python anew, which takes longer than all else."""


def pytest_itemcollected(item: Any) -> None:
    """Mark what starts processes: it runs once on each database, and not for each Python."""
    fixtures = getattr(item, "fixturenames", ())
    if _WITH_PROCESSES.intersection(fixtures):
        item.add_marker("processes")
    if "victim" in fixtures:
        item.add_marker("steps")


@pytest.fixture(autouse=True)
def no_trouble() -> Iterator[None]:
    forget_trouble()
    yield
    forget_trouble()


@pytest.fixture(autouse=True)
def outbox(settings: Any) -> None:
    """Put every email into the outbox; the account has no limits."""
    settings.TRUNCUS = {
        "API_KEY": "tr_test_outbox",
        "DELIVERY": "outbox",
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }


@pytest.fixture
def emulator(outbox: None, truncus_emulator: Any) -> Any:
    """A fresh local Truncus without limits, which takes what leaves the outbox."""
    truncus_emulator.reset(**NO_LIMITS)
    return truncus_emulator


@pytest.fixture
def message() -> Callable[..., EmailMessage]:
    """Return a function that makes a message, with HTML and text, so that any dialect takes it."""

    def make(number: int = 0, **options: Any) -> EmailMessage:
        return TruncusMessage(
            f"Order {number}",
            f"Your order {number} is on its way.",
            options.pop("from_email", "shop@example.com"),
            options.pop("to", [f"customer-{number}@example.org"]),
            html=f"<p>Your order {number} is on its way.</p>",
            **options,
        )

    return make


@pytest.fixture
def messages(message: Callable[..., EmailMessage]) -> Callable[..., Iterator[EmailMessage]]:
    """Return a function that returns a generator of messages."""

    def generate(count: int, start: int = 0) -> Iterator[EmailMessage]:
        for number in range(start, start + count):
            yield message(number)

    return generate


@pytest.fixture
def is_direct(settings: Any) -> None:
    """Send bulks from the process that was called."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}


@pytest.fixture(params=["direct", "outbox"])
def delivery(request: Any, settings: Any) -> str:
    """Each way of delivery, in a test of its own."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": request.param}
    return str(request.param)


@pytest.fixture
def put(message: Callable[..., EmailMessage]) -> Callable[..., list[Email]]:
    """Return a function that puts messages into the outbox and returns their records, in order."""

    def put(count: int = 1, **options: Any) -> list[Email]:
        messages = [message(number, **options) for number in range(count)]
        return put_all(messages)

    return put


def put_all(messages: Sequence[EmailMessage]) -> list[Email]:
    """Put ``messages`` into the outbox and return their records, in order."""
    TruncusBackend().send_messages(messages)
    ids = [message.truncus_status.email_pk for message in messages]  # type: ignore[attr-defined]
    found = Email.objects.in_bulk(ids)
    return [found[pk] for pk in ids]


@pytest.fixture
def takes_few_parameters() -> bool:
    """Whether Django thinks that the database takes 999 parameters only, as of SQLite till 6.0."""
    most = connection.features.max_query_params
    return most is not None and most < 10_000


def keys_of(emulator: Any) -> list[str]:
    """Return the idempotency keys of all send requests, in their order."""
    return [
        request.headers["idempotency-key"]
        for request in emulator.requests
        if "idempotency-key" in request.headers
    ]


def reload(email: Email) -> Email:
    """Return a record as it is now."""
    email.refresh_from_db()
    return email


@pytest.fixture
def failed(emulator: Any, put: Callable[..., list[Email]], dispatcher: Dispatcher) -> list[Email]:
    """Two emails of one request that failed because their domain was paused; now it is not."""
    emulator.reset(domains={"example.com": "paused"}, **NO_LIMITS)
    emails = put(2)
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    assert {reload(email).state for email in emails} == {State.FAILED}
    return emails


@pytest.fixture
def ambiguous(
    emulator: Any, put: Callable[..., list[Email]], dispatcher: Dispatcher
) -> list[Email]:
    """Two emails that Truncus took and whose answer was lost."""
    emails = put(2)
    emulator.faults.next("reset_after")
    dispatcher.step()  # no more: the next try may be due by then
    assert OutboxBatch.objects.get().is_ambiguous
    return emails


@pytest.fixture
def unknown(
    ambiguous: list[Email], emulator: Any, dispatcher: Dispatcher, travel: Callable[[float], None]
) -> list[Email]:
    """The same, a day later: nobody knows what became of them, and Truncus has forgotten."""
    travel(25 * 3600)
    dispatcher.drain()
    assert {reload(email).state for email in ambiguous} == {State.UNKNOWN}
    emulator.reset(**NO_LIMITS)
    return ambiguous


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """One that neither waits for a database nor spreads retries by chance.

    It tries again so late that no pause of a busy machine lets it.
    """
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 20.0)
    return Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5)


@pytest.fixture
def states() -> Callable[[], list[str]]:
    """Return a function that returns the states of all emails, oldest first."""
    return lambda: list(Email.objects.order_by("created_at").values_list("state", flat=True))


@pytest.fixture
def waiting() -> Callable[[], int]:
    """Return a function that counts the entries that wait."""
    return lambda: OutboxEntry.objects.filter(is_waiting=True).count()


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that puts the database's clock forward by so many seconds, from now on."""
    real, ahead = Clock.now, [0.0]
    monkeypatch.setattr(Clock, "now", lambda clock: real(clock) + ahead[0])

    def travel(seconds: float) -> None:
        ahead[0] += seconds

    return travel
