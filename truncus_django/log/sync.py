"""Asks Truncus what has become of emails, within the account's request limits.

A job claims up to 100 emails that are due, by moving their next question into the future, asks
about one after the other, and stores the answers every few seconds. Two jobs never ask
about the same email at the same time; a job that dies leaves claims that run out; one that is
interrupted gives back what it has not asked.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import DataError, IntegrityError, connections, transaction
from django.db.models import Count, Exists, Min, OuterRef, Q
from django.utils import timezone

from truncus_django.accounts import get_account
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    ConfigurationError,
    NotFound,
    QuotaExceeded,
    RateLimited,
    TruncusError,
    log_fields,
    log_text,
)
from truncus_django.api.rate_limit import Pacer
from truncus_django.api.results import EmailDetails
from truncus_django.conf import Settings, get_settings
from truncus_django.db.bulk import update_each
from truncus_django.db.retry import in_tries
from truncus_django.log.ingest import apply_details, attach
from truncus_django.log.transitions import next_sync_at
from truncus_django.mailers import Mailer, label_of
from truncus_django.models import Email, EmailEvent, EmailQuerySet
from truncus_django.quota.keeping import note_answer, told_by_error, told_by_quota
from truncus_django.rate_limit import SharedPacer

__all__ = ["Due", "Selection", "SyncJob", "SyncResult", "attach_orphans", "count_due"]

logger = logging.getLogger("truncus_django")

CHUNK_SIZE = 100
WRITE_EVERY_S = 5.0
"""How long answers wait in memory before they are written."""
CLAIM = timedelta(minutes=15)
"""After so long, emails of a job that died are asked about by another."""
LONGEST_WAIT_S = 3600.0
"""What asks for a longer pause than this is left to the next run."""
WAITS_IN_A_ROW = 5
FAILURES_IN_A_ROW = 10
"""After so many, the fault is not with the emails."""

_CANNOT_BE_STORED = (DataError, IntegrityError, OverflowError, TypeError, ValueError)
"""What one odd answer causes, and no other answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the due emails to ask about; empty means all.

    Attributes:
        since: only those recorded at or after this moment.
        tenants, states: only those of one of these.
    """

    since: datetime | None = None
    tenants: Sequence[str] = ()
    states: Sequence[str] = ()

    def due(self, at: datetime) -> EmailQuerySet:
        """Return the emails that are due at this moment, longest overdue first."""
        emails: EmailQuerySet = Email.objects.due_for_sync(at).filter(message_id__isnull=False)
        if self.since is not None:
            emails = emails.filter(created_at__gte=self.since)
        if self.tenants:
            emails = emails.filter(tenant_id__in=self.tenants)
        if self.states:
            emails = emails.filter(state__in=self.states)
        return emails


@dataclass(slots=True)
class SyncResult:
    """What a job has done so far.

    Attributes:
        asked: about how many emails Truncus was asked.
        changed: how many of them changed.
        failed: about how many no answer could be used, those in ``unknown`` among them.
        unknown: how many Truncus does not know any more; they are not asked about again.
        attached: how many events found their email at last.
        reasons: what failed, and how often.
        stopped: mailers that were given up, and why; tenants with accounts of their own, too.
    """

    asked: int = 0
    changed: int = 0
    failed: int = 0
    unknown: int = 0
    attached: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    stopped: dict[str, str] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing failed."""
        return not self.failed and not self.stopped


@dataclass(frozen=True, slots=True)
class Due:
    """How many emails of one mailer and state are due, and since when."""

    mailer: str
    state: str
    count: int
    oldest: datetime


def count_due(selection: Selection | None = None, *, at: datetime | None = None) -> list[Due]:
    """Return what is due at a moment, now if none is given. One query, no request."""
    due = (selection or Selection()).due(at or timezone.now()).order_by("mailer", "state")
    counted = due.values_list("mailer", "state").annotate(Count("pk"), Min("next_sync_at"))
    return [Due(*row) for row in counted]


def attach_orphans() -> int:
    """Apply events whose email was recorded after them; return how many.

    A safety net: recording does so itself, unless it is killed in between.
    """
    recorded = Email.objects.filter(message_id=OuterRef("message_id"))
    orphans = EmailEvent.objects.filter(Exists(recorded), email=None).order_by()
    attached = 0
    while ids := list(orphans.values_list("message_id", flat=True).distinct()[:CHUNK_SIZE]):
        found = orphans.filter(message_id__in=ids).count()
        attach(ids)
        left = orphans.filter(message_id__in=ids).count()
        attached += max(found - left, 0)
        if left >= found:
            break
    return attached


