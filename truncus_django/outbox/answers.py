"""What an answer means for the emails of its request, and for the account: decided and recorded.

The functions run inside a transaction of their caller's, who has locked the batch.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from truncus_django.api.errors import (
    APIError,
    MessageError,
    OutcomeUnknown,
    TruncusError,
    log_fields,
    log_summary,
    log_text,
    log_text_of_code,
)
from truncus_django.api.results import SendResult
from truncus_django.db.clock import moment_of, unix_of
from truncus_django.log.recording import redirected_to
from truncus_django.models import Email, Handover, OutboxAccount
from truncus_django.outbox.claim import Claim
from truncus_django.outbox.outcomes import (
    delete_batch,
    end,
    postpone,
    record_outcomes,
    regroup,
    regroup_without_request,
    text_of,
)
from truncus_django.outbox.retry_policy import (
    BatchState,
    RetryAction,
    RetryDecision,
    after_failure,
    stops_account,
)
from truncus_django.outbox.stored_payload import (
    StoredEmail,
    UnreadablePayload,
    store_left_out,
    stored_wire_format,
)
from truncus_django.outbox.waiting import AWAITS_SEND_AT
from truncus_django.sending.breaker import OPEN_S
from truncus_django.sending.fallback import HandedOver, HandoverFailure, reason_of
from truncus_django.sending.outgoing import SendOutcome
from truncus_django.sending.requests import Screening, note_acceptance, parts_of, refusal_of
from truncus_django.sending.screening import left_out_of, with_left_out
from truncus_django.states import State

logger = logging.getLogger("truncus_django")


@dataclass(frozen=True, slots=True)
class DispatchResult:
    """What one step of a dispatcher came to.

    Attributes:
        requests: 1, or 0 where it made none: too little time was left of its lease, or a recipient
            is suppressed.
        accepted, failed, unknown, postponed: of how many emails. None of any where the outcome was
            not this worker's to record any more.
        error: why they were not sent, where there is one reason for all.
    """

    accepted: int = 0
    failed: int = 0
    unknown: int = 0
    postponed: int = 0
    error: str = ""
    requests: int = 1


def record_results(
    claim: Claim,
    emails: Sequence[StoredEmail],
    results: Sequence[SendResult],
    *,
    now: float,
    jitter: float,
) -> DispatchResult:
    """Record what Truncus said of each email of a request that it answered.

    Args:
        now: unix seconds, by the database's clock.
        jitter: a random number in [0, 1), for the times of retries.
    """
    finished: dict[UUID, SendOutcome] = {}
    retried: dict[UUID, TruncusError] = {}
    awaits_send_at: dict[UUID, datetime] = {}
    for index, (email, result) in enumerate(zip(emails, results, strict=True)):
        error = None if result.is_accepted else refusal_of(result)
        if error is None:
            note_acceptance(result)
        elif _decide_about_one(claim, error, now, jitter).action is RetryAction.RETRY:
            retried[email.pk] = error
            continue
        elif email.send_at is not None and _is_about_send_at(error):
            awaits_send_at[email.pk] = email.send_at
            continue
        finished[email.pk] = SendOutcome(
            result=result,
            error=error,
            idempotency_key=claim.batch.idempotency_key,
            attempts=claim.batch.attempts,
            batch_size=len(emails),
            batch_index=index if len(emails) > 1 else None,
            redirected_to=redirected_to(email.fields, error) if email.fields else None,
            left_out=left_out_of(email.fields or {}),
        )
    record_outcomes(finished)
    for pk, send_at in awaits_send_at.items():
        regroup(claim.batch, [[pk]], due_at=moment_of(send_at.timestamp()), code=AWAITS_SEND_AT)
    if retried:
        longest, error = _retry_some(claim, retried, now, jitter)
        if any(map(stops_account, retried.values())):
            _note_failure(claim, longest, error, now)
        else:
            _note_success(claim, now)
    else:
        _note_success(claim, now)
    delete_batch(claim.batch)
    failed = sum(outcome.error is not None for outcome in finished.values())
    postponed = len(retried) + len(awaits_send_at)
    return DispatchResult(len(finished) - failed, failed, postponed=postponed)


def record_screening(
    claim: Claim, emails: Sequence[StoredEmail], screening: Screening, *, now: float, jitter: float
) -> DispatchResult:
    """Record which emails may not be sent, and make a request of the others, for now.

    Args:
        screening: what was found before a request, which then was not made.
        now: unix seconds, by the database's clock.
        jitter: a random number in [0, 1), for the times of retries.
    """
    refused: dict[UUID, SendOutcome] = {}
    retried: dict[UUID, TruncusError] = {}
    others: list[UUID] = []
    for email, found in zip(emails, screening.emails, strict=True):
        error = found.error
        if error is None:
            others.append(email.pk)
            if email.fields is not None and found.left_out != left_out_of(email.fields):
                store_left_out(email.pk, found.left_out)
        elif _decide_about_one(claim, error, now, jitter).action is RetryAction.RETRY:
            retried[email.pk] = error
        else:
            refused[email.pk] = SendOutcome(
                error=error,
                idempotency_key=claim.batch.idempotency_key,
                attempts=claim.batch.attempts,
            )
    record_outcomes(refused)
    if retried:
        _retry_some(claim, retried, now, jitter)
    if others:
        regroup_without_request(claim.batch, [others], due_at=moment_of(now))
    delete_batch(claim.batch)
    postponed = len(retried) + len(others)
    return DispatchResult(failed=len(refused), postponed=postponed, requests=0)


def record_failure(
    claim: Claim, emails: Sequence[StoredEmail], error: TruncusError, *, now: float, jitter: float
) -> DispatchResult:
    """Record why a request failed as a whole, and what follows for its emails.

    Args:
        now: unix seconds, by the database's clock.
        jitter: a random number in [0, 1), for the times of retries.
    """
    if isinstance(error, UnreadablePayload):
        return _set_unreadable_aside(claim, emails, now)
    decision = after_failure(
        error,
        _batch_state(claim, now, size=len(emails), was_ambiguous=claim.was_ambiguous),
        jitter=jitter,
    )
    _note_failure(claim, decision, error, now)
    postponed = DispatchResult(postponed=len(emails), error=log_summary(error))
    if decision.action is RetryAction.RETRY:
        postpone(
            claim.batch,
            error,
            due_at=moment_of(now + _wait_s(claim, decision, error)),
            is_ambiguous=decision.is_ambiguous,
            failing_since=_failing_since(claim, now) if decision.counts_towards_giving_up else None,
            # Capabilities were learned from an earlier answer, and a later one was lost.
            wire_format=stored_wire_format(error.wire_format) if error.wire_format else None,
            handover=_handover_after(error),
        )
        return postponed
    parts = _parts(emails, error) if decision.action is RetryAction.SPLIT else []
    if parts:
        regroup(claim.batch, parts, due_at=moment_of(now))
        delete_batch(claim.batch)
        return postponed
    send_at = emails[0].send_at if len(emails) == 1 else None
    if send_at is not None and decision.action is RetryAction.FAIL and _is_about_send_at(error):
        due_at = moment_of(send_at.timestamp())
        postpone(claim.batch, error, due_at=due_at, is_ambiguous=False, code=AWAITS_SEND_AT)
        return postponed
    error.ambiguous = decision.action is RetryAction.UNKNOWN
    end(claim.batch, error)
    if error.ambiguous:
        return DispatchResult(unknown=len(emails), error=log_summary(error))
    return DispatchResult(failed=len(emails), error=log_summary(error))


def record_handover(
    claim: Claim,
    emails: Sequence[StoredEmail],
    answer: HandedOver | HandoverFailure,
    *,
    now: float,
) -> DispatchResult:
    """Record what came of handing an email to the fallback mailer.

    Args:
        answer: that it was sent, or why not.
        now: unix seconds, by the database's clock.
    """
    name = claim.settings.fallback_mailer or ""
    why = log_text_of_code(claim.account.error_code)
    if isinstance(answer, HandedOver):
        record_outcomes(_handed_over(claim, emails, answer))
        delete_batch(claim.batch)
        return DispatchResult(accepted=1, requests=0)
    if answer.refusal is not None:
        end(claim.batch, answer.refusal)
        return DispatchResult(failed=1, requests=0, error=log_summary(answer.refusal))
    text = f"Truncus did not take the email ({why}), and the fallback mailer {name!r} "
    if answer.is_ambiguous:
        end(claim.batch, OutcomeUnknown(text + answer.text), sent_by=name)
        return DispatchResult(unknown=1, requests=0, error=answer.text)
    postpone(
        claim.batch,
        MessageError(text + answer.text, code=claim.account.error_code),
        due_at=moment_of(now),
        is_ambiguous=False,
        handover=Handover.REFUSED if answer.is_about_email else "",
    )
    if not answer.is_about_email:
        # Until Truncus has failed the next time: the pause is that of both.
        OutboxAccount.objects.filter(pk=claim.account.pk).update(allows_fallback=False)
    return DispatchResult(postponed=1, requests=0, error=answer.text)


def record_late_handover(
    claim: Claim, emails: Sequence[StoredEmail], answer: HandedOver
) -> DispatchResult:
    """Record that an email was handed over after another worker has ended its batch.

    It did not know what came of it, and this one does; unless a person has decided meanwhile.
    """
    ended = Email.objects.filter(
        state=State.UNKNOWN,
        sent_by=claim.settings.fallback_mailer or "",
        idempotency_key=claim.batch.idempotency_key,
    )
    accepted = record_outcomes(_handed_over(claim, emails, answer), emails=ended)
    return DispatchResult(accepted=accepted, requests=0)


# What follows -------------------------------------------------------------------------------------


def _handed_over(
    claim: Claim, emails: Sequence[StoredEmail], answer: HandedOver
) -> dict[UUID, SendOutcome]:
    """Return the outcome of the one email that the fallback mailer has sent."""
    [email] = emails
    name = claim.settings.fallback_mailer or ""
    outcome = SendOutcome(
        attempts=claim.batch.attempts,
        sent_by=name,
        reason=reason_of(name, log_text_of_code(claim.account.error_code)),
        redirected_to=redirected_to(with_left_out(email.fields or {}, answer.left_out)),
        left_out=answer.left_out,
    )
    return {email.pk: outcome}


def _batch_state(
    claim: Claim, now: float, *, size: int = 1, was_ambiguous: bool = False
) -> BatchState:
    failing_since = claim.batch.failing_since
    return BatchState(
        failures=claim.batch.failures,
        was_ambiguous=was_ambiguous,
        failing_s=0.0 if failing_since is None else now - unix_of(failing_since),
        size=size,
        account_failures=claim.account.failures,
    )


def _decide_about_one(
    claim: Claim, error: TruncusError, now: float, jitter: float
) -> RetryDecision:
    """Return what follows for one email of a request that was answered: it is not ambiguous."""
    return after_failure(error, _batch_state(claim, now), jitter=jitter)


def _wait_s(claim: Claim, decision: RetryDecision, error: TruncusError) -> float:
    """Return the seconds until the next try; none where the account's pause is enough."""
    goes_at_once = _uses_fallback(claim, decision, error) and not decision.is_ambiguous
    return 0.0 if goes_at_once else decision.wait_s


