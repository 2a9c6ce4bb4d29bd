"""Every answer of the API as a frozen dataclass, whichever dialect it came in.

Moments are aware datetimes in UTC. What an answer leaves out is ``None``, an empty tuple or an
empty mapping. Representations show ids and states, never addresses or content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from truncus_django.api import contract
from truncus_django.api.errors import InvalidAnswer, TruncusError, redacted


@dataclass(frozen=True, slots=True)
class MonthlyQuota:
    """The plan's emails of this month, from the headers of a successful answer (source A)."""

    limit: int
    sent: int
    remaining: int


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one email, as the answer to a send or as one item of a batch.

    Attributes:
        status: one of the states in :mod:`truncus_django.api.contract`.
        message_id: the id to ask Truncus about; ``None`` where the answer has none.
        reason, code, error: why an email bounced or was refused.
        send_at: when a scheduled email goes out.
        retry_at: when Truncus itself tries a queued email again.
        email_status: of a ``duplicate``, the state that the first send reached.
        original_global_message_id: of a ``duplicate`` by content, the email it repeats.
        suppressed_addresses: of a ``blocked`` email, the addresses on the suppression list.
        warnings: what Truncus found odd about an email that it sent.
        quota: the month's quota after this send, where it was told.
        attempts: how many requests it took.
        cause: of an email that ``failed`` without having been refused for good: why the request
            failed that was to send it in the form which the account takes.
    """

    status: str
    message_id: str | None = None
    global_message_id: str | None = None
    provider_message_id: str | None = None
    provider: str | None = None
    reason: str | None = None
    code: str | None = None
    error: str | None = None
    is_sandbox: bool = False
    send_at: datetime | None = None
    retry_at: datetime | None = None
    created_at: datetime | None = None
    email_status: str | None = None
    original_global_message_id: str | None = None
    suppressed_addresses: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = field(default=(), repr=False)
    quota: MonthlyQuota | None = None
    attempts: int = 1
    cause: TruncusError | None = field(default=None, repr=False, compare=False)

    @property
    def is_accepted(self) -> bool:
        """Whether Truncus took the email on, now or under the same key before.

        A state that is not in the contract comes with an answer of success and counts as
        accepted: to send such an email again would be the worse mistake.
        """
        status = self.email_status if self.status == contract.DUPLICATE else self.status
        return status not in contract.REFUSED_STATUSES

    @property
    def is_content_duplicate(self) -> bool:
        """Whether this email was held back because its content was sent a moment ago."""
        return self.status == contract.DUPLICATE and self.original_global_message_id is not None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch: ``results[i]`` belongs to ``emails[i]``.

    ``is_replay`` tells that the whole batch was answered with one ``duplicate``: it was accepted
    before, and its ids are not told again.
    """

    results: tuple[SendResult, ...]
    is_replay: bool = False
    quota: MonthlyQuota | None = None
    attempts: int = 1

    def count(self, *statuses: str) -> int:
        """Return how many emails ended in one of ``statuses``."""
        return sum(result.status in statuses for result in self.results)


@dataclass(frozen=True, slots=True)
class Validation:
    """What Truncus thinks of an email that was only looked at, never created.

    ``recommendation`` is ``safe_to_send``, ``send_with_caution`` or ``do_not_send``.
    """

    is_valid: bool
    confidence_score: float
    recommendation: str
    checks: Mapping[str, Any] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ReportedEvent:
    """One event in an email's life; ``type`` is one of ``contract.EVENT_TYPES`` or a new one."""

    id: str | None
    type: str
    created_at: datetime | None
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class EmailDetails:
    """An email, read back.

    Engagement is the same whichever form it came in: where Truncus lists events, they are
    counted; where it counts, there are no events. ``answered_at`` is what Truncus's clock said when
    it answered, to the second. ``quota`` is the month's, where it was told.
    """

    id: str
    status: str
    global_message_id: str | None = None
    provider_message_id: str | None = None
    provider: str | None = None
    domain: str | None = None
    template: str | None = None
    is_sandbox: bool = False
    to: tuple[str, ...] = field(default=(), repr=False)
    cc: tuple[str, ...] = field(default=(), repr=False)
    bcc: tuple[str, ...] = field(default=(), repr=False)
    subject: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scheduled_at: datetime | None = None
    retry_count: int = 0
    retry_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    open_count: int = 0
    click_count: int = 0
    first_opened_at: datetime | None = None
    last_opened_at: datetime | None = None
    events: tuple[ReportedEvent, ...] = field(default=(), repr=False)
    intelligence: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lifecycle: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    latency: Mapping[str, Any] = field(default_factory=dict)
    answered_at: datetime | None = None
    quota: MonthlyQuota | None = None


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """An event as ``GET /api/v1/events`` lists it; kept by Truncus for 90 days."""

    event_id: str
    message_id: str
    status: str
    timestamp: datetime | None


