"""The steps of one request: claim, send, record the outcome. Every kind of worker takes them.

A process may die between any two of them. Before the claim is committed nothing has happened;
after it, the batch is due again when its lease runs out, and whoever takes it makes the same
request under the same key; when its answer is written down, it is over.
"""

import json
import logging
import math
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections
from django.db.models import F, Q

from truncus_django import rate_limit
from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.client import noting_requests
from truncus_django.api.encoding import EmailFields, encode
from truncus_django.api.errors import APIError, MessageError, TruncusError, log_summary
from truncus_django.api.results import SendResult, read_moment
from truncus_django.api.transport import longest_request_s
from truncus_django.db.clock import Clock, moment_of
from truncus_django.db.transactions import committed, take_write_lock
from truncus_django.models import OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox.claim import Claim, Idle, batch_state_of, claim, stored_wire_format
from truncus_django.outbox.clock_set_back import SET_BACK_S, adjust_to_clock_set_back
from truncus_django.outbox.outcomes import (
    SendOutcome,
    delete_batch,
    end,
    expire,
    postpone,
    record_outcomes,
    regroup,
    text_of,
)
from truncus_django.outbox.retry_policy import (
    RetryAction,
    RetryDecision,
    after_failure,
    is_account_wide,
)
from truncus_django.outbox.waiting import HELD_BACK
from truncus_django.sending.requests import note_acceptance, parts_of, refusal_of, request_results

logger = logging.getLogger("truncus_django")

SEND_AT_MARGIN_S = 5.0
"""A ``send_at`` that is closer than this may be over when Truncus looks at it."""
DATABASE_RETRY_S = 0.5
SHORTEST_WAIT_S = 0.005
"""A moment that is over already is waited for so long, by clocks that differ."""


@dataclass(frozen=True, slots=True)
class DispatchResult:
    """A request was made, and its answer written down.

    Attributes:
        accepted, failed, unknown, postponed: of how many emails.
        error: why they were not sent, where there is one reason for all.
    """

    accepted: int = 0
    failed: int = 0
    unknown: int = 0
    postponed: int = 0
    error: str = ""


@dataclass(slots=True)
class RunStats:
    """What a run of the outbox has done."""

    requests: int = 0
    accepted: int = 0
    failed: int = 0
    unknown: int = 0
    postponed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    idle: Idle = field(default_factory=Idle)

    def add(self, dispatched: DispatchResult) -> None:
        """Count what one request has done."""
        self.requests += 1
        self.accepted += dispatched.accepted
        self.failed += dispatched.failed
        self.unknown += dispatched.unknown
        self.postponed += dispatched.postponed
        if dispatched.error:
            self.reasons[dispatched.error] += 1


@dataclass(frozen=True, slots=True)
class _Member:
    """An email of a batch, as it is sent now; ``email`` is empty where it cannot be read."""

    pk: UUID
    email: EmailFields | None = field(repr=False)
    send_at: datetime | None
    """When it is to be sent, where that still lies ahead."""