@dataclass(slots=True)
class _Chunk:
    """Emails that are being asked about, and what is to be written about them.

    Attributes:
        claimed_until: the moment that marks them as this job's; ``None`` where none does.
        answers: by ``message_id``, those that are not written yet.
        dates: when to ask next about those without an answer: at first, as before the claim.
    """

    emails: Sequence[Email]
    claimed_until: datetime | None
    answers: dict[str, EmailDetails] = field(default_factory=dict)
    dates: dict[UUID, datetime | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Account:
    name: tuple[str, str]
    client: TruncusClient
    settings: Settings
    pacer: Pacer | SharedPacer
    failures_in_a_row: int = 0


class SyncJob:
    """One run over the emails that are due at its beginning, each asked about once.

    Args:
        selection: which of them; all if ``None``.
        limit: at most so many.
        on_progress: called with a number of emails that are done.
        now: the present.
        clock, sleep: monotonic seconds and how to wait.
    """

    def __init__(
        self,
        selection: Selection | None = None,
        *,
        limit: int | None = None,
        on_progress: Callable[[int], None] = lambda count: None,
        now: Callable[[], datetime] = timezone.now,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.result = SyncResult()
        self._selection = selection or Selection()
        self._limit = limit
        self._on_progress = on_progress
        self._now = now
        self._clock = clock
        self._sleep = sleep
        # What becomes due while the job runs is the next one's, or it would never end.
        self._due_at = now()
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._stopped: set[tuple[str, str]] = set()
        self._pacers: dict[str, Pacer | SharedPacer] = {}
        self._written_at = clock()

    def run(self) -> SyncResult:
        """Ask about everything that is due, and return what was done.

        Raises:
            KeyboardInterrupt: as usual, with all answers written and the rest given back.
        """
        self.result.attached = attach_orphans()
        taken = 0
        while self._limit is None or taken < self._limit:
            size = CHUNK_SIZE if self._limit is None else min(CHUNK_SIZE, self._limit - taken)
            chunk = self._claim(size)
            if chunk is None:
                break
            taken += len(chunk.emails)
            self._work_off(chunk)
        return self.result

    def ask_about(self, emails: Iterable[Email]) -> SyncResult:
        """Ask about these emails, due or not, and return what was done; for the admin."""
        askable = (email for email in emails if email.message_id)
        while batch := list(islice(askable, CHUNK_SIZE)):
            self._work_off(_Chunk(batch, claimed_until=None))
        return self.result

    def count_left(self) -> int:
        """Return how many of the selected emails are still due."""
        return self._selection.due(self._due_at).count()

    # Claiming ---------------------------------------------------------------------------------

    def _claim(self, size: int) -> _Chunk | None:
        """Make up to ``size`` due emails this job's; ``None`` when there is none left."""
        due = self._selection.due(self._due_at).exclude(self._is_stopped())
        due = due.only("message_id", "mailer", "tenant_id", "state", *_DATES)
        until = _mark_of(self._now() + CLAIM)
        skips_locked = connections[due.db].features.has_select_for_update_skip_locked
        claim = _claim_by_lock if skips_locked else _claim_by_guard
        emails = in_tries(lambda: claim(due, size, until), using=due.db)
        if not emails:
            return None
        return _Chunk(emails, until, dates={email.pk: email.next_sync_at for email in emails})

    # Asking -----------------------------------------------------------------------------------

    def _work_off(self, chunk: _Chunk) -> None:
        """Ask about each email of a chunk; whatever happens, the answers are stored."""
        try:
            for email in chunk.emails:
                if _name_of(email) not in self._stopped:
                    self._ask_about(email, chunk)
                    self._on_progress(1)
                if self._clock() - self._written_at >= WRITE_EVERY_S:
                    self._write(chunk)
        finally:
            try:
                self._write(chunk)
            finally:
                self._give_back(chunk)

    def _ask_about(self, email: Email, chunk: _Chunk) -> None:
        """Note the answer about one email, or when to ask again."""
        try:
            account = self._account_of(email)
        except ConfigurationError as error:
            self._note_failure(email, error, chunk)
            self._stop(_name_of(email), error.message, email)
            return
        if account.name in self._stopped:
            self._stopped.add(_name_of(email))
            return
        self.result.asked += 1
        try:
            details = self._answer(account, email, chunk)
        except TruncusError as error:
            self._note_failure(email, error, chunk)
            self._note_trouble(email, account, error)
            # A question belongs to no domain, and says nothing of a domain's cap.
            told = told_by_error(error, senders=[])
            note_answer(account.client.account, told, account.settings, name=account.name)
        else:
            told = told_by_quota(details.quota)
            note_answer(account.client.account, told, account.settings, name=account.name)
            account.failures_in_a_row = 0
            chunk.answers[str(email.message_id)] = details
            chunk.dates.pop(email.pk, None)

    def _answer(self, account: _Account, email: Email, chunk: _Chunk) -> EmailDetails:
        """Return what Truncus tells of an email, waiting as long as its limits ask for."""
        for _ in range(WAITS_IN_A_ROW):
            self._pause(account.pacer.pause_s(), chunk)
            try:
                return _details(account, email)
            except RateLimited as error:
                wait_s = 60.0 if error.retry_after is None else error.retry_after
                if wait_s > LONGEST_WAIT_S:
                    raise
                self._pause(wait_s, chunk)
        return _details(account, email)

    def _pause(self, seconds: float, chunk: _Chunk) -> None:
        """Wait; before a long wait, store the answers."""
        if seconds > 1:
            self._write(chunk)
        if seconds > 0:
            self._sleep(seconds)

    def _account_of(self, email: Email) -> _Account:
        name = _name_of(email)
        account = self._accounts.get(name)
        if account is None:
            found = get_account(*name)
            own_name = found.name, found.tenant
            account = self._accounts.get(own_name)
            if account is None:
                # Mailers with the same key share its limits.
                pacer = self._pacers.setdefault(found.client.account, self._new_pacer(found))
                account = _Account(own_name, found.client, found.settings, pacer)
            self._accounts[name] = self._accounts[own_name] = account
        return account

    def _is_stopped(self) -> Q:
        """Return the condition that an email's account was given up."""
        if get_settings().accounts is None:
            return Q(mailer__in=[mailer for mailer, _ in self._stopped])
        tenants: dict[str, list[str]] = {}
        for mailer, tenant in self._stopped:
            tenants.setdefault(mailer, []).append(tenant)
        found = Q(mailer__in=[])
        for mailer, names in tenants.items():
            found |= Q(mailer=mailer, tenant_id__in=names)
        return found

    def _stop(self, name: tuple[str, str], why: str, email: Email) -> None:
        """Ask no more about emails of an account, which is a mailer's own or a tenant's."""
        self._stopped |= {name, _name_of(email)}
        self.result.stopped[label_of(*name)] = why

    def _new_pacer(self, mailer: Mailer) -> Pacer | SharedPacer:
        settings = mailer.settings
        if settings.delivery == "outbox":
            return SharedPacer(mailer.client.account, settings, sleep=self._sleep)
        return Pacer(
            per_second=settings.requests_per_second,
            per_minute=settings.requests_per_minute,
            clock=self._clock,
            sleep=self._sleep,
        )

    def _note_failure(self, email: Email, error: TruncusError, chunk: _Chunk) -> None:
        self.result.failed += 1
        kind = type(error).__name__
        if isinstance(error, NotFound):
            self.result.unknown += 1
            chunk.dates[email.pk] = None
            self.result.reasons["Truncus does not know the email; it is not asked again."] += 1
        elif _is_account_wide(error):  # not the email's fault: its date stays
            self.result.reasons[log_text(error)] += 1
        else:
            chunk.dates[email.pk] = next_sync_at(email, now=self._now())
            self.result.reasons[log_text(error)] += 1
        logger.warning(
            "Truncus could not be asked about email %s: %s",
            email.pk,
            kind,
            extra={
                "truncus_event": "email_not_synced",
                "truncus_email": str(email.pk),
                **log_fields(error),
            },
        )

    def _note_trouble(self, email: Email, account: _Account, error: TruncusError) -> None:
        """Give a mailer up where the next email would fare no better."""
        account.failures_in_a_row += 0 if isinstance(error, NotFound) else 1
        if _is_account_wide(error):
            self._stop(account.name, log_text(error), email)
        elif account.failures_in_a_row >= FAILURES_IN_A_ROW:
            why = f"{FAILURES_IN_A_ROW} failures in a row: {log_text(error)}"
            self._stop(account.name, why, email)

    # Writing ----------------------------------------------------------------------------------

    def _write(self, chunk: _Chunk) -> None:
        """Write the answers of a chunk down; they are kept for another try if that fails."""
        self._written_at = self._clock()
        if not chunk.answers:
            return
        try:
            self.result.changed += self._apply(chunk.answers)
            chunk.answers = {}
        except _CANNOT_BE_STORED:
            self._write_one_by_one(chunk)

    def _write_one_by_one(self, chunk: _Chunk) -> None:
        """Find the answer that the database does not take; all the others it does."""
        by_id = {email.message_id: email for email in chunk.emails}
        for message_id, details in list(chunk.answers.items()):
            try:
                self.result.changed += self._apply({message_id: details})
            except _CANNOT_BE_STORED as exc:
                email = by_id[message_id]
                chunk.dates[email.pk] = next_sync_at(email, now=self._now())
                self.result.failed += 1
                self.result.reasons[f"The answer cannot be stored ({type(exc).__name__})."] += 1
                kind = type(exc).__name__
                logger.error(  # noqa: TRY400  a traceback would hold the answer
                    "Truncus's answer about email %s cannot be stored: %s",
                    email.pk,
                    kind,
                    extra={
                        "truncus_event": "answer_not_stored",
                        "truncus_email": str(email.pk),
                        "truncus_error": kind,
                    },
                )
            del chunk.answers[message_id]

    def _apply(self, answers: Mapping[str, EmailDetails]) -> int:
        """Apply answers; after a deadlock with a webhook, or over a new connection, again."""
        return in_tries(lambda: apply_details(answers, now=self._now()), using=Email.objects.db)

    def _give_back(self, chunk: _Chunk) -> None:
        """Date the emails without an answer; but not where a webhook was faster."""
        dates, chunk.dates = chunk.dates, {}
        if not dates:
            return
        emails = [Email(pk=pk, next_sync_at=date) for pk, date in dates.items()]
        mine: EmailQuerySet = Email.objects.all()
        if chunk.claimed_until is not None:
            mine = mine.filter(next_sync_at=chunk.claimed_until)
        in_tries(lambda: update_each(mine, emails, ["next_sync_at"]), using=mine.db)


def _name_of(email: Email) -> tuple[str, str]:
    """Return the name by which to ask for the account that an email went by."""
    return email.mailer, email.tenant_id if get_settings().accounts is not None else ""


def _is_account_wide(error: TruncusError) -> bool:
    # A question belongs to no domain, so that any quota is the account's.
    return error.is_account_wide or isinstance(error, QuotaExceeded)


def _details(account: _Account, email: Email) -> EmailDetails:
    """Return what Truncus tells of an email, within its limits."""
    with account.pacer.request():
        return account.client.get_email(str(email.message_id))


_DATES = ("is_sandbox", "sent_at", "send_at", "created_at", "next_sync_at")


def _claim_by_lock(due: EmailQuerySet, size: int, until: datetime) -> list[Email]:
    """Claim emails that nobody else is claiming in this moment."""
    with transaction.atomic(using=due.db):
        emails = list(due.select_for_update(skip_locked=True)[:size])
        if emails:
            Email.objects.filter(pk__in=[email.pk for email in emails]).update(next_sync_at=until)
    return emails


def _claim_by_guard(due: EmailQuerySet, size: int, until: datetime) -> list[Email]:
    """Claim emails by an update that passes over those which others claimed since."""
    while emails := list(due[:size]):
        ids = [email.pk for email in emails]
        unclaimed = Q(next_sync_at__lte=max(email.next_sync_at for email in emails))  # type: ignore[type-var]
        if Email.objects.filter(unclaimed, pk__in=ids).update(next_sync_at=until) == len(ids):
            return emails
        mine = Email.objects.filter(pk__in=ids, next_sync_at=until)
        won = set(mine.values_list("pk", flat=True))
        if won:
            return [email for email in emails if email.pk in won]
    return []


def _mark_of(moment: datetime) -> datetime:
    """Return a moment close by that no other job has chosen."""
    return moment + timedelta(microseconds=random.randrange(60_000_000))  # noqa: S311
