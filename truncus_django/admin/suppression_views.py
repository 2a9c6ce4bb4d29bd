"""What the pages of suppressed addresses do; imported when the first one is shown."""

from collections.abc import Sequence

from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from truncus_django.admin.csv import file_response
from truncus_django.api.errors import MessageError
from truncus_django.log.suppression import stored_forms
from truncus_django.log.suppression_csv import csv_lines
from truncus_django.models import SuppressedAddress
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.screening import MOST_VALUES


def checked_address(given: str) -> str:
    """Return an address in the form in which it is looked up.

    Raises:
        ValidationError: it is malformed.
    """
    try:
        return mailbox(given, "address")
    except MessageError:
        raise ValidationError(_("Enter an address such as ann@example.com.")) from None


def search_addresses(
    entries: QuerySet[SuppressedAddress], term: str
) -> QuerySet[SuppressedAddress]:
    """Return entries whose address is ``term``, or has it as a part if it is no address."""
    term = term.strip().replace("\0", "").lower()
    if not term:
        return entries
    try:
        return entries.filter(address__in=stored_forms(term))
    except MessageError:
        return entries.filter(address__contains=term)


def end(request: HttpRequest, entries: Sequence[SuppressedAddress]) -> None:
    """Let addresses be mailed again, and write so into the history of each entry."""
    for start in range(0, len(entries), MOST_VALUES):
        keys = [entry.pk for entry in entries[start : start + MOST_VALUES]]
        SuppressedAddress.objects.filter(pk__in=keys).update(expires_at=timezone.now())
    LogEntry.objects.log_actions(
        user_id=request.user.pk,  # type: ignore[arg-type]  # has a permission
        queryset=entries,
        action_flag=CHANGE,
        change_message=_("Ended: may be mailed again."),
    )


def csv_response(entries: QuerySet[SuppressedAddress]) -> StreamingHttpResponse:
    """Return a download of entries."""
    return file_response(csv_lines(entries), "suppressed")
