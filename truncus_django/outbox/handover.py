"""Emails of the outbox → the fallback mailer, while the account is paused for an outage.

Each goes alone. That its handover begins is committed before it does: if the worker dies, nobody
knows whether it was sent, and no other way to send could recognise it. So it is not tried again,
and becomes ``unknown``.
"""

from datetime import UTC, datetime

from django.db.models import Q, QuerySet

from truncus_django.api.errors import OutcomeUnknown
from truncus_django.api.keys import new_idempotency_key
from truncus_django.conf import Settings
from truncus_django.db.clock import moment_of, unix_of
from truncus_django.db.locks import lock_free_rows
from truncus_django.log import transitions
from truncus_django.models import Email, Handover, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox.outcomes import end, renew_keys
from truncus_django.outbox.stored_payload import read_payload
from truncus_django.outbox.waiting import QueueName
from truncus_django.sending.rebuilt import why_only_truncus

LEASE_S = 600.0
"""No setting says how long a mailer takes. Only a handover that has ended can be recorded."""
BEGINS_WITHIN_S = 60.0
"""A worker that stands still for longer before a handover gives the email back."""
MAX_SET_ASIDE = 20


def is_possible(
    queue: QueueName, account: OutboxAccount, settings: Settings, *, now: float
) -> bool:
    """Return whether an email may be handed over now, as far as that is known without locks."""
    return _is_open(account, settings, now) and (
        any(entries.exists() for entries in _candidates(queue, now))
        or _interrupted(queue, now).exists()
    )


def begin(
    queue: QueueName, account: OutboxAccount, settings: Settings, *, now: float
) -> OutboxBatch | None:
    """Return a batch of one email to hand over, which is still to be leased; ``None`` if none is.

    Batches whose worker died are ended.

    Args:
        queue: whose emails.
        account: locked.
        settings: of the mailer.
        now: unix seconds, by the database's clock.
    """
    if not _is_open(account, settings, now):
        return None
    for batch in list(lock_free_rows(_interrupted(queue, now))):
        end_interrupted(batch)
    for entries in _candidates(queue, now):
        for _ in range(MAX_SET_ASIDE):
            entry = entries.first()
            alone = None if entry is None else _alone(entry, account, now)
            if entry is None or alone is None:
                break
            fields = read_payload(entry.payload)
            at = datetime.fromtimestamp(now, UTC)
            if fields is not None and why_only_truncus(fields, now=at) is None:
                alone.handover = Handover.BEGUN
                Email.objects.filter(pk=entry.pk).update(sent_by=settings.fallback_mailer or "")
                transitions.mark_sending([entry.pk])
                return alone
            alone.handover = Handover.REFUSED
            alone.save(using=OutboxBatch.objects.db)
    return None


def end_interrupted(batch: OutboxBatch) -> None:
    """End a batch whose worker died while it was handed over."""
    names = Email.objects.filter(outbox_entry__batch=batch).values_list("sent_by", flat=True)
    error = OutcomeUnknown(
        "A worker died while it handed the email to the fallback mailer, which may have sent it."
    )
    end(batch, error, sent_by=names.first() or "")


def _is_open(account: OutboxAccount, settings: Settings, now: float) -> bool:
    paused_until = account.paused_until
    is_paused = paused_until is not None and unix_of(paused_until) > now
    return settings.fallback_mailer is not None and account.allows_fallback and is_paused


def _interrupted(queue: QueueName, now: float) -> QuerySet[OutboxBatch]:
    overdue = OutboxBatch.objects.filter(queue.of_entries(), due_at__lte=moment_of(now))
    return overdue.filter(handover=Handover.BEGUN)


def _candidates(
    queue: QueueName, now: float
) -> tuple[QuerySet[OutboxEntry], QuerySet[OutboxEntry]]:
    """Return what Truncus certainly has not: the members of batches it did not take, what waits."""
    present = moment_of(now)
    entries = OutboxEntry.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=present),
        Q(email__send_at=None) | Q(email__send_at__lte=present),
        queue.of_entries(),
        is_sandbox=False,
        own_key="",
        email__template_id="",
    ).order_by(*OutboxEntry.IN_ORDER)
    not_taken = entries.filter(
        is_waiting=False,
        batch__isnull=False,
        batch__lease=None,
        batch__is_ambiguous=False,
        batch__handover="",
    )
    return not_taken, entries.filter(is_waiting=True)


def _alone(entry: OutboxEntry, account: OutboxAccount, now: float) -> OutboxBatch | None:
    """Take an email out of its batch into one of its own; ``None`` if a worker has the batch."""
    old = None
    if not entry.is_waiting:
        batch = OutboxBatch.objects.filter(pk=entry.serializable_value("batch"), lease=None)
        old = lock_free_rows(batch).first()
        if old is None or old.is_ambiguous:
            return None
    alone = OutboxBatch.objects.create(
        idempotency_key=new_idempotency_key(),
        mailer=entry.mailer,
        tenant=entry.tenant,
        account=account.pk,
        priority=entry.priority,
        created_at=moment_of(now),
        due_at=moment_of(now),
        attempts=0 if old is None else old.attempts,
        failures=0 if old is None else old.failures,
        failing_since=None if old is None else old.failing_since,
        size=1,
        error_code="" if old is None else old.error_code,
        error="" if old is None else old.error,
    )
    OutboxEntry.objects.filter(pk=entry.pk).update(is_waiting=False, batch=alone)
    if old is not None:
        renew_keys({old.pk: old})
    return alone
