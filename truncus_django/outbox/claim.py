"""Rows → one request: chosen, fixed, leased and counted in one short transaction.

The account's row is locked first. So the moment at which a request is allowed, the choice of what
is most urgent, and the lease are one step: no two workers take the same, none takes anything that
it may not send yet, and a worker that dies has used up one request at most.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from django.db import connections
from django.db.models import Min, Q, QuerySet

from truncus_django import rate_limit
from truncus_django.api import contract
from truncus_django.api.capabilities import WireFormat
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import ConfigurationError, OutcomeUnknown, log_text_of_code
from truncus_django.api.keys import new_idempotency_key
from truncus_django.api.transport import longest_request_s
from truncus_django.conf import Settings
from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.db.transactions import committed
from truncus_django.log import transitions
from truncus_django.mailers import get_mailer
from truncus_django.models import (
    Email,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    database,
)
from truncus_django.outbox.outcomes import delete_batch, end, expire, regroup
from truncus_django.outbox.retry_policy import (
    KEY_LIFE_S,
    LONGEST_RETRY_S,
    BatchState,
    Start,
    account_pause_s,
    before_request,
)
from truncus_django.outbox.waiting import waiting_mailers
from truncus_django.sending.requests import MAX_BATCH_BYTES

LEASE_MARGIN_S = 5.0
LOOK_AGAIN_S = 1.0
LIFE_TOLERANCE = 0.1
"""Emails that expire share a request if the longest life left is longer than the shortest by no
more than this part. An ambiguous request ends when its first email expires: none of the others
loses more than that of its time. Equal moments alone would cost a request for each email where
each has a moment of its own, as ``timedelta`` makes them."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is to be sent now.

    Attributes:
        until: unix seconds, by the database's clock, when something may be; ``None`` where
            nothing waits at all.
        is_pace: whether something would be sent now but for the account's limits.
        paused: mailers whose account makes no request at present, and why, as logs may tell it.
    """

    until: float | None = None
    is_pace: bool = False
    paused: dict[str, str] = field(default_factory=dict)


class Countdown:
    """Seconds that run out, counted by this machine, asleep or awake.

    Args:
        seconds: how many.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = (time.monotonic(), time.time())

    @property
    def left_s(self) -> float:
        """How many are left; below 0 when they are over."""
        # The one stands still while the machine sleeps, the other one can be set back.
        passed = max(time.monotonic() - self._began[0], time.time() - self._began[1])
        return self._seconds - passed


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that is this worker's to make, until its lease runs out.

    Attributes:
        batch: what is to be sent. Its ``is_ambiguous`` is about earlier requests.
        lease: proves that it is still this worker's.
        leased_until: unix seconds by the database's clock.
        lasts: whether the lease still lasts, known without a query.
        arrived_by: what the account's limits know its request by until it is answered.
        account, settings, client: whom to ask.
        account_failures: requests in a row of the account that failed before.
        capabilities: what the account's row knows that it accepts.
    """

    batch: OutboxBatch
    lease: UUID
    leased_until: float
    lasts: Countdown
    arrived_by: float | None
    account: str
    settings: Settings = field(repr=False)
    client: TruncusClient
    account_failures: int
    capabilities: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class _MailerQueue:
    """A mailer with something to send, and the account that it sends through."""

    mailer: str
    account: str
    settings: Settings = field(repr=False)
    client: TruncusClient


class _Waiting(NamedTuple):
    """What the choice of a request's members goes by; see :class:`OutboxEntry`."""

    pk: UUID
    size: int
    is_sandbox: bool
    own_key: str
    priority: int
    expires_at: datetime | None


def claim(clock: Clock) -> Claim | Idle:
    """Take the most urgent request that may be made now.

    Raises:
        django.db.DatabaseError: nothing was taken.
    """
    using = database()
    idles: list[Idle] = []
    began_at = clock.now()
    for mailer in mailers_with_work(began_at):
        taken = _claim_of(mailer, clock, using)
        if isinstance(taken, Claim):
            return taken
        idles.append(taken)
    # What was due already was looked at: it is paused, and not due before its pause ends.
    not_yet_due = OutboxBatch.objects.filter(due_at__gt=moment_of(began_at))
    later = not_yet_due.aggregate(first=Min("due_at"))["first"]
    moments = [idle.until for idle in idles if idle.until is not None]
    if later is not None:
        moments.append(unix_of(later))
    paused = {mailer: why for idle in idles for mailer, why in idle.paused.items()}
    # In the past, if it was reached meanwhile: the caller looks again at once.
    soonest = min(moments, default=None)
    return Idle(soonest, any(idle.is_pace for idle in idles), paused)