class Dispatcher:
    """Sends what is in the outbox, one request after the other. One for each thread.

    Args:
        sleep: how to wait for a database that is gone.
        jitter: chance, for the times of retries.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._using = database()
        self.clock = Clock(self._using, asks=rate_limit.ASKS)
        self._latest = math.inf  # that the clock has shown; who begins does not know
        self._sleep = sleep
        self._jitter = jitter

    def step(self) -> DispatchResult | Idle:
        """Make the most urgent request that may be made now, or tell when one may be.

        Raises:
            django.db.DatabaseError: the database failed. Nothing is lost: a request that was made
                is made again under its key.
            Exception: what nobody expects, a bug or the end of a task's time. What becomes of the
                request is written down, so that a bug does not meet it for ever.
        """
        self._check_clock()
        taken = claim(self.clock)
        if isinstance(taken, Idle):
            return taken
        entries = self._members(taken)
        if taken.lasts.left_s < longest_request_s(taken.settings.timeout):
            return self._record(taken, lambda: self._give_back(taken))
        with noting_requests() as requests:
            try:
                answer = self._answer(taken, entries)
            except Exception as exc:
                bug = _unexpected_error(exc, is_ambiguous=bool(requests))
                self._record(taken, lambda: self._after_error(taken, entries, bug))
                raise
        rate_limit.note_answer(taken.account, taken.arrived_by, self.clock)
        if isinstance(answer, TruncusError):
            failure = answer
            return self._record(taken, lambda: self._after_error(taken, entries, failure))
        results = answer
        return self._record(
            taken, lambda: self._after_results(taken, entries, results), is_answered=True
        )

    def drain(
        self,
        *,
        until: float = math.inf,
        longest_wait_s: float = math.inf,
        on_dispatched: Callable[[DispatchResult], None] = lambda dispatched: None,
    ) -> RunStats:
        """Send what is due, waiting for the account's limits, until nothing is due any more.

        What fails for now is tried again at its time by a later run; ``idle`` of the result
        says when there is more to do.

        Args:
            until: monotonic seconds; no request is begun after this.
            longest_wait_s: seconds; what the limits hold back for longer is left to a later run.
            on_dispatched: called after each request.

        Raises:
            django.db.DatabaseError: nothing is lost.
        """
        stats = RunStats()
        expire_overdue(self.clock)
        while time.monotonic() < until:
            step = self.step()
            if isinstance(step, DispatchResult):
                stats.add(step)
                on_dispatched(step)
                continue
            stats.idle = step
            if not step.is_pace:
                return stats
            wait_s = max((step.until or 0.0) - self.clock.now(), SHORTEST_WAIT_S)
            if wait_s > longest_wait_s or time.monotonic() + wait_s > until:
                return stats
            time.sleep(wait_s)
        stats.idle = Idle(self.clock.now())
        return stats

    def _check_clock(self) -> None:
        now = self.clock.now()
        if now < self._latest - SET_BACK_S:
            adjust_to_clock_set_back(self.clock)
            self._latest = now
        self._latest = max(self._latest, now)

    # The request ------------------------------------------------------------------------------

    def _members(self, claim: Claim) -> list[_Member]:
        """Return the batch's emails in their order, as they are sent now."""
        entries = OutboxEntry.objects.filter(batch=claim.batch).order_by(*OutboxEntry.IN_ORDER)
        soon = self.clock.now() + SEND_AT_MARGIN_S
        return [_member(pk, text, soon) for pk, text in entries.values_list("pk", "payload")]

    def _answer(
        self, claim: Claim, members: Sequence[_Member]
    ) -> Sequence[SendResult] | TruncusError:
        """Make the request; return what it brought, or why it failed."""
        emails = [member.email for member in members if member.email is not None]
        if len(emails) < len(members):
            return _Unreadable()
        batch = claim.batch
        try:
            return request_results(
                claim.client,
                emails,
                key=batch.idempotency_key,
                sandbox=batch.is_sandbox,
                wire_format=_wire_format(batch.wire_format) if batch.is_ambiguous else None,
            )
        except TruncusError as error:
            logger.info(
                "A request of the outbox failed, batch %s, attempt %d: %s",
                batch.pk,
                batch.attempts,
                log_summary(error),
            )
            return error

    def _give_back(self, claim: Claim) -> DispatchResult:
        """Let others make a request that is no longer made, as this process stood still."""
        OutboxBatch.objects.filter(pk=claim.batch.pk).update(
            lease=None,
            due_at=moment_of(self.clock.now()),
            # As they were before the claim.
            is_ambiguous=claim.batch.is_ambiguous,
            attempts=claim.batch.attempts - 1,
        )
        return DispatchResult()

    # Its answer -------------------------------------------------------------------------------

    def _record(
        self, claim: Claim, write: Callable[[], DispatchResult], *, is_answered: bool = False
    ) -> DispatchResult:
        """Write down what came back; where the database is gone, for as long as the lease lasts.

        Args:
            claim: whose request it was.
            write: writes it down.
            is_answered: whether Truncus told of each email: that is true whoever has the lease
                now, and who took it over will find no batch.
        """
        while True:
            try:
                with committed(self._using):
                    if not self._is_still_there(claim, is_answered=is_answered):
                        logger.warning("A lease of the outbox ran out: batch %s", claim.batch.pk)
                        return DispatchResult()
                    return write()
            except (DatabaseError, InterfaceError):
                if claim.lasts.left_s < 0:
                    raise
                connections[self._using].close_if_unusable_or_obsolete()
                self._sleep(DATABASE_RETRY_S)

    def _is_still_there(self, claim: Claim, *, is_answered: bool) -> bool:
        """Lock the batch; whether it is still to be written what came back."""
        take_write_lock(OutboxBatch.objects.all())
        batch = OutboxBatch.objects.filter(pk=claim.batch.pk)
        if is_answered:
            batch = batch.filter(idempotency_key=claim.batch.idempotency_key)
        else:
            batch = batch.filter(lease=claim.lease)
        return batch.select_for_update().first() is not None

    def _after_results(
        self, claim: Claim, members: Sequence[_Member], results: Sequence[SendResult]
    ) -> DispatchResult:
        is_several = len(members) > 1
        outcomes: dict[UUID, SendOutcome] = {}
        again: dict[UUID, TruncusError] = {}
        held: dict[UUID, datetime] = {}
        for index, (member, result) in enumerate(zip(members, results, strict=True)):
            error = None if result.is_accepted else refusal_of(result)
            if error is None:
                note_acceptance(result)
            elif self._item_decision(claim, error).action is RetryAction.RETRY:
                again[member.pk] = error
                continue
            elif member.send_at is not None and _is_about_send_at(error):
                held[member.pk] = member.send_at
                continue
            outcomes[member.pk] = SendOutcome(
                result,
                error,
                claim.batch.idempotency_key,
                claim.batch.attempts,
                index if is_several else None,
            )
        record_outcomes(outcomes)
        for pk, send_at in held.items():
            regroup(claim.batch, [[pk]], due_at=moment_of(send_at.timestamp()), code=HELD_BACK)
        if again:
            self._try_items_again(claim, again)
        else:
            self._note_success(claim)
        delete_batch(claim.batch)
        failed = sum(outcome.error is not None for outcome in outcomes.values())
        postponed = len(again) + len(held)
        return DispatchResult(len(outcomes) - failed, failed, postponed=postponed)

    def _item_decision(self, claim: Claim, error: TruncusError) -> RetryDecision:
        """Return what follows for one email of a request that was answered: it is not ambiguous."""
        state = replace(
            batch_state_of(claim.batch, now=self.clock.now()),
            was_ambiguous=False,
            account_failures=claim.account_failures,
        )
        return after_failure(error, state, jitter=self._jitter())

    def _try_items_again(self, claim: Claim, errors: Mapping[UUID, TruncusError]) -> None:
        """Make a request of those that failed for no fault of theirs, for when it may fare better.

        A quota that ends in the middle of a batch is told of each email that came too late.
        """
        batch, now = claim.batch, self.clock.now()
        decisions = [(self._item_decision(claim, error), error) for error in errors.values()]
        decision, error = max(decisions, key=lambda pair: pair[0].wait_s)
        is_own = all(one.is_own_failure for one, _ in decisions)
        regroup(
            batch,
            [list(errors)],
            due_at=moment_of(now + decision.wait_s),
            failures=batch.failures + 1,
            failing_since=(batch.failing_since or moment_of(now)) if is_own else None,
            code=error.code or "",
            error=text_of(error),
        )
        if any(is_account_wide(one) for one in errors.values()):
            self._note_trouble(claim, decision, error)
        else:
            self._note_success(claim)

    def _after_error(
        self, claim: Claim, members: Sequence[_Member], error: TruncusError
    ) -> DispatchResult:
        if isinstance(error, _Unreadable):
            return self._set_aside(claim, members)
        batch, now = claim.batch, self.clock.now()
        decision = self._decide(claim, error, size=len(members))
        self._note_trouble(claim, decision, error)
        parts: list[list[UUID]] = []
        if decision.action is RetryAction.SPLIT:
            senders = [str(member.email["from"]) for member in members if member.email]
            parts = [[members[place].pk for place in part] for part in parts_of(senders, error)]
        if parts:
            regroup(batch, parts, due_at=moment_of(now))
            delete_batch(batch)
            return DispatchResult(postponed=len(members), error=log_summary(error))
        send_at = members[0].send_at if len(members) == 1 else None
        if decision.action is RetryAction.RETRY:
            until = moment_of(now + decision.wait_s)
            postpone(
                batch,
                error,
                until=until,
                is_ambiguous=decision.is_ambiguous,
                failing_since=(batch.failing_since or moment_of(now))
                if decision.is_own_failure
                else None,
                # Capabilities were learned from an earlier answer, and a later one was lost.
                wire_format=stored_wire_format(error.wire_format) if error.wire_format else None,
            )
            return DispatchResult(postponed=len(members), error=log_summary(error))
        if send_at is not None and decision.action is RetryAction.FAIL and _is_about_send_at(error):
            until = moment_of(send_at.timestamp())
            postpone(batch, error, until=until, is_ambiguous=False, code=HELD_BACK)
            return DispatchResult(postponed=1, error=log_summary(error))
        error.ambiguous = decision.action is RetryAction.UNKNOWN
        end(batch, error)
        if error.ambiguous:
            return DispatchResult(unknown=len(members), error=log_summary(error))
        return DispatchResult(failed=len(members), error=log_summary(error))

    def _decide(self, claim: Claim, error: TruncusError, *, size: int) -> RetryDecision:
        known = batch_state_of(claim.batch, now=self.clock.now())
        state = replace(known, size=size, account_failures=claim.account_failures)
        return after_failure(error, state, jitter=self._jitter())

    def _set_aside(self, claim: Claim, members: Sequence[_Member]) -> DispatchResult:
        """End emails whose payload cannot be read; the others go on without them.

        Unless the batch is ambiguous: it could only be repeated whole, and so not at all.
        """
        batch = claim.batch
        if batch.is_ambiguous:
            end(batch, _Unreadable("A stored email of its request cannot be read", ambiguous=True))
            return DispatchResult(unknown=len(members), error=_Unreadable.TEXT)
        broken = [member.pk for member in members if member.email is None]
        outcome = SendOutcome(error=_Unreadable(), attempts=batch.attempts)
        record_outcomes(dict.fromkeys(broken, outcome))
        readable = [member.pk for member in members if member.email is not None]
        if readable:
            regroup(batch, [readable], due_at=moment_of(self.clock.now()))
        delete_batch(batch)
        return DispatchResult(failed=len(broken), postponed=len(readable), error=_Unreadable.TEXT)

    # The account ------------------------------------------------------------------------------

    def _note_success(self, claim: Claim) -> None:
        """Record that the account works and its capabilities, where either has changed."""
        capabilities = claim.client.capabilities()
        account = OutboxAccount.objects.filter(account=claim.account)
        if claim.account_failures or capabilities != claim.capabilities:
            account.update(failures=0, capabilities=capabilities)
        if claim.account_failures:
            # A pause that has begun since the claim is another request's, and goes on.
            is_over = Q(paused_until=None) | Q(paused_until__lte=moment_of(self.clock.now()))
            account.filter(is_over).update(paused_until=None, error_code="", error="")

    def _note_trouble(self, claim: Claim, decision: RetryDecision, error: TruncusError) -> None:
        capabilities = claim.client.capabilities()
        changes: dict[str, Any] = (
            {"capabilities": capabilities} if capabilities != claim.capabilities else {}
        )
        if decision.is_account_failure:
            changes |= {
                "failures": F("failures") + 1,
                "error_code": (error.code or "")[:100],
                "error": str(error),
            }
        account = OutboxAccount.objects.filter(account=claim.account)
        if changes:
            account.update(**changes)
        if decision.pause_s:
            until = moment_of(self.clock.now() + decision.pause_s)
            is_longer = Q(paused_until=None) | Q(paused_until__lt=until)
            account.filter(is_longer).update(paused_until=until)


