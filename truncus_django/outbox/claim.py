"""Rows → one request: chosen, fixed, leased and counted in one short transaction.

The account's row is locked first. So the moment at which a request is allowed, the choice of what
is most urgent, and the lease are one step: no two workers take the same, none takes anything that
it may not send yet, and a worker that dies has used up one request at most.

A worker may die after its request, before it has recorded the outcome. Its batch says all that
another one needs, from before the request: ``is_ambiguous``, the key, the members in their order;
and ``due_at``, when the lease has run out. Then :func:`take_over` has the same request made again.
"""

import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.db.models import Min, Q, QuerySet, Value

from truncus_django import rate_limit
from truncus_django.accounts import get_own_account
from truncus_django.api import contract
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    ConfigurationError,
    OutcomeUnknown,
    log_text_of_code,
)
from truncus_django.api.keys import new_idempotency_key
from truncus_django.api.transport import longest_request_s
from truncus_django.conf import Settings
from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.db.locks import lock_free_rows, read_in_order_of_index
from truncus_django.db.transactions import committed
from truncus_django.log import transitions
from truncus_django.models import (
    Email,
    Handover,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    Priority,
)
from truncus_django.outbox import handover
from truncus_django.outbox.batching import Candidate, allowed, same_request, split_by_lifetime
from truncus_django.outbox.expiry import expire
from truncus_django.outbox.idle import Idle, held_tenants, is_paused, with_new_account
from truncus_django.outbox.outcomes import delete_batch, end, regroup_without_request
from truncus_django.outbox.reserve import MAY_WAIT, Allowance, allowance
from truncus_django.outbox.retry_policy import KEY_LIFE_S, account_pause_s
from truncus_django.outbox.stored_payload import stored_wire_format
from truncus_django.outbox.waiting import (
    QueueName,
    waiting_mailers,
    waiting_of_tenants,
)
from truncus_django.sending.fallback import fallback_of

