"""Every path that an email can take to Truncus, for what has to hold on all of them."""

import copy
from typing import Any
from uuid import uuid4

from truncus_django.admin.resend import resend
from truncus_django.backend import TruncusBackend
from truncus_django.bulk import send_bulk
from truncus_django.message import TruncusMessage
from truncus_django.models import Email

PATHS = ("direct", "list", "outbox", "bulk", "bulk in the outbox", "merge", "resend")


def delivery_of(path: str) -> str:
    """Return what ``TRUNCUS["DELIVERY"]`` has to be for ``path``."""
    return "outbox" if "outbox" in path else "direct"


def send_by(path: str, message: TruncusMessage) -> None:
    """Send ``message``; what waits in the outbox then is left to ``send_outbox()``."""
    match path:
        case "direct" | "outbox":
            message.send()
        case "list":
            TruncusBackend().send_messages([message, copy.copy(message)])
        case "bulk" | "bulk in the outbox":
            send_bulk([message], key="k")
        case "merge":
            message.merge_data, message.merge_cc = {}, True
            message.send()
        case "resend":
            message.send()
            resend(Email.objects.get(), click=uuid4())
        case _:
            raise ValueError(path)


def recipients_in_requests(emulator: Any) -> set[str]:
    """Return all recipients that requests named, as they were written, whatever became of them."""
    found: set[str] = set()
    for request in emulator.requests:
        body = request.body or {}
        for email in body.get("emails", [body]):
            for name in ("to", "cc", "bcc"):
                value = email.get(name) or []
                found |= {value} if isinstance(value, str) else set(value)
    return found


def bare(address: str) -> str:
    """Return an address without the name, in lower case."""
    return address.lower().split("<")[-1].rstrip(">")
