"""What the tests of the log share: recording is on, and messages that differ."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.mail import EmailMessage

from truncus_django.api import retry
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage


@pytest.fixture(autouse=True)
def recording(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record every e-mail, and repeat requests at once."""
    settings.TRUNCUS = {"API_KEY": "tr_test_log"}
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.001)


@pytest.fixture
def emulator(recording: None, truncus_emulator: Any) -> Any:
    """A fresh local Truncus that Django's e-mail goes to, with the log on."""
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
