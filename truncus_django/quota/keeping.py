"""Keeps what answers tell of quotas: a row for each account, and the signal ``quota_threshold``.

A process writes an account's row once a minute, and at once when more than that changes: a
threshold is reached, the limit is another, an email is refused for a quota. Nothing is locked but
the row, and that for one statement: where the caller of a send has a transaction open, the row is
written after it, committed or rolled back. Of several processes that reach a threshold, the one
whose write of the row says so tells it.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from django.core.signals import request_finished
from django.db import connections, transaction

from truncus_django.api import contract
from truncus_django.api.errors import QuotaExceeded, RateLimited, TruncusError
from truncus_django.api.results import MonthlyQuota, SendResult
from truncus_django.conf import Settings
from truncus_django.db.clock import Clock, moment_of
from truncus_django.event_loop import off_the_event_loop
from truncus_django.mailers import Mailer, mailers_by_account
from truncus_django.models import AccountQuota, database
from truncus_django.quota.figures import (
    Figures,
    Told,
    is_plausible,
    reserved_emails,
    updated,
)
from truncus_django.quota.overview import figures_of, quota_of
from truncus_django.sending.outgoing import Sent
from truncus_django.sending.requests import domain_of, refusal_of
from truncus_django.signals import quota_threshold, send_safely
from truncus_django.trouble_log import TroubleLog

WRITE_EVERY_S = 60.0
LONGEST_BURST_S = 3600.0
TRIES = 5
"""To write a row that others write at the same moment; each of them has just told as much."""

_trouble = TroubleLog()


class _Level(NamedTuple):
    """What is written at once when it changes."""

    percent: int
    limit: int | None
    is_reserved: bool


@dataclass(slots=True)
class _Noted:
    """What this process has written of an account: when, in monotonic seconds, and what.

    Attributes:
        capped_at: when the cap of each domain was written; at least those of the last minute.
    """

    at: float
    level: _Level
    capped_at: Mapping[str, float] = field(default_factory=dict)


class _Waiting(NamedTuple):
    """What could not be written in the caller's transaction, and when it was told."""

    told: Told
    at: float


_noted: dict[str, _Noted] = {}
_waiting: dict[str, _Waiting] = {}
_tenants: dict[str, tuple[str, str]] = {}
"""By account, the mailer and the tenant whose own it is."""


def forget_noted() -> None:
    """Write at the next answer again; for tests, whose rows are rolled back."""
    _noted.clear()
    _waiting.clear()
    _tenants.clear()
    _trouble.clear()


# What answers tell --------------------------------------------------------------------------------


def told_by_quota(quota: MonthlyQuota | None) -> Told:
    """Return what an answer's headers tell."""
    return Told(quota if quota is not None and is_plausible(quota) else None)


def told_by_error(error: TruncusError, senders: Iterable[str]) -> Told:
    """Return what a refusal of emails tells.

    One of Truncus's dialects has a single code for all its limits. Those of requests last a minute
    at most, so that a longer wait is that for a cap, and one of more than a day for the month's
    (:class:`RateLimited`). What a proxy asks for tells nothing of the account.

    Args:
        error: why they were refused.
        senders: of the emails; a daily cap is that of a domain.
    """
    is_limit = isinstance(error, RateLimited) and error.is_from_truncus
    is_month = isinstance(error, QuotaExceeded) or (is_limit and error.is_outage)
    is_long = is_limit and (error.retry_after or 0.0) > LONGEST_BURST_S
    if error.code == contract.WARMUP_CODE or (is_long and not is_month):
        return Told(capped_domains=frozenset(map(domain_of, senders)))
    return Told(is_used_up=is_month)


def told_by_results(results: Sequence[SendResult], senders: Sequence[str]) -> Told:
    """Return what the results of a request's emails tell.

    Args:
        results: as many as there are senders.
        senders: of the emails.
    """
    told = Told()
    for result, sender in zip(results, senders, strict=True):
        told = _together(told, told_by_quota(result.quota))
        if not result.is_accepted:
            told = _together(told, told_by_error(refusal_of(result), [sender]))
    return told


def _together(earlier: Told, later: Told) -> Told:
    # One email that was refused among others that were not tells most.
    return Told(
        later.quota or earlier.quota,
        earlier.is_used_up or later.is_used_up,
        earlier.capped_domains | later.capped_domains,
    )


def _told_by_sends(sent: Sequence[Sent]) -> Told:
    told = Told()
    for outgoing, outcome in sent:
        if outcome.result is not None and outcome.result.quota is not told.quota:
            told = _together(told, told_by_quota(outcome.result.quota))
        error = outcome.refused_by or outcome.error
        if error is not None and outcome.attempts:
            sender = "" if outgoing.payload is None else str(outgoing.payload.email.get("from"))
            told = _together(told, told_by_error(error, [sender]))
    return told


# When it is written -------------------------------------------------------------------------------


def note_sends(mailer: Mailer, sent: Sequence[Sent]) -> None:
    """Keep what the answers to direct sends told. Nothing that fails here is raised.

    Args:
        mailer: whose answers they were.
        sent: what became of messages.
    """
    told = _told_by_sends(sent)
    if told:
        name = mailer.name, mailer.tenant
        note_answer(mailer.client.account, told, mailer.settings, name=name)


def note_answer(
    account: str, told: Told, settings: Settings, *, name: tuple[str, str] = ("", "")
) -> None:
    """Keep what an answer told, after the caller's transaction. Nothing that fails is raised.

    Args:
        account: whose answer it was, as
            :attr:`~truncus_django.api.client.TruncusClient.account` tells.
        told: what it told.
        settings: of the mailer that asked.
        name: the mailer and the tenant whose own account it is; no tenant if it is the mailer's.
    """
    _note_tenant(account, name)
    if told and _mark_if_due(account, told, settings):
        _best_effort(partial(_write_outside_transactions, account, told))


