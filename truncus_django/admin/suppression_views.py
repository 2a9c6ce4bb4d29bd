"""What the pages of suppressed addresses do; imported when the first one is shown."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from truncus_django.admin import display
from truncus_django.admin.action_runner import MAX_ROWS, Question, form_url, meant_in, meant_words
from truncus_django.admin.csv import file_response
from truncus_django.admin.filters import parse_moment
from truncus_django.admin.pages import log_change_without_object, page_basics
from truncus_django.admin.paginator import COUNT_LIMIT
from truncus_django.api.errors import MessageError
from truncus_django.log.suppression import ASKED_FOR_NO_EMAILS, stored_forms
from truncus_django.log.suppression_csv import csv_lines
from truncus_django.models import SuppressedAddress
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.screening import MAX_VALUES

_MAX_SHOWN = 20


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


# Ending -------------------------------------------------------------------------------------------


def ask_then_end(
    model_admin: "admin.ModelAdmin[SuppressedAddress]",
    request: HttpRequest,
    queryset: QuerySet[SuppressedAddress],
) -> HttpResponse | None:
    """Show the question; if the user has confirmed, let the addresses be mailed again.

    A confirmation ends the entries that the question was about, and no others: what the list shows
    may have changed since. Nor does it end what was suppressed again since the question.
    """
    meant = meant_in(request, limit=MAX_ROWS)
    is_confirmed = bool(meant) and "confirmed" in request.POST
    asked_at = parse_moment(request.POST.get("asked_at", "")) if is_confirmed else None
    chosen: list[SuppressedAddress] = []
    if len(meant) <= MAX_ROWS:
        chosen = _entries(model_admin, request, meant) if meant else list(queryset[: MAX_ROWS + 1])
    if max(len(meant), len(chosen)) > MAX_ROWS:
        text = _("At most %(most)d addresses at once; choose fewer.") % {"most": MAX_ROWS}
        model_admin.message_user(request, text, messages.ERROR)
        return None
    entries = [each for each in chosen if each.is_in_force]
    if asked_at:  # a complaint may come late, of before the question
        entries = [each for each in entries if each.reason == meant[each.pk]]
    if entries and asked_at is None:
        return _question(model_admin, request, entries, over_count=len(chosen) - len(entries))
    if count := _end(request, entries, asked_at) if asked_at else 0:
        text = ngettext(
            "%(count)d address may be mailed again.",
            "%(count)d addresses may be mailed again.",
            count,
        )
        model_admin.message_user(request, text % {"count": count})
    else:
        text = _(
            "No address was changed: they may be mailed already, or were suppressed again just now."
        )
        model_admin.message_user(request, text, messages.INFO)
    return None


def _entries(
    model_admin: "admin.ModelAdmin[SuppressedAddress]", request: HttpRequest, ids: Iterable[UUID]
) -> list[SuppressedAddress]:
    """Return the entries with these ids that the user may see, whatever the list shows."""
    found: list[SuppressedAddress] = []
    keys = list(ids)
    for start in range(0, len(keys), MAX_VALUES):
        some = keys[start : start + MAX_VALUES]
        found += model_admin.get_queryset(request).filter(pk__in=some)
    return found


def _question(
    model_admin: "admin.ModelAdmin[SuppressedAddress]",
    request: HttpRequest,
    entries: Sequence[SuppressedAddress],
    *,
    over_count: int,
) -> HttpResponse:
    words = {"count": len(entries)}
    question = ngettext(
        "Let this address be mailed again?",
        "Let these %(count)d addresses be mailed again?",
        len(entries),
    )
    confirm = ngettext(
        "Let %(count)d address be mailed again",
        "Let %(count)d addresses be mailed again",
        len(entries),
    )
    context = {
        **page_basics(model_admin, request),
        "title": _("Let addresses be mailed again"),
        "question": question % words,
        "confirm": confirm % words,
        "over_count": over_count,
        "rows": [(entry, display.address(entry.address)) for entry in entries[:_MAX_SHOWN]],
        "more_count": len(entries) - _MAX_SHOWN,
        "warning": _who_asked_for_no_emails(entries),
        "action": {"name": "end_now"},
        "asked": Question(hidden={"asked_at": timezone.now().isoformat()}),
        "meant_words": meant_words({entry.pk: entry.reason for entry in entries}),
        "checked": [entries[0].pk],  # Django wants one
        "is_everything": request.POST.get("select_across") == "1",
        "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        "form_url": form_url(request),
        "back_url": request.get_full_path(),
    }
    return TemplateResponse(request, "admin/truncus_django/suppressedaddress/end.html", context)


def _who_asked_for_no_emails(entries: Sequence[SuppressedAddress]) -> str:
    count = sum(entry.reason in ASKED_FOR_NO_EMAILS for entry in entries)
    if not count:
        return ""
    text = ngettext(
        "%(count)d of them is the address of a person who complained or unsubscribed, and so asked "
        "for no emails.",
        "%(count)d of them are addresses of people who complained or unsubscribed, and so asked "
        "for no emails.",
        count,
    )
    return text % {"count": count}


def _end(request: HttpRequest, entries: Sequence[SuppressedAddress], asked_at: datetime) -> int:
    """Let addresses be mailed again, and write so into the history of each entry; return how many.

    An entry that was renewed after the question stays, even if that was a moment ago.
    """
    now = timezone.now()
    ended: list[SuppressedAddress] = []
    for start in range(0, len(entries), MAX_VALUES):
        some = {entry.pk: entry for entry in entries[start : start + MAX_VALUES]}
        same = SuppressedAddress.objects.filter(pk__in=some)
        if same.in_force().filter(created_at__lte=asked_at).update(expires_at=now) < len(some):
            done = same.filter(expires_at=now).values_list("pk", flat=True)
            some = {pk: some[pk] for pk in done}
        ended += some.values()
    LogEntry.objects.log_actions(
        user_id=request.user.pk,  # type: ignore[arg-type]  # has a permission
        queryset=ended,
        action_flag=CHANGE,
        change_message=_("Ended: may be mailed again."),
    )
    return len(ended)


# Exporting ----------------------------------------------------------------------------------------


def export(
    model_admin: "admin.ModelAdmin[SuppressedAddress]",
    request: HttpRequest,
    entries: QuerySet[SuppressedAddress],
) -> StreamingHttpResponse:
    """Return a download of entries, and write into the history that somebody has it."""
    text = _("Exported as CSV.")
    count = entries.order_by()[: COUNT_LIMIT + 1].count()
    if count == 1:
        model_admin.log_change(request, entries[0], text)
    else:
        shown = f"> {COUNT_LIMIT}" if count > COUNT_LIMIT else str(count)
        about = ngettext("%(count)s suppressed address", "%(count)s suppressed addresses", count)
        log_change_without_object(request, about % {"count": shown}, text, model=SuppressedAddress)
    return file_response(csv_lines(entries), "suppressed")
