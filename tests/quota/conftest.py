"""What the tests of quotas share: recording is on, and what the signal has told."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.log.conftest import in_threads, other_database, shared_database
from truncus_django.signals import quota_threshold

__all__ = ["in_threads", "other_database", "shared_database"]


@pytest.fixture(autouse=True)
def recording(settings: Any) -> None:
    settings.TRUNCUS = {"API_KEY": "tr_test_quota"}


@pytest.fixture
def emulator(recording: None, truncus_emulator: Any) -> Any:
    """A fresh local Truncus whose plan has ten emails."""
    truncus_emulator.reset(monthly_limit=10)
    return truncus_emulator


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """What ``quota_threshold`` has told, in order."""
    received: list[dict[str, Any]] = []

    def receive(**facts: Any) -> None:
        received.append(facts)

    quota_threshold.connect(receive)
    yield received
    quota_threshold.disconnect(receive)
