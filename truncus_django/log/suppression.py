"""Who must not be mailed: what bounces, complaints and refusals teach, and how it is written."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from truncus_django import signals
from truncus_django.api import contract
from truncus_django.api.errors import MessageError
from truncus_django.conf import get_settings
from truncus_django.db.bulk import insert_new
from truncus_django.db.text import storable_text
from truncus_django.models import Email, SuppressedAddress
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.forgotten import digests_of
from truncus_django.sending.outgoing import SendOutcome
from truncus_django.sending.screening import MAX_VALUES
from truncus_django.states import State
from truncus_django.unsubscribe import Subscription

Reason, Source = SuppressedAddress.Reason, SuppressedAddress.Source

ASKED_FOR_NO_EMAILS = frozenset({Reason.COMPLAINT, Reason.UNSUBSCRIBED})
"""The reasons that are a person's own wish."""

_Key = tuple[str, str, str]


def suppress(found: Iterable[SuppressedAddress]) -> list[SuppressedAddress]:
    """Write entries; return those that were not in force before, each as it is stored.

    An entry that is there stays as it is, unless it ends before the new one does, or only the new
    one says that the person asked for no emails. Two queries for any number up to 500; more
    where some are there. In the transaction that is open.
    """
    unique: dict[_Key, SuppressedAddress] = {}
    for each in found:
        unique.setdefault(_key(each), each)
    if not unique:
        return []
    # In one order for all, so that two such writes never wait for each other.
    rows = [unique[key] for key in sorted(unique)]
    using = SuppressedAddress.objects.db
    with transaction.atomic(using=using):
        if insert_new(rows, using=using) == len(rows):
            return rows
        return _renewed(rows)


def unsubscribe_address(subscription: Subscription) -> None:
    """Write that somebody unsubscribed, and send the signal where that is new.

    For somebody who was forgotten, a digest stands in the table, and stays all that does.
    """
    digests = digests_of(subscription.address)
    was_forgotten = SuppressedAddress.objects.filter(address__in=digests).exists()
    entry = SuppressedAddress(
        address=digests[0] if was_forgotten else subscription.address,
        tenant_id=subscription.tenant_id,
        list_name=subscription.list_name,
        reason=Reason.UNSUBSCRIBED,
        source=Source.LINK,
    )
    using = SuppressedAddress.objects.db
    with transaction.atomic(using=using):
        if suppress([entry]):
            transaction.on_commit(lambda: _send_unsubscribed(subscription), using=using)


def _send_unsubscribed(subscription: Subscription) -> None:
    signals.send_safely(
        signals.unsubscribed,
        sender=SuppressedAddress,
        address=subscription.address,
        list_name=subscription.list_name,
        tenant_id=subscription.tenant_id,
    )


def allow(address: str, *, tenant_id: str | None = None, list_name: str | None = None) -> int:
    """Remove entries of an address; return how many.

    Args:
        tenant_id, list_name: only those; ``None`` for all.

    Raises:
        InvalidAddress: it is malformed.
    """
    entries = SuppressedAddress.objects.filter(address__in=stored_forms(address))
    if tenant_id is not None:
        entries = entries.filter(tenant_id=tenant_id)
    if list_name is not None:
        entries = entries.filter(list_name=list_name)
    return entries.delete()[0]


def stored_forms(address: str) -> list[str]:
    """Return what may stand in the table for an address: itself, or a digest of somebody forgotten.

    Raises:
        InvalidAddress: it is malformed.
    """
    known = mailbox(address, "address")
    return [known, *digests_of(known)]


def _key(entry: SuppressedAddress) -> _Key:
    return entry.address, entry.tenant_id, entry.list_name


def _asks_first(row: SuppressedAddress, known: SuppressedAddress) -> bool:
    """Return whether only the first of two entries says that the person asked for no emails."""
    return row.reason in ASKED_FOR_NO_EMAILS and known.reason not in ASKED_FOR_NO_EMAILS


