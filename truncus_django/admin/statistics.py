"""How many emails were sent in some days, arrived, were opened, came back, or never went out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, NamedTuple

from django.db.models import Count, Q

from truncus_django.db.days import day_number
from truncus_django.models import Email
from truncus_django.states import State

MAX_TENANTS = 20
_MAX_REASONS = 10

SENT = (State.SENT, State.DEFERRED, State.DELIVERED, State.BOUNCED, State.COMPLAINED)
"""The states of emails that Truncus has taken to send."""
DELIVERED = (State.DELIVERED, State.COMPLAINED)
COUNTED_STATES = (*SENT, State.FAILED, State.REJECTED)


@dataclass(frozen=True)
class DateRange:
    """Some days, the first and the last of them included."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        """All of them, the first one first."""
        count = (self.last - self.first).days + 1
        return [self.first + timedelta(days=number) for number in range(count)]


def midnight(day: date, zone: tzinfo | None) -> datetime:
    """Return when a day begins.

    Args:
        zone: whose midnight it is; ``None`` if Django uses no time zones.
    """
    return datetime.combine(day, time.min, tzinfo=zone)


class Counts(NamedTuple):
    """How many emails were sent, and how many of these were delivered, opened and so on.

    Those that failed or were rejected are not among those sent.
    """

    sent: int = 0
    delivered: int = 0
    opened: int = 0
    clicked: int = 0
    bounced: int = 0
    complained: int = 0
    failed: int = 0
    rejected: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether there are none at all."""
        return not any(self)

    @property
    def delivery_rate(self) -> float:
        """Delivered of sent, 0 to 1."""
        return share(self.delivered, self.sent)

    @property
    def open_rate(self) -> float:
        """Opened of delivered, 0 to 1."""
        return share(self.opened, self.delivered)

    @property
    def click_rate(self) -> float:
        """Clicked of delivered, 0 to 1."""
        return share(self.clicked, self.delivered)

    @property
    def bounce_rate(self) -> float:
        """Bounced of sent, 0 to 1."""
        return share(self.bounced, self.sent)

    @property
    def complaint_rate(self) -> float:
        """Complained of delivered, 0 to 1."""
        return share(self.complained, self.delivered)


def share(part: int, whole: int) -> float:
    """Return how much of a whole a part is, 0 to 1; 0 of nothing."""
    return part / whole if whole else 0.0


_COUNTED: Mapping[str, Count] = {
    "sent": Count("pk", filter=Q(state__in=SENT)),
    "delivered": Count("pk", filter=Q(state__in=DELIVERED)),
    "opened": Count("pk", filter=Q(state__in=DELIVERED, open_count__gt=0)),
    "clicked": Count("pk", filter=Q(state__in=DELIVERED, click_count__gt=0)),
    "bounced": Count("pk", filter=Q(state=State.BOUNCED)),
    "complained": Count("pk", filter=Q(state=State.COMPLAINED)),
    "failed": Count("pk", filter=Q(state=State.FAILED)),
    "rejected": Count("pk", filter=Q(state=State.REJECTED)),
}


def _sum(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


@dataclass(frozen=True)
class Statistics:
    """What the dashboard shows about some days."""

    total: Counts
    by_day: dict[date, Counts]
    by_tenant: Sequence[tuple[str, Counts]]
    """Those with the most emails first, ``MAX_TENANTS`` and one more."""
    bounce_reasons: Sequence[tuple[str, int]]


def read_statistics(
    dates: DateRange, *, zone: tzinfo | None, tenant: str = "", has_few_tenants: bool = True
) -> Statistics:
    """Return the statistics of some days; at most 3 queries.

    Emails of the sandbox do not count.

    Args:
        zone: where the days begin and end; ``None`` if Django uses no time zones.
        tenant: whose emails count; those of all tenants if empty.
        has_few_tenants: whether the log is of so few tenants that one query can tell them and the
            days apart, which saves one.
    """
    midnights = [midnight(day, zone) for day in dates.days]
    emails = Email.objects.filter(
        created_at__gte=midnights[0],
        created_at__lt=midnight(dates.last + timedelta(days=1), zone),
        is_sandbox=False,
        state__in=COUNTED_STATES,
    ).order_by()
    if tenant:
        emails = emails.filter(tenant_id=tenant)
    day = day_number(emails, "created_at", midnights)
    day_rows: Any
    tenant_rows: Any
    if has_few_tenants:
        day_rows = tenant_rows = list(emails.values("tenant_id", day=day).annotate(**_COUNTED))
    else:
        day_rows = emails.values(day=day).annotate(**_COUNTED)
        tenant_rows = emails.values("tenant_id").annotate(**_COUNTED)
        tenant_rows = tenant_rows.order_by("-sent")[: MAX_TENANTS + 1]
    counts_by_number = _sums("day", day_rows)
    counts_by_tenant = _sums("tenant_id", tenant_rows)
    busiest = sorted(counts_by_tenant.items(), key=lambda item: (-item[1].sent, item[0]))
    bounced = emails.filter(state=State.BOUNCED).values_list("reason").annotate(count=Count("pk"))
    return Statistics(
        _sum([Counts(), *counts_by_number.values()]),
        {day: counts_by_number.get(number, Counts()) for number, day in enumerate(dates.days)},
        busiest[: MAX_TENANTS + 1],
        list(bounced.order_by("-count", "reason")[:_MAX_REASONS]),
    )


def _sums(key: str, rows: Iterable[Mapping[str, Any]]) -> dict[Any, Counts]:
    """Return the counts of each value of a key."""
    found: dict[Any, list[Counts]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(Counts(**{name: row[name] for name in _COUNTED}))
    return {value: _sum(counts) for value, counts in found.items()}
