"""Events of emails, from webhooks and from the answers to a sync, are stored and applied once each.

They come late, twice, out of order, and before the email is recorded. Whatever their order, the
email ends in the same state, with the same reason, times and counts:

* the state and its reason follow the rules of :mod:`.transitions`;
* a time is the earliest that was reported, and of the last open the latest;
* opens and clicks are counted as :mod:`.engagement` says.

Of an email of which somebody was forgotten, what comes later is kept without recipient and payload.
"""

import hashlib
from bisect import bisect, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from truncus_django.api.results import EmailDetails
from truncus_django.db.bulk import insert_new, locked_row, update_rows
from truncus_django.db.locks import take_write_lock
from truncus_django.db.text import storable_json, storable_text
from truncus_django.db.timestamps import earliest, storable_moment
from truncus_django.log.engagement import (
    COUNT_FIELDS,
    WebhookCounts,
    count_answers,
    count_first_report,
    count_webhooks,
    is_after_answers,
)
from truncus_django.log.suppression import suppressions_from_event
from truncus_django.log.transitions import Changes, next_sync_at
from truncus_django.models import Email, EmailEvent
from truncus_django.states import OPENED, outranks, state_of, state_of_event, usual_word


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One event of an email, as a webhook or an answer reports it.

    Attributes:
        message_id: Truncus's id of the email.
        type: Truncus's word for what happened, such as ``"delivered"`` or ``"opened"``.
        occurred_at: when, aware.
        event_id: the provider's id of the event, or a digest that is the same for the same event.
        payload: everything that was reported.
    """

    message_id: str
    type: str
    occurred_at: datetime
    event_id: str
    reason: str = ""
    recipient: str = field(default="", repr=False)
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: str = EmailEvent.Source.WEBHOOK


def ingest(incoming: Sequence[IncomingEvent]) -> int:
    """Store and apply events; return how many were new.

    In one transaction: if anything fails nothing is stored, and the events can come again.
    """
    using = Email.objects.db
    offered = _unique(_to_row(event) for event in incoming)
    with transaction.atomic(using=using):
        if len(offered) == 1 and _is_first_report(offered[0]):
            return 1
        emails = _lock_emails({event.message_id for event in offered})
        _store(offered)
        changes, after_answers = Changes(), WebhookCounts()
        new = _merge(offered, emails, changes, after_answers)
        _apply_stored_events(emails, changes, after_answers)
        count_webhooks(_counted_in(after_answers, emails), after_answers, changes)
        changes.save()
        orphans = {event.message_id for event in new if event.message_id not in emails}
        if orphans:
            # The email may be recorded in this very moment, by a transaction that cannot see
            # these events either: who commits last must look again. Should that fail, whoever
            # reports the event again makes up for it.
            transaction.on_commit(lambda: attach(orphans), using=using)
    return len(new)


def attach(message_ids: Iterable[str]) -> None:
    """Apply events that came before their emails were recorded."""
    wanted = set(message_ids)
    if not EmailEvent.objects.filter(message_id__in=wanted, email=None).exists():
        return
    with transaction.atomic(using=Email.objects.db):
        emails = _lock_emails(wanted)
        changes, after_answers = Changes(), WebhookCounts()
        _apply_stored_events(emails, changes, after_answers)
        count_webhooks(_counted_in(after_answers, emails), after_answers, changes)
        changes.save()


def apply_details(details: Mapping[str, EmailDetails], *, now: datetime | None = None) -> int:
    """Apply Truncus's answers about emails; return how many emails changed.

    A constant number of queries for any number of emails.

    Args:
        details: by ``message_id``.
        now: the present, from which the next question is dated.
    """
    moment = now or timezone.now()
    offered = _unique(
        _without_known(
            [
                _to_row(event)
                for message_id, answer in details.items()
                for event in _events_in(message_id, answer)
            ]
        )
    )
    with transaction.atomic(using=Email.objects.db):
        emails = _lock_emails(set(details))
        _store(offered)
        changes, after_answers = Changes(), WebhookCounts()
        _merge(offered, emails, changes, after_answers)
        _apply_stored_events(emails, changes, after_answers)
        for message_id, email in emails.items():
            _apply_answer(email, details[message_id], changes)
            email.next_sync_at = next_sync_at(email, now=moment)
        counted = count_webhooks(emails, after_answers, changes)
        count_answers(emails, details, *counted, changes, now=moment)
        changes.save()
        unchanged = [email for email in emails.values() if email.pk not in changes.emails]
        names = ["next_sync_at", "answers_until"]
        update_rows(Email, unchanged, names, using=Email.objects.db)
    return len(changes.emails)


def digest(*parts: object) -> str:
    """Return an event id for an event that has none: the same for the same parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


# Storing ------------------------------------------------------------------------------------------


def _to_row(event: IncomingEvent) -> EmailEvent:
    return EmailEvent(
        message_id=storable_text(event.message_id)[:255],
        event_id=storable_text(event.event_id)[:255],
        type=storable_text(event.type)[:60],
        reason=storable_text(event.reason)[:300],
        recipient=storable_text(event.recipient)[:500],
        occurred_at=storable_moment(event.occurred_at),
        source=event.source,
        payload=storable_json(dict(event.payload)),
    )


