"""Where the log and the outbox hold texts in which a person may stand, and looking through them.

Each table is read once from its beginning to its end, a portion at a time, so that memory does not
grow with it. The database leaves out most rows, and Python looks at the others exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models
from django.db.models import Q, QuerySet
from django.db.models.functions import Cast, Lower

from truncus_django.forget.person import Person
from truncus_django.models import (
    BulkEmail,
    Email,
    EmailEvent,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)

PORTION = 5000
"""How many rows are looked through at once."""


@dataclass(frozen=True)
class Table:
    """A table, and its columns that may name a person.

    Attributes:
        rows: returns all of them.
        texts: columns with texts or JSON in which an address may stand among others.
        addresses: columns with an address, or a list of them, and nothing else.
        keys: columns with idempotency keys and the like, which may be made of an address.
    """

    rows: Callable[[], QuerySet[Any]]
    texts: Sequence[str] = ()
    addresses: Sequence[str] = ()
    keys: Sequence[str] = ()

    @property
    def columns(self) -> Sequence[str]:
        """All of them."""
        return (*self.texts, *self.addresses, *self.keys)

    def portions(self) -> Iterator[QuerySet[Any]]:
        """Yield the rows in portions, by their keys; rows that come meanwhile may be left out."""
        rows = self.rows().order_by("pk")
        last = None
        while True:
            following = rows if last is None else rows.filter(pk__gt=last)
            end = list(following.values_list("pk", flat=True)[PORTION - 1 : PORTION])
            yield following.filter(pk__lte=end[0]) if end else following
            if not end:
                return
            last = end[0]

    def candidates(self, portion: QuerySet[Any], person: Person) -> QuerySet[Any]:
        """Return the rows that hold, in one column, what each spelling of the address has."""
        found = Q()
        lowered = {}
        for name in self.columns:
            is_json = isinstance(portion.model._meta.get_field(name), models.JSONField)
            text = Cast(name, models.TextField()) if is_json else name
            lowered[f"lower_{name}"] = Lower(text, output_field=models.TextField())
            found |= Q(*((f"lower_{name}__contains", needle) for needle in person.needles))
        candidates: QuerySet[Any] = portion.alias(**lowered).filter(found)
        return candidates

    def changes(self, row: Any, person: Person) -> dict[str, Any]:
        """Return the columns of a row that change when the address is taken out of them."""
        changed: dict[str, Any] = {}
        for name in self.columns:
            value = getattr(row, name)
            if not value:
                continue
            new = self._without(name, value, person)
            if new != value:
                changed[name] = new
        return changed

    def _without(self, name: str, value: Any, person: Person) -> Any:
        if name in self.keys:
            return person.taken_out_of_key(value)
        if name not in self.addresses:
            return person.taken_out_of(value)
        if isinstance(value, list):
            return [person.taken_out_of_address(each) for each in value]
        return person.taken_out_of_address(value)


EMAILS = Table(
    Email.objects.all,
    texts=(
        "reason",
        "error_code",
        "error",
        "subject",
        "search_text",
        "metadata",
        "attachments",
        "text_body",
        "html_body",
        "forget_when_finished",
    ),
    addresses=("from_email", "to", "cc", "bcc", "redirected_to", "suppressed"),
    keys=("idempotency_key",),
)
EVENTS = Table(EmailEvent.objects.all, texts=("reason", "payload"), addresses=("recipient",))
PAYLOADS = Table(OutboxEntry.objects.all, texts=("payload",), keys=("own_key",))
SUPPRESSED = Table(SuppressedAddress.objects.all, texts=("note",), addresses=("address",))
# Of a request that may be repeated, the key stays what it was.
REQUESTS = Table(OutboxBatch.objects.all, texts=("error_code", "error"))
ACCOUNTS = Table(OutboxAccount.objects.all, texts=("error_code", "error"))
BULKS = Table(BulkEmail.objects.all, keys=("key",))


def history() -> Table | None:
    """Return the admin's history of the package's tables; ``None`` without the admin."""
    if not apps.is_installed("django.contrib.admin"):
        return None
    # Here, because the admin is optional.
    from django.contrib.admin.models import LogEntry

    own = LogEntry.objects.filter(content_type__app_label="truncus_django")
    return Table(own.all, texts=("object_repr", "change_message"))


def number_of_rows() -> int:
    """Return how many rows a pass through all tables looks at."""
    known = (EMAILS, EVENTS, PAYLOADS, SUPPRESSED, REQUESTS, ACCOUNTS, BULKS, history())
    return sum(table.rows().count() for table in known if table is not None)