@dataclass(frozen=True, slots=True)
class Replay:
    """A webhook that Truncus sends again; the email itself is not."""

    is_replayed: bool
    event_id: str | None
    message_id: str | None
    dispatched_at: datetime | None


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A scheduled email that will not be sent."""

    id: str
    status: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Proof that Truncus can be reached and knows the API key.

    ``latency_s`` is the time of one request and its answer, on a connection that is open.
    ``server_time`` is what Truncus's clock said when it answered, to the second.
    """

    latency_s: float
    base_url: str
    is_sandbox: bool
    server_time: datetime | None = None


# Reading --------------------------------------------------------------------------------------

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Moments outside of these make no sense: before there was a Truncus (often an empty value), or so
close to the end of time that not every time zone can show them."""


def read_moment(value: Any) -> datetime | None:
    """Read ISO 8601 or unix seconds, as a number or a text; without a time zone it is UTC.

    Returns the moment in UTC; ``None`` for what is none, or not between :data:`EARLIEST` and
    :data:`LATEST`.
    """
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            moment = datetime.fromisoformat(value)
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(float(value), UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return moment if EARLIEST <= moment <= LATEST else None


def read_send(
    body: Mapping[str, Any], *, attempts: int = 1, quota: MonthlyQuota | None = None
) -> SendResult:
    """Return the result in ``body``, the answer to a send or an item of a batch.

    Raises:
        InvalidAnswer: there is no ``status``.
    """
    status = body.get("status")
    if not isinstance(status, str) or not status:
        raise InvalidAnswer("The answer to a send has no status", ambiguous=True)
    sandbox = body.get("sandbox") is True or status == contract.SANDBOX
    provider_id = _text(body, "provider_message_id")
    if provider_id is not None and provider_id.startswith("sandbox-"):
        sandbox = True
    return SendResult(
        status=status,
        message_id=_text(body, "message_id") or _text(body, "id"),
        global_message_id=_text(body, "global_message_id"),
        provider_message_id=provider_id,
        provider=_text(body, "provider"),
        reason=_told(body, "reason"),
        code=_told(body, "code"),
        error=_told(body, "error"),
        is_sandbox=sandbox,
        send_at=_moment(body, "send_at"),
        retry_at=_moment(body, "retry_at"),
        created_at=_moment(body, "created_at"),
        email_status=_text(body, "email_status"),
        original_global_message_id=_text(body, "original_global_message_id"),
        suppressed_addresses=_texts(body, "suppressed_addresses"),
        warnings=_texts(body, "warnings"),
        quota=quota,
        attempts=attempts,
    )


def read_batch(
    body: Mapping[str, Any], *, size: int, attempts: int = 1, quota: MonthlyQuota | None = None
) -> BatchResult:
    """Return the results in ``body``, the answer to a batch of ``size`` emails.

    One ``duplicate`` for the whole batch is read as a ``duplicate`` for each email, without ids
    (contract, "Where the sources disagree", 5).

    Raises:
        InvalidAnswer: an email has no result, or there are results for no email.
    """
    items = body.get("results")
    if not isinstance(items, list):
        if body.get("status") == contract.DUPLICATE:
            one = SendResult(
                status=contract.DUPLICATE,
                email_status=_text(body, "email_status"),
                created_at=_moment(body, "created_at"),
                quota=quota,
                attempts=attempts,
            )
            return BatchResult((one,) * size, is_replay=True, quota=quota, attempts=attempts)
        raise InvalidAnswer("The answer to a batch has no results", ambiguous=True)
    found: list[SendResult | None] = [None] * size
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise InvalidAnswer("A result of the batch is no object", ambiguous=True)
        index = item.get("index", place)
        if not isinstance(index, int) or not 0 <= index < size:
            raise InvalidAnswer("A result belongs to no email of the batch", ambiguous=True)
        found[index] = read_send(item, attempts=attempts, quota=quota)
    results = tuple(result for result in found if result is not None)
    if len(results) != size:
        raise InvalidAnswer(
            f"The answer tells of {len(results)} of {size} emails of the batch", ambiguous=True
        )
    return BatchResult(results, quota=quota, attempts=attempts)


def read_quota(headers: Mapping[str, str]) -> MonthlyQuota | None:
    """Return the monthly quota in the headers of an answer, or ``None``."""
    if contract.MONTHLY_LIMIT_HEADER not in headers:
        return None
    try:
        return MonthlyQuota(
            limit=int(headers[contract.MONTHLY_LIMIT_HEADER]),
            sent=int(headers.get(contract.MONTHLY_SENT_HEADER, "")),
            remaining=int(headers.get(contract.MONTHLY_REMAINING_HEADER, "")),
        )
    except ValueError:
        return None


def read_server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the moment in the ``Date`` header of an answer, or ``None``."""
    try:
        moment = parsedate_to_datetime(headers.get("Date", ""))
    except (OverflowError, TypeError, ValueError):
        return None
    return read_moment(moment.isoformat())