def expire_overdue(clock: Clock) -> int:
    """Record the expiry of waiting emails; return how many expired.

    Raises:
        django.db.DatabaseError: the other emails are left to the next time.
    """
    using, expired = database(), 0
    skip = connections[using].features.has_select_for_update_skip_locked
    while True:
        overdue = OutboxEntry.objects.filter(
            is_waiting=True, expires_at__lte=moment_of(clock.now())
        )
        if not overdue.exists():  # the usual case takes no lock
            return expired
        with committed(using):
            take_write_lock(OutboxEntry.objects.all())
            locked = overdue.select_for_update(skip_locked=skip).order_by("pk")
            ids = list(locked.values_list("pk", flat=True)[:100])
            if not ids:
                return expired
            expire(ids)
            expired += len(ids)


def _unexpected_error(exc: Exception, *, is_ambiguous: bool) -> TruncusError:
    """Return what an exception that nobody expects means for its emails: they are tried again.

    Of what it says nothing is told: it may hold what was to be sent.
    """
    place = traceback.extract_tb(exc.__traceback__)[-1]
    kind = TruncusError if is_ambiguous else MessageError
    return kind(
        f"A request was not made or not understood, by an error in the program: "
        f"{type(exc).__name__} in {Path(place.filename).name}, line {place.lineno}",
        code="unexpected_error",
        retryable=True,
        ambiguous=is_ambiguous,
    )


