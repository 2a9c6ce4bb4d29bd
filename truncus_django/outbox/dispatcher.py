"""The steps of one request: claim, send, record the outcome. Every kind of worker takes them.

A process may die between any two of them. Before the claim is committed nothing has happened;
after it, the batch is due again when its lease runs out, and whoever takes it makes the same
request under the same key (:func:`truncus_django.outbox.claim.take_over`); when its outcome is
recorded, it is over.
"""

import logging
import math
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from truncus_django import rate_limit
from truncus_django.api.client import noting_requests
from truncus_django.api.errors import MessageError, TruncusError, log_fields, log_summary
from truncus_django.api.results import SendResult
from truncus_django.db.clock import Clock, moment_of
from truncus_django.db.locks import take_write_lock
from truncus_django.db.transactions import committed
from truncus_django.models import Email, OutboxBatch, database
from truncus_django.outbox.answers import (
    DispatchResult,
    record_failure,
    record_handover,
    record_late_handover,
    record_results,
    record_screening,
)
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.clock_set_back import SET_BACK_S, adjust_to_clock_set_back
from truncus_django.outbox.expiry import expire_overdue
from truncus_django.outbox.idle import Idle
from truncus_django.outbox.stored_payload import (
    StoredEmail,
    UnreadablePayload,
    read_wire_format,
    stored_emails,
)
from truncus_django.quota.keeping import note_answer_of_outbox, told_by_error, told_by_results
from truncus_django.sending.fallback import HandedOver, HandoverFailure, fallback_of
from truncus_django.sending.requests import Screening, request_results

logger = logging.getLogger("truncus_django")

DATABASE_RETRY_S = 0.5

Answer = Sequence[SendResult] | TruncusError | Screening | HandedOver | HandoverFailure
"""The result of each email of a request, or why it failed as a whole, or why it was not made; or
what came of a handover to the fallback mailer."""


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
        """Count what one step has done."""
        self.requests += dispatched.requests
        self.accepted += dispatched.accepted
        self.failed += dispatched.failed
        self.unknown += dispatched.unknown
        self.postponed += dispatched.postponed
        if dispatched.error:
            self.reasons[dispatched.error] += 1