_FEW = 20
"""For fewer events, to insert them and ignore duplicates is cheaper than to look for them first."""


def _without_known(events: Sequence[EmailEvent]) -> list[EmailEvent]:
    """Leave out events that are stored already: of an email that was asked about before, most."""
    if len(events) < _FEW:
        return list(events)
    stored = EmailEvent.objects.filter(event_id__in={event.event_id for event in events}).order_by()
    known = {event.event_id: event for event in stored.defer("payload")}
    return [
        event
        for event in events
        if event.event_id not in known or _add_to(known[event.event_id], event)
    ]


def _unique(events: Iterable[EmailEvent]) -> list[EmailEvent]:
    """Return the events, each once, in an order that all writers share.

    So two of them never wait for each other.
    """
    unique: dict[str, EmailEvent] = {}
    for event in events:
        if event.event_id in unique:
            _add_to(unique[event.event_id], event)
        else:
            unique[event.event_id] = event
    return sorted(unique.values(), key=lambda event: event.event_id)


def _store(events: Sequence[EmailEvent]) -> None:
    """Write the events that are not known yet, after their emails are locked."""
    if events:
        EmailEvent.objects.bulk_create(events, ignore_conflicts=True)


def _is_first_report(event: EmailEvent) -> bool:
    """Store and apply an event in the least number of queries; return whether that could be done.

    It can where no other event has a say in what this one means: it is new, the email is recorded,
    no event waits for it, and no answer has told of it. (benchmarks/targets.py, "webhook": the
    general way takes 9 queries and twice the CPU.)
    """
    if event.source != EmailEvent.Source.WEBHOOK:
        return False
    using = Email.objects.db
    take_write_lock(Email.objects.all())
    email, others_wait = locked_row(
        Email,
        "message_id",
        event.message_id,
        using=using,
        without=_BODIES,
        waiting=EmailEvent._meta.get_field("email"),
    )
    if email is None or others_wait or email.answers_until is not None:
        return False
    if email.forgotten_at is not None:
        return False
    event.email = email
    if not insert_new([event], using=using):
        event.email = None
        return False
    changes = Changes(events=[event])
    _apply_event(email, event, changes)
    count_first_report(email, event, changes)
    changes.save()
    return True


def _add_to(known: EmailEvent, again: EmailEvent) -> bool:
    """Add what an event that comes again has to say; return whether that is anything.

    Webhook and sync may report the same event, by its id, with times and reasons that differ.
    The result does not depend on which of them came first.
    """
    if (known.message_id, known.type) != (again.message_id, again.type):
        return False
    source = known.source if again.source == EmailEvent.Source.SYNC else again.source
    reason = min(filter(None, (known.reason, again.reason)), default="")
    merged = (min(known.occurred_at, again.occurred_at), reason, source)
    is_more = merged != (known.occurred_at, known.reason, known.source)
    known.occurred_at, known.reason, known.source = merged
    return is_more


def _merge(
    offered: Sequence[EmailEvent],
    emails: Mapping[str, Email],
    changes: Changes,
    after_answers: WebhookCounts,
) -> list[EmailEvent]:
    """Add to events that were known before what is new about them; return the others."""
    if not offered:
        return []
    ids = [event.event_id for event in offered]
    stored = EmailEvent.objects.filter(event_id__in=ids).order_by().defer("payload")
    by_id = {event.event_id: event for event in stored}
    new, changed = [], []
    for event in offered:
        known = by_id.get(event.event_id)
        if known is None:
            continue
        if known.pk == event.pk:
            new.append(known)
            continue
        email = emails.get(known.message_id) if known.email_id else None
        before = email is not None and is_after_answers(known, email)
        if not _add_to(known, event):
            continue
        changed.append(known)
        if email is not None:
            known.reason = _storable_reason(email, known.reason)
            _apply_event(email, known, changes)
            if known.type in COUNT_FIELDS:
                is_after = is_after_answers(known, email)
                after_answers[known.message_id, known.type] += is_after - before
    names = ["occurred_at", "reason", "source"]
    update_rows(EmailEvent, changed, names, using=EmailEvent.objects.db)
    return new


_BODIES = ("text_body", "html_body")
"""Not read, as those of a hundred emails may be large."""


# Applying -----------------------------------------------------------------------------------------


def _lock_emails(message_ids: set[str]) -> dict[str, Email]:
    """Return the emails with these ids, locked in an order that all share."""
    if not message_ids:
        return {}
    take_write_lock(Email.objects.all())
    found = Email.objects.filter(message_id__in=message_ids).select_for_update().order_by("pk")
    found = found.defer(*_BODIES)
    return {email.message_id: email for email in found if email.message_id}