def _note_tenant(account: str, name: tuple[str, str]) -> None:
    if name[1] and account not in _tenants:
        _tenants[account] = name


def note_answer_of_outbox(
    account: str, told: Told, settings: Settings, *, name: tuple[str, str] = ("", "")
) -> None:
    """Keep what an answer told to a worker, who has no transaction open. Nothing is raised.

    With ``QUOTA_RESERVE`` each answer is kept, as the next request goes by it. The arguments are
    those of :func:`note_answer`.
    """
    _note_tenant(account, name)
    if told and (_mark_if_due(account, told, settings) or settings.quota_reserve):
        _best_effort(lambda using: _write(account, told, using=using))


def _best_effort(write: Callable[[str], None]) -> None:
    try:
        using = database()
        off_the_event_loop(lambda: write(using))
    except Exception as exc:  # noqa: BLE001  no email depends on it
        _report(exc)
    else:
        _trouble.clear()


def _mark_if_due(account: str, told: Told, settings: Settings) -> bool:
    """Return whether to write now; if so, mark it as written."""
    now = time.monotonic()
    noted = _noted.get(account, _Noted(-math.inf, _Level(0, None, False)))
    level = _level(told, settings, noted.level)
    capped_at = {domain: at for domain, at in noted.capped_at.items() if now - at < WRITE_EVERY_S}
    is_due = (
        now - noted.at >= WRITE_EVERY_S
        or level != noted.level
        or not told.capped_domains <= capped_at.keys()
    )
    if is_due:
        _noted[account] = _Noted(now, level, capped_at | dict.fromkeys(told.capped_domains, now))
    return is_due


def _level(told: Told, settings: Settings, noted: _Level) -> _Level:
    quota = told.quota
    if told.is_used_up:
        return _Level(100, noted.limit if quota is None else quota.limit, True)
    if quota is None:
        return noted
    figures = Figures(limit=quota.limit, sent=quota.sent, remaining=quota.remaining)
    kept = reserved_emails(settings.quota_reserve, quota.limit)
    return _Level(figures.percent_reached, quota.limit, quota.remaining <= kept)


def _write_outside_transactions(account: str, told: Told, using: str) -> None:
    """Write a row, or if the caller has a transaction open, remember to write it after that.

    Inside it, the row would be locked for as long as the caller's transaction lasts, and what a
    rollback takes back was told all the same.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        _wait(account, told)
        write = partial(_best_effort, _write_waiting)
        transaction.on_commit(write, using=using)
    elif not connection.get_autocommit():
        _wait(account, told)
    else:
        _write_waiting(using)
        _write(account, told, using=using)


def _wait(account: str, told: Told) -> None:
    earlier = _waiting.get(account)
    _waiting[account] = _Waiting(
        _together(earlier.told, told) if earlier else told, time.monotonic()
    )


def _write_waiting(using: str) -> None:
    """Write what had to wait for the end of a transaction."""
    for account in list(_waiting):
        waiting = _waiting.pop(account, None)
        if waiting is not None:
            _write(account, waiting.told, using=using, ago_s=time.monotonic() - waiting.at)


def _write_what_was_rolled_back(**kwargs: object) -> None:
    """Write at the end of a web request, whose transaction may have been rolled back."""
    if not _waiting:
        return

    def write(using: str) -> None:
        if not connections[using].in_atomic_block:
            _write_waiting(using)

    _best_effort(write)


request_finished.connect(_write_what_was_rolled_back, dispatch_uid="truncus_django.quota")


def _report(exc: Exception) -> None:
    _trouble.failed(
        exc,
        "The quota of an account could not be written: %s. Further ones are not logged. "
        "Run manage.py migrate, if you have not.",
        event="quota_not_written",
    )


# Writing ------------------------------------------------------------------------------------------


def _write(account: str, told: Told, *, using: str, ago_s: float = 0.0) -> None:
    """Write what was told into the account's row; tell the threshold that this write reaches."""
    now = Clock(using).now() - ago_s
    rows = AccountQuota.objects.using(using).filter(pk=account)
    for _ in range(TRIES):
        row = rows.first()
        if row is None:
            rows.bulk_create([AccountQuota(account=account)], ignore_conflicts=True)
            row = rows.get()
        before = figures_of(row)
        after = updated(before, told, now=now)
        if after == before:
            return
        changes: dict[str, Any] = {
            "month": after.month,
            "limit": after.limit,
            "sent": after.sent,
            "remaining": after.remaining,
            "told_at": None if after.told_at is None else moment_of(after.told_at),
            "emails_per_day": after.emails_per_day,
            "told_percent": after.told_percent,
            "capped": dict(after.capped),
        }
        mailer, tenant = _tenants.get(account, ("", ""))
        if tenant and not row.tenant:
            changes |= {"mailer": mailer, "tenant": tenant}
        if rows.filter(version=row.version).update(version=row.version + 1, **changes):
            is_same_month = after.month == before.month
            if after.told_percent > (before.told_percent if is_same_month else 0):
                _tell(account, after, now, (mailer, tenant))
            return


def _tell(account: str, figures: Figures, now: float, name: tuple[str, str]) -> None:
    if quota_threshold.has_listeners(AccountQuota):
        mailer, tenant = name
        mailers = mailers_by_account().get(account, (mailer,) if tenant else ())
        send_safely(
            quota_threshold,
            sender=AccountQuota,
            mailers=mailers,
            share=figures.told_percent / 100,
            quota=quota_of(account, figures, mailers, now=now, tenant=tenant),
        )
