"""What the tests of telemetry share: an SDK that keeps spans and metrics, a log and an outbox."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.mail import EmailMessage
from opentelemetry.sdk.trace import ReadableSpan

from tests.outbox.conftest import travel  # noqa: F401  a fixture
from tests.sdk import SPANS, forget_telemetry, metrics_collected
from truncus_django import telemetry, views
from truncus_django.api import retry
from truncus_django.message import TruncusMessage


@pytest.fixture(autouse=True)
def recording(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TRUNCUS = {
        "API_KEY": "tr_test_telemetry",
        "WEBHOOK_SECRETS": ["a secret"],
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.001)
    telemetry._trouble.clear()
    views._trouble.clear()
    forget_telemetry()


@pytest.fixture
def in_outbox(recording: None, settings: Any) -> None:
    """Put every email into the outbox."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}


@pytest.fixture
def emulator(recording: None, truncus_emulator: Any) -> Any:
    """A fresh local Truncus without limits."""
    truncus_emulator.reset(requests_per_second=0, requests_per_minute=0)
    return truncus_emulator


@pytest.fixture
def spans() -> Callable[[], list[ReadableSpan]]:
    """Return a function that returns the spans that have ended, the first to end first."""
    return lambda: list(SPANS.get_finished_spans())


@pytest.fixture
def measured() -> Callable[[], dict[str, list[tuple[dict[str, Any], float]]]]:
    """Return a function that collects OpenTelemetry's metrics: attributes and counts or values."""
    return metrics_collected


@pytest.fixture
def message() -> Callable[..., EmailMessage]:
    """Return a function that makes a message that any dialect takes."""

    def make(number: int = 0, **options: Any) -> EmailMessage:
        return TruncusMessage(
            options.pop("subject", f"Order {number}"),
            "It is on its way.",
            options.pop("from_email", "shop@example.com"),
            options.pop("to", [f"customer-{number}@example.org"]),
            html="<p>It is on its way.</p>",
            **options,
        )

    return make
