"""The outbox in the admin: a panel about all of it, and what a page shows about one email in it.

The payload of an email that waits is never shown: it may hold a reset link that still works. The
texts of an email are shown only if ``STORE_BODIES`` keeps them.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from truncus_django.admin import display
from truncus_django.admin.quota_panel import held_back_text, why_held_back
from truncus_django.admin.resume import may_resume, pause
from truncus_django.db.clock import Clock, moment_of
from truncus_django.mailers import name_of
from truncus_django.models import AccountQuota, Email, OutboxEntry, Priority, database
from truncus_django.outbox.health import COUNT_UP_TO, health, is_in_use, paused_accounts
from truncus_django.outbox.reserve import HeldBack, held_back
from truncus_django.states import OUTBOX_STATES

MAX_PAUSED = 20
"""So many paused accounts are shown: each of a thousand tenants may have one."""


def panel(request: HttpRequest) -> dict[str, Any] | None:
    """Return what the panel shows, or ``None`` if there is no outbox.

    Makes the queries of ``health()``.
    """
    if not is_in_use():
        return None
    found = health()
    oldest = ""
    if found.oldest_age_s is not None:
        oldest = _age(found.at - timedelta(seconds=found.oldest_age_s), found.at)
    return {
        "health": found,
        "oldest": oldest,
        "next_attempt": display.moment(found.next_attempt_at) if found.next_attempt_at else "",
        "counted_up_to": COUNT_UP_TO,
        "paused": [(each.account, pause(each)) for each in found.paused[:MAX_PAUSED]],
        "more_paused": max(0, len(found.paused) - MAX_PAUSED),
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


def waiting_cells(emails: Sequence[Email]) -> dict[UUID, SafeString]:
    """Return what the list shows about emails that are still to be sent, by their ids.

    Makes no query if there are none; otherwise 1, and 1 for the clock of PostgreSQL or MySQL.
    """
    if not emails:
        return {}
    entries, now = outbox_entries(emails), moment_of(Clock(database()).now())
    return {email.pk: _waiting_cell(email, entries.get(email.pk), now) for email in emails}


def _waiting_cell(email: Email, entry: OutboxEntry | None, now: datetime) -> SafeString:
    if entry is None:
        title, since_when = _("Since this email was written"), email.created_at
    else:
        title, since_when = _("Since it was put into the outbox"), entry.created_at
    since = format_html(
        '<span class="truncus-none" title="{}">{}</span>',
        title,
        _("waiting: %(time)s") % {"time": _age(since_when, now)},
    )
    lines: list[Any] = []
    if entry is not None:
        batch = entry.batch
        code = email.error_code
        if batch is not None and batch.is_being_sent(now):
            lines.append(_("being sent"))
            code = ""
        elif batch is not None:
            lines.append(_next_try(batch.due_at, now))
            code = batch.error_code or code
        if code:
            lines.append(format_html("<code>{}</code>", code))
        if entry.priority != Priority.NORMAL:
            lines.append(_("priority %(name)s") % {"name": Priority(entry.priority).label})
    more = format_html_join(
        "", '<br><span class="truncus-more">{}</span>', ([each] for each in lines)
    )
    return since + more


def _next_try(due_at: datetime, now: datetime) -> str:
    length = _length(now, due_at)
    return _("next attempt in %(time)s") % {"time": length} if length else _("next attempt now")


def facts(email: Email, entry: OutboxEntry | None) -> list[tuple[str, Any]]:
    """Return what an email's page shows about its place in the outbox.

    If it waits, makes 1 query for its account, 1 for the clock of PostgreSQL or MySQL, and, if its
    priority is low, those for what ``QUOTA_RESERVE`` holds back.
    """
    return [(name, value) for name, value in _facts(email, entry) if value]


def _facts(email: Email, entry: OutboxEntry | None) -> Iterator[tuple[str, Any]]:
    if entry is None:
        return
    if email.state in OUTBOX_STATES:
        now = Clock(database()).now()
        present = moment_of(now)
        yield _("Waiting"), _("for %(time)s") % {"time": _age(entry.created_at, present)}
        yield _("Progress"), _progress(entry, present)
        yield _("Account"), _account(entry, now)
        yield _("Held back"), _held_back(entry, now)
        yield _("Priority"), Priority(entry.priority).label
        yield _("Expires"), entry.expires_at and display.moment(entry.expires_at)
    yield (
        _("Stored"),
        _("%(size)s, attachments included") % {"size": filesizeformat(entry.size)},
    )


def _progress(entry: OutboxEntry, now: datetime) -> Any:
    if entry.batch is None:
        return _("Waits for its first request")
    if entry.batch.is_being_sent(now):
        return _("A worker is sending it")
    if entry.batch.is_ambiguous:
        text = _("May have been accepted. The same request will be repeated at {time}")
    else:
        text = _("Was not accepted. Next attempt at {time}")
    return format_html(text, time=display.moment(entry.batch.due_at))


def _account(entry: OutboxEntry, now: float) -> Any:
    for account in paused_accounts(now):
        if entry.mailer in account.mailers and entry.tenant == account.tenant:
            return pause(account)
    return ""


def _held_back(entry: OutboxEntry, now: float) -> str:
    """Return why an email of low priority waits.

    No query for others. Otherwise 1, 1 if tenants have accounts, and 2 for each account whose
    reserve is reached.
    """
    batch = entry.batch
    is_under_way = batch is not None and (batch.lease is not None or batch.is_ambiguous)
    if entry.priority != Priority.LOW or is_under_way:
        return ""
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


def _age(since: datetime, now: datetime) -> str:
    """Return how long ago a moment was, to one unit."""
    return _length(since, now) or _("less than a minute")


def _length(start: datetime, end: datetime) -> str:
    """Return how long it is between two moments, to one unit; empty for less than a minute."""
    is_short = (end - start).total_seconds() < 60
    return "" if is_short else timesince(start, end, depth=1)
