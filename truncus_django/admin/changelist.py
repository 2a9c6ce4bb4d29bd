"""The list's rows, and the calendar above them."""

from datetime import datetime
from typing import Any

from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.http import HttpRequest

from truncus_django.admin.calendar import Calendar, build_calendar
from truncus_django.models import Email
from truncus_django.states import State

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


_IN_OUTBOX = frozenset({State.PENDING, State.SENDING})


class EmailChangeList(ChangeList):
    """Reads only what the list shows: bodies and metadata stay where they are."""

    calendar: Calendar

    def get_results(self, request: HttpRequest) -> None:
        """Read one page of emails, and the span of time that the log covers."""
        if self.query:
            self._look_whether_few_fit()
        self.queryset = self.queryset.only(*LISTED_FIELDS)
        super().get_results(request)
        # As two queries: SQLite reads the whole index for both ends at once.
        oldest, newest = _created("created_at"), _created("-created_at")
        self.calendar = build_calendar(self.params, oldest, newest, self._link)
        self._find_out_what_waits()

    def _find_out_what_waits(self) -> None:
        """Note on emails of the outbox where they stand; one query where there are any."""
        waiting = [email for email in self.result_list if email.state in _IN_OUTBOX]
        if not waiting:
            return
        from truncus_django.admin.outbox_panel import waits_of

        waits = waits_of([email.pk for email in waiting])
        for email in waiting:
            email.wait = waits.get(email.pk)

    def _look_whether_few_fit(self) -> None:
        """Search once, and not for the count and for the page, if all that fits is one page."""
        ids = list(self.queryset.order_by().values_list("pk", flat=True)[: self.list_per_page + 1])
        if len(ids) <= self.list_per_page:
            order = self.queryset.query.order_by
            self.queryset = Email.objects.filter(pk__in=ids).order_by(*order)

    @property
    def without_search(self) -> str:
        """The list's URL with its filters, but nothing searched for."""
        return self.get_query_string(remove=[SEARCH_VAR])

    def _link(self, params: dict[str, Any]) -> str:
        return self.get_query_string(params, ["created_at__"])


def _created(order: str) -> datetime | None:
    first: datetime | None = (
        Email.objects.order_by(order).values_list("created_at", flat=True).first()
    )
    return first
