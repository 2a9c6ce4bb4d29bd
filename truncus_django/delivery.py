"""Payloads → requests → results: which messages share a request, and what a refusal means.

A *parcel* is one message on its way, a *batch* the parcels of one request. A batch of one goes to
the API's send endpoint, a larger one to its batch endpoint.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.core.mail import EmailMessage

from truncus_django.api import contract
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    AuthenticationError,
    ConnectionFailed,
    DomainError,
    EmailRefused,
    InvalidRequest,
    MessageError,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ScopeError,
    ServerError,
    TLSError,
    TruncusError,
)
from truncus_django.api.keys import new_idempotency_key
from truncus_django.api.results import SendResult
from truncus_django.message import PendingSend
from truncus_django.payload import Payload

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""A batch is closed before it grows past this; no figure is published for a request's size."""


@dataclass(slots=True, eq=False)
class Parcel:
    """One message on its way, and what became of it.

    Attributes:
        index: its place in the list that was given to ``send_messages()``.
        payload: what is sent; ``None`` where the message could not become one.
        pending: of an earlier send whose outcome is unknown, if the message is still the same.
        occurrence: how often the same message object comes before it in the list.
        fingerprint: of the payload before receivers changed it, where there are any.
        result, error: at the end, one of them is set (both where Truncus refused this e-mail), or
            ``is_cancelled`` is.
    """

    index: int
    message: EmailMessage
    payload: Payload | None = field(default=None, repr=False)
    pending: PendingSend | None = None
    key: str | None = None
    batch_size: int = 1
    result: SendResult | None = None
    error: TruncusError | None = None
    is_cancelled: bool = False
    occurrence: int = 0
    fingerprint: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it is to be sent and nothing has become of it yet."""
        return self.payload is not None and not (self.result or self.error or self.is_cancelled)


@dataclass(frozen=True, slots=True)
class Batch:
    """The parcels of one request, in their order, and the request's idempotency key."""

    key: str
    parcels: Sequence[Parcel]


def plan(parcels: Iterable[Parcel], *, now: float) -> list[Batch]:
    """Return the requests that carry ``parcels``.

    * A message with a key of its own goes alone, so that the key is worth what it says.
    * Messages whose earlier request may have been accepted make up that very request again.
    * The others share requests: up to 100, all sandbox or none, within a bound of bytes.

    A pending message whose request cannot be made up again gets an :class:`OutcomeUnknown`.
    """
    batches: list[Batch] = []
    open_batches: dict[bool, list[Parcel]] = {}
    sizes: dict[bool, int] = {}
    pending: dict[str, list[Parcel]] = {}
    for parcel in parcels:
        payload = parcel.payload
        if payload is None or not parcel.is_waiting:
            continue
        if payload.idempotency_key is not None:
            batches.append(Batch(payload.idempotency_key, [parcel]))
            continue
        if parcel.pending is not None:
            pending.setdefault(parcel.pending.idempotency_key, []).append(parcel)
            continue
        kind = payload.is_sandbox
        members = open_batches.get(kind)
        if (
            members is None
            or len(members) == contract.MAX_BATCH_SIZE
            or sizes[kind] + payload.size > MAX_BATCH_BYTES
        ):
            members = open_batches[kind] = []
            sizes[kind] = 0
            batches.append(Batch(new_idempotency_key(), members))
        members.append(parcel)
        sizes[kind] += payload.size
    for key, members in pending.items():
        if _makes_up_again(members, now=now):
            batches.append(Batch(key, sorted(members, key=_place_in_batch)))
    return batches


def _makes_up_again(members: Sequence[Parcel], *, now: float) -> bool:
    """Whether ``members`` are a whole earlier request; if not, tell each why."""
    first = members[0].pending
    if first is None:
        return False
    complete = {_place_in_batch(parcel) for parcel in members} == set(range(first.batch_size))
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
    for parcel in members:
        parcel.error = OutcomeUnknown(text)
    return False


def _place_in_batch(parcel: Parcel) -> int:
    return parcel.pending.index if parcel.pending else 0


def deliver(client: TruncusClient, batches: Iterable[Batch], *, now: float) -> None:
    """Send ``batches`` one after the other, and set result or error of every parcel.

    After an error that holds for the whole account, the rest is not tried: it would fail alike.
    """
    stopped_by: TruncusError | None = None
    for batch in batches:
        if stopped_by is None:
            stopped_by = _send_whole(client, batch, now=now)
        else:
            _leave_untried(batch.parcels, stopped_by)


def _leave_untried(parcels: Iterable[Parcel], stopped_by: TruncusError) -> None:
    error = copy.copy(stopped_by)
    error.ambiguous = False  # no request carried them
    error.attempts = 0
    for parcel in parcels:
        parcel.error = error


