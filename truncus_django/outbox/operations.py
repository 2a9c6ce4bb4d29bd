"""What a person does with emails of the outbox: try again, cancel, decide, go on.

Each is safe while workers send and while somebody else does the same. Rows are locked in the order
that workers keep to: accounts, requests, entries, emails. Emails that a worker is
sending are not touched, and the result says so.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from uuid import UUID

from django.db import transaction

from truncus_django.conf import get_settings
from truncus_django.db.clock import Clock, moment_of
from truncus_django.db.locks import lock_free_rows, take_write_lock
from truncus_django.db.retry import over_a_live_connection
from truncus_django.log import transitions
from truncus_django.log.transitions import EmailUpdate
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, database
from truncus_django.outbox import outcomes
from truncus_django.outbox.notify import notify_after_commit
from truncus_django.states import RESTARTABLE_STATES, State

__all__ = [
    "Decision",
    "OperationResult",
    "cancel",
    "decide",
    "resume",
    "retry",
]

_AT_ONCE = 500
"""So many emails are handled in one transaction, which workers may have to wait for."""


class OperationResult(StrEnum):
    """What became of one email, or why nothing did."""

    WAITS_AGAIN = "waits again"
    """It is sent as a new request, as soon as its account lets it."""
    DUE_NOW = "due now"
    """Its next try is now, with the others of its request."""
    CANCELLED = "cancelled"
    SENT = "sent"
    """A person says so."""
    NOT_SENT = "not sent"
    """A person says so, and leaves it at that."""

    WAITS_ALREADY = "waits already"
    BEING_SENT = "being sent"
    """A worker is sending it."""
    AMBIGUOUS = "ambiguous"
    """A request of it may have been accepted, which only repeating that request can show."""
    NEEDS_DECISION = "needs decision"
    """It may have been sent: somebody must :func:`decide` first."""
    NOT_STORED = "not stored"
    """Its payload is no longer stored."""
    DOES_NOT_APPLY = "does not apply"
    """It is in no state for that."""
    CHANGED = "changed"
    """It is no longer as it was when somebody chose to do it."""
    GONE = "gone"

    @property
    def is_done(self) -> bool:
        """Whether anything was done to it."""
        return self in _DONE


_DONE = frozenset(
    {
        OperationResult.WAITS_AGAIN,
        OperationResult.DUE_NOW,
        OperationResult.CANCELLED,
        OperationResult.SENT,
        OperationResult.NOT_SENT,
    }
)


class Decision(StrEnum):
    """What a person found out about an email whose answer was lost for good."""

    SENT = "sent"
    """Truncus has it."""
    SEND = "send"
    """Truncus does not have it: send it, under a new key unless it has one of its own."""
    NOT_SENT = "not sent"
    """Truncus does not have it, and nobody needs it any more."""


VERSION_FIELDS = ("state", "attempts", "forgotten_at")
"""The fields by which to tell whether an email has changed."""
FindChanged = Callable[[Sequence[Email], Mapping[UUID, OutboxEntry]], Collection[UUID]]


def retry(
    email_ids: Iterable[UUID], find_changed: FindChanged | None = None
) -> dict[UUID, OperationResult]:
    """Try emails again now: those that failed, were refused or cancelled, or wait for a next try.

    What failed is sent as it was stored, attachments and all; an expiry that is over is forgotten.
    As many queries for 500 emails as for one.

    Args:
        email_ids: of the emails.
        find_changed: is given emails with :data:`VERSION_FIELDS`, and by their ids what the outbox
            stores of them, all of it locked; returns the ids of those that are left as they are.

    Raises:
        django.db.DatabaseError: those of the last transaction, of 500 at most, are as they were.
    """
    return _in_portions(email_ids, _retry, find_changed)


def cancel(email_ids: Iterable[UUID]) -> dict[UUID, OperationResult]:
    """Keep emails from being sent that wait, or whose request was surely not accepted.

    The payload stays stored, so that :func:`retry` can send it after all. As many queries for 500
    emails as for one.

    Raises:
        django.db.DatabaseError: those of the last transaction, of 500 at most, are as they were.
    """
    return _in_portions(email_ids, _cancel)


def decide(
    email_ids: Iterable[UUID], decision: Decision, find_changed: FindChanged | None = None
) -> dict[UUID, OperationResult]:
    """Say what became of emails that are ``unknown``.

    Those of direct sends can be decided, too, but not be sent from here: no payload is stored. The
    other arguments are those of :func:`retry`.

    Raises:
        django.db.DatabaseError: those of the last transaction, of 500 at most, are as they were.
    """
    return _in_portions(email_ids, partial(_decide, decision=decision), find_changed)


def resume(account_name: str) -> bool:
    """Let an account make requests again before its pause ends; return whether it was paused.

    Args:
        account_name: as :class:`~truncus_django.models.OutboxAccount` names it.
    """
    clock = Clock(database())
    present = moment_of(clock.now())
    account = OutboxAccount.objects.filter(account=account_name).first()
    if account is None or account.paused_until is None or account.paused_until <= present:
        return False
    # Apart from the next step: a worker that writes an answer down locks first the request, then
    # the account.
    waiting = OutboxBatch.objects.filter(account=account_name, lease=None, due_at__gt=present)
    waiting.filter(error_code=account.error_code).update(due_at=present)
    with transaction.atomic(using=clock.using):
        paused = OutboxAccount.objects.filter(pk=account.pk, paused_until=account.paused_until)
        is_resumed = paused.update(paused_until=None, failures=0) == 1
        if is_resumed:
            notify_after_commit(clock.using, get_settings())
    return is_resumed


# What is possible ---------------------------------------------------------------------------------


def result_of_retry(
    email: Email, entry: OutboxEntry | None, batch: OutboxBatch | None, *, now: float
) -> OperationResult:
    """Return what :func:`retry` does to an email.

    Args:
        batch: the request that the entry belongs to.
        now: unix seconds.
    """
    if entry is not None and entry.is_waiting:
        return OperationResult.WAITS_ALREADY
    if batch is not None:
        is_sent = batch.is_being_sent(moment_of(now))
        return OperationResult.BEING_SENT if is_sent else OperationResult.DUE_NOW
    if entry is not None and email.state == State.UNKNOWN:
        return OperationResult.NEEDS_DECISION
    if email.state not in RESTARTABLE_STATES:
        return OperationResult.DOES_NOT_APPLY
    return OperationResult.NOT_STORED if entry is None else OperationResult.WAITS_AGAIN


def result_of_cancel(
    email: Email, entry: OutboxEntry | None, batch: OutboxBatch | None, *, now: float
) -> OperationResult:
    """Return what :func:`cancel` does to an email; the arguments are those of a retry."""
    if entry is not None and entry.is_waiting:
        return OperationResult.CANCELLED
    if batch is None:
        return OperationResult.DOES_NOT_APPLY
    if batch.is_being_sent(moment_of(now)):
        return OperationResult.BEING_SENT
    return OperationResult.AMBIGUOUS if batch.is_ambiguous else OperationResult.CANCELLED


# The steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    """Emails and all that there is of them in the outbox, locked until the transaction ends."""

    ids: Sequence[UUID]
    emails: Mapping[UUID, Email]
    entries: Mapping[UUID, OutboxEntry]
    batches: Mapping[UUID, OutboxBatch]
    taken: Collection[UUID]
    """Emails that a worker is sending at this moment; they are not held."""
    changed: Collection[UUID]
    """Emails that ``find_changed`` found."""
    now: float

    def batch_of(self, entry: OutboxEntry) -> OutboxBatch | None:
        """Return the request that an entry belongs to."""
        return self.batches.get(entry.serializable_value("batch"))


def _in_portions(
    email_ids: Iterable[UUID],
    operation: Callable[[_Held], dict[UUID, OperationResult]],
    find_changed: FindChanged | None = None,
) -> dict[UUID, OperationResult]:
    ids = list(dict.fromkeys(email_ids))
    clock, settings = Clock(database()), get_settings()

    def one_portion(portion: Sequence[UUID]) -> dict[UUID, OperationResult]:
        with transaction.atomic(using=clock.using):
            results = operation(_hold(portion, find_changed, clock.now()))
            if {OperationResult.WAITS_AGAIN, OperationResult.DUE_NOW} & set(results.values()):
                notify_after_commit(clock.using, settings)
        return results

    results: dict[UUID, OperationResult] = {}
    for start in range(0, len(ids), _AT_ONCE):
        work = partial(one_portion, ids[start : start + _AT_ONCE])
        # MariaDB may choose it to end a deadlock with workers.
        results |= over_a_live_connection(work, using=clock.using)
    return results


def _hold(ids: Sequence[UUID], find_changed: FindChanged | None, now: float) -> _Held:
    take_write_lock(OutboxAccount.objects.all())  # before anything is read
    # Nothing is claimed as long as the accounts are locked.
    list(OutboxAccount.objects.select_for_update().order_by("pk").values_list("pk"))
    rows = OutboxEntry.objects.filter(pk__in=ids).order_by().values_list("pk", "batch")
    batch_of_email: dict[UUID, UUID | None] = dict(rows)
    batch_ids = {batch_id for batch_id in batch_of_email.values() if batch_id is not None}
    # Those that are locked are with a worker, who writes down what came back and does not wait.
    batches = lock_free_rows(OutboxBatch.objects.filter(pk__in=batch_ids).order_by("pk"))
    found = {batch.pk: batch for batch in batches} if batch_ids else {}
    free = {pk for pk, batch_id in batch_of_email.items() if batch_id is None or batch_id in found}
    # By their keys alone: MariaDB locks whatever it looks at on the way.
    entries = OutboxEntry.objects.filter(pk__in=free).order_by("pk").defer("payload")
    held = {
        entry.pk: entry
        for entry in (entries.select_for_update() if free else ())
        if entry.serializable_value("batch") in {None, *found}
    }
    taken = batch_of_email.keys() - held.keys()
    rows_of_emails = Email.objects.filter(pk__in=[pk for pk in ids if pk not in taken])
    emails = list(rows_of_emails.order_by("pk").only(*VERSION_FIELDS).select_for_update())
    return _Held(
        ids=ids,
        entries=held,
        emails={email.pk: email for email in emails},
        batches=found,
        taken=frozenset(taken),
        changed=frozenset(find_changed(emails, held) if find_changed is not None else ()),
        now=now,
    )


def _results(
    held: _Held, of_one: Callable[[Email, OutboxEntry | None, OutboxBatch | None], OperationResult]
) -> dict[UUID, OperationResult]:
    """Return what becomes of each email; by ``of_one`` if it can be done at all."""
    results = {}
    for pk in held.ids:
        email, entry = held.emails.get(pk), held.entries.get(pk)
        batch = None if entry is None else held.batch_of(entry)
        if pk in held.taken:
            results[pk] = OperationResult.BEING_SENT
        elif email is None:
            results[pk] = OperationResult.GONE
        elif pk in held.changed:
            results[pk] = OperationResult.CHANGED
        else:
            results[pk] = of_one(email, entry, batch)
    return results


def _retry(held: _Held) -> dict[UUID, OperationResult]:
    results = _results(held, partial(result_of_retry, now=held.now))
    _let_wait_again(_those(OperationResult.WAITS_AGAIN, results), held.now)
    due = _batches_of(_those(OperationResult.DUE_NOW, results), held)
    if due:
        # One whose lease has run out is due already.
        not_leased = OutboxBatch.objects.filter(pk__in=due, lease=None)
        not_leased.update(due_at=moment_of(held.now))
    return results


def _those(result: OperationResult, results: Mapping[UUID, OperationResult]) -> list[UUID]:
    return [pk for pk, found in results.items() if found is result]


def _batches_of(email_ids: Sequence[UUID], held: _Held) -> dict[UUID, OutboxBatch]:
    """Return the requests that emails belong to, by their ids."""
    batches = (held.batch_of(held.entries[pk]) for pk in email_ids)
    return {batch.pk: batch for batch in batches if batch is not None}


def _let_wait_again(ids: Sequence[UUID], now: float) -> None:
    if not ids:
        return
    transitions.restart_emails(ids)
    entries = OutboxEntry.objects.filter(pk__in=ids)
    entries.filter(expires_at__lte=moment_of(now)).update(expires_at=None)
    # It waits from now on, behind those that wait already.
    entries.update(is_waiting=True, batch=None, created_at=moment_of(now))


def _cancel(held: _Held) -> dict[UUID, OperationResult]:
    results = _results(held, partial(result_of_cancel, now=held.now))
    cancelled = _those(OperationResult.CANCELLED, results)
    if cancelled:
        outcomes.cancel(cancelled)
        outcomes.renew_keys(_batches_of(cancelled, held))
    return results


def _decide(held: _Held, decision: Decision) -> dict[UUID, OperationResult]:
    def of_one(
        email: Email, entry: OutboxEntry | None, batch: OutboxBatch | None
    ) -> OperationResult:
        if email.state != State.UNKNOWN:
            return OperationResult.DOES_NOT_APPLY
        if decision is Decision.SENT:
            return OperationResult.SENT
        if decision is Decision.NOT_SENT:
            return OperationResult.NOT_SENT
        return OperationResult.NOT_STORED if entry is None else OperationResult.WAITS_AGAIN

    results = _results(held, of_one)
    chosen = [pk for pk, result in results.items() if result.is_done]
    if not chosen:
        return results
    if decision is Decision.SEND:
        _let_wait_again(chosen, held.now)
    elif decision is Decision.SENT:
        updates = [EmailUpdate(pk, State.SENT) for pk in chosen]
        transitions.advance_emails(updates, ["state", "reason", "error_code", "error"])
        outcomes.drop_sent(chosen)
    else:
        why = "Its answer was lost; a person decided that it was not sent."
        updates = [EmailUpdate(pk, State.FAILED, error=why) for pk in chosen]
        transitions.advance_emails(updates, ["state", "reason", "error_code", "error"])
    return results