def read_validation(body: Mapping[str, Any]) -> Validation:
    """Return the validation in ``body``; raises :class:`InvalidAnswer` if it is none."""
    valid = body.get("valid")
    if not isinstance(valid, bool):
        raise InvalidAnswer("The answer to a validation does not say whether it is valid")
    return Validation(
        is_valid=valid,
        confidence_score=_number(body, "confidence_score"),
        recommendation=_text(body, "recommendation") or "",
        checks=_mapping(body, "checks"),
        warnings=_texts(body, "warnings"),
    )


def read_email(
    body: Mapping[str, Any],
    *,
    answered_at: datetime | None = None,
    quota: MonthlyQuota | None = None,
) -> EmailDetails:
    """Return the email in ``body``, in either form; :class:`InvalidAnswer` if it is none."""
    email_id = _text(body, "id") or _text(body, "message_id")
    status = _text(body, "status")
    if email_id is None or status is None:
        raise InvalidAnswer("An email was read back without id or status")
    events = tuple(_read_event(event) for event in _objects(body, "events"))
    opens = sorted(e.created_at for e in events if e.type == "opened" and e.created_at is not None)
    first_open = opens[0] if opens else _moment(body, "opened_at")
    return EmailDetails(
        id=email_id,
        status=status,
        global_message_id=_text(body, "global_message_id"),
        provider_message_id=_text(body, "provider_message_id"),
        provider=_text(body, "provider"),
        domain=_text(body, "domain"),
        template=_text(body, "template"),
        is_sandbox=body.get("sandbox") is True or status == contract.SANDBOX,
        to=_texts(body, "to"),
        cc=_texts(body, "cc"),
        bcc=_texts(body, "bcc"),
        subject=_text(body, "subject") or "",
        metadata=_mapping(body, "metadata"),
        scheduled_at=_moment(body, "scheduled_at"),
        retry_count=_count(body, "retry_count"),
        retry_at=_moment(body, "retry_at"),
        created_at=_moment(body, "created_at"),
        updated_at=_moment(body, "updated_at"),
        open_count=max(_count(body, "open_count"), sum(event.type == "opened" for event in events)),
        click_count=max(
            _count(body, "click_count"), sum(event.type == "clicked" for event in events)
        ),
        first_opened_at=first_open,
        last_opened_at=opens[-1] if opens else None,
        events=events,
        intelligence=_mapping(body, "intelligence"),
        lifecycle=tuple(_objects(body, "lifecycle")),
        latency=_mapping(body, "latency"),
        answered_at=answered_at,
        quota=quota,
    )


def read_events(body: Mapping[str, Any]) -> tuple[DeliveryEvent, ...]:
    """Return the events in ``body``; raises :class:`InvalidAnswer` if there is no such list."""
    if not isinstance(body.get("events"), list):
        raise InvalidAnswer("The answer has no list of events")
    return tuple(
        DeliveryEvent(
            event_id=_text(event, "event_id") or _text(event, "id") or "",
            message_id=_text(event, "message_id") or "",
            status=_text(event, "status") or _text(event, "type") or "",
            timestamp=_moment(event, "timestamp"),
        )
        for event in _objects(body, "events")
    )


def read_replay(body: Mapping[str, Any]) -> Replay:
    """Return the replay in ``body``."""
    return Replay(
        is_replayed=bool(body.get("replayed")),
        event_id=_text(body, "event_id"),
        message_id=_text(body, "message_id"),
        dispatched_at=_moment(body, "dispatched_at"),
    )


def read_cancellation(body: Mapping[str, Any]) -> Cancellation:
    """Return the cancellation in ``body``; raises :class:`InvalidAnswer` if it is none."""
    email_id, status = _text(body, "id"), _text(body, "status")
    if email_id is None or status is None:
        raise InvalidAnswer("The answer to a cancellation has no id or status")
    return Cancellation(email_id, status)


def _read_event(event: Mapping[str, Any]) -> ReportedEvent:
    return ReportedEvent(
        id=_text(event, "id"),
        type=_text(event, "type") or "",
        created_at=_moment(event, "created_at"),
        payload=_mapping(event, "payload"),
    )


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    return value if isinstance(value, str) and value else None


def _told(body: Mapping[str, Any], key: str) -> str | None:
    """Return what the API wrote for people or programs, without addresses and keys."""
    text = _text(body, key)
    return text if text is None else redacted(text)


def _texts(body: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = body.get(key)
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _mapping(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _objects(body: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    value = body.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(body: Mapping[str, Any], key: str) -> float:
    value = body.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _count(body: Mapping[str, Any], key: str) -> int:
    number = _number(body, key)
    return int(number) if 0 <= number < 2**31 else 0


def _moment(body: Mapping[str, Any], key: str) -> datetime | None:
    """Return the moment under ``key``; what is none is passed over, as no send hangs on it."""
    return read_moment(body.get(key))
