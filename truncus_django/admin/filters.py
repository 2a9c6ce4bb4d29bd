"""The filters of the list."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from truncus_django.db.large_tables import distinct_values
from truncus_django.models import Email

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList

MOST_CHOICES = 30
"""With more tenants or mailers, the user types one."""


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
        values = distinct_values(Email.objects.all(), self.parameter_name, limit=MOST_CHOICES + 1)
        if len(values) > MOST_CHOICES:
            self.is_typed = True
            self.template = "admin/truncus_django/email/typed_filter.html"
        return [(value, value or _("(none)")) for value in values]

    def has_output(self) -> bool:
        """Return whether there is anything to choose."""
        return len(self.lookup_choices) > 1 or self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Email]) -> QuerySet[Email]:
        """Return the emails with the chosen value."""
        value = self.value()
        if value is not None and "\0" in value:  # which PostgreSQL refuses to look for
            return queryset.none()
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
            "value": self.value() or "",
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

    def lookups(
        self, request: HttpRequest, model_admin: "admin.ModelAdmin[Email]"
    ) -> Sequence[tuple[str, Any]]:
        """Return the choices."""
        return [
            ("opened", _("opened")),
            ("clicked", _("clicked")),
            ("unopened", _("not opened")),
        ]

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
