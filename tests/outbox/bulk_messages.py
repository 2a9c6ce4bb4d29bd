"""What the tests of bulks send, and who got it by Truncus's books."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.mail import EmailMessage

COUNT = 350
ACCEPTED = "delivered"
"""How the emulator answers: it has delivered by then."""


def customer(number: int) -> str:
    return f"customer-{number}@example.org"


def customers(count: int) -> Counter[str]:
    """Return who is to get an email each."""
    return Counter(customer(number) for number in range(count))


def books(emulator: Any) -> Counter[str]:
    """Return how many emails each recipient got, by Truncus's books."""
    found: Counter[str] = Counter()
    for email in emulator.emails:
        to = email.payload["to"]
        found.update([to] if isinstance(to, str) else to)
    return found


# Functions that ``truncus_send_bulk`` is given ----------------------------------------------------


def letter(number: int) -> EmailMessage:
    return EmailMessage(f"Letter {number}", "Hello", "shop@example.com", [customer(number)])


def letters() -> Iterator[EmailMessage]:
    for number in range(int(os.environ.get("LETTERS", COUNT))):
        yield letter(number)


def three_letters() -> list[EmailMessage]:
    return [letter(number) for number in range(3)]


def with_a_bad_one() -> Iterator[EmailMessage]:
    yield letter(0)
    yield EmailMessage("Letter", "Hello", "shop@example.com", ["not an address"])
    yield letter(2)


def broken() -> Iterator[EmailMessage]:
    yield from three_letters()
    raise LookupError("customer-3@example.org")


def interrupted() -> Iterator[EmailMessage]:
    yield from three_letters()
    raise KeyboardInterrupt


def of(segment: str) -> list[EmailMessage]:
    return []


def nothing() -> None:
    return None


async def later() -> Any:
    return []


SETTING = 3
