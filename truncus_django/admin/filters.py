"""The filters of the list: those beside it, and all that a link into the list may set."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import FieldDoesNotExist
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from truncus_django.admin.pages import MAX_CHOICES
from truncus_django.admin.reasons import reason_label
from truncus_django.db.large_tables import distinct_values
from truncus_django.models import Email
from truncus_django.states import State

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList


class IndexedValueFilter(admin.SimpleListFilter):
    """By the value of an indexed column: chosen from a list, or typed if there are many.

    It is not shown if all emails have the same value.
    """

    parameter_name: str
    is_typed = False

    def lookups(
        self, request: HttpRequest, model_admin: "admin.ModelAdmin[Email]"
    ) -> Sequence[tuple[str, Any]]:
        """Return the values that there are."""
        values = distinct_values(Email.objects.all(), self.parameter_name, limit=MAX_CHOICES + 1)
        if len(values) > MAX_CHOICES:
            self.is_typed = True
            self.template = "admin/truncus_django/email/typed_filter.html"
        return [(value, value or _("(none)")) for value in values]

    def has_output(self) -> bool:
        """Return whether there is anything to choose."""
        return len(self.lookup_choices) > 1 or self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Email]) -> QuerySet[Email]:
        """Return the emails with the chosen value."""
        value = self.value()
        return queryset if value is None else queryset.filter(**{self.parameter_name: value})

    def choices(self, changelist: "ChangeList") -> Iterator[Any]:
        """Yield what the template shows: links, or what a form must carry along."""
        if not self.is_typed:
            yield from super().choices(changelist)
            return
        others = dict(changelist.filter_params)
        others.pop(self.parameter_name, None)
        yield {
            "name": self.parameter_name,
            "value": self.value(),
            "others": [(name, value) for name, values in others.items() for value in values],
            "remove": changelist.get_query_string(remove=[self.parameter_name]),
        }


class TenantFilter(IndexedValueFilter):
    """By tenant."""

    title = _("tenant")
    parameter_name = "tenant_id"


class MailerFilter(IndexedValueFilter):
    """By the alias in ``MAILERS``."""

    title = _("mailer")
    parameter_name = "mailer"


class EngagementFilter(admin.SimpleListFilter):
    """By whether it was opened, or a link in it clicked."""

    title = _("engagement")
    parameter_name = "engagement"

    CHOICES = (
        ("opened", _("opened")),
        ("clicked", _("clicked")),
        ("unopened", _("not opened")),
    )

    def lookups(
        self, request: HttpRequest, model_admin: "admin.ModelAdmin[Email]"
    ) -> Sequence[tuple[str, Any]]:
        """Return the choices."""
        return self.CHOICES

    def queryset(self, request: HttpRequest, queryset: QuerySet[Email]) -> QuerySet[Email]:
        """Return the emails with the chosen engagement."""
        match self.value():
            case "opened":
                return queryset.filter(open_count__gt=0)
            case "clicked":
                return queryset.filter(click_count__gt=0)
            case "unopened":
                return queryset.filter(open_count=0)
        return queryset


_SIMPLE_FILTERS = (TenantFilter, MailerFilter, EngagementFilter)


class StateFilter(admin.ChoicesFieldListFilter):
    """By one state; a link into the list may ask for several, which a choice then replaces."""

    def expected_parameters(self) -> list[str | None]:
        """Return the parameters that are this filter's own."""
        return [*super().expected_parameters(), "state__in"]

    def choices(self, changelist: "ChangeList") -> Iterator[Any]:
        """Yield the links: to all emails, and to those of each state."""
        chosen = self.used_parameters
        without = changelist.get_query_string(remove=["state__"])
        yield {"selected": not chosen, "query_string": without, "display": gettext("All")}
        for state in State:
            yield {
                "selected": [state.value] == chosen.get("state__exact"),
                "query_string": changelist.get_query_string(
                    {"state__exact": state.value}, remove=["state__in"]
                ),
                "display": state.label,
            }