def mailers_with_work(now: float) -> list[str]:
    """Return the mailers with emails that wait or are due, those with the most urgent first."""
    due = OutboxBatch.objects.filter(due_at__lte=moment_of(now)).order_by()
    first_due = due.values_list("mailer").annotate(Min("priority"), Min("created_at"))
    urgency = {mailer: (priority, moment) for mailer, priority, moment in first_due}
    waiting = list(waiting_mailers())
    mailers = {*urgency, *waiting}
    if len(mailers) > 1:
        for mailer in waiting:
            first = _waiting(mailer, now).values_list("priority", "created_at").first()
            if first is not None:
                urgency[mailer] = min(urgency.get(mailer, first), first)
    # Of a mailer that is not in it, all that waits has expired.
    return sorted(mailers, key=lambda mailer: (mailer not in urgency, urgency.get(mailer, ())))


def _waiting(mailer: str, now: float) -> QuerySet[OutboxEntry]:
    """Return what waits to be sent by a mailer, the most urgent first."""
    waiting = OutboxEntry.objects.filter(is_waiting=True, mailer=mailer)
    fresh = waiting.filter(Q(expires_at=None) | Q(expires_at__gt=moment_of(now)))
    return fresh.order_by(*OutboxEntry.IN_ORDER)


# One mailer ---------------------------------------------------------------------------------------


def _claim_of(mailer: str, clock: Clock, using: str) -> Claim | Idle:
    try:
        found = get_mailer(mailer)
        settings, client = found.settings, found.client_without_retries
    except ConfigurationError as error:
        return _note_misconfiguration(mailer, error, clock, using)
    queue = _MailerQueue(mailer, client.account, settings, client)
    account = OutboxAccount.objects.filter(account=queue.account).first()
    if account is not None:
        # A paused account is seen without a lock.
        idle = _idle_of(account, queue, clock.now())
        if idle is not None:
            return idle
    while True:
        with committed(using):
            taken = _take(queue, clock, using)
        if taken is not None:
            return taken


def _take(queue: _MailerQueue, clock: Clock, using: str) -> Claim | Idle | None:
    """Take a request of a mailer; ``None`` where a batch was ended instead, and more may be due."""
    account = rate_limit.locked_account(queue.account, using=using)
    now = clock.now()
    idle = _idle_of(account, queue, now)
    if idle is not None:
        return idle
    batch = _due_batch(queue.mailer, now, using)
    entries = _next_entries(queue.mailer, now, using, before=batch)
    if entries:
        batch = _new_batch(queue, entries, now)
        ids = [entry.pk for entry in entries]
    elif batch is not None:
        ids = _made_ready(batch, queue, now)
        if not ids:
            return None
    else:
        return Idle(now + LOOK_AGAIN_S)  # others hold what there is
    queue.client.add_capabilities(rate_limit.capabilities_of(account))
    return _leased(batch, ids, account, queue, now, is_new=bool(entries))


def _idle_of(account: OutboxAccount, queue: _MailerQueue, now: float) -> Idle | None:
    """Return for how long an account may not make a request; ``None`` where it may now."""
    paused_until = rate_limit.paused_until(account, now=now)
    if paused_until > now:
        return Idle(paused_until, paused={queue.mailer: log_text_of_code(account.error_code)})
    allowed = rate_limit.next_request_at(account, rate_limit.limits(queue.settings), now=now)
    return Idle(allowed, is_pace=True) if allowed > now else None


def _due_batch(mailer: str, now: float, using: str) -> OutboxBatch | None:
    due = OutboxBatch.objects.filter(mailer=mailer, due_at__lte=moment_of(now))
    locked = due.select_for_update(skip_locked=_skips(using))
    return locked.order_by("priority", "due_at").first()


def _skips(using: str) -> bool:
    return connections[using].features.has_select_for_update_skip_locked


def _next_entries(
    mailer: str, now: float, using: str, *, before: OutboxBatch | None
) -> list[_Waiting]:
    """Lock and return what waits and is to be sent before a batch that is due, or else first."""
    waiting = _waiting(mailer, now)
    if before is not None:
        waiting = waiting.filter(priority__lt=before.priority)
    _read_in_order_of_index(using)
    locked = waiting.select_for_update(skip_locked=_skips(using))
    found = locked.values_list(*_Waiting._fields)[: contract.MAX_BATCH_SIZE]
    return _same_request([_Waiting(*row) for row in found], now)