def _apply_stored_events(
    emails: Mapping[str, Email], changes: Changes, after_answers: WebhookCounts
) -> None:
    """Apply all events of these emails that are not applied yet, in the order of time."""
    if not emails:
        return
    stored = EmailEvent.objects.filter(message_id__in=emails.keys(), email=None)
    events = [event for event in stored.order_by("occurred_at", "pk") if event.message_id in emails]
    repeated = _reported_by_both(events) if events else set()
    for event in events:
        event.email = emails[event.message_id]
        event.reason = _storable_reason(event.email, event.reason)
        _apply_event(event.email, event, changes)
        if event.email.forgotten_at is not None:
            event.recipient, event.payload = "", {}
        if event.type in COUNT_FIELDS:
            is_after = is_after_answers(event, event.email)
            after_answers[event.message_id, event.type] += is_after
        if event.pk not in repeated:
            changes.events.append(event)
    fields = ["email"]
    if any(email.forgotten_at is not None for email in emails.values()):
        fields += ["reason", "recipient", "payload"]
    update_rows(EmailEvent, events, fields, using=EmailEvent.objects.db)


def _storable_reason(email: Email, reason: str) -> str:
    """Return a reason as it is kept: of an email with somebody forgotten, without addresses."""
    return "" if email.forgotten_at is not None and "@" in reason else reason


def _apply_event(email: Email, event: EmailEvent, changes: Changes) -> None:
    at = event.occurred_at
    if event.type == OPENED:
        changes.set(email, "first_opened_at", earliest(email.first_opened_at, at))
    state = state_of_event(event.type)
    if state is not None:
        changes.advance(email, state, at=at, reason=event.reason)
        changes.suppressed += suppressions_from_event(
            email, state, event.reason, recipient=event.recipient, source=event.source, at=at
        )


def _apply_answer(email: Email, answer: EmailDetails, changes: Changes) -> None:
    if answer.first_opened_at is not None:
        opened_at = storable_moment(answer.first_opened_at)
        changes.set(email, "first_opened_at", earliest(email.first_opened_at, opened_at))
    for name in ("global_message_id", "provider_message_id"):
        if not getattr(email, name) and getattr(answer, name):
            changes.set(email, name, storable_text(getattr(answer, name))[:255])
    state = state_of(answer.status)
    if state is not None:
        at = storable_moment(answer.updated_at) if answer.updated_at else timezone.now()
        told = answer.intelligence.get("failure_reason")
        reason = _storable_reason(email, storable_text(told) if isinstance(told, str) else "")
        if outranks(state, email.state):  # else it teaches again what a person may have removed
            changes.suppressed += suppressions_from_event(
                email, state, reason, recipient="", source=EmailEvent.Source.SYNC, at=at
            )
        changes.advance(email, state, at=at, reason=reason)


def _events_in(message_id: str, answer: EmailDetails) -> Iterable[IncomingEvent]:
    undated: Counter[str] = Counter()
    for event in answer.events:
        at = event.created_at or answer.updated_at or timezone.now()
        moment = at.isoformat()
        if event.created_at is None:  # another one with the next answer
            undated[event.type] += 1
            moment = f"{undated[event.type]}"
        reason = event.payload.get("reason")
        yield IncomingEvent(
            message_id=message_id,
            type=usual_word(event.type),
            occurred_at=at,
            event_id=event.id or digest(message_id, event.type, moment),
            reason=reason if isinstance(reason, str) else "",
            payload=event.payload,
            source=EmailEvent.Source.SYNC,
        )


def _counted_in(counts: WebhookCounts, emails: Mapping[str, Email]) -> dict[str, Email]:
    return {message_id: emails[message_id] for message_id, _ in counts}


# Signals ------------------------------------------------------------------------------------------


_APART = timedelta(seconds=30)
"""Webhook and sync report one event with times that differ by no more than this."""

_OTHER: Mapping[str, str] = {
    EmailEvent.Source.WEBHOOK: EmailEvent.Source.SYNC,
    EmailEvent.Source.SYNC: EmailEvent.Source.WEBHOOK,
}


def _reported_by_both(events: Sequence[EmailEvent]) -> set[UUID]:
    """Return which of ``events`` the other source has reported before: webhooks may have no ids.

    Each has at most one partner: the nearest in time of those that have none.
    """
    moments = [event.occurred_at for event in events]
    near = EmailEvent.objects.filter(
        message_id__in={event.message_id for event in events},
        occurred_at__range=(min(moments) - _APART, max(moments) + _APART),
    )
    alone: defaultdict[tuple[str, str, str], list[datetime]] = defaultdict(list)
    repeated = set()
    # Events that were applied before come first.
    for pk, _, at, source, message_id, word in sorted(
        near.values_list("pk", "email", "occurred_at", "source", "message_id", "type"),
        key=lambda fields: (fields[1] is None, fields[2]),
    ):
        others = alone[message_id, word, _OTHER[source]]
        place = bisect(others, at)
        partner = min(
            others[max(place - 1, 0) : place + 1], key=lambda other: abs(other - at), default=None
        )
        if partner is not None and abs(partner - at) <= _APART:
            others.remove(partner)
            repeated.add(pk)
        else:
            insort(alone[message_id, word, source], at)
    return repeated
