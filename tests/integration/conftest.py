"""What all integration tests share: messages, short waits, and a backend by its options."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.messages import orders
from truncus_django.api import retry
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once: how long to wait is the business of the unit tests."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.001)


@pytest.fixture
def backend(truncus_emulator: Any) -> Callable[..., TruncusBackend]:
    """Return a function that makes a backend which speaks to the emulator."""

    def make(**options: Any) -> TruncusBackend:
        return TruncusBackend(
            **{"api_key": "tr_test_integration", "base_url": truncus_emulator.url, **options}
        )

    return make


@pytest.fixture
def messages() -> Callable[..., list[TruncusMessage]]:
    """Return a function that makes messages, each different from the others."""
    return orders
