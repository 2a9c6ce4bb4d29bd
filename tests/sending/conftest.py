"""What the tests of sending share: Truncus on this machine, and another mailer beside it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fallback import SMTP, UNREACHABLE, SmtpServer, smtp_server, use_fallback
from tests.waiting import PATIENCE_S
from truncus_django.api import retry


@pytest.fixture
def emulator(truncus_emulator: Any, settings: Any) -> Any:
    """A fresh local Truncus that Django's email goes to, with the log on."""
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    return truncus_emulator


@pytest.fixture
def fallback(truncus_emulator: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fallback mailer; requests to Truncus are repeated at once."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.0)
    return use_fallback(settings)


@pytest.fixture
def down(fallback: str, settings: Any) -> None:
    """Let nobody answer where Truncus is."""
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}


@pytest.fixture
def smtp(fallback: str, settings: Any) -> Iterator[SmtpServer]:
    """A real server as the fallback mailer."""
    with smtp_server() as server:
        use_fallback(
            settings, SMTP, {"host": "127.0.0.1", "port": server.port, "timeout": PATIENCE_S}
        )
        yield server
