"""What is held about one person, as JSON for them: read row by row, in constant memory."""

import json
from collections.abc import Iterator
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from truncus_django.forget import tables
from truncus_django.forget.person import Person
from truncus_django.forget.tables import Table
from truncus_django.models import Email, EmailEvent, SuppressedAddress
from truncus_django.outbox.stored_payload import read_payload
from truncus_django.sending.forgotten import digests_of

_AT_ONCE = 50
_FIELDS = (
    "id", "message_id", "state", "reason", "error_code", "error", "from_email", "to", "cc",
    "subject", "metadata", "attachments", "text_body", "html_body", "tenant_id", "template_id",
    "unsubscribe_list", "open_count", "click_count", "created_at", "send_at", "sent_at",
    "delivered_at", "bounced_at", "complained_at", "first_opened_at", "last_opened_at",
)  # fmt: skip
_EVENT_FIELDS = ("message_id", "type", "reason", "recipient", "occurred_at", "source", "payload")
_SUPPRESSED_FIELDS = (
    "tenant_id",
    "list_name",
    "reason",
    "source",
    "note",
    "created_at",
    "expires_at",
)
_PAYLOAD_FIELDS = (
    "from",
    "to",
    "cc",
    "reply_to",
    "subject",
    "text",
    "html",
    "headers",
    "variables",
    "metadata",
    "attachments",
)


def export(person: Person) -> Iterator[str]:
    """Yield the parts of a JSON text with all that names a person.

    Emails to or from them are whole, but for others in ``bcc``. Of what names them in another
    person's email, event or entry, only the fields are there that do.
    """
    yield "{"
    yield f'"address": {json.dumps(person.address)}, '
    yield f'"exported_at": {_json(timezone.now())}'
    for name, rows in (
        ("emails", _emails(person)),
        ("events", _events(person)),
        ("stored_to_be_sent", _payloads(person)),
        ("suppressed", _suppressed(person)),
        ("mentions_elsewhere", _others(person)),
    ):
        yield f',\n"{name}": ['
        for index, row in enumerate(rows):
            yield (",\n" if index else "\n") + _json(row)
        yield "]"
    yield "}\n"


def _json(value: Any) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False)


def _rows(table: Table, person: Person, *related: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the rows that name a person, each with the columns that do."""
    for portion in table.portions():
        keys = list(table.candidates(portion, person).values_list("pk", flat=True))
        for start in range(0, len(keys), _AT_ONCE):
            rows = table.rows().filter(pk__in=keys[start : start + _AT_ONCE]).order_by("pk")
            for row in rows.select_related(*related) if related else rows:
                named = {name: getattr(row, name) for name in table.changes(row, person)}
                if named:
                    yield row, named


def _is_party(email: Email, person: Person) -> bool:
    return any(map(person.is_at, [email.from_email, *email.recipients]))


def _emails(person: Person) -> Iterator[dict[str, Any]]:
    for email, named in _rows(tables.EMAILS, person):
        if _is_party(email, person):
            own_bcc = [each for each in email.bcc if person.is_at(each)]
            yield {**{name: getattr(email, name) for name in _FIELDS}, "bcc": own_bcc}
        else:
            named.pop("search_text", None)
            yield {"id": email.pk, "created_at": email.created_at, **named}


def _events(person: Person) -> Iterator[dict[str, Any]]:
    for event, _ in _rows(tables.EVENTS, person):
        yield {"email": event.email_id, **_named(event, _EVENT_FIELDS)}
    # Events that name nobody, of emails to them alone.
    for email, _ in _rows(tables.EMAILS, person):
        if all(map(person.is_at, email.recipients)):
            for event in EmailEvent.objects.filter(email=email).iterator():
                if not tables.EVENTS.changes(event, person):
                    yield {"email": event.email_id, **_named(event, _EVENT_FIELDS)}


def _payloads(person: Person) -> Iterator[dict[str, Any]]:
    for entry, _ in _rows(tables.PAYLOADS, person, "email"):
        fields: dict[str, Any] = dict(read_payload(entry.payload) or {})
        if _is_party(entry.email, person):
            kept = {name: fields[name] for name in _PAYLOAD_FIELDS if name in fields}
        else:
            kept = {name: each for name, each in fields.items() if person.is_in(each)}
        yield {"email": entry.pk, "created_at": entry.created_at, **kept}


def _suppressed(person: Person) -> Iterator[dict[str, Any]]:
    own = [person.address, *digests_of(person.address)]
    for entry in SuppressedAddress.objects.filter(address__in=own).order_by("pk"):
        yield _named(entry, _SUPPRESSED_FIELDS)


def _others(person: Person) -> Iterator[dict[str, Any]]:
    for row, named in _rows(tables.SUPPRESSED, person):
        if row.address != person.address:
            yield {"table": row._meta.db_table, **named}
    history = tables.history()
    for table in (tables.REQUESTS, tables.ACCOUNTS, tables.BULKS, history):
        for row, named in _rows(table, person) if table is not None else ():
            yield {"table": row._meta.db_table, **named}


def _named(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
