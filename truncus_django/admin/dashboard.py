"""The dashboard: the statistics of some days, of all tenants or of one, with links to the log."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from truncus_django.admin.pages import MAX_CHOICES
from truncus_django.admin.plots import Series, bars, lines
from truncus_django.admin.reasons import reason_label
from truncus_django.admin.statistics import (
    COUNTED_STATES,
    DELIVERED,
    MAX_TENANTS,
    SENT,
    Counts,
    DateRange,
    Statistics,
    midnight,
    read_statistics,
    share,
)
from truncus_django.db.large_tables import distinct_values
from truncus_django.models import Email
from truncus_django.states import CLICKED, OPENED, State

DEFAULT_DAYS = 30
USUAL_DAYS = (7, 30, 90)
MAX_DAYS = 366
_COUNTED = ",".join(COUNTED_STATES)
_EARLIEST = date(2000, 1, 1)
"""Midnights of the year 1 cannot be told in all time zones."""


class DateRangeForm(forms.Form):
    """Which days the dashboard shows, and of which tenant."""

    days = forms.IntegerField(
        label=gettext_lazy("Days"), required=False, min_value=1, max_value=MAX_DAYS
    )
    """So many, up to today."""
    since = forms.DateField(label=pgettext_lazy("day", "From"), required=False)
    until = forms.DateField(label=pgettext_lazy("day", "to"), required=False)
    """Both included."""
    tenant = forms.CharField(
        label=gettext_lazy("Tenant"), required=False, strip=False, max_length=255
    )

    def __init__(self, data: Mapping[str, str], *, today: date, tenants: Sequence[str]) -> None:
        super().__init__(data, label_suffix="")
        self._today = today
        for name in ("since", "until"):
            self.fields[name].widget = forms.DateInput(
                format="%Y-%m-%d", attrs={"type": "date", "max": today.isoformat()}
            )
        if len(tenants) <= MAX_CHOICES:
            known = [(tenant, tenant) for tenant in tenants if tenant]
            self.fields["tenant"].widget = forms.Select(
                choices=[("", _("All tenants")), *known, *self._other(data, tenants)]
            )

    @staticmethod
    def _other(data: Mapping[str, str], tenants: Sequence[str]) -> list[tuple[str, str]]:
        """Return the choice of a tenant that the log does not have."""
        asked = data.get("tenant", "")
        return [] if not asked or asked in tenants else [(asked, asked)]

    def clean(self) -> dict[str, Any]:
        """Refuse a first and a last day between which there is nothing to show."""
        cleaned = super().clean() or {}
        since, until = cleaned.get("since"), cleaned.get("until")
        first = since or until
        if first is None:
            return cleaned
        last = until or self._today
        if first > self._today:
            raise ValidationError(_("The first day lies in the future."))
        if first < _EARLIEST:
            raise ValidationError(_("The first day is too long ago."))
        if last < first:
            raise ValidationError(_("The first day is after the last one."))
        if (last - first).days >= MAX_DAYS:
            raise ValidationError(
                ngettext(
                    "Choose at most %(count)d day.", "Choose at most %(count)d days.", MAX_DAYS
                ),
                params={"count": MAX_DAYS},
            )
        cleaned["dates"] = DateRange(first, min(last, self._today))
        return cleaned

    @property
    def dates(self) -> DateRange:
        """The days that are asked for; the usual ones where none are, or none that can be shown."""
        if not self.is_valid():
            return _last_days(DEFAULT_DAYS, self._today)
        asked: DateRange | None = self.cleaned_data.get("dates")
        return asked or _last_days(self.cleaned_data["days"] or DEFAULT_DAYS, self._today)


def _last_days(count: int, today: date) -> DateRange:
    return DateRange(today - timedelta(days=count - 1), today)


# What is marked -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """From which share of emails on, 0 to 1, something is marked, how, and what that means.

    ``text`` has ``{share}`` where the share stands.
    """

    threshold: float
    kind: str
    name: Any
    text: Any

    @property
    def share(self) -> str:
        """The share as sentences write it."""
        return f"{formats.number_format(Decimal(f'{self.threshold * 100:g}'))} %"

    @property
    def meaning(self) -> str:
        """What it means, in sentences."""
        return str(self.text).format(share=self.share)


_COMPLAINT_MARKS = (
    Mark(
        0.003,
        "bad",
        gettext_lazy("too many"),
        gettext_lazy(
            "{share} or more of the delivered emails were reported as spam. Gmail and others "
            "refuse emails of senders with so many complaints, or show them as spam. Stop sending "
            "what was complained about, until you know why."
        ),
    ),
    Mark(
        0.001,
        "waiting",
        gettext_lazy("many"),
        gettext_lazy(
            "{share} or more of the delivered emails were reported as spam. Gmail wants fewer, and "
            "Amazon SES, by which Truncus sends, may review the account. Look which emails they "
            "are, and whether their recipients asked for them."
        ),
    ),
)
_BOUNCE_MARKS = (
    Mark(
        0.05,
        "bad",
        gettext_lazy("too many"),
        gettext_lazy(
            "{share} or more of the emails bounced. Amazon SES, by which Truncus sends, reviews "
            "accounts with so many bounces, and may pause them from 10 % on. Look for the reasons "
            "below: often it is an old list, or a form that takes any address."
        ),
    ),
)
"""The strictest first. Of complaints, as Gmail's guidelines for senders want them (below 0.1 %,
never 0.3 %); of bounces, as Amazon SES reviews accounts."""


MIN_MARKED = 100
"""Of fewer emails, one alone would be marked."""


def what_is_marked() -> str:
    """Return from which shares on something is marked."""
    text = ngettext(
        "▲ marks bounces of {bounces} or more, and complaints of {complaints} or more, of {emails} "
        "email or more.",
        "▲ marks bounces of {bounces} or more, and complaints of {complaints} or more, of {emails} "
        "emails or more.",
        MIN_MARKED,
    )
    bounces, complaints = _BOUNCE_MARKS[-1].share, _COMPLAINT_MARKS[-1].share
    return text.format(bounces=bounces, complaints=complaints, emails=MIN_MARKED)


def complaint_mark(counts: Counts) -> Mark | None:
    """Return how the complaints among so many emails are marked."""
    return _mark(counts.complaint_rate, counts.delivered, _COMPLAINT_MARKS)


def bounce_mark(counts: Counts) -> Mark | None:
    """Return how the bounces among so many emails are marked."""
    return _mark(counts.bounce_rate, counts.sent, _BOUNCE_MARKS)


def _mark(rate: float, emails: int, marks: Sequence[Mark]) -> Mark | None:
    """Return the strictest mark that a rate has deserved."""
    if emails < MIN_MARKED:
        return None
    return next((mark for mark in marks if rate >= mark.threshold), None)


# The page -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogLinks:
    """Makes the queries of links to the log's list, for emails of some days, and of a tenant."""

    zone: tzinfo | None
    tenant: str = ""

    def query(self, dates: DateRange, **filters: str) -> str:
        """Return the query string of the list with these filters."""
        wanted = {
            **filters,
            "is_sandbox__exact": "0",
            "created_at__gte": midnight(dates.first, self.zone).isoformat(),
            "created_at__lt": midnight(dates.last + timedelta(days=1), self.zone).isoformat(),
        }
        if self.tenant:
            wanted.setdefault("tenant_id", self.tenant)
        return urlencode(wanted)


