"""What came back → rows: each email's state, and what is still to be done.

The functions run inside a transaction of their caller's, who holds the batch or the entries.
States change through :mod:`truncus_django.log.transitions` alone.
"""

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from truncus_django.api.errors import TruncusError
from truncus_django.api.keys import new_idempotency_key
from truncus_django.conf import get_settings
from truncus_django.log import transitions
from truncus_django.log.ingest import attach
from truncus_django.log.recording import ANSWER_FIELDS, apply_outcome
from truncus_django.log.suppression import (
    suppress,
    suppressions_from_answer,
    tells_of_suppression,
)
from truncus_django.log.transitions import EmailUpdate
from truncus_django.models import Email, EmailQuerySet, OutboxBatch, OutboxEntry
from truncus_django.sending.guard import current_guard
from truncus_django.sending.outgoing import SendOutcome
from truncus_django.states import State

_FIELDS = [
    *(name for name in ANSWER_FIELDS if name != "is_sandbox"),
    "batch_index",
    "idempotency_key",
]


def record_outcomes(
    outcomes: Mapping[UUID, SendOutcome], *, emails: EmailQuerySet | None = None
) -> int:
    """Write down what became of emails, and drop or retain their payloads.

    The payload of a sent email is dropped, unless ``STORE_BODIES``; that of a failed one stays, so
    that a person can retry it.

    Args:
        emails: the records that may be written, all if ``None``; of the others nothing is changed.

    Returns:
        how many emails were written.
    """
    if not outcomes:
        return 0
    now = timezone.now()  # one for all, which costs the database less than one for each
    updates = [_email_update(pk, outcome, now) for pk, outcome in outcomes.items()]
    _leave_out_known_ids(updates)
    # A further column costs each email; only a staging site pays.
    fields = [*_FIELDS, "redirected_to"] if current_guard() else _FIELDS
    written = transitions.advance_emails(updates, fields, emails=emails)
    outcomes = {pk: outcome for pk, outcome in outcomes.items() if pk in written}
    drop_sent([pk for pk, outcome in outcomes.items() if outcome.error is None])
    failed = [pk for pk, outcome in outcomes.items() if outcome.error is not None]
    if failed:
        OutboxEntry.objects.filter(pk__in=failed).update(is_waiting=False, batch=None)
    _suppress_reported(outcomes, now)
    _attach_after_commit([update for update in updates if update.pk in written])
    return len(written)


def _suppress_reported(outcomes: Mapping[UUID, SendOutcome], now: datetime) -> None:
    """Put those into the table of suppressed addresses of whom an answer says so."""
    telling = [pk for pk, outcome in outcomes.items() if tells_of_suppression(outcome)]
    if not telling:
        return
    emails = Email.objects.defer("text_body", "html_body").in_bulk(telling)
    suppress(
        entry
        for pk, email in emails.items()
        for entry in suppressions_from_answer(email, outcomes[pk], at=now)
    )


def _email_update(pk: UUID, outcome: SendOutcome, now: datetime) -> EmailUpdate:
    update = EmailUpdate(pk)
    apply_outcome(update, outcome, at=now)
    if outcome.error is not None and outcome.error.ambiguous:
        where = f"in the logs of {outcome.sent_by!r}" if outcome.sent_by else "in Truncus"
        update.error = (
            text_of(outcome.error)
            + f" It may have been sent: find out {where}, then decide in the admin."
        )
    return update


def text_of(error: TruncusError) -> str:
    """Return the text of an error, without advice about a message object that is no more."""
    plain = copy.copy(error)
    plain.ambiguous = False
    return str(plain)


def _leave_out_known_ids(updates: Sequence[EmailUpdate]) -> None:
    """Leave an id that Truncus returned twice with the email that had it first.

    A message with a key that was used before is answered with the id of the earlier one.
    """
    ids = [update.message_id for update in updates if update.message_id]
    taken = Email.objects.filter(message_id__in=ids).order_by()
    known = dict(taken.values_list("message_id", "pk"))
    for update in updates:
        if update.message_id and known.setdefault(update.message_id, update.pk) != update.pk:
            update.message_id = None


def _attach_after_commit(updates: Sequence[EmailUpdate]) -> None:
    """Apply events that came before the answer was written down."""
    ids = [update.message_id for update in updates if update.message_id]
    if ids and get_settings().webhook_secrets:
        using = Email.objects.db
        transaction.on_commit(lambda: attach(ids), using=using, robust=True)


def drop_sent(email_ids: Sequence[UUID]) -> None:
    """Drop the payloads of emails that are sent, except those to retain."""
    if not email_ids:
        return
    entries = OutboxEntry.objects.filter(pk__in=email_ids)
    dropped, _ = entries.filter(is_retained=False).delete()
    if dropped < len(email_ids):
        entries.update(is_waiting=False, batch=None)


def cancel(email_ids: Sequence[UUID]) -> None:
    """Note that a person does not want emails sent; their payloads stay."""
    transitions.advance_emails([EmailUpdate(pk, State.CANCELLED) for pk in email_ids], ["state"])
    OutboxEntry.objects.filter(pk__in=email_ids).update(is_waiting=False, batch=None)