LEASE_MARGIN_S = 5.0
LOOK_AGAIN_S = 1.0


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
        batch: what is to be sent.
        was_ambiguous: whether an earlier request of it may have been accepted.
        lease: proves that it is still this worker's.
        countdown: how long the lease lasts, known without a query.
        arrived_by: unix seconds; when the request counts as arrived if no answer comes. The
            account's ``recent_requests`` list it by this.
        account: whose request it is, as its row was before it.
        settings, client: whom to ask.
    """

    batch: OutboxBatch
    was_ambiguous: bool
    lease: UUID
    countdown: Countdown
    arrived_by: float | None
    account: OutboxAccount
    settings: Settings = field(repr=False)
    client: TruncusClient

    @property
    def is_handover(self) -> bool:
        """Whether its one email is for the fallback mailer."""
        return self.batch.handover == Handover.BEGUN

    @property
    def has_time_for_request(self) -> bool:
        """Whether the longest request would be over before the lease is.

        How long a handover takes nobody knows: it begins at once, or not at all.
        """
        if self.is_handover:
            return self.countdown.left_s >= handover.LEASE_S - handover.BEGINS_WITHIN_S
        return self.countdown.left_s >= longest_request_s(self.settings.timeout)


@dataclass(frozen=True, slots=True)
class _Queue:
    """Emails to send by one account, and whom that asks."""

    name: QueueName
    settings: Settings = field(repr=False)
    client: TruncusClient


def claim(clock: Clock, *, mailer: str | None = None) -> Claim | Idle:
    """Take the most urgent request that may be made now.

    Args:
        clock: of the outbox's database.
        mailer: the one whose emails are looked at; ``None`` for those of all.

    Raises:
        django.db.DatabaseError: nothing was taken.
    """
    began_at = clock.now()
    queues = queues_with_work(began_at)
    if mailer is not None:
        queues = {name: has_due for name, has_due in queues.items() if name.mailer == mailer}
    held = held_tenants(queues, began_at)
    renewed = with_new_account(held)
    idles: list[Idle] = []
    idle_accounts: dict[str, Idle] = {}
    for name, has_due in queues.items():
        known = held.get(name)
        if known is not None and name != renewed:
            idles.append(known.idle)
            continue
        taken = _claim_of(name, clock, idle_accounts, has_due=has_due)
        if isinstance(taken, Claim):
            return taken
        idles.append(taken)
    # What was due already was looked at: it is paused, and not due before its pause ends.
    not_yet_due = OutboxBatch.objects.filter(due_at__gt=moment_of(began_at))
    if mailer is not None:
        not_yet_due = not_yet_due.filter(mailer=mailer)
    later = not_yet_due.aggregate(first=Min("due_at"))["first"]
    moments = [idle.due_at for idle in idles if idle.due_at is not None]
    if later is not None:
        moments.append(unix_of(later))
    paused = {name: why for idle in idles for name, why in idle.paused.items()}
    held_back = {name: why for idle in idles for name, why in idle.held_back.items()}
    # In the past, if it was reached meanwhile: the caller looks again at once.
    soonest = min(moments, default=None)
    return Idle(soonest, any(idle.is_pace for idle in idles), paused, held_back)


def queues_with_work(now: float) -> dict[QueueName, bool]:
    """Return the queues with emails that wait or are due, those with the most urgent first.

    As many queries for a thousand tenants as for one.

    Returns:
        by its name, whether a batch of the queue is due.
    """
    due = OutboxBatch.objects.filter(due_at__lte=moment_of(now)).order_by()
    most_urgent = _by_queue(due, is_due=True).union(
        _by_queue(waiting_of_tenants(), is_due=False), all=True
    )
    urgency: dict[QueueName, Any] = {}
    with_due: set[QueueName] = set()
    for mailer, tenant, priority, moment, is_due in most_urgent:
        name, first = QueueName(mailer, tenant), (priority, moment)
        urgency[name] = min(urgency.get(name, first), first)
        if is_due:
            with_due.add(name)
    waiting = [QueueName(mailer) for mailer in waiting_mailers()]
    queues = {*urgency, *waiting}
    if len(queues) > 1:
        for name in waiting:
            first_waiting = _waiting(name, now).values_list("priority", "created_at").first()
            if first_waiting is not None:
                urgency[name] = min(urgency.get(name, first_waiting), first_waiting)
    # Of a queue that is not in it, all that waits has expired.
    in_order = sorted(queues, key=lambda name: (name not in urgency, urgency.get(name, ())))
    return {name: name in with_due for name in in_order}


def _by_queue(rows: QuerySet[Any], *, is_due: bool) -> QuerySet[Any, Any]:
    """Return how urgent the most urgent of entries or batches is, for each queue."""
    queues: QuerySet[Any, Any] = rows.values_list("mailer", "tenant").annotate(
        Min("priority"), Min("created_at"), is_due=Value(is_due)
    )
    return queues


def _waiting(queue: QueueName, now: float) -> QuerySet[OutboxEntry]:
    """Return what waits to be sent in a queue, the most urgent first."""
    waiting = OutboxEntry.objects.filter(queue.of_entries(), is_waiting=True)
    fresh = waiting.filter(Q(expires_at=None) | Q(expires_at__gt=moment_of(now)))
    return fresh.order_by(*OutboxEntry.IN_ORDER)


# Tenants ------------------------------------------------------------------------------------------


def _name_account(queue: QueueName, account: str) -> None:
    """Note whose account it is, and that the tenant's earlier one is not its any more."""
    accounts = OutboxAccount.objects.all()
    accounts.bulk_create([OutboxAccount(account=account)], ignore_conflicts=True)
    earlier = accounts.filter(queue.of_entries()).exclude(pk=account)
    earlier.update(mailer="", tenant="")
    accounts.filter(pk=account, tenant="").update(mailer=queue.mailer, tenant=queue.tenant)


# One queue ----------------------------------------------------------------------------------------


