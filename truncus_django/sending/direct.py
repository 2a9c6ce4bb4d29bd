"""Batches → requests → what became of each message."""

import copy
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
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
from truncus_django.awaited_send import current_awaited_send, once_answer_is_learned
from truncus_django.sending.ambiguous import MergedSends, forget, remember
from truncus_django.sending.outgoing import Batch, SendOutcome, Sent
from truncus_django.sending.requests import parts_of, refusal_of, request_results

MAX_FAILED_BATCHES = 2
"""After this many batches in a row that failed to the end of their retries the service is down."""


def send_batches(
    client: TruncusClient, batches: Iterable[Batch], *, now: float
) -> Generator[Sequence[Sent]]:
    """Send ``batches`` one after the other, and yield what became of the messages of each.

    A batch that is refused for one of its emails is sent in parts. After an error that concerns
    the whole account, or the whole service, the rest is not tried: it would fail alike. Where a
    time limit or Ctrl-C breaks into a request, its messages are yielded before that is raised.
    Where nobody awaits the send any more, no further request is begun.

    Args:
        now: unix seconds.
    """
    merged = MergedSends()
    is_whole = False
    try:
        for batch, sent, wire_format in _requested(client, batches, now=now):
            try:
                yield sent
            finally:  # once it is recorded, and also where the caller breaks off
                ambiguous = [each for each, outcome in sent if _is_ambiguous(outcome)]
                merged.add(batch, wire_format=wire_format, ambiguous=ambiguous)
        merged.finish(client, now=now)
        is_whole = True
    finally:
        if not is_whole:
            merged.break_off(client, now=now)


def _requested(
    client: TruncusClient, batches: Iterable[Batch], *, now: float
) -> Iterator[tuple[Batch, Sequence[Sent], WireFormat | None]]:
    """Yield each batch, or part of one, with what became of it, and the form it was accepted in."""
    stopped_by: TruncusError | None = None
    failed_in_a_row = 0
    awaited = current_awaited_send()
    for planned in batches:
        waiting = deque([planned])
        while waiting:
            batch = waiting.popleft()
            if awaited is not None:
                awaited.stop_if_cancelled()
            if not batch.key:
                yield batch, _unsent(batch), None
                continue
            if stopped_by is not None:
                yield batch, _untried(batch, stopped_by), None
                continue
            earlier = batch.messages[0].ambiguous_send
            wire_format = earlier.wire_format if earlier else client.wire_format
            try:
                answer = _request(client, batch)
                if isinstance(answer, TruncusError):
                    clear_frames(answer)
                    parts = split(batch, answer)
                    if parts:
                        waiting.extendleft(reversed(parts))
                        continue
                    _remember_failure(batch, answer, client, now=now, wire_format=wire_format)
                    sent, accepted_in = _failed(batch, answer), None
                else:
                    sent, accepted_in = _answered(batch, answer), wire_format
                    if awaited is not None:  # whoever is cancelled learns no answer
                        remember(batch, client, now=now, is_ambiguous=True, wire_format=wire_format)
                    once_answer_is_learned(partial(_forget, batch))
            except BaseException:
                # The request may have been on its way, or its answer is not noted yet.
                remember(batch, client, now=now, is_ambiguous=True, wire_format=wire_format)
                interrupted = OutcomeUnknown("The send was interrupted before its answer came.")
                yield batch, _failed(batch, interrupted), None
                raise
            if isinstance(answer, TruncusError):
                failed_in_a_row = failed_in_a_row + 1 if answer.is_service_failure else 0
                if _stops_the_list(answer) or failed_in_a_row == MAX_FAILED_BATCHES:
                    stopped_by = answer
            else:
                failed_in_a_row = 0
            yield batch, sent, accepted_in


@sensitive_variables()
def _request(client: TruncusClient, batch: Batch) -> Sequence[SendResult] | TruncusError:
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
        )
    except TruncusError as error:
        # The earlier send may have been accepted; only some errors rule that out.
        is_ambiguous = any(outgoing.is_ambiguous for outgoing in batch.messages)
        error.ambiguous |= is_ambiguous and not rules_out_acceptance(error)
        return error


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
    if error.ambiguous or isinstance(error, ServerError):
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


def _is_ambiguous(outcome: SendOutcome) -> bool:
    return outcome.error is not None and outcome.error.ambiguous


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
