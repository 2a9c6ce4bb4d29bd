"""Batches → requests → what became of each message."""

import copy
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from functools import partial

from django.views.decorators.debug import sensitive_variables

from truncus_django.api import contract
from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    OutcomeUnknown,
    ServerError,
    TruncusError,
    clear_frames,
    rules_out_acceptance,
)
from truncus_django.api.keys import new_idempotency_key
from truncus_django.api.results import SendResult
from truncus_django.awaited_send import after_answer, current_awaited_send
from truncus_django.sending.ambiguous import forget, remember
from truncus_django.sending.breaker import Breaker
from truncus_django.sending.failover import why_not_handed_over
from truncus_django.sending.outgoing import Batch, OutgoingMessage, SendOutcome, Sent
from truncus_django.sending.requests import Screening, parts_of, refusal_of, request_results
from truncus_django.sending.screening import left_out_of, with_left_out

MAX_FAILED_BATCHES = 2
"""After this many batches in a row that failed to the end of their retries the service is down."""


def send_batches(
    client: TruncusClient,
    batches: Iterable[Batch],
    *,
    now: float,
    breaker: Breaker | None = None,
) -> Generator[Sequence[Sent]]:
    """Send ``batches`` one after the other, and yield what became of the messages of each.

    A batch that is refused for one of its emails is sent in parts. After an error that concerns
    the whole account, or the whole service, the rest is not tried: it would fail alike. Where a
    time limit or Ctrl-C breaks into a request, its messages are yielded before that is raised.
    Where nobody awaits the send any more, no further request is begun.

    Args:
        now: unix seconds.
        breaker: where there is a fallback mailer. While it is open, Truncus is not asked for what
            that mailer can send.
    """
    stopped_by: TruncusError | None = None
    failed_in_a_row = 0
    may_ask = False
    awaited = current_awaited_send()
    for planned in batches:
        waiting = deque([planned])
        while waiting:
            batch = waiting.popleft()
            if awaited is not None:
                awaited.stop_if_cancelled()
            if not batch.key:
                yield _unsent(batch)
                continue
            if stopped_by is not None:
                yield _untried(batch, stopped_by)
                continue
            refused_by = None if breaker is None or may_ask else breaker.admit()
            if refused_by is not None:
                for_fallback, batch = _for_fallback(batch, now=now)
                if for_fallback.messages:
                    yield _untried(for_fallback, refused_by)
                if not batch.messages:
                    continue
            earlier = batch.messages[0].ambiguous_send
            wire_format = earlier.wire_format if earlier else client.wire_format
            parts: list[Batch] = []
            sent: list[Sent] = []
            try:
                answer = _request(client, batch)
                if isinstance(answer, TruncusError):
                    clear_frames(answer)
                    parts = split(batch, answer)
                    if not parts:
                        _remember_failure(batch, answer, client, now=now, wire_format=wire_format)
                        sent = _failed(batch, answer)
                elif not isinstance(answer, Screening):
                    sent = _answered(batch, answer)
                    if awaited is not None:  # whoever is cancelled learns no answer
                        remember(batch, client, now=now, is_ambiguous=True, wire_format=wire_format)
                    after_answer(partial(_forget, batch))
            except BaseException:
                # The request may have been on its way, or its answer is not noted yet.
                remember(batch, client, now=now, is_ambiguous=True, wire_format=wire_format)
                yield _failed(
                    batch, OutcomeUnknown("The send was interrupted before its answer came.")
                )
                raise
            if isinstance(answer, Screening):
                may_ask = True  # the breaker's leave is for a request
                refused, rest = _screened(batch, answer)
                if refused:
                    yield refused
                if rest.messages:
                    waiting.appendleft(rest)
                continue
            if breaker is not None:
                may_ask = False
                breaker.note(answer if isinstance(answer, TruncusError) else _outage_in(sent))
            if parts:
                waiting.extendleft(reversed(parts))
                continue
            if isinstance(answer, TruncusError):
                failed_in_a_row = failed_in_a_row + 1 if answer.is_service_failure else 0
                if _stops_the_list(answer) or failed_in_a_row == MAX_FAILED_BATCHES:
                    stopped_by = answer
            else:
                failed_in_a_row = 0
            yield sent


def _for_fallback(batch: Batch, *, now: float) -> tuple[Batch, Batch]:
    """Part a batch into what the fallback mailer can send and what only Truncus can."""
    if any(outgoing.ambiguous_send for outgoing in batch.messages):
        return Batch(batch.key, []), batch  # an earlier request, which is repeated whole
    for_fallback: list[OutgoingMessage] = []
    others: list[OutgoingMessage] = []
    for outgoing in batch.messages:
        can_go = why_not_handed_over(outgoing, now=now) is None
        (for_fallback if can_go else others).append(outgoing)
    return Batch(batch.key, for_fallback), Batch(batch.key, others)


def _outage_in(sent: Iterable[Sent]) -> TruncusError | None:
    """Return why the account takes no more, where an answer says so of some emails."""
    errors = (outcome.error for _, outcome in sent)
    return next((error for error in errors if error is not None and error.allows_fallback), None)