def _claim_of(
    name: QueueName, clock: Clock, idle_accounts: MutableMapping[str, Idle], *, has_due: bool
) -> Claim | Idle:
    """Take a request of a queue.

    Args:
        name: its name.
        clock: of the outbox's database.
        idle_accounts: those that were found idle already: several queues may go by one.
        has_due: whether a batch was seen to be due; one that has become so since is taken next.
    """
    try:
        found = get_own_account(*name)
        fallback_of(found.settings)  # raises where it cannot be used
        queue = _Queue(name, found.settings, found.client_without_retries)
    except ConfigurationError as error:
        return _pause_misconfigured(name, error, clock)
    digest = queue.client.account
    if digest in idle_accounts:
        return idle_accounts[digest]
    rows = OutboxAccount.objects.in_bulk([digest, name.placeholder])
    account = rows.get(digest)
    if name.placeholder in rows:
        OutboxAccount.objects.filter(pk=name.placeholder).delete()
    if found.tenant and (account is None or not account.tenant):
        _name_account(name, digest)
    if account is not None:
        # A paused account is seen without a lock.
        now = clock.now()
        idle = _idle_of(account, queue, now)
        if idle is not None and not handover.is_possible(name, account, queue.settings, now=now):
            if queue.settings.fallback_mailer is None:
                idle_accounts[digest] = idle
            return idle
    while True:
        with committed(clock.using):
            taken = _take(queue, clock, has_due=has_due)
        if taken is not None:
            return taken


def _take(queue: _Queue, clock: Clock, *, has_due: bool) -> Claim | Idle | None:
    """Take a request of a queue; ``None`` where a batch was ended instead, and more may be due."""
    account = rate_limit.locked_account(queue.client.account)
    now = clock.now()
    idle = _idle_of(account, queue, now)
    if idle is not None:
        alone = handover.begin(queue.name, account, queue.settings, now=now)
        return idle if alone is None else _leased_for_handover(alone, account, queue, now)
    reserve = queue.settings.quota_reserve
    low_priority = allowance(queue.client.account, reserve, now=now)
    batch = _due_batch(queue.name, now, low_priority) if has_due else None
    entries = _next_entries(queue.name, now, low_priority, before=batch)
    if entries:
        batch = _new_batch(queue, entries, now)
        ids = [entry.pk for entry in entries]
    elif batch is not None:
        ids = take_over(batch, queue.client.account, now=now, low_priority_left=low_priority.left)
        if not ids:
            return None
    elif low_priority.until is not None:
        return Idle(low_priority.until, held_back={queue.name.label: low_priority.why})
    else:
        return Idle(now + LOOK_AGAIN_S)  # others hold what there is
    queue.client.add_capabilities(rate_limit.capabilities_of(account))
    return _leased(batch, ids, account, queue, now, is_new=bool(entries))


def _idle_of(account: OutboxAccount, queue: _Queue, now: float) -> Idle | None:
    """Return for how long an account may not make a request; ``None`` where it may now."""
    paused_until = rate_limit.paused_until(account, now=now)
    if paused_until > now:
        return Idle(paused_until, paused={queue.name.label: log_text_of_code(account.error_code)})
    allowed_at = rate_limit.next_request_at(account, rate_limit.limits(queue.settings), now=now)
    return Idle(allowed_at, is_pace=True) if allowed_at > now else None


def _due_batch(queue: QueueName, now: float, low_priority: Allowance) -> OutboxBatch | None:
    due = OutboxBatch.objects.filter(queue.of_entries(), due_at__lte=moment_of(now))
    if low_priority.left == 0:
        due = due.exclude(MAY_WAIT)
    return lock_free_rows(due).order_by("priority", "due_at").first()


