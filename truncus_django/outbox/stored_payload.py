"""Emails and wire formats as the outbox stores them: JSON, which is checked when it is read."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.encoding import EmailFields, encode
from truncus_django.api.errors import MessageError
from truncus_django.api.results import read_moment
from truncus_django.models import OutboxBatch, OutboxEntry
from truncus_django.sending.screening import with_left_out

SEND_AT_MARGIN_S = 5.0
"""A ``send_at`` that is closer than this may be over when Truncus looks at it."""


class UnreadablePayload(MessageError):
    """What was stored of an email is no email."""

    CODE = "unreadable_payload"
    TEXT = "What was stored of the email cannot be read; it was not sent."

    def __init__(self, message: str = TEXT, *, ambiguous: bool = False) -> None:
        super().__init__(message, code=self.CODE, ambiguous=ambiguous)


@dataclass(frozen=True, slots=True)
class StoredEmail:
    """An email of a batch, as it is sent now.

    Attributes:
        fields: the API's; ``None`` where they cannot be read.
        send_at: when it is to be sent, where that still lies ahead.
        traceparent: of the span that enqueued it.
    """

    pk: UUID
    fields: EmailFields | None = field(repr=False)
    send_at: datetime | None
    traceparent: str | None = None


def payload_json(fields: Mapping[str, Any]) -> bytes:
    """Return an email as it is stored.

    Raises:
        MessageError: a worker could not send it: a field of the API has another type than the API
            documents, or holds what JSON cannot carry.
    """
    _check_types(fields)
    return encode(fields)


def stored_emails(batch: OutboxBatch, *, now: float) -> list[StoredEmail]:
    """Return the emails of a batch in their order; what is no email any more has no fields.

    Args:
        now: unix seconds. A ``send_at`` that is over by then means to send the email now.
    """
    entries = OutboxEntry.objects.filter(batch=batch).order_by(*OutboxEntry.IN_ORDER)
    found = entries.values_list("pk", "traceparent", "payload")
    return [_stored_email(pk, traceparent, text, now) for pk, traceparent, text in found]


def read_payload(text: str) -> EmailFields | None:
    """Return a stored email; ``None`` where it cannot be read or sent."""
    try:
        stored = _decode(text)
        if not isinstance(stored, dict):
            return None
        fields = EmailFields(stored)
        _check_types(fields)
        if "\\u" in text:  # what else could be half a character
            encode(fields)
    except (ValueError, RecursionError, MessageError):
        return None
    return fields


def _finite(number: str) -> float:
    """Read a number, which the request's JSON can carry only if it is one."""
    found = float(number)
    if not math.isfinite(found):
        raise ValueError("not a number, or too large")
    return found


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode


def store_left_out(pk: UUID, left_out: Sequence[str]) -> None:
    """Let a stored email leave out these recipients, and no others."""
    [text] = OutboxEntry.objects.filter(pk=pk).values_list("payload", flat=True)
    fields = read_payload(text)
    if fields is not None:
        stored = payload_json(with_left_out(fields, left_out))
        OutboxEntry.objects.filter(pk=pk).update(payload=stored.decode(), size=len(stored))


def _stored_email(pk: UUID, traceparent: str | None, text: str, now: float) -> StoredEmail:
    fields = read_payload(text)
    if fields is None:
        return StoredEmail(pk, None, None, traceparent)
    send_at = read_moment(fields.get("send_at"))
    if send_at is not None and send_at.timestamp() <= now + SEND_AT_MARGIN_S:
        del fields["send_at"]
        send_at = None
    return StoredEmail(pk, fields, send_at, traceparent)


# The types of the API's fields --------------------------------------------------------------------


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_strings(value: Any) -> bool:
    return _is_string(value) or (isinstance(value, list | tuple) and all(map(_is_string, value)))


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_dicts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_dict, value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_TYPES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    name: (what, fits)
    for what, fits, names in (
        ("a string", _is_string, ["from", "subject", "text", "html", "template_id"]),
        ("a string", _is_string, ["tenant_id", "send_at"]),
        ("a string or a list of strings", _is_strings, ["to", "cc", "bcc", "reply_to"]),
        ("a dict", _is_dict, ["headers", "variables", "metadata"]),
        ("True or False", _is_flag, ["track_opens", "track_clicks"]),
        ("a list of dicts", _is_dicts, ["attachments"]),
    )
    for name in names
}
"""By field, what it must be."""


def _check_types(fields: Mapping[str, Any]) -> None:
    """Check the fields that the API documents; others are sent as they are, ``None`` is left out.

    Raises:
        MessageError: a field has another type, or the sender or the recipients are missing.
    """
    for name in ("from", "to"):
        if not fields.get(name):
            raise MessageError(f"The email's payload has no {name!r}.")
    for name, value in fields.items():
        if name not in _TYPES or value is None:
            continue
        what, fits = _TYPES[name]
        if not fits(value):
            raise MessageError(
                f"{name!r} of the email's payload must be {what}, not "
                f"{type(value).__name__}; esp_extra or a receiver of pre_send changed it."
            )


# The wire format of an ambiguous request ----------------------------------------------------------


def stored_wire_format(wire_format: WireFormat) -> dict[str, bool]:
    """Return a wire format as a batch stores it."""
    return {
        "html_required": wire_format.capabilities.html_required,
        "single_recipient": wire_format.capabilities.single_recipient,
        "is_pinned": wire_format.is_pinned,
    }


def read_wire_format(stored: Any) -> WireFormat | None:
    """Return the wire format that a batch stores; ``None`` where there is none."""
    if not isinstance(stored, dict) or not stored:
        return None
    capabilities = Capabilities(
        html_required=stored.get("html_required") is True,
        single_recipient=stored.get("single_recipient") is True,
    )
    return WireFormat(capabilities, is_pinned=stored.get("is_pinned") is True)
