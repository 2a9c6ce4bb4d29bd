"""The outbox in the admin: a panel about all of it, and what a page shows about one email in it.

The payload of an email that waits is never shown: it may hold a reset link that still works. The
texts of an email are shown only if ``STORE_BODIES`` keeps them.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _

from truncus_django.admin import display
from truncus_django.admin.quota_panel import held_back_text, why_held_back
from truncus_django.admin.resume import may_resume, pause
from truncus_django.db.clock import Clock, moment_of
from truncus_django.mailers import name_of
from truncus_django.models import AccountQuota, Email, OutboxEntry, Priority, database
from truncus_django.outbox.health import COUNT_UP_TO, health, is_in_use, paused_accounts
from truncus_django.outbox.reserve import HeldBack, held_back
from truncus_django.states import State

MOST_PAUSED = 20
"""So many paused accounts are shown: each of a thousand tenants may have one."""
IN_OUTBOX = frozenset({State.PENDING, State.SENDING})


def panel(request: HttpRequest) -> dict[str, Any] | None:
    """Return what the panel shows, or ``None`` if there is no outbox; those of ``health()``."""
    if not is_in_use():
        return None
    found = health()
    oldest = ""
    if found.oldest_age_s is not None:
        oldest = _length(moment_of(found.at.timestamp() - found.oldest_age_s))
    return {
        "health": found,
        "oldest": oldest,
        "next_attempt": display.moment(found.next_attempt_at) if found.next_attempt_at else "",
        "counted_up_to": COUNT_UP_TO,
        "paused": [(each.account, each.name, pause(each)) for each in found.paused[:MOST_PAUSED]],
        "more_paused": max(0, len(found.paused) - MOST_PAUSED),
        "held_back": [(_name(each), held_back_text(each)) for each in found.held_back],
        "may_resume": may_resume(request),
    }


def _name(held: HeldBack) -> str:
    return name_of([held.mailer], held.tenant) if held.tenant else held.mailer


# One email ----------------------------------------------------------------------------------------


def outbox_entries(emails: Iterable[Email]) -> dict[UUID, OutboxEntry]:
    """Return the entries of these emails in the outbox, without payloads, by the email's id."""
    entries = OutboxEntry.objects.select_related("batch").defer("payload")
    return entries.in_bulk([email.pk for email in emails])


def waiting_cell(email: Email, entry: OutboxEntry | None) -> SafeString:
    """Return what the list shows about an email that is still to be sent."""
    since = format_html(
        '<span class="truncus-none" title="{}">{}</span>',
        _("Since this email was written"),
        _("waiting: %(time)s") % {"time": _length(email.created_at)},
    )
    lines: list[Any] = []
    if entry is not None:
        batch = entry.batch
        code = email.error_code
        if batch is not None and batch.lease is not None:
            lines.append(_("being sent"))
        elif batch is not None:
            lines.append(_next_try(batch.due_at))
            code = batch.error_code or code
        if code and (batch is None or batch.lease is None):
            lines.append(format_html("<code>{}</code>", code))
        if entry.priority != Priority.NORMAL:
            lines.append(_("priority %(name)s") % {"name": Priority(entry.priority).label})
    more = format_html_join(
        "", '<br><span class="truncus-more">{}</span>', ([each] for each in lines)
    )
    return since + more


def _next_try(due_at: datetime) -> str:
    text = timeuntil(due_at, depth=1)
    return _("next try now") if text.startswith("0") else _("next try in %(time)s") % {"time": text}


def facts(email: Email, entry: OutboxEntry | None) -> list[tuple[str, Any]]:
    """Return what an email's page shows about its place in the outbox; 1 query if it waits."""
    return [(name, value) for name, value in _facts(email, entry) if value]


def _facts(email: Email, entry: OutboxEntry | None) -> Iterator[tuple[str, Any]]:
    if entry is None:
        return
    if email.state in IN_OUTBOX:
        yield _("Waiting"), _("for %(time)s") % {"time": _length(email.created_at)}
        yield _("Progress"), _progress(entry)
        yield _("Account"), _account(entry)
        yield _("Held back"), _held_back(email, entry)
        yield _("Priority"), Priority(entry.priority).label
        yield _("Expires"), entry.expires_at and display.moment(entry.expires_at)
    yield (
        _("Stored"),
        _("%(size)s, attachments included") % {"size": filesizeformat(entry.size)},
    )


def _progress(entry: OutboxEntry) -> Any:
    if entry.batch is None:
        return _("Waits for its first request")
    if entry.batch.lease is not None:
        return _("A worker is sending it")
    if entry.batch.is_ambiguous:
        text = _("May have been accepted. The same request will be repeated at")
    else:
        text = _("Was not accepted. Next try at")
    return format_html("{} {}", text, display.moment(entry.batch.due_at))


def _account(entry: OutboxEntry) -> Any:
    for account in paused_accounts(Clock(database()).now()):
        if entry.mailer in account.mailers and entry.tenant == account.tenant:
            return pause(account)
    return ""


def _held_back(email: Email, entry: OutboxEntry) -> str:
    """Return why an email of low priority waits; at most 3 queries, and none for others."""
    batch = entry.batch
    is_under_way = batch is not None and (batch.lease is not None or batch.is_ambiguous)
    if entry.priority != Priority.LOW or is_under_way:
        return ""
    now = Clock(database()).now()
    for held in held_back(AccountQuota.objects.all(), now=now, count_up_to=1):
        if (held.mailer, held.tenant) == (entry.mailer, entry.tenant):
            return _("By QUOTA_RESERVE: %(why)s") % {"why": why_held_back(held)}
    return ""


def parts_of_requests(emails: Iterable[Email]) -> list[str]:
    """Return those of the emails that cannot be deleted now, as the page shows them.

    A request of the outbox is repeated whole or not at all, so that nothing is sent twice.
    """
    ids = [email.pk for email in emails]
    entries = OutboxEntry.objects.filter(pk__in=ids, batch__isnull=False).select_related("email")
    parts = entries.only("email__id", "email__state", "email__message_id")
    return [_("%(email)s, a part of a request") % {"email": part.email} for part in parts]


def _length(since: datetime) -> str:
    """Return how long ago a moment was, to one unit."""
    text = timesince(since, depth=1)
    return _("less than a minute") if text.startswith("0") else text