def _uses_fallback(claim: Claim, decision: RetryDecision, error: TruncusError) -> bool:
    """Whether the account is paused while the fallback mailer sends."""
    has_fallback = claim.settings.fallback_mailer is not None
    return has_fallback and error.is_outage and decision.pause_s > 0


def _failing_since(claim: Claim, now: float) -> datetime:
    return claim.batch.failing_since or moment_of(now)


def _is_about_send_at(error: TruncusError) -> bool:
    """Whether Truncus does not want to schedule an email, which then awaits its time here."""
    return isinstance(error, APIError) and "send_at" in error.message


def _parts(emails: Sequence[StoredEmail], error: TruncusError) -> list[list[UUID]]:
    senders = [str(email.fields["from"]) for email in emails if email.fields]
    return [[emails[place].pk for place in part] for part in parts_of(senders, error)]


def _retry_some(
    claim: Claim, errors: Mapping[UUID, TruncusError], now: float, jitter: float
) -> tuple[RetryDecision, TruncusError]:
    """Make a request of the emails that failed for no fault of theirs, for when it may fare better.

    Returns the decision that lets it wait longest, and its error.

    A quota that ends in the middle of a batch refuses each email that came too late.
    """
    decisions = [(_decide_about_one(claim, error, now, jitter), error) for error in errors.values()]
    longest, error = max(decisions, key=lambda pair: pair[0].wait_s)
    is_own = all(decision.counts_towards_giving_up for decision, _ in decisions)
    regroup(
        claim.batch,
        [list(errors)],
        due_at=moment_of(now + _wait_s(claim, longest, error)),
        failures=claim.batch.failures + 1,
        failing_since=_failing_since(claim, now) if is_own else None,
        code=error.code or "",
        error=text_of(error),
        # Whatever was before: this answer tells of each email.
        handover=next(filter(None, map(_handover_after, errors.values())), ""),
    )
    return longest, error