@sensitive_variables()
def _request(
    client: TruncusClient, batch: Batch
) -> Sequence[SendResult] | Screening | TruncusError:
    """Make the request of ``batch``; return the result of each message, or the error of all.

    The variables are hidden here, too: before Python 3.12, frames below a generator do not lead to
    those above it.
    """
    payloads = [outgoing.payload for outgoing in batch.messages if outgoing.payload is not None]
    earlier = batch.messages[0].ambiguous_send
    try:
        return request_results(
            client,
            [payload.email for payload in payloads],
            key=batch.key,
            sandbox=payloads[0].is_sandbox,
            wire_format=earlier.wire_format if earlier else None,
            is_repeat=any(outgoing.is_ambiguous for outgoing in batch.messages),
        )
    except TruncusError as error:
        # The earlier send may have been accepted; only some errors rule that out.
        is_ambiguous = any(outgoing.is_ambiguous for outgoing in batch.messages)
        error.ambiguous |= is_ambiguous and not rules_out_acceptance(error)
        return error


def _screened(batch: Batch, screening: Screening) -> tuple[list[Sent], Batch]:
    """Part a batch into the messages that were refused before the request, and the others.

    The others keep the key, of which no request was made; or a failed one, of which they are a part
    now.
    """
    refused: list[Sent] = []
    others: list[OutgoingMessage] = []
    for outgoing, found in zip(batch.messages, screening.emails, strict=True):
        if found.error is not None:
            refused.append((outgoing, SendOutcome.without_request(found.error)))
        elif outgoing.payload is not None:
            email = with_left_out(outgoing.payload.email, found.left_out)
            others.append(outgoing._replace(payload=replace(outgoing.payload, email=email)))
    is_part_of_earlier = refused and any(each.ambiguous_send for each in others)
    return refused, Batch(new_idempotency_key() if is_part_of_earlier else batch.key, others)


def split(batch: Batch, error: TruncusError) -> list[Batch]:
    """Return the parts of a refused batch that may fare better alone; none where none can.

    Nothing of a refused batch was accepted, so that its parts are requests of their own.
    """
    if error.ambiguous:
        return []
    senders = [
        "" if outgoing.payload is None else str(outgoing.payload.email["from"])
        for outgoing in batch.messages
    ]
    return [
        Batch(new_idempotency_key(), [batch.messages[index] for index in part])
        for part in parts_of(senders, error)
    ]


def _stops_the_list(error: TruncusError) -> bool:
    # Of a timeout: else a list of thousands would wait for each of its batches in turn.
    is_timeout = isinstance(error, AnswerLost) and error.code == contract.TIMEOUT_CODE
    return error.is_account_wide or is_timeout


def _remember_failure(
    batch: Batch, error: TruncusError, client: TruncusClient, *, now: float, wire_format: WireFormat
) -> None:
    """Remember the key of a failed request, for when its messages are sent again."""
    # Also after a server error: to use the key again is always safe.
    if error.ambiguous or error.met_service_failure or isinstance(error, ServerError):
        remember(
            batch,
            client,
            now=now,
            is_ambiguous=error.ambiguous,
            wire_format=error.wire_format or wire_format,
        )


# What became of a batch's messages ----------------------------------------------------------------


def _answered(batch: Batch, results: Sequence[SendResult]) -> list[Sent]:
    return [
        (
            outgoing,
            SendOutcome(
                result=result,
                error=None if result.is_accepted else refusal_of(result),
                idempotency_key=batch.key,
                attempts=result.attempts,
                batch_size=len(batch.messages),
                batch_index=_place(index, batch),
                left_out=left_out_of(outgoing.payload.email) if outgoing.payload else (),
            ),
        )
        for index, (outgoing, result) in enumerate(zip(batch.messages, results, strict=True))
    ]


def _forget(batch: Batch) -> None:
    for outgoing in batch.messages:
        forget(outgoing, batch.key)


def _failed(batch: Batch, error: TruncusError) -> list[Sent]:
    return [
        (
            outgoing,
            SendOutcome(
                error=error,
                idempotency_key=batch.key,
                attempts=error.attempts,
                batch_size=len(batch.messages),
                batch_index=_place(index, batch),
            ),
        )
        for index, outgoing in enumerate(batch.messages)
    ]


def _place(index: int, batch: Batch) -> int | None:
    return index if len(batch.messages) > 1 else None


def _untried(batch: Batch, stopped_by: TruncusError) -> list[Sent]:
    untried = copy.copy(stopped_by)
    untried.ambiguous = False  # no request carried them
    untried.attempts = 0
    ambiguous = copy.copy(untried)
    ambiguous.ambiguous = True  # an earlier call's may have
    return [
        (outgoing, SendOutcome(error=ambiguous if outgoing.is_ambiguous else untried))
        for outgoing in batch.messages
    ]


def _unsent(batch: Batch) -> list[Sent]:
    return [(outgoing, SendOutcome.without_request(outgoing.error)) for outgoing in batch.messages]
