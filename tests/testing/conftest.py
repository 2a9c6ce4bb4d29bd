"""What the tests of the assertions share: each place that email goes to in a test."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.mail import EmailMessage

from truncus_django.message import TruncusMessage
from truncus_django.testing import send_outbox

NO_LIMITS = {"REQUESTS_PER_SECOND": 0, "REQUESTS_PER_MINUTE": 0}
PLACES = ["memory", "emulator", "outbox", "outbox and emulator"]


@pytest.fixture(autouse=True)
def truncus_settings(settings: Any) -> None:
    settings.TRUNCUS = {
        "API_KEY": "tr_test_testing",
        "WEBHOOK_SECRETS": ["a secret", "an older secret"],
        "RECORD": False,
        **NO_LIMITS,
    }


@pytest.fixture(params=PLACES)
def send(
    request: pytest.FixtureRequest, truncus_settings: None, settings: Any
) -> Callable[..., None]:
    """Return a function that sends messages, to one of the places after the other."""
    if request.param != "memory":
        request.getfixturevalue("truncus_emulator")
    if "outbox" in request.param:
        request.getfixturevalue("db")
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "RECORD": True}

    def send(*messages: EmailMessage) -> None:
        for message in messages:
            message.send()
        if request.param == "outbox and emulator":
            send_outbox()

    return send


@pytest.fixture
def recorded(truncus_settings: None, settings: Any, db: None, truncus_emulator: Any) -> Any:
    """An emulator whose emails are recorded."""
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    return truncus_emulator


def order(number: int = 1, to: str = "Ann <ann@example.org>", **options: Any) -> TruncusMessage:
    """Return a message with everything that can be asked for."""
    return TruncusMessage(
        f"Your order {number}",
        f"Dear customer,\n\nyour order {number}: https://shop.example/orders/{number}/\n",
        "Shop <shop@example.com>",
        options.pop("to_all", [to]),
        html=f'<p>Your <a href="https://shop.example/orders/{number}/?utm=a&amp;b=1">order</a></p>',
        **options,
    )
