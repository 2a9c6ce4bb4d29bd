"""Messages and their payloads, for the tests of what a payload holds."""

from datetime import UTC, datetime

import pytest

from truncus_django.api.errors import MessageError
from truncus_django.conf import Settings
from truncus_django.message import TruncusMessage
from truncus_django.sending.payload import build_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

DROPPING = Settings(unsupported="warn")
"""What the API cannot carry is left out."""


def a_message(**kwargs):
    given = {"subject": "Subject", "body": "Text", "to": ["ann@example.com"], **kwargs}
    return TruncusMessage(from_email="shop@example.com", **given)


def payload_of(message, settings=None):
    return build_payload(message, settings or Settings(), now=NOW)


def email_of(message=None, **kwargs):
    """Return the fields of a request for ``message``, or for one that is made with ``kwargs``."""
    return payload_of(message or a_message(**kwargs)).email


def refused(message, error=MessageError, settings=None):
    """Return the text of the error that ``message`` raises."""
    with pytest.raises(MessageError) as caught:
        payload_of(message, settings)
    assert type(caught.value) is error
    return str(caught.value)
