"""What the tests of bulks send: functions that ``truncus_send_bulk`` is given."""

import os
from collections.abc import Iterator
from typing import Any

from django.core.mail import EmailMessage

COUNT = 350


def customer(number: int) -> str:
    return f"customer-{number}@example.org"


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