def members(batch: OutboxBatch) -> list[UUID]:
    """Return the ids of a batch's emails, in their order."""
    entries = OutboxEntry.objects.filter(batch=batch).order_by(*OutboxEntry.IN_ORDER)
    return list(entries.values_list("pk", flat=True))


def end(batch: OutboxBatch, error: TruncusError, *, sent_by: str = "") -> None:
    """End a batch with one error for all its emails: failed, or unknown if it is ambiguous.

    Args:
        sent_by: the fallback mailer that may have sent it.
    """
    outcome = SendOutcome(
        error=error,
        idempotency_key=batch.idempotency_key,
        attempts=batch.attempts,
        sent_by=sent_by,
    )
    record_outcomes(dict.fromkeys(members(batch), outcome))
    delete_batch(batch)


def delete_batch(batch: OutboxBatch) -> None:
    """Delete a batch in which nobody is left; the database refuses where somebody is."""
    OutboxBatch.objects.filter(pk=batch.pk).delete()


def postpone(
    batch: OutboxBatch,
    error: TruncusError,
    *,
    due_at: datetime,
    is_ambiguous: bool,
    failing_since: datetime | None = None,
    code: str | None = None,
    wire_format: Mapping[str, bool] | None = None,
    handover: str | None = None,
) -> None:
    """Let a batch wait for its next try, and say on its emails why.

    The object ``batch`` is not changed, as the caller repeats this if the commit fails.

    Args:
        due_at: when it is tried again.
        is_ambiguous: whether any request of it may have been accepted.
        failing_since: when the first of its failures in a row was that count towards giving up;
            ``None`` if this one does not.
        code: instead of the error's own.
        wire_format: the one that the emails were sent in, where it has changed.
        handover: how far it has come with the fallback mailer, where that has changed.
    """
    changes: dict[str, Any] = {} if wire_format is None else {"wire_format": dict(wire_format)}
    if handover is not None:
        changes["handover"] = handover
    text = text_of(error)
    if is_ambiguous:
        text += " It may have been accepted all the same; the very same request is made again."
    reason = {"error_code": (code or error.code or "")[:100], "error": text}
    OutboxBatch.objects.filter(pk=batch.pk).update(
        due_at=due_at,
        lease=None,
        is_ambiguous=is_ambiguous,
        failures=batch.failures + 1,
        failing_since=failing_since,
        **reason,
        **changes,
    )
    emails = Email.objects.filter(outbox_entry__batch=batch).order_by()
    emails.update(
        **reason, attempts=batch.attempts, idempotency_key=batch.idempotency_key, sent_by=""
    )


def regroup(
    batch: OutboxBatch,
    parts: Sequence[Sequence[UUID]],
    *,
    due_at: datetime,
    failures: int = 0,
    failing_since: datetime | None = None,
    code: str = "",
    error: str = "",
    handover: str | None = None,
) -> None:
    """Make requests of their own of parts of a batch, of which nothing was accepted.

    Their keys are written before anything is asked. The batch goes when nobody is left in it.

    Args:
        handover: as of :func:`postpone`.
    """
    for part in parts:
        new = OutboxBatch.objects.create(
            idempotency_key=batch.idempotency_key if batch.has_own_key else new_idempotency_key(),
            has_own_key=batch.has_own_key,
            mailer=batch.mailer,
            tenant=batch.tenant,
            account=batch.account,
            is_sandbox=batch.is_sandbox,
            priority=batch.priority,
            created_at=batch.created_at,
            attempts=batch.attempts,
            due_at=due_at,
            failures=failures,
            failing_since=failing_since,
            error_code=code[:100],
            error=error,
            handover=batch.handover if handover is None else handover,
        )
        OutboxEntry.objects.filter(pk__in=part).update(batch=new)
        if error:
            Email.objects.filter(pk__in=part).update(error_code=new.error_code, error=error)


def regroup_without_request(
    batch: OutboxBatch, parts: Sequence[Sequence[UUID]], *, due_at: datetime
) -> None:
    """Make requests of their own of parts of a batch that was not asked about meanwhile.

    So what it met before goes on: its waits get no shorter, and it is given up when it was to be.
    """
    regroup(
        batch,
        parts,
        due_at=due_at,
        failures=batch.failures,
        failing_since=batch.failing_since,
        code=batch.error_code,
        error=batch.error,
    )


def renew_keys(batches: Mapping[UUID, OutboxBatch]) -> None:
    """Delete batches that are empty now; give the others that were requested a new key.

    Their content has changed, and none of them was accepted. A key of a message's own belongs to a
    request of one email, which is empty now.
    """
    members = OutboxEntry.objects.filter(batch__in=batches).order_by()
    with_members = set(members.values_list("batch_id", flat=True).distinct())
    OutboxBatch.objects.filter(pk__in=batches.keys() - with_members).delete()
    used = [batches[pk] for pk in with_members if batches[pk].first_request_at is not None]
    for batch in used:
        batch.idempotency_key = new_idempotency_key()
    OutboxBatch.objects.bulk_update(used, ["idempotency_key"])
    ids = [batch.pk for batch in used]
    OutboxBatch.objects.filter(pk__in=ids).update(first_request_at=None, wire_format=None)