def _next_entries(
    queue: QueueName, now: float, low_priority: Allowance, *, before: OutboxBatch | None
) -> list[Candidate]:
    """Lock and return what waits and is to be sent before a batch that is due, or else first."""
    waiting = _waiting(queue, now)
    if low_priority.left == 0:
        waiting = waiting.filter(priority__lt=Priority.LOW)
    if before is not None:
        waiting = waiting.filter(priority__lt=before.priority)
    read_in_order_of_index(waiting.db)
    free = lock_free_rows(waiting)
    found = free.values_list(*Candidate._fields)[: contract.MAX_BATCH_SIZE]
    return allowed(same_request([Candidate(*row) for row in found], now), low_priority.left)


def _new_batch(queue: _Queue, entries: Sequence[Candidate], now: float) -> OutboxBatch:
    """Return a batch of what waited, which is still to be written."""
    first = entries[0]
    return OutboxBatch(
        idempotency_key=first.own_key or new_idempotency_key(),
        has_own_key=bool(first.own_key),
        mailer=queue.name.mailer,
        tenant=queue.name.tenant,
        account=queue.client.account,
        is_sandbox=first.is_sandbox,
        priority=first.priority,
        created_at=moment_of(now),
    )


# A batch that is due again ------------------------------------------------------------------------

_UNKNOWN = "It may have been accepted, {why}; so it was not tried again."


def take_over(
    batch: OutboxBatch, account_name: str, *, now: float, low_priority_left: int | None = None
) -> list[UUID]:
    """Prepare a batch for another request; return its members, none where the batch has ended.

    It waited for its next try, or its worker died and the lease has run out. ``is_ambiguous`` is
    stored before each request and stays until the outcome is recorded, so that it is set where
    the worker died. An ambiguous batch is repeated as it was, or it ends and its emails become
    ``unknown``.

    Args:
        batch: locked.
        account_name: the account that its mailer sends through now.
        now: unix seconds, by the database's clock.
        low_priority_left: how many emails of low priority may be sent; ``None`` for any number.
    """
    if batch.handover == Handover.BEGUN:
        handover.end_interrupted(batch)
        return []
    entries = OutboxEntry.objects.filter(batch=batch).order_by(*OutboxEntry.IN_ORDER)
    members = [Candidate(*row) for row in entries.values_list(*Candidate._fields)]
    present = moment_of(now)
    expired = [
        entry for entry in members if entry.expires_at is not None and entry.expires_at <= present
    ]
    is_other_account = batch.account not in {"", account_name}
    is_key_over = (
        batch.first_request_at is not None and now - unix_of(batch.first_request_at) >= KEY_LIFE_S
    )
    if not batch.is_ambiguous:
        batch.account = account_name
        most = low_priority_left if batch.priority == Priority.LOW else None
        needs_new_key = is_other_account or is_key_over
        return _renew(batch, members, expired, now, needs_new_key=needs_new_key, most=most)
    if len(members) != batch.size:
        why = "and an email of its request was deleted"
    elif expired:
        why = "and an email of its request has expired"
    elif is_key_over:
        why = "about 24 hours ago, and Truncus forgets its key"
    elif is_other_account:
        why = "by another account, which alone knows its key"
    else:
        return [entry.pk for entry in members]
    end(batch, OutcomeUnknown(_UNKNOWN.format(why=why)))
    return []


def _renew(
    batch: OutboxBatch,
    members: Sequence[Candidate],
    expired: Sequence[Candidate],
    now: float,
    *,
    needs_new_key: bool,
    most: int | None,
) -> list[UUID]:
    """Adapt a batch, of which nothing was accepted, to what has happened since its last request."""
    if expired:
        expire([entry.pk for entry in expired])
    first, *others = split_by_lifetime([entry for entry in members if entry not in expired], now)
    if not first:
        delete_batch(batch)
        return []
    if most is not None and len(first) > most:
        first, others = first[:most], [first[most:], *others]
    has_changed = bool(expired or others)
    if needs_new_key or (has_changed and batch.attempts):
        if not batch.has_own_key:
            batch.idempotency_key = new_idempotency_key()
        batch.first_request_at = batch.wire_format = None
    parts = [[entry.pk for entry in part] for part in others]
    regroup_without_request(batch, parts, due_at=moment_of(now))
    return [entry.pk for entry in first]