def _read_in_order_of_index(using: str) -> None:
    """Have PostgreSQL read no more than it is asked for, until the transaction ends.

    It plans by old statistics, in which the queue was often empty, and would then read and sort all
    that waits to find the first hundred.
    """
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")


def _new_batch(queue: _MailerQueue, entries: Sequence[_Waiting], now: float) -> OutboxBatch:
    """Return a batch of what waited, which is still to be written."""
    first = entries[0]
    return OutboxBatch(
        idempotency_key=first.own_key or new_idempotency_key(),
        has_own_key=bool(first.own_key),
        mailer=queue.mailer,
        account=queue.account,
        is_sandbox=first.is_sandbox,
        priority=first.priority,
        created_at=moment_of(now),
    )


def _same_request(entries: Sequence[_Waiting], now: float) -> list[_Waiting]:
    """Return those that may share a request with the first.

    A message with a key of its own goes alone, so that the key is worth what it says. An ambiguous
    request is repeated whole or not at all, and so not after one of its emails has expired: what
    expires sooner goes apart from what is good for longer.
    """
    if not entries:
        return []
    first = entries[0]
    if first.own_key:
        return [first]
    alike, size = [first], first.size
    shortest = longest = _life_left_s(first, now)
    for entry in entries[1:]:
        life = _life_left_s(entry, now)
        is_alike = (
            not entry.own_key
            and entry.is_sandbox == first.is_sandbox
            and max(longest, life) <= (1 + LIFE_TOLERANCE) * min(shortest, life)
        )
        if is_alike and size + entry.size <= MAX_BATCH_BYTES:
            alike.append(entry)
            size += entry.size
            shortest, longest = min(shortest, life), max(longest, life)
    return alike


def _life_left_s(entry: _Waiting, now: float) -> float:
    """Return for how long an email is to be sent; for ever where a key that is new now ends first.

    After its key no ambiguous request is repeated anyway.
    """
    if entry.expires_at is None:
        return math.inf
    left_s = unix_of(entry.expires_at) - now
    return left_s if left_s < KEY_LIFE_S else math.inf


def _made_ready(batch: OutboxBatch, queue: _MailerQueue, now: float) -> list[UUID]:
    """Adapt a batch to what has happened since, and return its members; none where it ended."""
    present = moment_of(now)
    entries = OutboxEntry.objects.filter(batch=batch).order_by(*OutboxEntry.IN_ORDER)
    members = [_Waiting(*row) for row in entries.values_list(*_Waiting._fields)]
    left = [entry for entry in members if entry.expires_at is None or entry.expires_at > present]
    expired = list({entry.pk for entry in members} - {entry.pk for entry in left})
    parts = [left] if batch.is_ambiguous else _split_by_lifetime(left, now)
    state = batch_state_of(batch, now=now)
    start = before_request(
        state,
        is_other_account=batch.account not in {"", queue.account},
        membership_changed=bool(expired) or len(parts) > 1,
    )
    if batch.is_ambiguous and len(members) != batch.size:
        # Without the email that was deleted it would be another request.
        end(batch, OutcomeUnknown(_UNKNOWN.format(why="and an email of its request was deleted")))
        return []
    if start is Start.UNKNOWN:
        end(batch, OutcomeUnknown(_UNKNOWN.format(why=_why_unknown(state, expired))))
        return []
    if expired:
        expire(expired)
    if not left:
        delete_batch(batch)
        return []
    if start is Start.NEW_KEY:
        if not batch.has_own_key:
            batch.idempotency_key = new_idempotency_key()
        batch.first_request_at = batch.wire_format = None
    batch.account = queue.account
    first, *others = [[entry.pk for entry in part] for part in parts]
    regroup(
        batch,
        others,
        due_at=present,
        failures=batch.failures,
        failing_since=batch.failing_since,
        code=batch.error_code,
        error=batch.error,
    )
    return first


def _split_by_lifetime(entries: Sequence[_Waiting], now: float) -> list[list[_Waiting]]:
    """Part the members of a request that is new now: some may have become of another kind."""
    parts: list[list[_Waiting]] = []
    while entries:
        part = _same_request(entries, now)
        parts.append(part)
        taken = {entry.pk for entry in part}
        entries = [entry for entry in entries if entry.pk not in taken]
    return parts


