"""Payloads → requests → results: which messages share a request, and what a refusal means.

A batch of one goes to the API's send endpoint, a larger one to its batch endpoint.
"""

import copy
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from truncus_django.api import contract
from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    DomainError,
    EmailRefused,
    InvalidRequest,
    MessageError,
    OutcomeUnknown,
    ServerError,
    TruncusError,
    kind_of,
    loggable_id,
    rules_out_acceptance,
)
from truncus_django.api.keys import new_idempotency_key
from truncus_django.api.results import SendResult
from truncus_django.sending.ambiguous import remember
from truncus_django.sending.outgoing import Batch, OutgoingMessage

logger = logging.getLogger("truncus_django")

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch is closed before it grows past this; no figure is published for a request's size."""

MAX_FAILED_BATCHES = 2
"""So many batches in a row that failed to the end of their retries: the service is down."""


# Which messages share a request -------------------------------------------------------------------


def plan(outgoing_messages: Iterable[OutgoingMessage], *, now: float) -> Iterator[Batch]:
    """Yield the requests that carry the messages, each as soon as it is full.

    * A message with a key of its own goes alone, so that the key is worth what it says.
    * Messages whose earlier request may have been accepted make up that very request again.
    * The others share requests: up to 100, all sandbox or none, within a bound of bytes.

    A message whose earlier request cannot be made up again gets an :class:`OutcomeUnknown`.
    """
    filling: dict[bool, list[OutgoingMessage]] = {}
    sizes: dict[bool, int] = {}
    repeated: dict[str, list[OutgoingMessage]] = {}
    for outgoing in outgoing_messages:
        payload = outgoing.payload
        if payload is None or outgoing.has_outcome:
            continue
        if payload.idempotency_key is not None:
            yield Batch(payload.idempotency_key, [outgoing])
            continue
        if outgoing.ambiguous_send is not None:
            repeated.setdefault(outgoing.ambiguous_send.idempotency_key, []).append(outgoing)
            continue
        kind = payload.is_sandbox
        members = filling.setdefault(kind, [])
        if members and sizes[kind] + payload.size > MAX_BATCH_BYTES:
            yield Batch(new_idempotency_key(), members)
            members = filling[kind] = []
        sizes[kind] = payload.size + (sizes[kind] if members else 0)
        members.append(outgoing)
        if len(members) == contract.MAX_BATCH_SIZE:
            yield Batch(new_idempotency_key(), filling.pop(kind))
    for members in filling.values():
        yield Batch(new_idempotency_key(), members)
    for key, members in repeated.items():
        if _makes_up_again(members, now=now):
            yield Batch(key, sorted(members, key=_place_in_batch))
            continue
        # Where Truncus said that it failed, the messages may as well go anew.
        for outgoing in members:
            if not outgoing.has_outcome:
                outgoing.ambiguous_send = None
                yield Batch(new_idempotency_key(), [outgoing])


def _makes_up_again(members: Sequence[OutgoingMessage], *, now: float) -> bool:
    """Whether ``members`` are a whole earlier request; if not, tell the ambiguous ones why."""
    first = members[0].ambiguous_send
    if first is None:
        return False
    complete = {_place_in_batch(outgoing) for outgoing in members} == set(range(first.batch_size))
    in_time = now - first.since < contract.IDEMPOTENCY_LIFE_S
    if complete and in_time and len(members) == first.batch_size:
        return True
    text = (
        "An earlier send of this message may have been accepted, over 24 hours ago; Truncus no "
        "longer knows its key. Find out in Truncus, then send a new message object, or set "
        "idempotency_key on this one."
        if not in_time
        else f"An earlier send of this message went out in a batch of {first.batch_size} that may "
        "have been accepted. Send all messages of that batch again in one call, which cannot send "
        "them twice, or a new message object if you know that it was not accepted."
    )
    for outgoing in members:
        if outgoing.is_ambiguous:
            outgoing.error = OutcomeUnknown(text)
    return False


def _place_in_batch(outgoing: OutgoingMessage) -> int:
    return outgoing.ambiguous_send.index if outgoing.ambiguous_send else 0


