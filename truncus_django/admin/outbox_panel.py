"""The outbox in the admin: a panel of how it is, and what there is to tell of one email in it.

What waits to be sent is never shown from here: it may be a reset link that still works. The texts
of an email are shown where ``STORE_BODIES`` keeps them, and nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from truncus_django.admin import display
from truncus_django.db.clock import Clock, moment_of
from truncus_django.models import Email, OutboxEntry, Priority, database
from truncus_django.outbox.health import COUNT_UP_TO, OutboxHealth, PausedAccount, health, is_in_use
from truncus_django.outbox.health import paused_accounts as find_paused_accounts
from truncus_django.outbox.operations import OperationResult
from truncus_django.states import RESTARTABLE_STATES, State

IN_OUTBOX = frozenset({State.PENDING, State.SENDING})


@dataclass(frozen=True, slots=True)
class Panel:
    """How the outbox is, for the top of a page."""

    health: OutboxHealth
    oldest: str
    next_attempt: str
    counted_up_to: int = COUNT_UP_TO

    @property
    def paused(self) -> list[tuple[str, str, SafeString]]:
        """Of each paused account: its id, its mailers, until when and why."""
        return [(each.account, each.name, pause(each)) for each in self.health.paused]


def panel() -> Panel | None:
    """Return what the panel shows, or ``None`` where there is no outbox; at most 8 queries."""
    if not is_in_use():
        return None
    found = health()
    waited_since = None
    if found.oldest_age_s is not None:
        waited_since = moment_of(found.at.timestamp() - found.oldest_age_s)
    return Panel(
        health=found,
        oldest=_length(waited_since) if waited_since else "",
        next_attempt=display.moment(found.next_attempt_at) if found.next_attempt_at else "",
    )


# One email ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """Where an email of the outbox stands.

    Attributes:
        is_waiting: whether it belongs to no request yet.
        is_leased: whether a worker has it.
        is_ambiguous: whether a request of it may have been accepted.
        due_at: when its request is made next, or the end of the present lease.
        size: of what is to be sent, in bytes.
    """

    is_waiting: bool
    priority: int
    expires_at: datetime | None
    size: int
    has_request: bool
    is_leased: bool
    is_ambiguous: bool
    due_at: datetime | None
    error_code: str


def waits_of(email_ids: Sequence[UUID]) -> dict[UUID, Wait]:
    """Return where those emails stand of which something is kept; one query, or none for none."""
    if not email_ids:
        return {}
    rows = OutboxEntry.objects.filter(pk__in=email_ids).values_list(
        "pk",
        "is_waiting",
        "priority",
        "expires_at",
        "size",
        "batch",
        "batch__lease",
        "batch__is_ambiguous",
        "batch__due_at",
        "batch__error_code",
    )
    return {
        pk: Wait(
            is_waiting=is_waiting,
            priority=priority,
            expires_at=expires_at,
            size=size,
            has_request=batch is not None,
            is_leased=lease is not None,
            is_ambiguous=bool(ambiguous),
            due_at=due_at,
            error_code=error_code or "",
        )
        for (
            pk, is_waiting, priority, expires_at, size,
            batch, lease, ambiguous, due_at, error_code,
        ) in rows
    }  # fmt: skip


def waiting_cell(email: Email, wait: Wait | None) -> SafeString:
    """Return what the list tells of an email that is still to be sent."""
    since = format_html(
        '<span class="truncus-none truncus-waits" title="{}">{}</span>',
        _("Since this email was written"),
        _("waits: %(time)s") % {"time": _length(email.created_at)},
    )
    told: list[Any] = []
    if wait is not None:
        if wait.is_leased:
            told.append(_("in a request"))
        elif wait.due_at is not None:
            told.append(_next_try(wait.due_at))
        code = wait.error_code or email.error_code
        if code and not wait.is_leased:
            told.append(format_html("<code>{}</code>", code))
        if wait.priority != Priority.NORMAL:
            told.append(_("priority %(name)s") % {"name": Priority(wait.priority).label})
    if not told:
        return since
    lines = [format_html('<br><span class="truncus-more">{}</span>', line) for line in told]
    return SafeString("".join([since, *lines]))


def _next_try(due_at: datetime) -> str:
    text = timeuntil(due_at, depth=1)
    return _("next try now") if text.startswith("0") else _("next try in %(time)s") % {"time": text}


def facts(email: Email, wait: Wait | None) -> list[tuple[str, Any]]:
    """Return what an email's page tells of its place in the outbox; 1 query if it waits."""
    return [(name, value) for name, value in _facts(email, wait) if value]


def _facts(email: Email, wait: Wait | None) -> Iterator[tuple[str, Any]]:
    if wait is None:
        return
    if email.state in IN_OUTBOX:
        yield _("Waits"), _("for %(time)s") % {"time": _length(email.created_at)}
        yield _("Where"), _place(wait)
        yield _("Account"), _account(email.mailer)
        yield _("Priority"), Priority(wait.priority).label
        yield _("Expires"), wait.expires_at and display.moment(wait.expires_at)
    yield (
        _("Kept to be sent"),
        _("%(size)s, attachments included") % {"size": display.size(wait.size)},
    )


def _place(wait: Wait) -> Any:
    if wait.is_leased:
        return _("In a request that is being made")
    if wait.due_at is None:
        return _("Waits for its first request")
    if wait.is_ambiguous:
        text = _("May have been accepted; the same request is made again at")
    else:
        text = _("Was not accepted; tried again at")
    return format_html("{} {}", text, display.moment(wait.due_at))