def dashboard_context(params: Mapping[str, str]) -> dict[str, Any]:
    """Return what the template shows about the days and the tenant that the request asks for.

    At most 4 queries.
    """
    zone = timezone.get_current_timezone() if settings.USE_TZ else None
    today = datetime.now(zone).date()
    tenants = distinct_values(Email.objects.all(), "tenant_id", limit=MAX_CHOICES + 1)
    form = DateRangeForm(params, today=today, tenants=tenants)
    dates, tenant = form.dates, form.cleaned_data.get("tenant", "")
    if form.is_valid():  # it shows the days, however they were asked for
        shown = {"since": f"{dates.first}", "until": f"{dates.last}", "tenant": tenant}
        form = DateRangeForm(shown, today=today, tenants=tenants)
    stats = read_statistics(
        dates, zone=zone, tenant=tenant, has_few_tenants=len(tenants) <= MAX_CHOICES
    )
    links = LogLinks(zone, tenant)
    total = stats.total
    return {
        "title": _("Email dashboard"),
        "subtitle": None,
        "form": form,
        "usual": _usual(dates, tenant, today=today),
        "dates": dates,
        "tenant": tenant,
        "has_tenants": bool(tenant) or len(tenants) > 1,
        "is_log_empty": not tenants,
        "total": total,
        "tiles": _tiles(total, dates, links),
        "what_is_marked": what_is_marked(),
        "marks": [mark for mark in (complaint_mark(total), bounce_mark(total)) if mark],
        "plots": _plots(stats.by_day) if len(stats.by_day) > 1 else None,
        "by_day": _by_day(stats, links),
        "by_tenant": _by_tenant(stats, dates, links),
        "has_all_tenants": len(stats.by_tenant) <= MAX_TENANTS,
        "bounce_reasons": _bounce_reasons(stats, dates, links),
    }


def _usual(dates: DateRange, tenant: str, *, today: date) -> list[dict[str, Any]]:
    """Return the usual days, each with their link."""
    yesterday = today - timedelta(days=1)
    one_day = {"since": yesterday.isoformat(), "until": yesterday.isoformat()}
    usual: list[tuple[str, dict[str, Any], DateRange]] = [
        (_("Today"), {"days": 1}, DateRange(today, today)),
        (_("Yesterday"), one_day, DateRange(yesterday, yesterday)),
    ]
    for count in USUAL_DAYS:
        text = ngettext("%(count)d day", "%(count)d days", count) % {"count": count}
        usual.append((text, {"days": count}, _last_days(count, today)))
    of_tenant = {"tenant": tenant} if tenant else {}
    return [
        {"text": text, "query": urlencode({**query, **of_tenant}), "is_shown": each == dates}
        for text, query, each in usual
    ]