# Sending ------------------------------------------------------------------------------------------


def send_batches(client: TruncusClient, batches: Iterable[Batch], *, now: float) -> Iterator[Batch]:
    """Send ``batches`` one after the other, and yield each once its outcome is known.

    A batch that is refused for one of its emails is sent in parts. After an error that holds
    for the whole account, or for the whole service, the rest is not tried: it would fail alike.
    """
    stopped_by: TruncusError | None = None
    failed_in_a_row = 0
    for planned in batches:
        waiting = deque([planned])
        while waiting:
            batch = waiting.popleft()
            if stopped_by is not None:
                _leave_untried(batch, stopped_by)
                yield batch
                continue
            error = _send(client, batch, now=now)
            parts = split(batch, error) if error is not None else []
            if parts:
                waiting.extendleft(reversed(parts))
                continue
            if error is None:
                failed_in_a_row = 0
            else:
                _record_failure(client, batch, error, now=now)
                failed_in_a_row = failed_in_a_row + 1 if error.is_service_failure else 0
                if _stops_the_list(error) or failed_in_a_row == MAX_FAILED_BATCHES:
                    stopped_by = error
            yield batch


def _send(client: TruncusClient, batch: Batch, *, now: float) -> TruncusError | None:
    """Make the request of ``batch``; give each message its result, or return the error of all."""
    for index, outgoing in enumerate(batch.outgoing_messages):
        outgoing.key, outgoing.batch_size = batch.key, len(batch.outgoing_messages)
        outgoing.batch_index = index if len(batch.outgoing_messages) > 1 else None
        outgoing.wire_format = client.wire_format
    try:
        for outgoing, result in zip(batch.outgoing_messages, _results(client, batch), strict=True):
            outgoing.result = result
            if not result.is_accepted:
                outgoing.error = refusal_of(result)
    except TruncusError as error:
        # What is sent again may have been accepted before, whatever most answers say.
        is_ambiguous = any(outgoing.is_ambiguous for outgoing in batch.outgoing_messages)
        error.ambiguous |= is_ambiguous and not rules_out_acceptance(error)
        return error
    except BaseException:
        # A task's time limit, Ctrl-C: the request may have been on its way.
        remember(batch, client, now=now, is_ambiguous=True)
        for outgoing in batch.outgoing_messages:
            outgoing.error = OutcomeUnknown("The send was interrupted before its answer came.")
        raise
    return None


def _results(client: TruncusClient, batch: Batch) -> Sequence[SendResult]:
    payloads = [
        outgoing.payload for outgoing in batch.outgoing_messages if outgoing.payload is not None
    ]
    earlier = batch.outgoing_messages[0].ambiguous_send
    return request_results(
        client,
        [payload.email for payload in payloads],
        key=batch.key,
        sandbox=payloads[0].is_sandbox,
        wire_format=earlier.wire_format if earlier else None,
    )


def request_results(
    client: TruncusClient,
    emails: Sequence[Mapping[str, Any]],
    *,
    key: str,
    sandbox: bool,
    wire_format: WireFormat | None = None,
) -> Sequence[SendResult]:
    """Make the request that sends ``emails``, and return the result of each.

    Args:
        client: the account.
        emails: the API's fields of 1 to 100 emails.
        key: the request's idempotency key.
        sandbox: check and store only.
        wire_format: that of an earlier request under the key whose answer was lost, as its error
            tells.

    Raises:
        TruncusError: the request failed as a whole.
    """
    if len(emails) == 1:
        return [client.send(emails[0], idempotency_key=key, sandbox=sandbox)]
    return client.send_batch(
        emails, idempotency_key=key, sandbox=sandbox, wire_format=wire_format
    ).results


def _record_failure(
    client: TruncusClient, batch: Batch, error: TruncusError, *, now: float
) -> None:
    """Give every message the error; remember the key where it is of use."""
    for outgoing in batch.outgoing_messages:
        outgoing.error = error
    if error.ambiguous or isinstance(error, ServerError):
        # Also where the server says that it failed: the same key is never worse.
        remember(
            batch, client, now=now, is_ambiguous=error.ambiguous, wire_format=error.wire_format
        )


