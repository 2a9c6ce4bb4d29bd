"""Requests that send emails: what direct sends and the outbox share.

A request for one email goes to the API's send endpoint, one for several to its batch endpoint. What
must hold for every email, whatever way it takes, is seen to here.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from truncus_django import telemetry
from truncus_django.api import contract
from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    DomainError,
    EmailRefused,
    InvalidRequest,
    MessageError,
    TruncusError,
    kind_of,
    loggable_id,
)
from truncus_django.api.results import SendResult
from truncus_django.conf import get_settings
from truncus_django.sending.guard import Guard, current_guard
from truncus_django.sending.screening import (
    LEFT_OUT_FIELD,
    Screened,
    as_screened,
    left_out_of,
    screen,
    with_left_out,
)

logger = logging.getLogger("truncus_django")

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch is closed before it grows past this; no figure is published for a request's size."""


@dataclass(frozen=True, slots=True)
class Screening:
    """What the look-up of recipients has changed about the emails of a request, before it was made.

    Whoever was to make it notes that, and makes the request of what is left. So what is noted of a
    request whose answer is lost is what was in it, and it can be repeated unchanged.

    Attributes:
        emails: what was found of each.
    """

    emails: Sequence[Screened]


def request_results(
    client: TruncusClient,
    emails: Sequence[Mapping[str, Any]],
    *,
    key: str,
    sandbox: bool,
    wire_format: WireFormat | None = None,
    is_repeat: bool = False,
    batch_id: UUID | None = None,
    traceparents: Iterable[str | None] = (),
) -> Sequence[SendResult] | Screening:
    """Make the request that sends ``emails``, and return the result of each.

    Where a suppressed recipient is among theirs, no request is made.

    Args:
        client: the account.
        emails: the API's fields of 1 to 100 emails, and this package's own.
        key: the request's idempotency key.
        sandbox: check and store only.
        wire_format: that of an earlier request under the key whose answer was lost, as its error
            tells.
        is_repeat: whether an earlier request under the key may have been accepted. What was looked
            up then is not looked up again: the request must stay the same.
        batch_id, traceparents: for telemetry: the outbox's batch, and the spans that its emails
            were enqueued by.

    Raises:
        EmailRefused: the guard of a staging site lets one of them go to nobody.
        TruncusError: the request failed as a whole.
    """
    if not is_repeat:
        screened = screen(emails, get_settings())
        if any(map(_is_changed, emails, screened)):
            return Screening(screened)
    guard = current_guard()
    allowed = [_as_allowed(email, guard) for email in emails]
    with telemetry.requesting(
        client.base_url, len(allowed), batch_id=batch_id, traceparents=traceparents
    ) as observed:
        results: Sequence[SendResult]
        if len(allowed) == 1:
            results = [client.send(allowed[0], idempotency_key=key, sandbox=sandbox)]
        else:
            results = client.send_batch(
                allowed, idempotency_key=key, sandbox=sandbox, wire_format=wire_format
            ).results
        if observed is not None:
            observed.note(results)
    return results


def _is_changed(email: Mapping[str, Any], screened: Screened) -> bool:
    if not screened.left_out and LEFT_OUT_FIELD not in email:
        return screened.error is not None
    return screened.error is not None or screened.left_out != left_out_of(email)


def as_allowed_now(email: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Return an email as another mailer may send it, and the recipients who are left out.

    Raises:
        EmailRefused: its recipients are suppressed, or the guard of a staging site lets it go to
            nobody.
        MessageError: it is one of a list, and nobody knows whether its recipient unsubscribed.
    """
    [screened] = screen([email], get_settings())
    if screened.error is not None:
        raise screened.error
    changed = with_left_out(email, screened.left_out)
    return _as_allowed(changed, current_guard()), screened.left_out


def _as_allowed(email: Mapping[str, Any], guard: Guard | None) -> Mapping[str, Any]:
    """Return the API's fields of an email that was screened, as the guard lets it go.

    The real recipients were looked up; now they may be replaced.
    """
    plain = as_screened(email)
    return plain if guard is None else guard(plain)


def parts_of(senders: Sequence[str], error: TruncusError) -> list[list[int]]:
    """Return smaller groups of refused emails to send apart, as lists of indexes; ``[]`` if none.

    If a domain was refused, the groups are the senders of each domain, else halves.
    """
    if len(senders) < 2:
        return []
    if isinstance(error, DomainError):
        by_domain: dict[str, list[int]] = {}
        for place, sender in enumerate(senders):
            by_domain.setdefault(domain_of(sender), []).append(place)
        parts = list(by_domain.values())
        return parts if len(parts) > 1 else []
    if isinstance(error, InvalidRequest | EmailRefused | MessageError):
        middle = len(senders) // 2
        places = list(range(len(senders)))
        return [places[:middle], places[middle:]]
    return []


def domain_of(sender: str) -> str:
    """Return the domain of a sender, in small letters."""
    return sender.rpartition("@")[2].rstrip(">").lower()


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
    if logger.isEnabledFor(logging.DEBUG):  # every email of a long list comes here
        message_id = loggable_id(result.message_id)
        status = result.status if result.status in contract.ACCEPTED_STATUSES else "another status"
        logger.debug(
            "Truncus accepted email %s: %s",
            message_id,
            status,
            extra={
                "truncus_event": "email_accepted",
                "truncus_message_id": message_id,
                "truncus_status": status,
            },
        )
    if result.is_content_duplicate:
        original_id = loggable_id(result.original_global_message_id)
        logger.warning(
            "Truncus did not send an email because it had just sent the same content: %s",
            original_id,
            extra={"truncus_event": "email_repeats_content", "truncus_message_id": original_id},
        )
    if result.warnings:
        message_id = loggable_id(result.message_id)
        logger.warning(
            "Truncus sent email %s with %d warnings",
            message_id,
            len(result.warnings),
            extra={
                "truncus_event": "email_accepted_with_warnings",
                "truncus_message_id": message_id,
                "truncus_count": len(result.warnings),
            },
        )