# The lease ----------------------------------------------------------------------------------------


def _leased(
    batch: OutboxBatch,
    ids: Sequence[UUID],
    account: OutboxAccount,
    queue: _Queue,
    now: float,
    *,
    is_new: bool,
) -> Claim:
    """Write down that the request is about to be made, and whose it is."""
    was_ambiguous = batch.is_ambiguous
    countdown = Countdown(lease_s(queue.settings))
    if batch.first_request_at is None:
        batch.first_request_at = moment_of(now)
    if not was_ambiguous:
        batch.wire_format = stored_wire_format(queue.client.wire_format)
    batch.attempts += 1
    batch.size = len(ids)
    batch.is_ambiguous = True  # until the outcome is recorded
    lease = batch.lease = uuid4()
    batch.due_at = moment_of(now + lease_s(queue.settings))
    batch.save(using=OutboxBatch.objects.db)
    if is_new:
        OutboxEntry.objects.filter(pk__in=ids).update(is_waiting=False, batch=batch)
    transitions.mark_sending(ids)
    arrived_by = rate_limit.note_request(account, queue.settings, now=now)
    return Claim(
        batch=batch,
        was_ambiguous=was_ambiguous,
        lease=lease,
        countdown=countdown,
        arrived_by=arrived_by,
        account=account,
        settings=queue.settings,
        client=queue.client,
    )


def _leased_for_handover(
    batch: OutboxBatch, account: OutboxAccount, queue: _Queue, now: float
) -> Claim:
    """Write down that an email is about to be handed to the fallback mailer, and by whom."""
    countdown = Countdown(handover.LEASE_S)
    lease = batch.lease = uuid4()
    batch.is_ambiguous = True
    batch.due_at = moment_of(now + handover.LEASE_S)
    batch.save(using=OutboxBatch.objects.db)
    return Claim(
        batch=batch,
        was_ambiguous=False,
        lease=lease,
        countdown=countdown,
        arrived_by=None,
        account=account,
        settings=queue.settings,
        client=queue.client,
    )


def lease_s(settings: Settings) -> float:
    """Return for how many seconds a batch is its worker's: a request, and recording its outcome."""
    longest = max(longest_request_s(settings.timeout), 2 * settings.timeout)
    return longest + LEASE_MARGIN_S


# A queue without a usable account -----------------------------------------------------------------


def _pause_misconfigured(queue: QueueName, error: ConfigurationError, clock: Clock) -> Idle:
    """Pause a queue that has no account, and record the error on its emails."""
    name = queue.placeholder
    account = OutboxAccount.objects.filter(pk=name).first()
    if account is None or not is_paused(account, clock.now()):
        with committed(clock.using):
            account = rate_limit.locked_account(name)
            now = clock.now()
            if not is_paused(account, now):
                pause_s = account_pause_s(error, failures=account.failures, jitter=0.0)
                account.paused_until = moment_of(now + pause_s)
                account.failures += 1
                account.error_code, account.error = "configuration", str(error)
                account.mailer, account.tenant = queue
                account.save(using=clock.using)
                _record_error_on_emails(queue, account, now)
    until = rate_limit.paused_until(account, now=clock.now())
    return Idle(until, paused={queue.label: account.error})


def _record_error_on_emails(queue: QueueName, account: OutboxAccount, now: float) -> None:
    """Write the error that pauses a queue onto its emails, so many as a request takes."""
    waiting = _waiting(queue, now).values_list("pk", flat=True)
    due = OutboxEntry.objects.filter(
        batch__mailer=queue.mailer, batch__tenant=queue.tenant, batch__due_at__lte=moment_of(now)
    ).values_list("pk", flat=True)
    ids = [*waiting[: contract.MAX_BATCH_SIZE], *due[: contract.MAX_BATCH_SIZE]]
    Email.objects.filter(pk__in=ids).update(error_code=account.error_code, error=account.error)
