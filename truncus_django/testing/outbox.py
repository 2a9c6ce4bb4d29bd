"""What the outbox has still to send."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Coalesce

from truncus_django.api.encoding import EmailFields
from truncus_django.models import OutboxEntry
from truncus_django.outbox.stored_payload import read_payload


@dataclass(frozen=True, slots=True)
class Waiting:
    """An email in the outbox; ``key`` is that of its request, empty as long as it has none."""

    pk: UUID
    fields: EmailFields = field(repr=False)
    key: str
    is_sandbox: bool


def waiting_payloads() -> Iterator[Waiting]:
    """Yield emails that wait or belong to a request, the oldest first; not those that failed."""
    entries = OutboxEntry.objects.filter(Q(is_waiting=True) | Q(batch__isnull=False))
    rows = entries.order_by("created_at", "pk").values_list(
        "pk", "payload", Coalesce("batch__idempotency_key", "own_key"), "is_sandbox"
    )
    for pk, payload, key, is_sandbox in rows:
        fields = read_payload(payload)
        if fields is not None:
            yield Waiting(pk, fields, key, is_sandbox)