def _renewed(rows: Sequence[SuppressedAddress]) -> list[SuppressedAddress]:
    """Return the rows that were written, after renewing those that stand in their way for less."""
    now = timezone.now()
    addresses = sorted({row.address for row in rows})
    stored: dict[_Key, SuppressedAddress] = {}
    for start in range(0, len(addresses), MAX_VALUES):
        some = addresses[start : start + MAX_VALUES]
        among = SuppressedAddress.objects.filter(address__in=some)
        stored |= {_key(each): each for each in among.select_for_update().order_by("pk")}
    fresh = []
    for row in rows:
        known = stored.get(_key(row))
        if known is None or known.pk == row.pk:
            fresh.append(row)
            continue
        was_over = known.expires_at is not None and known.expires_at <= now
        if known.expires_at is None or (row.expires_at and row.expires_at <= known.expires_at):
            if was_over or not row.is_in_force or not _asks_first(row, known):
                continue
            row.expires_at, row.note = known.expires_at, row.note or known.note
        for name in ("reason", "source", "note", "email_id", "created_at", "expires_at"):
            setattr(known, name, getattr(row, name))
        known.save(using=SuppressedAddress.objects.db)
        if was_over:
            fresh.append(known)
    return fresh


# What is learned ----------------------------------------------------------------------------------


def suppressions_from_event(
    email: Email, state: State | None, reason: str, *, recipient: str, source: str, at: datetime
) -> list[SuppressedAddress]:
    """Return what an event or an answer about an email teaches.

    A bounce counts only where its reason is known to be permanent.

    Args:
        recipient: whom it is about; empty where that was not told.
    """
    if state == State.COMPLAINED:
        why = Reason.COMPLAINT
    elif state == State.BOUNCED and reason.lower() in contract.PERMANENT_REASONS:
        why = Reason.HARD_BOUNCE
    else:
        return []
    return _entries(email, [recipient] if recipient else [], why, source=source, at=at, note=reason)


def suppressions_from_answer(
    email: Email, outcome: SendOutcome, *, at: datetime
) -> list[SuppressedAddress]:
    """Return what the answer to a send teaches."""
    why = _reason_in(outcome)
    if why is None:
        return []
    result = outcome.result
    named = result.suppressed_addresses if result and why == Reason.BLOCKED else ()
    note = (result.reason or "") if result else ""
    return _entries(email, named, why, source=Source.ANSWER, at=at, note=note)


def tells_of_suppression(outcome: SendOutcome) -> bool:
    """Return whether the answer to a send may teach who must not be mailed."""
    return _reason_in(outcome) is not None


def _reason_in(outcome: SendOutcome) -> "SuppressedAddress.Reason | None":
    result, error = outcome.result, outcome.error
    if result is None:
        if error is None or error.ambiguous or error.code != contract.SUPPRESSED_CODE:
            return None
        return Reason.BLOCKED if error.is_from_truncus else None
    if result.status == contract.BOUNCED and result.reason in contract.PERMANENT_REASONS:
        return Reason.HARD_BOUNCE
    is_blocked = result.code == contract.SUPPRESSED_CODE or (
        result.reason == contract.SUPPRESSION_REASON
    )
    return Reason.BLOCKED if is_blocked else None


def _entries(
    email: Email,
    named: Sequence[str],
    reason: str,
    *,
    source: str,
    at: datetime,
    note: str = "",
) -> list[SuppressedAddress]:
    """Return entries for those who are named, or else for the one recipient of the email.

    Of several recipients nobody knows which one it is about. What went to the developers of a
    staging site, or into the sandbox, says nothing about its recipients.
    """
    if get_settings().suppress != "learn" or email.is_sandbox or email.redirected_to:
        return []
    recipients = [each for each in email.recipients if each not in email.suppressed]
    about = named or (recipients if len(recipients) == 1 else ())
    found = []
    for each in about:
        try:
            address = mailbox(each, "recipient")
        except MessageError:
            continue
        is_forgotten = email.forgotten_at is not None
        found.append(
            SuppressedAddress(
                address=digests_of(address)[0] if is_forgotten else address,
                tenant_id=email.tenant_id,
                reason=reason,
                source=source,
                note="" if is_forgotten else storable_text(note)[:300],
                email_id=None if is_forgotten else email.pk,
                created_at=at,
            )
        )
    return found