_UNKNOWN = "It may have been accepted, {why}; so it was not tried again"


def _why_unknown(state: BatchState, expired: Sequence[UUID]) -> str:
    if expired:
        return "and an email of its request has expired"
    if state.key_age_s >= contract.IDEMPOTENCY_LIFE_S / 2:
        return "about 24 hours ago, and Truncus forgets its key"
    return "by another account, which alone knows its key"


def _leased(
    batch: OutboxBatch,
    ids: Sequence[UUID],
    account: OutboxAccount,
    queue: _MailerQueue,
    now: float,
    *,
    is_new: bool,
) -> Claim:
    """Write down that the request is about to be made, and whose it is."""
    was_ambiguous = batch.is_ambiguous
    lasts = Countdown(lease_s(queue.settings))
    leased_until = now + lease_s(queue.settings)
    if batch.first_request_at is None:
        batch.first_request_at = moment_of(now)
    if not was_ambiguous:
        batch.wire_format = stored_wire_format(queue.client.wire_format)
    batch.attempts += 1
    batch.size = len(ids)
    batch.is_ambiguous = True  # until the answer is written down
    batch.lease, batch.due_at = uuid4(), moment_of(leased_until)
    batch.save(force_insert=is_new, force_update=not is_new, using=database())
    if is_new:
        OutboxEntry.objects.filter(pk__in=ids).update(is_waiting=False, batch=batch)
    transitions.mark_sending(ids)
    arrived_by = rate_limit.note_request(account, queue.settings, now=now)
    batch.is_ambiguous = was_ambiguous
    return Claim(
        batch=batch,
        lease=batch.lease,
        leased_until=leased_until,
        lasts=lasts,
        arrived_by=arrived_by,
        account=queue.account,
        settings=queue.settings,
        client=queue.client,
        account_failures=account.failures,
        capabilities=rate_limit.capabilities_of(account),
    )


def stored_wire_format(wire_format: WireFormat) -> dict[str, bool]:
    """Return a wire format as a batch stores it."""
    return {
        "html_required": wire_format.capabilities.html_required,
        "single_recipient": wire_format.capabilities.single_recipient,
        "is_pinned": wire_format.is_pinned,
    }


def lease_s(settings: Settings) -> float:
    """Return for how many seconds a batch is its worker's: a request, and writing its answer."""
    longest = max(longest_request_s(settings.timeout), 2 * settings.timeout)
    return longest + LEASE_MARGIN_S


def batch_state_of(batch: OutboxBatch, *, now: float) -> BatchState:
    """Return what decisions about a batch go by."""
    used_at = batch.first_request_at
    return BatchState(
        attempts=batch.attempts,
        failures=batch.failures,
        was_ambiguous=batch.is_ambiguous,
        key_age_s=0.0 if used_at is None else now - unix_of(used_at),
        failing_s=0.0 if batch.failing_since is None else now - unix_of(batch.failing_since),
    )


def _note_misconfiguration(
    mailer: str, error: ConfigurationError, clock: Clock, using: str
) -> Idle:
    """Pause a mailer whose settings are wrong, and say so on its emails."""
    name = f"mailer:{mailer}"[:100]
    known = OutboxAccount.objects.filter(account=name).first()
    now = clock.now()
    # A pause that seems longer was noted before the clock was set back.
    latest = now + LONGEST_RETRY_S
    if known is not None and now < rate_limit.paused_until(known, now=now) <= latest:
        return Idle(rate_limit.paused_until(known, now=now), paused={mailer: known.error})
    with committed(using):
        account = rate_limit.locked_account(name, using=using)
        now = clock.now()
        paused_until = rate_limit.paused_until(account, now=now)
        if not now < paused_until <= now + LONGEST_RETRY_S:
            paused_until = now + account_pause_s(error, failures=account.failures, jitter=0.0)
            account.paused_until = moment_of(paused_until)
            account.failures += 1
            account.error_code, account.error = "configuration", str(error)
            account.save(using=using)
            waiting = _waiting(mailer, now).values_list("pk", flat=True)
            due = OutboxEntry.objects.filter(
                batch__mailer=mailer, batch__due_at__lte=moment_of(now)
            ).values_list("pk", flat=True)
            size = contract.MAX_BATCH_SIZE
            ids = [*waiting[:size], *due[:size]]
            Email.objects.filter(pk__in=ids).update(
                error_code=account.error_code, error=account.error
            )
    return Idle(paused_until, paused={mailer: account.error})
