"""How many emails were sent, and what became of them, added up by the database."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Count, Expression, F, Func, IntegerField, Q, Value
from django.db.models.functions import TruncDate
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from truncus_django.admin.distinct_values import distinct_values
from truncus_django.admin.plots import Line, Stack, bars, lines
from truncus_django.models import Email
from truncus_django.states import State

SPANS_DAYS = (7, 30, 90)
DEFAULT_SPAN_DAYS = 30
MOST_TENANTS = 50
"""Of more tenants, only the 20 with the most emails are shown."""
_SHOWN = 20

_SENT = frozenset({State.SENT, State.DEFERRED, State.DELIVERED, State.BOUNCED, State.COMPLAINED})
_DELIVERED = frozenset({State.DELIVERED, State.COMPLAINED})


@dataclass
class Counts:
    """Emails of a day or a tenant, and how many of them came to what."""

    sent: int = 0
    delivered: int = 0
    opened: int = 0
    clicked: int = 0
    bounced: int = 0
    complained: int = 0

    def add(self, state: str, count: int, opened: int, clicked: int) -> None:
        """Count so many emails that are in one state."""
        if state not in _SENT:
            return
        self.sent += count
        self.opened += opened
        self.clicked += clicked
        self.delivered += count if state in _DELIVERED else 0
        self.bounced += count if state == State.BOUNCED else 0
        self.complained += count if state == State.COMPLAINED else 0

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
        """Complaints of delivered, 0 to 1."""
        return _share(self.complained, self.delivered)


@dataclass
class Statistics:
    """What the dashboard shows of a span of days."""

    total: Counts = field(default_factory=Counts)
    by_day: dict[date, Counts] = field(default_factory=dict)
    by_tenant: dict[str, Counts] = field(default_factory=dict)
    bounce_reasons: list[tuple[str, int]] = field(default_factory=list)
    has_all_tenants: bool = True


def read_statistics(days: int, *, today: date, zone: tzinfo | None) -> Statistics:
    """Return the statistics of the last ``days`` days, ``today`` included; at most 4 queries.

    Emails in the sandbox are left out, and those that a wrong clock has dated after today.

    Args:
        zone: where the days begin and end; ``None`` where Django uses no time zones.
    """
    shown = [today - timedelta(days=ago) for ago in range(days - 1, -1, -1)]
    midnights = [datetime.combine(day, time.min, tzinfo=zone) for day in shown]
    end = datetime.combine(today + timedelta(days=1), time.min, tzinfo=zone)
    emails = Email.objects.filter(
        created_at__gte=midnights[0], created_at__lt=end, is_sandbox=False
    ).order_by()
    tenants = distinct_values("tenant_id", limit=MOST_TENANTS + 1)
    stats = Statistics(
        by_day={day: Counts() for day in shown},
        has_all_tenants=len(tenants) <= MOST_TENANTS,
    )
    # One look at all rows of the span gives days and tenants, if there are not too many of both.
    keys = ["day", "state", "tenant_id"] if stats.has_all_tenants else ["day", "state"]
    by_day = emails.annotate(day=_day_expression(midnights)).values(*keys)
    for row in by_day.annotate(**_COUNTED):
        counted = (row["state"], row["count"], row["opened"], row["clicked"])
        stats.total.add(*counted)
        day = row["day"] if isinstance(row["day"], date) else shown[row["day"] - 1]
        stats.by_day.setdefault(day, Counts()).add(*counted)
        if stats.has_all_tenants:
            stats.by_tenant.setdefault(row["tenant_id"], Counts()).add(*counted)
    if not stats.has_all_tenants:
        stats.by_tenant = _busiest_tenants(emails)
    reasons = emails.filter(state=State.BOUNCED).values_list("reason").annotate(count=Count("pk"))
    stats.bounce_reasons = list(reasons.order_by("-count", "reason")[:10])
    return stats


def _day_expression(midnights: Sequence[datetime]) -> Expression:
    """Return what tells the day of an email: its date, or its place among the days, from 1.

    PostgreSQL finds a place between midnights in half the time that it takes to turn a moment into
    a date of the time zone, and MariaDB and MySQL mostly have no time zones to do that with.
    """
    zone = midnights[0].tzinfo
    vendor = connections[Email.objects.db].vendor
    if vendor == "postgresql":
        return Func(
            F("created_at"),
            Value(list(midnights)),
            template="WIDTH_BUCKET(%(expressions)s::timestamptz[])",
            output_field=IntegerField(),
        )
    if vendor == "mysql":
        stored = [moment.astimezone(UTC) if zone else moment for moment in midnights]
        numbers = ", ".join(f"{moment:%Y%m%d%H%M%S}" for moment in stored)
        return Func(
            F("created_at"),
            template=f"INTERVAL(%(expressions)s + 0, {numbers})",
            output_field=IntegerField(),
        )
    return TruncDate("created_at", tzinfo=zone)


_COUNTED: Mapping[str, Any] = {
    "count": Count("*"),
    "opened": Count("pk", filter=Q(open_count__gt=0)),
    "clicked": Count("pk", filter=Q(click_count__gt=0)),
}


def _busiest_tenants(emails: Any) -> dict[str, Counts]:
    rows = (
        emails.filter(state__in=_SENT)
        .values("tenant_id")
        .annotate(
            **_COUNTED,
            delivered=Count("pk", filter=Q(state__in=_DELIVERED)),
            bounced=Count("pk", filter=Q(state=State.BOUNCED)),
            complained=Count("pk", filter=Q(state=State.COMPLAINED)),
        )
    )
    return {
        row.pop("tenant_id"): Counts(sent=row.pop("count"), **row)
        for row in rows.order_by("-count")[:_SHOWN]
    }


# The page ---------------------------------------------------------------------------------------


def dashboard_context(params: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows of the span of days that the request asks for."""
    days = int(params.get("days", "")) if params.get("days") in _CHOICES else DEFAULT_SPAN_DAYS
    zone = timezone.get_current_timezone() if settings.USE_TZ else None
    today = datetime.now(zone).date()
    stats = read_statistics(days, today=today, zone=zone)
    shown_days = sorted(stats.by_day)
    by_day = [(day, stats.by_day[day]) for day in shown_days]
    tenants = sorted(stats.by_tenant.items(), key=lambda item: (-item[1].sent, item[0]))
    return {
        "title": _("Email dashboard"),
        "subtitle": None,
        "spans": [{"days": span, "is_shown": span == days} for span in SPANS_DAYS],
        "days": days,
        "tiles": _tiles(stats.total),
        "total": stats.total,
        "volume_plot": _volume_plot(by_day),
        "engagement_plot": _engagement_plot(by_day),
        "trouble_plot": _trouble_plot(by_day),
        "by_day": by_day[::-1],
        "by_tenant": tenants[:_SHOWN] if len(tenants) > 1 else [],
        "has_all_tenants": stats.has_all_tenants and len(tenants) <= _SHOWN,
        "bounce_reasons": _with_shares(stats.bounce_reasons, stats.total.bounced),
    }