class _Tile(NamedTuple):
    """One of the totals: what is counted, its colour, and the filters of the list that show it."""

    name: Any
    counted: str
    kind: str
    filters: Mapping[str, str]
    rate: str = ""
    note: Any = ""


_TILES = (
    _Tile(gettext_lazy("Sent"), "sent", "sent", {"state__in": ",".join(SENT)}),
    _Tile(
        gettext_lazy("Delivered"),
        "delivered",
        "good",
        {"state__in": ",".join(DELIVERED)},
        "delivery_rate",
        gettext_lazy("of sent"),
    ),
    _Tile(
        gettext_lazy("Opened"),
        "opened",
        "opened",
        {"state__in": ",".join(DELIVERED), "engagement": OPENED},
        "open_rate",
        gettext_lazy("of delivered"),
    ),
    _Tile(
        gettext_lazy("Clicked"),
        "clicked",
        "clicked",
        {"state__in": ",".join(DELIVERED), "engagement": CLICKED},
        "click_rate",
        gettext_lazy("of delivered"),
    ),
    _Tile(
        gettext_lazy("Bounced"),
        "bounced",
        "bad",
        {"state__exact": State.BOUNCED},
        "bounce_rate",
        gettext_lazy("of sent"),
    ),
    _Tile(
        gettext_lazy("Complained"),
        "complained",
        "complained",
        {"state__exact": State.COMPLAINED},
        "complaint_rate",
        gettext_lazy("of delivered"),
    ),
    _Tile(
        gettext_lazy("Failed"),
        "failed",
        "failed",
        {"state__exact": State.FAILED},
        note=gettext_lazy("not sent"),
    ),
    _Tile(
        gettext_lazy("Rejected"),
        "rejected",
        "failed",
        {"state__exact": State.REJECTED},
        note=gettext_lazy("not sent"),
    ),
)


def _tiles(total: Counts, dates: DateRange, links: LogLinks) -> list[dict[str, Any]]:
    """Return the totals with their colours and links; a rate has its base."""
    marks = {"bounced": bounce_mark(total), "complained": complaint_mark(total)}
    count = len(dates.days)
    in_days = ngettext("in %(count)d day", "in %(count)d days", count) % {"count": count}
    return [
        {
            "name": tile.name,
            "count": getattr(total, tile.counted),
            "kind": tile.kind,
            "rate": getattr(total, tile.rate) if tile.rate else None,
            "note": tile.note or in_days,
            "mark": marks.get(tile.counted),
            "query": links.query(dates, **tile.filters),
        }
        for tile in _TILES
    ]


def _plots(by_day: Mapping[date, Counts]) -> dict[str, Any]:
    labels = [str(formats.date_format(day, "MONTH_DAY_FORMAT")) for day in by_day]
    counts = list(by_day.values())
    return {
        "volume": bars(
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
        "engagement": lines(
            _("Opened and clicked, of those delivered"),
            labels,
            [
                Series(_("opened"), "opened", _rates(counts, "open_rate", "delivered")),
                Series(_("clicked"), "clicked", _rates(counts, "click_rate", "delivered")),
            ],
        ),
        "bounces": lines(
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
    }


def _rates(days: Iterable[Counts], rate: str, base: str) -> list[float | None]:
    """Return a rate for each day, and ``None`` for days without anything to rate."""
    return [getattr(day, rate) if getattr(day, base) else None for day in days]


def _row(counts: Counts, query: str) -> dict[str, Any]:
    """Return what a table shows about emails."""
    return {
        "counts": counts,
        "query": query,
        "bounce_mark": bounce_mark(counts),
        "complaint_mark": complaint_mark(counts),
    }


def _by_day(stats: Statistics, links: LogLinks) -> list[dict[str, Any]]:
    """Return the days on which there were emails, the latest first."""
    return [
        {"day": day, **_row(counts, links.query(DateRange(day, day), state__in=_COUNTED))}
        for day, counts in reversed(stats.by_day.items())
        if not counts.is_zero
    ]


def _by_tenant(stats: Statistics, dates: DateRange, links: LogLinks) -> list[dict[str, Any]]:
    """Return the tenants; none where there is one alone."""
    if len(stats.by_tenant) < 2:
        return []
    return [
        {"tenant": tenant, **_row(counts, links.query(dates, tenant_id=tenant, state__in=_COUNTED))}
        for tenant, counts in stats.by_tenant[:MAX_TENANTS]
    ]


def _bounce_reasons(stats: Statistics, dates: DateRange, links: LogLinks) -> list[dict[str, Any]]:
    return [
        {
            "reason": reason_label(reason) if reason else _("no reason known"),
            "count": count,
            "share": share(count, stats.total.bounced),
            "query": links.query(dates, state__exact=State.BOUNCED, reason__exact=reason),
        }
        for reason, count in stats.bounce_reasons
    ]
