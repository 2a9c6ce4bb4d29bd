"""The rows of the list."""

from typing import Any

from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.db import connections
from django.db.models import QuerySet
from django.http import HttpRequest

from truncus_django.admin.filters import ActiveFilter, active_filters, without_filters
from truncus_django.admin.outbox_panel import waiting_cells
from truncus_django.models import Email
from truncus_django.states import OUTBOX_STATES

LISTED_FIELDS = (
    "id",
    "message_id",
    "state",
    "reason",
    "is_sandbox",
    "to",
    "cc",
    "bcc",
    "subject",
    "tenant_id",
    "open_count",
    "click_count",
    "attachment_count",
    "sent_at",
    "send_at",
    "created_at",
    "error_code",
)

NEWEST = 100_000
"""Among so many, a word that 1 in 1,000 emails has fills a page."""


class EmailChangeList(ChangeList):
    """Reads only what the list shows, without bodies and metadata.

    Attributes:
        active_filters: what narrows the list, but for the search.
    """

    active_filters: list[ActiveFilter]

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Email]:
        """Return the emails; none for text with NUL, which PostgreSQL refuses to look for."""
        found = super().get_queryset(request, exclude_parameters)
        has_nul = any("\0" in value for values in self.filter_params.values() for value in values)
        return found.none() if has_nul else found

    def get_results(self, request: HttpRequest) -> None:
        """Read one page of emails, and the outbox entries of those that wait."""
        if self.query:
            self._search_once_if_few_match()
        self.queryset = self.queryset.only(*LISTED_FIELDS)
        super().get_results(request)
        if self.query and self.paginator.is_capped and self.page_num == 1:
            self._read_from_the_newest()
        self.active_filters = active_filters(self)
        # Django leaves out what no filter beside the list shows.
        self.has_active_filters = bool(self.active_filters)
        self.clear_all_filters_qs = without_filters(self)
        waiting = [email for email in self.result_list if email.state in OUTBOX_STATES]
        cells = waiting_cells(waiting)
        for email in waiting:
            email.waiting_cell = cells[email.pk]

    def _search_once_if_few_match(self) -> None:
        """If all matches fit on one page, do not search again for the count and for the page."""
        ids = list(self.queryset.order_by().values_list("pk", flat=True)[: self.list_per_page + 1])
        if len(ids) <= self.list_per_page:
            order = self.queryset.query.order_by
            self.queryset = Email.objects.filter(pk__in=ids).order_by(*order)

    def _read_from_the_newest(self) -> None:
        """Look for the first page in the newest emails, if the newest are asked for.

        PostgreSQL takes a word for rarer than it is, and would read all emails with it to sort
        them.
        """
        using = self.queryset.db
        if connections[using].vendor != "postgresql" or not self._is_newest_first():
            return
        moments = (
            Email.objects.using(using).order_by("-created_at").values_list("created_at", flat=True)
        )
        since = list(moments[NEWEST : NEWEST + 1])
        if not since:
            return
        found = list(self.queryset.filter(created_at__gte=since[0])[: self.list_per_page])
        if len(found) == self.list_per_page:
            self.result_list = found

    def _is_newest_first(self) -> bool:
        return tuple(self.queryset.query.order_by[:1]) == ("-created_at",)

    @property
    def without_search(self) -> str:
        """The URL of the list with its filters, but without the search."""
        return self.get_query_string(remove=[SEARCH_VAR])