_CHOICES = frozenset(map(str, SPANS_DAYS))


def _tiles(total: Counts) -> list[dict[str, Any]]:
    return [
        {"name": _("Sent"), "count": total.sent, "kind": "sent"},
        _tile(_("Delivered"), total.delivered, total.delivery_rate, _("of sent"), "good"),
        _tile(_("Opened"), total.opened, total.open_rate, _("of delivered"), "opened"),
        _tile(_("Clicked"), total.clicked, total.click_rate, _("of delivered"), "clicked"),
        _tile(_("Bounced"), total.bounced, total.bounce_rate, _("of sent"), "bad"),
        _tile(
            _("Complained"), total.complained, total.complaint_rate, _("of delivered"), "complained"
        ),
    ]


def _tile(name: str, count: int, rate: float, of: str, kind: str) -> dict[str, Any]:
    return {"name": name, "count": count, "rate": rate, "of": of, "kind": kind}


def _volume_plot(by_day: Sequence[tuple[date, Counts]]) -> str:
    return bars(
        _("Emails per day"),
        [_day(day) for day, counts in by_day],
        [
            Stack(_("delivered"), "good", [counts.delivered for day, counts in by_day]),
            Stack(
                _("on their way"),
                "sent",
                [counts.sent - counts.delivered - counts.bounced for day, counts in by_day],
            ),
            Stack(_("bounced"), "bad", [counts.bounced for day, counts in by_day]),
        ],
    )


def _engagement_plot(by_day: Sequence[tuple[date, Counts]]) -> str:
    return lines(
        _("Opened and clicked, of those delivered"),
        [_day(day) for day, counts in by_day],
        [
            Line(_("opened"), "opened", _rates(by_day, "open_rate", "delivered")),
            Line(_("clicked"), "clicked", _rates(by_day, "click_rate", "delivered")),
        ],
    )


def _trouble_plot(by_day: Sequence[tuple[date, Counts]]) -> str:
    return lines(
        _("Bounced and complained"),
        [_day(day) for day, counts in by_day],
        [
            Line(_("bounced, of sent"), "bad", _rates(by_day, "bounce_rate", "sent")),
            Line(
                _("complained, of delivered"),
                "complained",
                _rates(by_day, "complaint_rate", "delivered"),
            ),
        ],
    )


def _rates(by_day: Iterable[tuple[date, Counts]], rate: str, base: str) -> list[float | None]:
    """Return a rate for each day, and ``None`` for days on which there was nothing to rate."""
    return [getattr(counts, rate) if getattr(counts, base) else None for day, counts in by_day]


def _day(day: date) -> str:
    return str(formats.date_format(day, "MONTH_DAY_FORMAT"))


def _with_shares(reasons: Iterable[tuple[str, int]], total: int) -> list[dict[str, Any]]:
    merged: Counter[str] = Counter()
    for reason, count in reasons:
        merged[reason or _("no reason told")] += count
    return [
        {"reason": reason, "count": count, "share": _share(count, total)}
        for reason, count in merged.most_common()
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