def _handover_after(error: TruncusError) -> str | None:
    """Return that what met a failure of the service waits for Truncus, whatever fails next.

    An ambiguous batch does so until it is not ambiguous any more.
    """
    return Handover.REFUSED if error.met_service_failure and not error.ambiguous else None


def _set_unreadable_aside(
    claim: Claim, emails: Sequence[StoredEmail], now: float
) -> DispatchResult:
    """End emails whose payload cannot be read; the others go on without them.

    Unless the batch is ambiguous: it could only be repeated whole, and so not at all.
    """
    if claim.was_ambiguous:
        text = "A stored email of its request cannot be read"
        end(claim.batch, UnreadablePayload(text, ambiguous=True))
        return DispatchResult(unknown=len(emails), error=UnreadablePayload.TEXT, requests=0)
    broken = [email.pk for email in emails if email.fields is None]
    outcome = SendOutcome(error=UnreadablePayload(), attempts=claim.batch.attempts)
    record_outcomes(dict.fromkeys(broken, outcome))
    readable = [email.pk for email in emails if email.fields is not None]
    if readable:
        regroup_without_request(claim.batch, [readable], due_at=moment_of(now))
    delete_batch(claim.batch)
    return DispatchResult(
        failed=len(broken),
        postponed=len(readable),
        error=UnreadablePayload.TEXT,
        requests=0,
    )