def _account(mailer: str) -> Any:
    for account in find_paused_accounts(Clock(database()).now()):
        if mailer in account.mailers:
            return pause(account)
    return ""


def pause(account: PausedAccount) -> SafeString:
    """Return until when an account is paused, and why."""
    return format_html(
        "{} {}: {}", _("paused until"), display.moment(account.until), account.reason or "–"
    )


def why_not_cancellable(wait: Wait | None) -> str:
    """Return what keeps an email of the outbox from being cancelled; empty for nothing."""
    if wait is None or wait.is_leased:
        return told_of_one(OperationResult.BEING_SENT)
    return told_of_one(OperationResult.AMBIGUOUS) if wait.is_ambiguous else ""


def can_be_retried(email: Email, wait: Wait | None) -> bool:
    """Return whether trying an email again means anything."""
    if wait is None or wait.is_waiting or wait.is_leased or email.state == State.UNKNOWN:
        return False
    return wait.has_request or email.state in RESTARTABLE_STATES


def parts_of_requests(emails: Iterable[Email]) -> list[str]:
    """Return what is told of those emails that cannot be deleted now.

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


# What was done ------------------------------------------------------------------------------------

_LEVELS: Mapping[OperationResult, int] = {
    OperationResult.WAITS_ALREADY: messages.INFO,
    OperationResult.GONE: messages.ERROR,
}


def level_of(done: OperationResult) -> int:
    """Return how a user is told about it."""
    return messages.SUCCESS if done.is_done else _LEVELS.get(done, messages.WARNING)


def told_of_one(done: OperationResult) -> str:
    """Return what became of one email, as a sentence."""
    return _ONE[done]()


def told_of_many(done: OperationResult, count: int) -> str:
    """Return what became of so many emails, as a sentence."""
    return _MANY[done](count) % {"count": count}


_ONE: Mapping[OperationResult, Callable[[], str]] = {
    OperationResult.WAITS_AGAIN: lambda: _("It waits to be sent again."),
    OperationResult.DUE_NOW: lambda: _("It is tried again now."),
    OperationResult.CANCELLED: lambda: _("Cancelled."),
    OperationResult.SENT: lambda: _("It counts as sent."),
    OperationResult.NOT_SENT: lambda: _("It counts as not sent."),
    OperationResult.WAITS_ALREADY: lambda: _("It waits already."),
    OperationResult.BEING_SENT: lambda: _("It is being sent at this moment."),
    OperationResult.AMBIGUOUS: lambda: _(
        "It may have been sent: its answer was lost, and is asked for again."
    ),
    OperationResult.NEEDS_DECISION: lambda: _(
        "It may have been sent: mark it as sent or as not sent first."
    ),
    OperationResult.NOT_STORED: lambda: _("Its content was not stored."),
    OperationResult.DOES_NOT_APPLY: lambda: _("It is in no state for that."),
    OperationResult.GONE: lambda: _("It is not there any more."),
}

_MANY: Mapping[OperationResult, Callable[[int], str]] = {
    OperationResult.WAITS_AGAIN: lambda count: ngettext(
        "%(count)d email waits to be sent again.",
        "%(count)d emails wait to be sent again.",
        count,
    ),
    OperationResult.DUE_NOW: lambda count: ngettext(
        "%(count)d email is tried again now.", "%(count)d emails are tried again now.", count
    ),
    OperationResult.CANCELLED: lambda count: ngettext(
        "%(count)d email was cancelled.", "%(count)d emails were cancelled.", count
    ),
    OperationResult.SENT: lambda count: ngettext(
        "%(count)d email counts as sent.", "%(count)d emails count as sent.", count
    ),
    OperationResult.NOT_SENT: lambda count: ngettext(
        "%(count)d email counts as not sent.", "%(count)d emails count as not sent.", count
    ),
    OperationResult.WAITS_ALREADY: lambda count: ngettext(
        "%(count)d email waits already.", "%(count)d emails wait already.", count
    ),
    OperationResult.BEING_SENT: lambda count: ngettext(
        "%(count)d email is being sent at this moment.",
        "%(count)d emails are being sent at this moment.",
        count,
    ),
    OperationResult.AMBIGUOUS: lambda count: ngettext(
        "%(count)d email may have been sent: its answer was lost, and is asked for again.",
        "%(count)d emails may have been sent: their answers were lost, and are asked for again.",
        count,
    ),
    OperationResult.NEEDS_DECISION: lambda count: ngettext(
        "%(count)d email may have been sent: mark it as sent or as not sent first.",
        "%(count)d emails may have been sent: mark them as sent or as not sent first.",
        count,
    ),
    OperationResult.NOT_STORED: lambda count: ngettext(
        "The content of %(count)d email was not stored.",
        "The content of %(count)d emails was not stored.",
        count,
    ),
    OperationResult.DOES_NOT_APPLY: lambda count: ngettext(
        "%(count)d email is in no state for that.",
        "%(count)d emails are in no state for that.",
        count,
    ),
    OperationResult.GONE: lambda count: ngettext(
        "%(count)d email is not there any more.",
        "%(count)d emails are not there any more.",
        count,
    ),
}


def counted(done: Iterable[OperationResult]) -> dict[OperationResult, int]:
    """Return how often each occurs, in the order that they are told in."""
    found = list(done)
    return {kind: number for kind in OperationResult if (number := found.count(kind))}