def _send_whole(client: TruncusClient, batch: Batch, *, now: float) -> TruncusError | None:
    """Send one batch, in parts where it is refused for one of them.

    Returns the error that makes further requests useless, if there was one.
    """
    try:
        _request(client, batch)
    except TruncusError as error:
        parts = _parts_to_try(batch.parcels, error)
        if not parts:
            for parcel in batch.parcels:
                parcel.error = error
                if error.ambiguous or isinstance(error, ServerError):
                    # Also where the server says that it failed: the same key is never worse.
                    remember(parcel, batch, now=now)
            return error if _is_account_wide(error) else None
        for number, part in enumerate(parts):
            # Nothing of a refused batch was accepted, so its parts are requests of their own.
            stopped_by = _send_whole(client, Batch(new_idempotency_key(), part), now=now)
            if stopped_by is not None:
                for rest in parts[number + 1 :]:
                    _leave_untried(rest, stopped_by)
                return stopped_by
    except BaseException:
        # A task's time limit, Ctrl-C: the request may have been on its way.
        for parcel in batch.parcels:
            remember(parcel, batch, now=now)
        raise
    return None


def _request(client: TruncusClient, batch: Batch) -> None:
    """Make the request of ``batch``, and give each parcel its result."""
    parcels = batch.parcels
    for parcel in parcels:
        parcel.key, parcel.batch_size = batch.key, len(parcels)
    emails = [_payload(parcel).email for parcel in parcels]
    sandbox = _payload(parcels[0]).is_sandbox
    if len(parcels) == 1:
        results: Sequence[SendResult] = [
            client.send(emails[0], idempotency_key=batch.key, sandbox=sandbox)
        ]
    else:
        results = client.send_batch(emails, idempotency_key=batch.key, sandbox=sandbox).results
    for parcel, result in zip(parcels, results, strict=True):
        parcel.result = result
        if not result.is_accepted:
            parcel.error = _refused(result)


def _payload(parcel: Parcel) -> Payload:
    if parcel.payload is None:
        raise TypeError("A parcel without a payload cannot be sent.")
    return parcel.payload


def _refused(result: SendResult) -> EmailRefused:
    """Return the error of an e-mail that was not accepted; a reason of the manual is a code."""
    if result.status == contract.DUPLICATE:
        return EmailRefused(
            f"Truncus knows this e-mail's key, and had {result.email_status} the e-mail then. "
            "Use another idempotency_key to send it anyway."
        )
    is_coded = result.code is None and result.reason in contract.REJECTION_REASONS
    reason = None if is_coded else result.reason or result.error
    return EmailRefused(
        f"Truncus {result.status} the e-mail" + (f": {reason}" if reason else ""),
        code=result.reason if is_coded else result.code,
        retryable=result.code == contract.PROVIDER_ERROR_CODE,
    )


def _parts_to_try(parcels: Sequence[Parcel], error: TruncusError) -> list[list[Parcel]]:
    """Return the parts of a refused batch that may fare better alone; none where none can."""
    if len(parcels) == 1 or error.ambiguous:
        return []
    is_certain = isinstance(error, InvalidRequest | MessageError)
    if parcels[0].pending is not None and not is_certain:
        return []  # an earlier request may have been accepted when the account stood otherwise
    if isinstance(error, DomainError):
        by_domain: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            sender = str(_payload(parcel).email["from"])
            by_domain.setdefault(sender.rpartition("@")[2].rstrip(">").lower(), []).append(parcel)
        return list(by_domain.values()) if len(by_domain) > 1 else []
    if is_certain or isinstance(error, EmailRefused):
        middle = len(parcels) // 2
        return [list(parcels[:middle]), list(parcels[middle:])]
    return []


def _is_account_wide(error: TruncusError) -> bool:
    if isinstance(error, QuotaExceeded):
        return error.code != "WARMUP_CAP_EXCEEDED"  # the cap of one domain
    if isinstance(error, AnswerLost) and error.code == contract.TIMEOUT_CODE:
        return True  # else a list of thousands would wait for each of its batches in turn
    return isinstance(
        error, AuthenticationError | ScopeError | ConnectionFailed | TLSError | RateLimited
    )


# Sends whose outcome is unknown -------------------------------------------------------------------

_PENDING = "_truncus_pending"


def remember(parcel: Parcel, batch: Batch, *, now: float) -> None:
    """Note on the message that ``batch`` may have been accepted."""
    payload = _payload(parcel)
    if payload.idempotency_key is not None:
        return  # the message's own key does the same
    pending = PendingSend(
        idempotency_key=batch.key,
        fingerprint=parcel.fingerprint or fingerprint(payload),
        index=list(batch.parcels).index(parcel),
        batch_size=len(batch.parcels),
        since=parcel.pending.since if parcel.pending else now,
    )
    parcel.message.__dict__.setdefault(_PENDING, {})[parcel.occurrence] = pending


def recall(parcel: Parcel, payload: Payload) -> PendingSend | None:
    """Return what :func:`remember` noted, if the message has not changed since."""
    notes: dict[int, PendingSend] = parcel.message.__dict__.get(_PENDING, {})
    pending = notes.get(parcel.occurrence)
    if pending is None or pending.fingerprint != (parcel.fingerprint or fingerprint(payload)):
        return None
    return pending


def forget(parcel: Parcel) -> None:
    """Take away what :func:`remember` noted: the outcome is known."""
    notes = parcel.message.__dict__.get(_PENDING)
    if notes is not None:
        notes.pop(parcel.occurrence, None)


def fingerprint(payload: Payload) -> str:
    """Return a digest of what is sent."""
    text = json.dumps([payload.email, payload.is_sandbox], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
