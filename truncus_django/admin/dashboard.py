"""The dashboard: how many emails were sent, arrived, were opened, and came back."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from operator import add
from typing import Any

from django.conf import settings
from django.db.models import Count, Q
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from truncus_django.admin.plots import Series, bars, lines
from truncus_django.db.days import day_number
from truncus_django.db.large_tables import distinct_values
from truncus_django.models import Email
from truncus_django.states import State

SPANS_DAYS = (7, 30, 90)
DEFAULT_SPAN_DAYS = 30
MOST_TENANTS = 20
_FEW_TENANTS = 50
_MOST_REASONS = 10

_SENT = frozenset({State.SENT, State.DEFERRED, State.DELIVERED, State.BOUNCED, State.COMPLAINED})
_DELIVERED = frozenset({State.DELIVERED, State.COMPLAINED})


@dataclass(frozen=True)
class Counts:
    """How many emails were sent, and how many of these were delivered, opened and so on."""

    sent: int = 0
    delivered: int = 0
    opened: int = 0
    clicked: int = 0
    bounced: int = 0
    complained: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))

    @property
    def delivery_rate(self) -> float:
        """Delivered of sent, 0 to 1."""
        return _share(self.delivered, self.sent)

    @property
    def open_rate(self) -> float:
        """Opened of delivered, 0 to 1."""
        return _share(self.opened, self.delivered)

    @property
    def click_rate(self) -> float:
        """Clicked of delivered, 0 to 1."""
        return _share(self.clicked, self.delivered)

    @property
    def bounce_rate(self) -> float:
        """Bounced of sent, 0 to 1."""
        return _share(self.bounced, self.sent)

    @property
    def complaint_rate(self) -> float:
        """Complained of delivered, 0 to 1."""
        return _share(self.complained, self.delivered)


_COUNTED: Mapping[str, Count] = {
    "sent": Count("pk"),
    "delivered": Count("pk", filter=Q(state__in=_DELIVERED)),
    "opened": Count("pk", filter=Q(open_count__gt=0)),
    "clicked": Count("pk", filter=Q(click_count__gt=0)),
    "bounced": Count("pk", filter=Q(state=State.BOUNCED)),
    "complained": Count("pk", filter=Q(state=State.COMPLAINED)),
}


@dataclass(frozen=True)
class Statistics:
    """What the dashboard shows about a span of days."""

    by_day: Mapping[date, Counts]
    by_tenant: Sequence[tuple[str, Counts]]
    """Those with the most emails first, ``MOST_TENANTS`` and one more."""
    bounce_reasons: Sequence[tuple[str, int]]

    @property
    def total(self) -> Counts:
        """The sum of all days."""
        return sum(self.by_day.values(), Counts())


def read_statistics(days: int, *, today: date, zone: tzinfo | None) -> Statistics:
    """Return the statistics of the last ``days`` days, ``today`` included; at most 4 queries.

    Emails of the sandbox do not count, nor those that a wrong clock has dated after today.

    Args:
        zone: where the days begin and end; ``None`` if Django uses no time zones.
    """
    shown = [today - timedelta(days=ago) for ago in range(days - 1, -1, -1)]
    midnights = [datetime.combine(day, time.min, tzinfo=zone) for day in shown]
    end = datetime.combine(today + timedelta(days=1), time.min, tzinfo=zone)
    emails = Email.objects.filter(
        created_at__gte=midnights[0], created_at__lt=end, is_sandbox=False, state__in=_SENT
    ).order_by()
    day = day_number(emails, "created_at", midnights)
    tenants = distinct_values(Email.objects.all(), "tenant_id", limit=_FEW_TENANTS + 1)
    day_rows: Any
    tenant_rows: Any
    if len(tenants) <= _FEW_TENANTS:  # read the emails once for both
        day_rows = tenant_rows = list(emails.values("tenant_id", day=day).annotate(**_COUNTED))
    else:
        day_rows = emails.values(day=day).annotate(**_COUNTED)
        tenant_rows = emails.values("tenant_id").annotate(**_COUNTED)
        tenant_rows = tenant_rows.order_by("-sent")[: MOST_TENANTS + 1]
    counts_by_number = _sums("day", day_rows)
    counts_by_tenant = _sums("tenant_id", tenant_rows)
    busiest = sorted(counts_by_tenant.items(), key=lambda item: (-item[1].sent, item[0]))
    bounced = emails.filter(state=State.BOUNCED).values_list("reason").annotate(count=Count("pk"))
    return Statistics(
        {day: counts_by_number.get(number, Counts()) for number, day in enumerate(shown)},
        busiest[: MOST_TENANTS + 1],
        list(bounced.order_by("-count", "reason")[:_MOST_REASONS]),
    )


def _sums(key: str, rows: Iterable[Mapping[str, Any]]) -> dict[Any, Counts]:
    """Return the counts of each value of a key."""
    sums: dict[Any, Counts] = defaultdict(Counts)
    for row in rows:
        sums[row[key]] += Counts(**{name: row[name] for name in _COUNTED})
    return dict(sums)


# The page -----------------------------------------------------------------------------------------


def dashboard_context(params: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows about the span of days that the request asks for."""
    spans = {str(span): span for span in SPANS_DAYS}
    days = spans.get(params.get("days", ""), DEFAULT_SPAN_DAYS)
    zone = timezone.get_current_timezone() if settings.USE_TZ else None
    stats = read_statistics(days, today=datetime.now(zone).date(), zone=zone)
    by_day, total = stats.by_day, stats.total
    labels = [str(formats.date_format(day, "MONTH_DAY_FORMAT")) for day in by_day]
    counts = list(by_day.values())
    return {
        "title": _("Email dashboard"),
        "subtitle": None,
        "spans": [{"days": span, "is_shown": span == days} for span in SPANS_DAYS],
        "days": days,
        "tiles": _tiles(total),
        "total": total,
        "volume_plot": bars(
            _("Emails per day"),
            labels,
            [
                Series(_("delivered"), "good", [day.delivered for day in counts]),
                Series(
                    _("on their way"),
                    "sent",
                    [day.sent - day.delivered - day.bounced for day in counts],
                ),
                Series(_("bounced"), "bad", [day.bounced for day in counts]),
            ],
        ),
        "engagement_plot": lines(
            _("Opened and clicked, of those delivered"),
            labels,
            [
                Series(_("opened"), "opened", _rates(counts, "open_rate", "delivered")),
                Series(_("clicked"), "clicked", _rates(counts, "click_rate", "delivered")),
            ],
        ),
        "bounce_plot": lines(
            _("Bounced and complained"),
            labels,
            [
                Series(_("bounced, of sent"), "bad", _rates(counts, "bounce_rate", "sent")),
                Series(
                    _("complained, of delivered"),
                    "complained",
                    _rates(counts, "complaint_rate", "delivered"),
                ),
            ],
        ),
        "by_day": list(by_day.items())[::-1],
        "by_tenant": stats.by_tenant[:MOST_TENANTS] if len(stats.by_tenant) > 1 else [],
        "has_all_tenants": len(stats.by_tenant) <= MOST_TENANTS,
        "bounce_reasons": [
            {
                "reason": reason or _("no reason known"),
                "count": count,
                "share": _share(count, total.bounced),
            }
            for reason, count in stats.bounce_reasons
        ],
    }


def _tiles(total: Counts) -> list[dict[str, Any]]:
    """Return the totals with their colours; a rate has its base."""
    sent, delivered = _("of sent"), _("of delivered")
    names = ("name", "count", "kind", "rate", "of")
    tiles = (
        (_("Sent"), total.sent, "sent", None, ""),
        (_("Delivered"), total.delivered, "good", total.delivery_rate, sent),
        (_("Opened"), total.opened, "opened", total.open_rate, delivered),
        (_("Clicked"), total.clicked, "clicked", total.click_rate, delivered),
        (_("Bounced"), total.bounced, "bad", total.bounce_rate, sent),
        (_("Complained"), total.complained, "complained", total.complaint_rate, delivered),
    )
    return [dict(zip(names, tile, strict=True)) for tile in tiles]


def _rates(days: Iterable[Counts], rate: str, base: str) -> list[float | None]:
    """Return a rate for each day, and ``None`` for days without anything to rate."""
    return [getattr(day, rate) if getattr(day, base) else None for day in days]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
