"""The rows of the list."""

from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.http import HttpRequest

from truncus_django.admin.outbox_panel import IN_OUTBOX, outbox_entries
from truncus_django.models import Email

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


class EmailChangeList(ChangeList):
    """Reads only what the list shows, without bodies and metadata."""

    def get_results(self, request: HttpRequest) -> None:
        """Read one page of emails, and the outbox entries of those that wait."""
        if self.query:
            self._search_once_if_few_match()
        self.queryset = self.queryset.only(*LISTED_FIELDS)
        super().get_results(request)
        waiting = [email for email in self.result_list if email.state in IN_OUTBOX]
        entries = outbox_entries(waiting)
        for email in waiting:
            email.entry = entries.get(email.pk)

    def _search_once_if_few_match(self) -> None:
        """If all matches fit on one page, do not search again for the count and for the page."""
        ids = list(self.queryset.order_by().values_list("pk", flat=True)[: self.list_per_page + 1])
        if len(ids) <= self.list_per_page:
            order = self.queryset.query.order_by
            self.queryset = Email.objects.filter(pk__in=ids).order_by(*order)

    @property
    def without_search(self) -> str:
        """The URL of the list with its filters, but without the search."""
        return self.get_query_string(remove=[SEARCH_VAR])
