"""The years, months and days above the list.

Django's own date hierarchy asks for the different months of the filtered list, which reads all of
it. Here the first and the last email tell which periods there can be: two looks at an index.
"""

import calendar
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from django.utils import formats, timezone
from django.utils.translation import gettext

FIELD = "created_at"
_YEAR, _MONTH, _DAY = f"{FIELD}__year", f"{FIELD}__month", f"{FIELD}__day"

Link = Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Calendar:
    """What the row of links shows; the names are those of Django's template."""

    choices: list[dict[str, Any]] = field(default_factory=list)
    back: dict[str, Any] | None = None


def build_calendar(
    params: Mapping[str, str], first: datetime | None, last: datetime | None, link: Link
) -> Calendar:
    """Return the links to narrow the list by date.

    Args:
        params: of the request.
        first, last: when the oldest and the newest email of the log were created.
        link: returns the list's URL with other parameters; ``None`` takes one away.
    """
    if first is None or last is None:
        return Calendar()
    oldest, newest = _local_day(first), _local_day(last)
    year, month, day = (_number(params, name) for name in (_YEAR, _MONTH, _DAY))

    def url(year: int | None, month: int | None = None, day: int | None = None) -> str:
        return link({_YEAR: year, _MONTH: month, _DAY: day})

    everything = {"link": url(None), "title": gettext("All dates")}
    if year is None or not 1 <= year <= 9999:
        if oldest.year == newest.year:
            return Calendar(_months(oldest.year, oldest, newest, url))
        return Calendar(
            [
                {"link": url(number), "title": str(number)}
                for number in range(oldest.year, newest.year + 1)
            ]
        )
    if month is None or not 1 <= month <= 12:
        return Calendar(_months(year, oldest, newest, url), everything)
    back_to_year = {"link": url(year), "title": str(year)}
    if day is not None:
        shown = date(year, month, 1)
        try:
            title = _format(date(year, month, day), "MONTH_DAY_FORMAT")
        except ValueError:
            title = str(day)
        back = {"link": url(year, month), "title": _format(shown, "YEAR_MONTH_FORMAT")}
        return Calendar([{"title": title}], back)
    days = [
        date(year, month, number) for number in range(1, calendar.monthrange(year, month)[1] + 1)
    ]
    choices = [
        {"link": url(year, month, one.day), "title": _format(one, "MONTH_DAY_FORMAT")}
        for one in days
        if oldest <= one <= newest
    ]
    return Calendar(choices, back_to_year)


def _months(year: int, oldest: date, newest: date, url: Callable[..., str]) -> list[dict[str, Any]]:
    months = [date(year, number, 1) for number in range(1, 13)]
    return [
        {"link": url(year, month.month), "title": _format(month, "YEAR_MONTH_FORMAT")}
        for month in months
        if oldest.replace(day=1) <= month <= newest
    ]


def _number(params: Mapping[str, str], name: str) -> int | None:
    try:
        return int(params[name])
    except (KeyError, ValueError):
        return None


def _local_day(moment: datetime) -> date:
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()


def _format(day: date, name: str) -> str:
    return str(formats.date_format(day, name)).capitalize()
