"""The stored payload of an email in the outbox: all that was to be sent, attachments included."""

import json
from typing import Any

from truncus_django.api.encoding import EmailFields
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, OutboxEntry


def kept_fields(email: Email) -> EmailFields | None:
    """Return the fields to be sent; ``None`` where they were not stored, or are broken."""
    text = OutboxEntry.objects.filter(pk=email.pk).values_list("payload", flat=True).first()
    try:
        fields: Any = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    return EmailFields(fields) if isinstance(fields, dict) and fields.get("to") else None


def is_retained(email: Email) -> bool:
    """Return whether a payload is stored, without reading it."""
    return OutboxEntry.objects.filter(pk=email.pk).exists()


def message_with(fields: EmailFields) -> TruncusMessage:
    """Return a new message that carries these fields as they are; a ``send_at`` is left out."""
    to = fields["to"]
    carried = {name: value for name, value in fields.items() if name != "send_at"}
    return TruncusMessage(
        str(fields.get("subject") or ""),
        str(fields.get("text") or ""),
        fields.get("from"),
        to if isinstance(to, list) else [to],
        esp_extra=carried,
    )