def _leave_untried(batch: Batch, stopped_by: TruncusError) -> None:
    untried = copy.copy(stopped_by)
    untried.ambiguous = False  # no request carried them
    untried.attempts = 0
    ambiguous = copy.copy(untried)
    ambiguous.ambiguous = True  # but for those of an earlier call
    for outgoing in batch.outgoing_messages:
        outgoing.error = ambiguous if outgoing.is_ambiguous else untried


def split(batch: Batch, error: TruncusError) -> list[Batch]:
    """Return the parts of a refused batch that may fare better alone; none where none can.

    Nothing of a refused batch was accepted, so that its parts are requests of their own.
    """
    if error.ambiguous:
        return []
    senders = [
        "" if outgoing.payload is None else str(outgoing.payload.email["from"])
        for outgoing in batch.outgoing_messages
    ]
    return [
        Batch(new_idempotency_key(), [batch.outgoing_messages[index] for index in part])
        for part in parts_of(senders, error)
    ]


def parts_of(senders: Sequence[str], error: TruncusError) -> list[list[int]]:
    """Return the parts, as places, that emails refused together may fare better in.

    None where none can: the senders of each domain where one domain was refused, else halves.
    """
    if len(senders) < 2:
        return []
    if isinstance(error, DomainError):
        by_domain: dict[str, list[int]] = {}
        for place, sender in enumerate(senders):
            domain = sender.rpartition("@")[2].rstrip(">").lower()
            by_domain.setdefault(domain, []).append(place)
        parts = list(by_domain.values())
        return parts if len(parts) > 1 else []
    if isinstance(error, InvalidRequest | EmailRefused | MessageError):
        middle = len(senders) // 2
        places = list(range(len(senders)))
        return [places[:middle], places[middle:]]
    return []


def refusal_of(result: SendResult) -> TruncusError:
    """Return the error of an email that was not accepted.

    That is what the same code means as the answer to a request: a limit, the sender's domain, the
    API key. Truncus's own failure is not ambiguous here, because Truncus says that it failed. All
    else is an :class:`EmailRefused`. Where a request of its own was to send the email and failed,
    it is the error of that request.
    """
    if result.cause is not None:
        return result.cause
    if result.status == contract.DUPLICATE:
        error: TruncusError = EmailRefused(
            f"Truncus knows this email's key, and had {result.email_status} the email then; "
            "use another idempotency_key to send it anyway",
            is_from_truncus=True,
        )
    else:
        code, reason = _code_and_reason(result)
        kind = kind_of(code) or EmailRefused
        error = kind(
            f"Truncus {result.status} the email" + (f": {reason}" if reason else ""),
            code=code,
            is_from_truncus=True,
        )
    error.attempts = result.attempts
    return error


def _code_and_reason(result: SendResult) -> tuple[str | None, str | None]:
    """Return the code of a refusal, and its words; a reason or an error may be the code."""
    if result.code is not None:
        return result.code, result.reason or result.error
    if result.reason in contract.REJECTION_REASONS or kind_of(result.reason) is not None:
        return result.reason, result.error
    if kind_of(result.error) is not None:
        return result.error, result.reason
    return None, result.reason or result.error


def note_acceptance(result: SendResult) -> None:
    """Log that an email was accepted, and as a warning what its sender may not expect."""
    message_id = loggable_id(result.message_id)
    status = result.status if result.status in contract.ACCEPTED_STATUSES else "another status"
    logger.debug("Truncus accepted email %s: %s", message_id, status)
    if result.is_content_duplicate:
        logger.warning(
            "Truncus did not send an email because it had just sent the same content: %s",
            loggable_id(result.original_global_message_id),
        )
    if result.warnings:
        logger.warning("Truncus sent email %s with %d warnings", message_id, len(result.warnings))


def _stops_the_list(error: TruncusError) -> bool:
    # Of a timeout: else a list of thousands would wait for each of its batches in turn.
    is_timeout = isinstance(error, AnswerLost) and error.code == contract.TIMEOUT_CODE
    return error.is_account_wide or is_timeout
