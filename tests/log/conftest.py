"""What the tests of the log share: recording is on, and messages that differ."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import getclosurevars
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.mail import EmailMessage
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext

from tests.people import may  # noqa: F401  a fixture
from truncus_django.api import retry
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import email_event, email_state_changed

DATABASE_NUMBERS = count()


@pytest.fixture(autouse=True)
def recording(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record every email, and repeat requests at once."""
    settings.TRUNCUS = {"API_KEY": "tr_test_log", "WEBHOOK_SECRETS": ["a secret"]}
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.001)


@pytest.fixture
def emulator(recording: None, truncus_emulator: Any) -> Any:
    """A fresh local Truncus that Django's email goes to, with the log on."""
    return truncus_emulator


@pytest.fixture
def backend(emulator: Any) -> Callable[..., TruncusBackend]:
    """Return a function that makes a backend with options of its own."""
    return TruncusBackend


@pytest.fixture
def messages() -> Callable[..., list[EmailMessage]]:
    """Return a function that makes messages, each different from the others."""

    def make(count: int, **options: Any) -> list[EmailMessage]:
        return [
            TruncusMessage(
                f"Order {number}",
                f"Your order {number} is on its way.",
                "shop@example.com",
                [f"customer-{number}@example.org"],
                **options,
            )
            for number in range(count)
        ]

    return make


@pytest.fixture
def other_database(
    transactional_db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Return a function that gives the log a database of its own, on disk; it returns the alias."""
    # A thread that lives on, such as asgiref's, would keep its connection to the file of an alias.
    alias = f"log_{next(DATABASE_NUMBERS)}"
    # Django's test case refuses every alias that it did not know when it began.
    guarded = getclosurevars(BaseDatabaseWrapper.ensure_connection).nonlocals
    real = guarded["real_ensure_connection"]
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", real)

    def make(*, path: Path = tmp_path / "log.sqlite3", with_tables: bool = True) -> str:
        connections.settings[alias] = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": path,
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
        }
        if with_tables:
            with connections[alias].schema_editor() as editor:
                for model in apps.get_app_config("truncus_django").get_models():
                    editor.create_model(model)
        settings.TRUNCUS = {**settings.TRUNCUS, "DATABASE": alias}
        return alias

    yield make
    if alias in connections.settings:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


@pytest.fixture
def shared_database(transactional_db: None, request: pytest.FixtureRequest) -> str:
    """The alias of a log that threads can use at once: SQLite in memory is no such thing."""
    if connection.vendor != "sqlite":
        return "default"
    alias: str = request.getfixturevalue("other_database")()
    return alias


@pytest.fixture
def in_threads() -> Iterator[Callable[..., list[Any]]]:
    """Return a function that calls each of the functions in a thread, and returns their answers."""
    with ThreadPoolExecutor(max_workers=8) as threads:

        def run(*functions: Callable[[], Any]) -> list[Any]:
            def call(function: Callable[[], Any]) -> Any:
                try:
                    return function()
                finally:
                    connections.close_all()

            return [future.result(300) for future in [threads.submit(call, f) for f in functions]]

        yield run


@pytest.fixture
def count_queries() -> Callable[..., Any]:
    """Return a context manager that lists the queries made in it, but for those of transactions."""

    @contextmanager
    def counting(alias: str = "default") -> Iterator[list[str]]:
        found: list[str] = []
        with CaptureQueriesContext(connections[alias]) as captured:
            yield found
        words = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET")
        found += [q["sql"] for q in captured if not q["sql"].lstrip().startswith(words)]

    return counting


@pytest.fixture
def sent(emulator: Any, settings: Any) -> Email:
    """An email that the emulator has, with its bodies."""
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    TruncusMessage(
        "Your tea",
        "It is on its way.",
        "shop@example.com",
        ["open@example.org"],
        html="<p>It is on its way.</p>",
        cc=["copy@example.org"],
        tenant_id="acme",
        metadata={"order": "42"},
        track_clicks=False,
    ).send()
    return Email.objects.get()


@pytest.fixture
def signalled() -> Iterator[list[Any]]:
    """Every signal of the log, as (old state, new state) or type of event."""
    seen: list[Any] = []

    def note_state(sender: Any, email: Email, old_state: str, new_state: str, **_: Any) -> None:
        seen.append((str(old_state), str(new_state)))

    def note_event(sender: Any, email: Email, event: EmailEvent, **_: Any) -> None:
        seen.append(event.type)

    email_state_changed.connect(note_state)
    email_event.connect(note_event)
    yield seen
    email_state_changed.disconnect(note_state)
    email_event.disconnect(note_event)
