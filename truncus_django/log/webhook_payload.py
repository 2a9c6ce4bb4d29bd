"""The body of a webhook → the event in it; a pure function."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from truncus_django.api import contract
from truncus_django.api.results import read_moment
from truncus_django.log.ingest import IncomingEvent, digest
from truncus_django.states import usual_word

_MAX_ID_LENGTH = 255
_PREFIX = "email."


def read_event(body: bytes, *, signed_at: int) -> IncomingEvent:
    """Return the event in the ``body`` of a verified webhook; its words may all be new.

    Args:
        body: the raw body.
        signed_at: the header's timestamp (unix seconds), which stands in for the body's own.

    Raises:
        ValueError: it is no JSON object, or does not say which email it is about.
    """
    try:
        fields = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  one kind of error for all of it
    message_id = _id(fields.get("message_id"))
    if message_id is None:
        raise ValueError("no message_id")
    return IncomingEvent(
        message_id=message_id,
        type=_type(fields),
        occurred_at=_moment(fields.get("timestamp"), datetime.fromtimestamp(signed_at, UTC)),
        event_id=_event_id(fields) or digest(body.hex()),
        reason=_text(fields, "reason"),
        recipient=_text(fields, "recipient"),
        payload=fields,
    )


def _type(fields: Mapping[str, Any]) -> str:
    """Return Truncus's word for what happened: the status of a delivery, else the event's name."""
    event, status = (fields.get(name) or "" for name in ("event", "status"))
    if not isinstance(event, str) or not isinstance(status, str) or not (event or status):
        raise ValueError("neither event nor status")
    is_delivery = event in {"", contract.WEBHOOK_EVENT}
    word = status if is_delivery and status else event
    return usual_word(word.lower().removeprefix(_PREFIX))


def _event_id(fields: Mapping[str, Any]) -> str | None:
    """Return the event's own id, if it has one. A plain ``id`` might be anything's."""
    found = fields.get("event_id")
    own_id = _id(str(found) if type(found) is int else found)
    return own_id if own_id != fields["message_id"] else None


def _id(value: Any) -> str | None:
    """Return ``value`` if it can be an id: too long a one is not stored shortened."""
    can_be = isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH and value.isprintable()
    return value if can_be else None


def _moment(value: Any, signed_at: datetime) -> datetime:
    """Return the moment that ``value`` means, or ``signed_at`` where it makes no sense."""
    moment = read_moment(value)
    latest = signed_at + timedelta(days=1)
    return moment if moment is not None and moment <= latest else signed_at


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