# The account --------------------------------------------------------------------------------------


def _note_success(claim: Claim, now: float) -> None:
    """Record that the account works and its capabilities, where either has changed."""
    account = OutboxAccount.objects.filter(pk=claim.account.pk)
    capabilities = claim.client.capabilities()
    if claim.account.failures or capabilities != claim.account.capabilities:
        account.update(failures=0, capabilities=capabilities)
    if claim.account.failures:
        # A pause that has begun since the claim is another request's, and goes on.
        is_over = Q(paused_until=None) | Q(paused_until__lte=moment_of(now))
        account.filter(is_over).update(paused_until=None, error_code="", error="")


def _note_failure(claim: Claim, decision: RetryDecision, error: TruncusError, now: float) -> None:
    """Record what a failure says of the account, and pause it where that is decided."""
    account = OutboxAccount.objects.filter(pk=claim.account.pk)
    changes: dict[str, Any] = {}
    capabilities = claim.client.capabilities()
    if capabilities != claim.account.capabilities:
        changes["capabilities"] = capabilities
    if decision.is_account_failure:
        changes |= {
            "failures": F("failures") + 1,
            "error_code": (error.code or "")[:100],
            "error": str(error),
            # In an outage, many tenants are paused; without such a mailer, they cost nothing.
            "allows_fallback": error.is_outage
            and (claim.settings.fallback_mailer is not None or not claim.account.tenant),
        }
    if changes:
        account.update(**changes)
    if decision.pause_s:
        pause_s = decision.pause_s
        if _uses_fallback(claim, decision, error):
            pause_s = max(pause_s, OPEN_S)  # emails need not wait for its end
            logger.warning(
                "The outbox's emails go to the fallback mailer %r for %d s: %s",
                claim.settings.fallback_mailer,
                pause_s,
                log_text(error),
                extra={
                    "truncus_event": "outbox_uses_fallback",
                    "truncus_mailer": claim.settings.fallback_mailer,
                    "truncus_seconds": pause_s,
                    **log_fields(error),
                },
            )
        paused_until = moment_of(now + pause_s)
        is_longer = Q(paused_until=None) | Q(paused_until__lt=paused_until)
        account.filter(is_longer).update(paused_until=paused_until)