class CreatedFilter(admin.DateFieldListFilter):
    """By time; bounds without a time zone are in the current one, as the list shows times.

    Django would take them for times of ``TIME_ZONE``.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        """Return the emails between the bounds."""
        given: dict[str, Any] = self.used_parameters
        self.used_parameters = {
            name: [parse_moment(value) or "" for value in values]  # "" is refused as no date
            for name, values in given.items()
        }
        return super().queryset(request, queryset)


def parse_moment(text: str) -> datetime | None:
    """Return a moment in the current time zone; ``None`` if the text is none."""
    try:
        moment = parse_datetime(text)
        if moment is None:
            return None
        if not settings.USE_TZ:
            return timezone.make_naive(moment) if timezone.is_aware(moment) else moment
        if timezone.is_naive(moment):
            moment = timezone.make_aware(moment)
        return timezone.localtime(moment.astimezone(UTC))
    except (ValueError, OverflowError):  # 2026-02-30, or before the year 1 in UTC
        return None


# What narrows the list ----------------------------------------------------------------------------

_OUTBOX_ENTRY = "outbox_entry"
"""By which the panel of the outbox links to what can be tried again."""


class ActiveFilter(NamedTuple):
    """What narrows the list.

    Attributes:
        name: of the field, as the list shows it.
        text: which emails are left.
        remove: the URL of the list without it.
    """

    name: str
    text: str
    remove: str


def active_filters(changelist: "ChangeList") -> list[ActiveFilter]:
    """Return what narrows the list, but for the search: also what no filter beside it shows."""
    by_field: dict[str, dict[str, list[str]]] = {}
    for name, values in changelist.get_filters_params().items():
        field, _, lookup = name.partition("__")
        by_field.setdefault(field, {})[lookup or "exact"] = values
    return [
        ActiveFilter(_name(field), _text(field, lookups), _without(changelist, field))
        for field, lookups in by_field.items()
    ]


def without_filters(changelist: "ChangeList") -> str:
    """Return the URL of the list with its search alone."""
    names = changelist.get_filters_params()
    return changelist.get_query_string(dict.fromkeys(names))


def _without(changelist: "ChangeList", field: str) -> str:
    names = [name for name in changelist.filter_params if name.partition("__")[0] == field]
    return changelist.get_query_string(dict.fromkeys(names))


def _name(field: str) -> str:
    if field == EngagementFilter.parameter_name:
        return str(EngagementFilter.title)
    if field == _OUTBOX_ENTRY:
        return gettext("content")
    try:
        found = Email._meta.get_field(field)
    except FieldDoesNotExist:
        return field
    return str(getattr(found, "verbose_name", field))


def _text(field: str, lookups: Mapping[str, Sequence[str]]) -> str:
    if field == "created_at" and (span := _span(lookups)):
        return span
    return gettext(" and ").join(
        ", ".join(_of_lookup(field, lookup, given) for given in _effective(field, values))
        for lookup, values in lookups.items()
    )


def _effective(field: str, values: Sequence[str]) -> Sequence[str]:
    """Return those of a repeated parameter that count: Django's own filters take any of them."""
    is_simple = field in {each.parameter_name for each in _SIMPLE_FILTERS}
    return values[-1:] if is_simple else values


def _of_lookup(field: str, lookup: str, given: str) -> str:
    if (field, lookup) == (_OUTBOX_ENTRY, "isnull"):
        is_stored = given.lower() in {"", "false", "0"}
        return gettext("stored in the outbox") if is_stored else gettext("not stored in the outbox")
    if lookup == "in":
        return ", ".join(_value(field, value) for value in given.split(","))
    value = _value(field, given)
    return value if lookup == "exact" else f"{lookup} {value}"


def _value(field: str, value: str) -> str:
    if field == "state" and value in State:
        return str(State(value).label)
    if field == "reason" and value:
        return reason_label(value)
    if field == EngagementFilter.parameter_name:
        return str(dict(EngagementFilter.CHOICES).get(value, value))
    if field == "is_sandbox":
        return gettext("No") if value in {"0", "False"} else gettext("Yes")
    return value or gettext("(none)")


def _span(lookups: Mapping[str, Sequence[str]]) -> str:
    """Return from when to when the emails are; empty if the lookups are about something else."""
    since, until = (
        parse_moment(lookups[each][-1]) if each in lookups else None for each in ("gte", "lt")
    )
    if set(lookups) - {"gte", "lt"} or not (since or until):
        return ""
    if since is None:
        return gettext("before %(time)s") % {"time": _moment(until)}
    if until is None:
        return gettext("since %(time)s") % {"time": _moment(since)}
    if until <= since:
        return f"{_moment(since)} – {_moment(until)}"
    if since.time() != time.min or until.time() != time.min:
        return f"{_moment(since)} – {_moment(until)}"
    first, last = since.date(), until.date() - timedelta(days=1)
    return _day(first) if first >= last else f"{_day(first)} – {_day(last)}"


def _day(day: Any) -> str:
    return formats.date_format(day, "SHORT_DATE_FORMAT")


def _moment(at: Any) -> str:
    return _day(at) if at.time() == time.min else formats.date_format(at, "SHORT_DATETIME_FORMAT")