class _Unreadable(MessageError):
    """What was stored of an email is no email."""

    TEXT = "What was stored of the email cannot be read; it was not sent."

    def __init__(self, message: str = TEXT, *, ambiguous: bool = False) -> None:
        super().__init__(message, code="unreadable_payload", ambiguous=ambiguous)


def _member(pk: UUID, text: str, soon: float) -> _Member:
    """Read a stored email; a ``send_at`` that is over by now means to send it now."""
    try:
        email = json.loads(text)
    except (ValueError, RecursionError):
        return _Member(pk, None, None)
    if not isinstance(email, dict) or not _is_email(email):
        return _Member(pk, None, None)
    fields = EmailFields(email)
    try:
        encode(fields)
    except MessageError:
        return _Member(pk, None, None)
    send_at = read_moment(fields.get("send_at"))
    if send_at is not None and send_at.timestamp() <= soon:
        del fields["send_at"]
        send_at = None
    return _Member(pk, fields, send_at)


def _is_email(fields: Mapping[str, Any]) -> bool:
    """Whether fields that the API documents have the types that it documents.

    What the API does not document is sent as it is; ``None`` is left out.
    """
    return all(fields.get(name) for name in ("from", "to")) and all(
        fits(fields[name]) for name, fits in _TYPES.items() if fields.get(name) is not None
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(["from", "subject", "text", "html", "template_id"], _is_text),
    **dict.fromkeys(["tenant_id", "send_at"], _is_text),
    **dict.fromkeys(["to", "cc", "bcc", "reply_to"], _is_texts),
    **dict.fromkeys(["headers", "variables", "metadata"], _is_object),
    **dict.fromkeys(["track_opens", "track_clicks"], _is_flag),
    "attachments": _is_objects,
}


def _is_about_send_at(error: TruncusError) -> bool:
    """Whether Truncus does not want to schedule an email, which is then held back here."""
    return isinstance(error, APIError) and "send_at" in error.message


def _wire_format(stored: Any) -> WireFormat | None:
    if not isinstance(stored, dict) or not stored:
        return None
    capabilities = Capabilities(
        html_required=stored.get("html_required") is True,
        single_recipient=stored.get("single_recipient") is True,
    )
    return WireFormat(capabilities, is_pinned=stored.get("is_pinned") is True)
