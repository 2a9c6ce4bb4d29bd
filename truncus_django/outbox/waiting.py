"""What waits in the outbox, looked at without reading it all."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import OuterRef, Q, QuerySet, Subquery

from truncus_django.mailers import label_of
from truncus_django.models import OutboxEntry

AWAITS_SEND_AT = "awaits_send_at"
"""The code of emails that Truncus does not want to schedule, and that wait here for their time."""

_PLACEHOLDER_OF_MAILER, _PLACEHOLDER_OF_TENANT = "mailer:", "tenant:"


class QueueName(NamedTuple):
    """The name of emails that go by one account: that of a mailer, or of a tenant of a mailer's.

    Attributes:
        mailer: its alias; empty for the settings in ``TRUNCUS`` alone.
        tenant: who ``ACCOUNTS`` is asked for; empty for the mailer's own account.
    """

    mailer: str
    tenant: str = ""

    @property
    def label(self) -> str:
        """The name as logs may hold it: a tenant's id may be an address."""
        return label_of(self.mailer, self.tenant)

    @property
    def placeholder(self) -> str:
        """The name of the row of ``OutboxAccount`` that it is paused by while it has no account.

        Of a fixed length, as a name may be as long as its own column; the row's ``mailer`` and
        ``tenant`` say whose it is.
        """
        kind = _PLACEHOLDER_OF_TENANT if self.tenant else _PLACEHOLDER_OF_MAILER
        name = f"{self.mailer}\n{self.tenant}"
        return kind + hashlib.sha256(name.encode()).hexdigest()

    def of_entries(self) -> Q:
        """Return the condition that entries, or batches, are of this queue."""
        return Q(mailer=self.mailer, tenant=self.tenant)


def is_placeholder(account: str) -> bool:
    """Return whether a row of ``OutboxAccount``, by its name, stands for a queue without one."""
    return account.startswith((_PLACEHOLDER_OF_MAILER, _PLACEHOLDER_OF_TENANT))


def waiting_mailers() -> Iterator[str]:
    """Yield the mailers of waiting emails, each by one step through the index, two in a query.

    But for emails that go by a tenant's own account.
    """
    waiting = OutboxEntry.objects.filter(is_waiting=True, tenant="").order_by("mailer")
    names = waiting.values_list("mailer", flat=True)
    following = Subquery(names.filter(mailer__gt=OuterRef("mailer"))[:1])
    pairs = waiting.values_list("mailer", following)
    pair = pairs.first()
    while pair is not None:
        name, name_after = pair
        yield name
        if name_after is None:
            return
        yield name_after
        pair = pairs.filter(mailer__gt=name_after).first()


def waiting_of_tenants() -> QuerySet[OutboxEntry]:
    """Return waiting emails that go by a tenant's own account: they are together in the index."""
    return OutboxEntry.objects.filter(is_waiting=True, tenant__gt="").order_by()
