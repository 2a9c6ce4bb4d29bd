"""Messages with merge data, and the emails that became of them."""

from typing import Any

from truncus_django.message import TruncusMessage

PEOPLE = ["Ann <ann@example.org>", "bob@example.org"]


def merged(**options: Any) -> TruncusMessage:
    options = {"to": PEOPLE, "merge_data": {}, **options}
    return TruncusMessage("Hello", "Text", "shop@example.com", **options)


def by_recipient(emulator: Any) -> dict[str, Any]:
    """Return what Truncus has, by the address of each email's first recipient."""
    return {email.to[0]: email for email in emulator.emails}