class Dispatcher:
    """Sends what is in the outbox, one request after the other. One for each thread.

    Args:
        mailer: the one whose emails are sent; ``None`` for those of all.
        sleep: how to wait for a database that is gone.
        jitter: chance, for the times of retries.
    """

    def __init__(
        self,
        *,
        mailer: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = Clock(database(), asks=rate_limit.ASKS)
        self._mailer = mailer
        self._latest = math.inf  # that the clock has shown; who begins does not know
        self._sleep = sleep
        self._jitter = jitter

    def step(self) -> DispatchResult | Idle:
        """Make the most urgent request that may be made now, or return when one may be.

        Raises:
            django.db.DatabaseError: the database failed. Nothing is lost: a request that was made
                is made again under its key.
            Exception: what nobody expects, a bug or the end of a task's time. What becomes of the
                request is recorded, so that a bug does not meet it for ever.
        """
        self._check_clock()
        taken = claim(self.clock, mailer=self._mailer)
        if isinstance(taken, Idle):
            return taken
        emails = stored_emails(taken.batch, now=self.clock.now())
        if not taken.has_time_for_request:
            return self._give_back(taken)
        if taken.is_handover:
            return self._record(taken, emails, self._hand_over(taken, emails))
        with noting_requests() as requests:
            try:
                answer = self._send(taken, emails)
            except Exception as exc:
                error = _unexpected_error(exc, is_ambiguous=bool(requests))
                self._record(taken, emails, error)
                raise
        if requests:
            rate_limit.note_answer(taken.account.pk, taken.arrived_by, self.clock)
        else:
            self._take_back_request(taken)
        if isinstance(answer, Screening):
            taken.batch.attempts -= 1  # no request was made
            return self._record(taken, emails, answer)
        self._note_quota(taken, emails, answer)
        return self._record(taken, emails, answer)

    def drain(
        self,
        *,
        deadline: float = math.inf,
        longest_wait_s: float = math.inf,
    ) -> RunStats:
        """Send what is due, waiting for the account's limits, until nothing is due any more.

        What fails for now is tried again at its time by a later run; ``idle`` of the result
        says when there is more to do.

        Args:
            deadline: monotonic seconds; no request is begun after this.
            longest_wait_s: seconds; what the limits let wait for longer is left to a later run.

        Raises:
            django.db.DatabaseError: nothing is lost.
        """
        stats = RunStats()
        expire_overdue(self.clock)
        while time.monotonic() < deadline:
            step = self.step()
            if isinstance(step, DispatchResult):
                stats.add(step)
                continue
            stats.idle = step
            if not step.is_pace:
                return stats
            wait_s = step.wait_s(self.clock.now())
            if wait_s > longest_wait_s or time.monotonic() + wait_s > deadline:
                return stats
            time.sleep(wait_s)
        stats.idle = Idle(self.clock.now())
        return stats

    # The steps --------------------------------------------------------------------------------

    def _check_clock(self) -> None:
        now = self.clock.now()
        if now < self._latest - SET_BACK_S:
            adjust_to_clock_set_back(self.clock)
            self._latest = now
        self._latest = max(self._latest, now)

    def _give_back(self, claim: Claim) -> DispatchResult:
        """Let others make a request that this process makes no more, as it stood still."""
        changes: dict[str, Any] = {"lease": None, "is_ambiguous": claim.was_ambiguous}
        if claim.is_handover:
            changes["handover"] = ""
        else:
            changes["attempts"] = claim.batch.attempts - 1
        # At once: the next worker writes whom it hands the email to.
        with committed(self.clock.using):
            take_write_lock(OutboxBatch.objects.all())
            changes["due_at"] = moment_of(self.clock.now())
            batch = OutboxBatch.objects.filter(pk=claim.batch.pk, lease=claim.lease)
            if batch.update(**changes) and claim.is_handover:
                Email.objects.filter(outbox_entry__batch=claim.batch.pk).update(sent_by="")
        self._take_back_request(claim)
        return DispatchResult(requests=0)

    def _take_back_request(self, claim: Claim) -> None:
        """Leave the account's pace to others: no request was made."""
        rate_limit.take_back_request(claim.account.pk, claim.arrived_by, claim.settings, self.clock)

    def _send(
        self, claim: Claim, emails: Sequence[StoredEmail]
    ) -> Sequence[SendResult] | Screening | TruncusError:
        """Make the request."""
        fields = [email.fields for email in emails if email.fields is not None]
        if len(fields) < len(emails):
            return UnreadablePayload()
        batch = claim.batch
        try:
            return request_results(
                claim.client,
                fields,
                key=batch.idempotency_key,
                sandbox=batch.is_sandbox,
                wire_format=read_wire_format(batch.wire_format) if claim.was_ambiguous else None,
                is_repeat=claim.was_ambiguous,
                batch_id=batch.pk,
                traceparents=[email.traceparent for email in emails],
            )
        except TruncusError as error:
            logger.info(
                "A request of the outbox failed, batch %s, attempt %d: %s",
                batch.pk,
                batch.attempts,
                log_summary(error),
                extra={
                    "truncus_event": "outbox_request_failed",
                    "truncus_batch": str(batch.pk),
                    "truncus_attempt": batch.attempts,
                    "truncus_count": len(emails),
                    **log_fields(error),
                },
            )
            return error

    def _note_quota(
        self,
        claim: Claim,
        emails: Sequence[StoredEmail],
        answer: Sequence[SendResult] | TruncusError,
    ) -> None:
        """Keep what the answer told of the account's quota.

        Before the outcome is recorded: until then, the emails count as under way in
        :func:`truncus_django.outbox.reserve.allowance`, and so they are never left out.
        """
        senders = [str(email.fields["from"]) if email.fields else "" for email in emails]
        told = (
            told_by_error(answer, senders)
            if isinstance(answer, TruncusError)
            else told_by_results(answer, senders)
        )
        name = claim.batch.mailer, claim.account.tenant
        note_answer_of_outbox(claim.account.pk, told, claim.settings, name=name)

    def _hand_over(
        self, claim: Claim, emails: Sequence[StoredEmail]
    ) -> HandedOver | HandoverFailure:
        """Give an email to the fallback mailer.

        Over a connection of its own: after a server has closed an idle one, nobody can tell whether
        it took the email.
        """
        fallback, fields = fallback_of(claim.settings), [email.fields for email in emails]
        if fallback is None or len(fields) != 1 or fields[0] is None:
            return HandoverFailure("was not given it", is_about_email=True)
        with fallback:
            return fallback.send(fields[0])

    def _record(
        self, claim: Claim, emails: Sequence[StoredEmail], answer: Answer
    ) -> DispatchResult:
        """Record the outcome; where the database is gone, try for as long as the lease lasts."""
        while True:
            try:
                with committed(self.clock.using):
                    take_write_lock(OutboxBatch.objects.all())
                    if not _is_to_be_recorded(claim, answer):
                        logger.warning(
                            "A lease of the outbox ran out: batch %s",
                            claim.batch.pk,
                            extra={
                                "truncus_event": "outbox_lease_lost",
                                "truncus_batch": str(claim.batch.pk),
                            },
                        )
                        if isinstance(answer, HandedOver):
                            return record_late_handover(claim, emails, answer)
                        return DispatchResult()
                    now, jitter = self.clock.now(), self._jitter()
                    if isinstance(answer, HandedOver | HandoverFailure):
                        return record_handover(claim, emails, answer, now=now)
                    if isinstance(answer, Screening):
                        return record_screening(claim, emails, answer, now=now, jitter=jitter)
                    if isinstance(answer, TruncusError):
                        return record_failure(claim, emails, answer, now=now, jitter=jitter)
                    return record_results(claim, emails, answer, now=now, jitter=jitter)
            except (DatabaseError, InterfaceError):
                if claim.countdown.left_s < 0:
                    raise
                connections[self.clock.using].close_if_unusable_or_obsolete()
                self._sleep(DATABASE_RETRY_S)


def _is_to_be_recorded(claim: Claim, answer: Answer) -> bool:
    """Lock the batch; whether the outcome is still this worker's to record.

    What Truncus said of each email is true whoever has the lease now. A failure is not: another
    worker may have made the request since.
    """
    batch = OutboxBatch.objects.filter(pk=claim.batch.pk)
    if isinstance(answer, TruncusError | HandoverFailure | Screening):
        batch = batch.filter(lease=claim.lease)
    else:
        batch = batch.filter(idempotency_key=claim.batch.idempotency_key)
    return batch.select_for_update().values_list("pk").first() is not None


def _unexpected_error(exc: Exception, *, is_ambiguous: bool) -> TruncusError:
    """Return what an exception that nobody expects means for its emails: they are tried again.

    Not what it says, which may hold what was to be sent.
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
