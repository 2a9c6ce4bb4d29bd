"""What the tests of the log share: recording is on, and messages that differ."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from inspect import getclosurevars
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.conftest import BACKEND
from tests.messages import orders
from tests.people import may  # noqa: F401  a fixture
from truncus_django.api import retry
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import email_event, email_state_changed
from truncus_django.states import State

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
def messages() -> Callable[..., list[TruncusMessage]]:
    """Return a function that makes messages, each different from the others."""
    return orders


@pytest.fixture
def other_database(
    transactional_db: None, settings: Any, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Return a function that gives the log a database of its own, on disk; it returns the alias."""
    # A thread that lives on, such as asgiref's, would keep its connection to the file of an alias.
    alias = f"log_{next(DATABASE_NUMBERS)}"
    # Django's test case refuses every alias that it did not know when it began.
    guarded = getclosurevars(BaseDatabaseWrapper.ensure_connection).nonlocals
    real = guarded["real_ensure_connection"]

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

    # Undone before the test case ends, which puts back what refuses databases between tests.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(BaseDatabaseWrapper, "ensure_connection", real)
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
def send_due(emulator: Any, settings: Any, messages: Any) -> Callable[..., list[Email]]:
    """Return a function that sends emails which ``truncus_sync`` is to ask about now."""

    def send(count: int = 1, *, mailer: str | None = None, **options: Any) -> list[Email]:
        before = set(Email.objects.values_list("pk", flat=True))
        TruncusBackend(alias=mailer).send_messages(messages(count, **options))
        sent = Email.objects.exclude(pk__in=before)
        sent.update(state=State.SENT, next_sync_at=timezone.now() - timedelta(minutes=1))
        return list(sent.order_by("pk"))

    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }
    return send


@pytest.fixture
def accounts(settings: Any) -> dict[str, Any]:
    """Three mailers: one works, one has a revoked key, one a key that may not read."""
    settings.MAILERS = {
        "default": {"BACKEND": BACKEND},
        "revoked": {"BACKEND": BACKEND, "OPTIONS": {"api_key": "tr_test_revoked"}},
        "sender": {"BACKEND": BACKEND, "OPTIONS": {"api_key": "tr_test_sender"}},
    }
    return settings.MAILERS


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
