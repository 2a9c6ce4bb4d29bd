"""Whom an email of a bulk is for, as a digest that is stored instead of addresses."""

import hashlib
import json
from typing import Any
from uuid import UUID

from truncus_django.sending.addresses import bare_address
from truncus_django.sending.payload import Payload


def identity_of(payload: Payload, key: str) -> UUID:
    """Return what tells an email from the others of the bulk ``key``.

    The email's own idempotency key, else its recipients, in whatever order, case and with
    whatever names. A sandbox email is another one, so that a rehearsal keeps nobody from getting
    the real one.
    """
    own = payload.idempotency_key
    whom = {"key": own} if own is not None else {"to": recipients_of(payload)}
    text = json.dumps([key, payload.is_sandbox, whom])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return UUID(bytes=digest[:16], version=5)  # MariaDB takes no other bytes than a UUID's


def recipients_of(payload: Payload) -> list[str]:
    """Return the bare addresses of all recipients in lower case, sorted, each once."""
    found = set()
    for name in ("to", "cc", "bcc"):
        given: Any = payload.email.get(name) or ()
        # A receiver of pre_send may have left anything here; the outbox refuses it afterwards.
        for address in given if isinstance(given, list | tuple) else (given,):
            found.add(bare_address(str(address)).lower())
    return sorted(found)
