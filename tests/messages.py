"""Messages, as tests give them to the backend."""

from typing import Any

from truncus_django.message import TruncusMessage


def message(subject: str = "Hello", **options: Any) -> TruncusMessage:
    return TruncusMessage(subject, "Text", "shop@example.com", ["ann@example.org"], **options)


def messages(count: int) -> list[TruncusMessage]:
    """Return messages to one recipient, whose subjects are their numbers."""
    return [message(str(number)) for number in range(count)]


def bad_message() -> TruncusMessage:
    """Return a message that is refused before any request."""
    return message("Line\nbreak")


def orders(count: int, **options: Any) -> list[TruncusMessage]:
    """Return messages, each different from the others and to somebody else."""
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
