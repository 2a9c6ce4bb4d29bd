"""Events of emails → their state and engagement. States move here, by rank; what a direct send
answers is written by :mod:`.recording` itself, without asking for the rank.

Events come by webhook, one at a time, or with the details that a sync asks for; late, twice, out
of order, and before the email is recorded. Either way each is stored once as an
:class:`~truncus_django.models.EmailEvent`, and applied once. In whatever order it comes, the
email ends in the same state, with the same reason, times and counts:

* the state is the highest in rank that anything told of;
* its reason is that of the first event, by time and id, which tells of this state and has one;
  where none does, that of an answer, and of several the one that sorts first;
* a time is the earliest that was told, and of the last open the latest;
* opens and clicks are what the answers count, and the webhooks about later ones.
"""

import hashlib
import math
import uuid
from bisect import bisect, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import Count, F, Max, Q
from django.utils import timezone

from truncus_django import signals
from truncus_django.api.results import EmailDetails
from truncus_django.db.bulk import update_each
from truncus_django.db.timestamps import storable_moment
from truncus_django.models import Email, EmailEvent
from truncus_django.states import (
    CLICKED,
    OPENED,
    RESTARTABLE_STATES,
    State,
    next_sync,
    outranks,
    state_of,
    state_of_event,
)


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One event of an email, as a webhook or an answer tells of it.

    Attributes:
        message_id: Truncus's id of the email.
        type: Truncus's word for what happened, such as ``"delivered"`` or ``"opened"``.
        occurred_at: when, aware.
        event_id: the provider's id of the event, or a digest that is the same for the same event.
        payload: all that was told.
    """

    message_id: str
    type: str
    occurred_at: datetime
    event_id: str
    reason: str = ""
    recipient: str = field(default="", repr=False)
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: str = EmailEvent.Source.WEBHOOK


@dataclass(slots=True)
class _Moves:
    """What a piece of work has changed, to be written at once and told after the commit."""

    emails: dict[Any, Email] = field(default_factory=dict)
    old_states: dict[Any, str] = field(default_factory=dict)
    events: list[EmailEvent] = field(default_factory=list)
    reasons: dict[Email, set[str]] = field(default_factory=dict)
    """Of each email whose reason may be another now: what was told of its state by no event."""
    later: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By message id and type: how many more webhooks tell of opens and clicks after the answers."""


def ingest(incoming: Sequence[IncomingEvent]) -> int:
    """Store and apply events; return how many were not known before.

    In one transaction: on any trouble nothing is stored, and it can be told again.
    """
    using = Email.objects.db
    with transaction.atomic(using=using):
        offered = _store(_as_event(piece) for piece in incoming)
        emails = _locked({event.message_id for event in offered})
        moves = _Moves()
        new = _merge(offered, emails, moves)
        _apply_pending_events(emails, moves)
        _count_webhooks({message_id: emails[message_id] for message_id, _ in moves.later}, moves)
        _finish(moves, using)
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
    using = Email.objects.db
    if not _has_orphans(wanted, using):
        return
    with transaction.atomic(using=using):
        moves = _Moves()
        emails = _locked(wanted)
        _apply_pending_events(emails, moves)
        _count_webhooks({message_id: emails[message_id] for message_id, _ in moves.later}, moves)
        _finish(moves, using)


def _has_orphans(message_ids: set[str], using: str) -> bool:
    """Whether events wait for these emails. Asked for every email that is sent, so in SQL."""
    connection = connections[using]
    quoted = connection.ops.quote_name
    places = ", ".join(["%s"] * len(message_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 1 FROM {quoted(EmailEvent._meta.db_table)} "  # noqa: S608  names of our own
            f"WHERE {quoted('message_id')} IN ({places}) AND {quoted('email_id')} IS NULL LIMIT 1",
            list(message_ids),
        )
        return cursor.fetchone() is not None


def apply_details(details: Mapping[str, EmailDetails], *, now: datetime | None = None) -> int:
    """Apply what Truncus tells of emails that it was asked about; return how many changed.

    A constant number of queries for any number of emails.

    Args:
        details: by ``message_id``.
        now: the present, from which the next question is dated.
    """
    moment = now or timezone.now()
    using = Email.objects.db
    known_events = [
        _as_event(piece)
        for message_id, told in details.items()
        for piece in _events_of(message_id, told)
    ]
    events = _not_known(known_events)
    with transaction.atomic(using=using):
        offered = _store(events)
        emails = _locked(set(details))
        moves = _Moves()
        _merge(offered, emails, moves)
        _apply_pending_events(emails, moves)
        for message_id, email in emails.items():
            _apply_details(email, details[message_id], moves)
            email.next_sync_at = next_question(email, now=moment)
        _count_answers(emails, details, _count_webhooks(emails, moves), moves, now=moment)
        _finish(moves, using)
        quiet = [email for email in emails.values() if email.pk not in moves.emails]
        update_each(Email.objects.all(), quiet, ["next_sync_at", "answers_until"])
    return len(moves.emails)


def move(email: Email, state: State, *, reason: str = "", at: datetime | None = None) -> bool:
    """Move one email's state, if it gives way to ``state``; return whether it did.

    For what this process itself knows, such as a cancellation.
    """
    using = Email.objects.db
    with transaction.atomic(using=using):
        take_write_lock()
        locked = Email.objects.select_for_update().get(pk=email.pk)
        moves = _Moves()
        _move(locked, state, at or timezone.now(), reason, moves)
        _finish(moves, using)
    email.refresh_from_db()
    return bool(moves.old_states)


def begin(email_ids: Sequence[uuid.UUID]) -> None:
    """Note that waiting emails have become part of a request, which is about to be made."""
    Email.objects.filter(pk__in=email_ids).order_by().update(state=State.SENDING)


def restart(email_ids: Sequence[uuid.UUID]) -> int:
    """Let emails wait in the outbox again; return how many.

    The one way back, which only a person decides on.
    """
    again = Email.objects.filter(pk__in=email_ids, state__in=RESTARTABLE_STATES).order_by()
    # The ids are of the attempt before: late events of that must not move this one.
    fields = {
        "message_id": None,
        "global_message_id": "",
        "provider_message_id": "",
        "error": "",
        "error_code": "",
        "reason": "",
        "next_sync_at": None,
        **dict.fromkeys(_EARLIEST),
    }
    return int(again.update(state=State.PENDING, **fields))


@dataclass(slots=True)
class EmailUpdate:
    """What becomes of an email of the outbox: fields of its record, under the record's names.

    Lighter than a record of which most would be empty.
    """

    pk: uuid.UUID
    state: str = ""
    message_id: str | None = None
    global_message_id: str = ""
    provider_message_id: str = ""
    idempotency_key: str = ""
    batch_index: int | None = None
    reason: str = ""
    error_code: str = ""
    error: str = ""
    is_sandbox: bool = False
    attempts: int = 0
    send_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None
    next_sync_at: datetime | None = None


_EARLIEST = ("sent_at", "delivered_at", "bounced_at")
"""What answers and events both tell of: the earliest moment counts."""


def finish(updates: Sequence[EmailUpdate], names: Sequence[str]) -> None:
    """Write down what became of emails of the outbox.

    Those that events outran keep their state and its reason.

    A constant number of queries for any number of emails. Call it in a transaction.

    Args:
        updates: one for each email.
        names: the fields that are written, ``state`` among them.
    """
    using, present = Email.objects.db, timezone.now()
    told = {update.pk: update for update in updates}
    locked = Email.objects.filter(pk__in=told.keys()).select_for_update().order_by("pk")
    changes: dict[uuid.UUID, tuple[str, str]] = {}
    found = []
    known = ("pk", "state", "reason", "send_at", "created_at", *_EARLIEST)
    for pk, old, reason, send_at, created_at, *moments in locked.values_list(*known):
        update = told[pk]
        if outranks(update.state, old):
            changes[pk] = (old, update.state)
        else:
            if reason or update.state != old:
                update.reason = reason
            update.state = old
        for name, moment in zip(_EARLIEST, moments, strict=True):
            setattr(update, name, _earliest(getattr(update, name), moment))
        if update.message_id and not update.is_sandbox:
            sent_at = update.sent_at or send_at or created_at
            update.next_sync_at = next_sync(update.state, sent_at=sent_at, now=present)
        else:
            update.next_sync_at = None
        found.append(update)
    update_each(Email.objects.all(), found, sorted({*names, "next_sync_at"}))
    if changes:
        transaction.on_commit(lambda: _tell_changes(changes), using=using)


def _tell_changes(changes: Mapping[uuid.UUID, tuple[str, str]]) -> None:
    """Tell receivers of new states, if there are any to tell."""
    if not signals.email_state_changed.has_listeners(Email):
        return
    emails = Email.objects.defer("text_body", "html_body").in_bulk(changes)
    for pk, (old_state, new_state) in changes.items():
        if pk in emails:
            signals.tell(
                signals.email_state_changed,
                sender=Email,
                email=emails[pk],
                old_state=old_state,
                new_state=new_state,
            )


def next_question(email: Email, *, now: datetime) -> datetime | None:
    """Return when to ask Truncus about an email next; nothing ever follows in the sandbox."""
    if email.is_sandbox or not email.message_id:
        return None
    sent_at = email.sent_at or email.send_at or email.created_at
    return next_sync(email.state, sent_at=sent_at, now=now)


def digest(*parts: object) -> str:
    """Return an event id for an event that has none: the same for the same parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


# The steps ----------------------------------------------------------------------------------------


def _as_event(piece: IncomingEvent) -> EmailEvent:
    return EmailEvent(
        message_id=_clean_text(piece.message_id)[:255],
        event_id=_clean_text(piece.event_id)[:255],
        type=_clean_text(piece.type)[:60],
        reason=_clean_text(piece.reason)[:300],
        recipient=_clean_text(piece.recipient)[:500],
        occurred_at=storable_moment(piece.occurred_at),
        source=piece.source,
        payload=_clean(dict(piece.payload)),
    )


_MAX_DEPTH = 20
"""So deep JSON may be; MariaDB takes 32 levels, and drops the row where there are more."""


def _clean(value: Any, depth: int = 0) -> Any:
    """Return JSON that every database takes: no NUL, no half characters, no NaN, no abyss."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, Mapping):
        return {_clean_text(str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _clean_text(text: str) -> str:
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_FEW = 20
"""Fewer events are offered to the database again sooner than looked for."""


def _not_known(events: Sequence[EmailEvent]) -> list[EmailEvent]:
    """Return what is not stored yet just so: of an email asked about again, most of it is."""
    if len(events) < _FEW:
        return list(events)
    stored = EmailEvent.objects.filter(event_id__in={event.event_id for event in events}).order_by()
    known = {event.event_id: event for event in stored.defer("payload")}
    return [
        event
        for event in events
        if event.event_id not in known or _add_to(known[event.event_id], event)
    ]


def _store(events: Iterable[EmailEvent]) -> list[EmailEvent]:
    """Write the events that are not known yet; return all, of which some may have been known.

    The write comes first in its transaction: it waits for whoever stores the same events now,
    and on SQLite it takes the lock that everything after it needs.
    """
    unique: dict[str, EmailEvent] = {}
    for event in events:
        if event.event_id in unique:
            _add_to(unique[event.event_id], event)
        else:
            unique[event.event_id] = event
    # In one order for all, so that two such writes never wait for each other.
    in_order = sorted(unique.values(), key=lambda event: event.event_id)
    if in_order:
        EmailEvent.objects.bulk_create(in_order, ignore_conflicts=True)
    return in_order


def _add_to(known: EmailEvent, told: EmailEvent) -> bool:
    """Add what an event that is told again has to say; return whether that is anything.

    Webhook and sync may tell the same event, by its id, with times and reasons that differ. What
    is kept does not depend on which of them came first.
    """
    if (known.message_id, known.type) != (told.message_id, told.type):
        return False
    source = known.source if told.source == EmailEvent.Source.SYNC else told.source
    reason = min(filter(None, (known.reason, told.reason)), default="")
    kept = (min(known.occurred_at, told.occurred_at), reason, source)
    is_more = kept != (known.occurred_at, known.reason, known.source)
    known.occurred_at, known.reason, known.source = kept
    return is_more


def _merge(
    offered: Sequence[EmailEvent], emails: Mapping[str, Email], moves: _Moves
) -> list[EmailEvent]:
    """Add what is new to events that were known before; return the others, which are new."""
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
        before = email is not None and _is_later(known, email)
        if not _add_to(known, event):
            continue
        changed.append(known)
        if email is not None:
            _observe(email, known, moves)
            if known.type in _ENGAGEMENT:
                moves.later[known.message_id, known.type] += _is_later(known, email) - before
    update_each(EmailEvent.objects.all(), changed, ["occurred_at", "reason", "source"])
    return new


def _locked(message_ids: set[str]) -> dict[str, Email]:
    """Return the emails with these ids, locked in an order that all share."""
    if not message_ids:
        return {}
    take_write_lock()
    found = Email.objects.filter(message_id__in=message_ids).select_for_update().order_by("pk")
    found = found.defer("text_body", "html_body")  # a hundred of them may be large
    return {email.message_id: email for email in found if email.message_id}


def take_write_lock() -> None:
    """Lock SQLite's database, which has no locks for rows, before what is read is changed.

    A transaction that has read cannot wait for this lock any more: it fails at once.
    """
    if not connections[Email.objects.db].features.has_select_for_update:
        Email.objects.filter(message_id="").update(attempts=0)  # there is none


def _apply_pending_events(emails: Mapping[str, Email], moves: _Moves) -> None:
    """Apply all events of these emails that are not applied yet, in the order of time."""
    if not emails:
        return
    known_events = EmailEvent.objects.filter(message_id__in=emails.keys(), email=None)
    events = [
        event for event in known_events.order_by("occurred_at", "pk") if event.message_id in emails
    ]
    repeated = _told_by_both(events) if events else set()
    for event in events:
        event.email = emails[event.message_id]
        _observe(event.email, event, moves)
        if event.type in _ENGAGEMENT:
            moves.later[event.message_id, event.type] += _is_later(event, event.email)
        if event.pk not in repeated:
            moves.events.append(event)
    update_each(EmailEvent.objects.all(), events, ["email"])


_APART = timedelta(seconds=30)
"""So far apart, at most, are the times that webhook and sync tell of one event."""


def _told_by_both(events: Sequence[EmailEvent]) -> set[uuid.UUID]:
    """Return which of ``events`` the other source has told before: webhooks may have no ids.

    Each has at most one partner: the nearest in time of those that have none.
    """
    moments = [event.occurred_at for event in events]
    near = EmailEvent.objects.filter(
        message_id__in={event.message_id for event in events},
        occurred_at__range=(min(moments) - _APART, max(moments) + _APART),
    )
    alone: defaultdict[tuple[str, str, str], list[datetime]] = defaultdict(list)
    repeated = set()
    # What was applied before comes first.
    for pk, _, at, source, *what in sorted(
        near.values_list("pk", "email", "occurred_at", "source", "message_id", "type"),
        key=lambda fields: (fields[1] is None, fields[2]),
    ):
        message_id, word = what
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


_OTHER: Mapping[str, str] = {
    EmailEvent.Source.WEBHOOK: EmailEvent.Source.SYNC,
    EmailEvent.Source.SYNC: EmailEvent.Source.WEBHOOK,
}


_ENGAGEMENT: Mapping[str, str] = {OPENED: "open_count", CLICKED: "click_count"}
"""What is counted, and where."""


def _is_later(event: EmailEvent, email: Email) -> bool:
    """Whether a webhook tells of something after all that Truncus has answered about an email."""
    is_webhook = event.source == EmailEvent.Source.WEBHOOK
    return (
        is_webhook and email.answers_until is not None and event.occurred_at > email.answers_until
    )


def _count_webhooks(
    emails: Mapping[str, Email], moves: _Moves
) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Count opens and clicks of emails by the webhooks about them.

    Nothing in a webhook says which open of sync's it is, and their times may differ. But what
    sync is answered is all that had happened by then, be it a list or a number: a webhook about
    something before that adds nothing, one about something after it is one more. So there are

        max(webhooks, the most that an answer counted + webhooks later than all answers)

    in whatever order they come. ``Email.answers_until`` is how far the answers reach, by Truncus's
    clock, which dates the webhooks too: ours has no part in it. The most that an answer counted is
    what a count has beyond the later webhooks, as long as it is more than the webhooks alone.

    Returns:
        by message id and type of all events: how many webhooks tell of them, and of later ones.
    """
    if not emails:
        return {}
    by_webhook = Q(source=EmailEvent.Source.WEBHOOK)
    rows = (
        EmailEvent.objects.filter(message_id__in=emails.keys(), type__in=_ENGAGEMENT.keys())
        .exclude(email=None)
        .order_by()
        .values_list("message_id", "type")
        .annotate(
            last=Max("occurred_at"),
            told=Count("pk", filter=by_webhook),
            later=Count("pk", filter=by_webhook & Q(occurred_at__gt=F("email__answers_until"))),
        )
    )
    webhooks = {}
    for message_id, word, last, count, later in rows:
        email, name = emails[message_id], _ENGAGEMENT[word]
        webhooks[message_id, word] = (count, later)
        known = getattr(email, name) + moves.later[message_id, word]
        _set(email, name, min(max(known, count), _LARGEST_COUNT), moves)
        if word == OPENED:
            _set(email, "last_opened_at", _latest(email.first_opened_at, last), moves)
    return webhooks


def _count_answers(
    emails: Mapping[str, Email],
    details: Mapping[str, EmailDetails],
    webhooks: Mapping[tuple[str, str], tuple[int, int]],
    moves: _Moves,
    *,
    now: datetime,
) -> None:
    """Count opens and clicks of emails by what was answered, and note how far that reaches."""
    before = {message_id: email.answers_until for message_id, email in emails.items()}
    for message_id, email in emails.items():
        email.answers_until = _latest(email.answers_until, _reach(details[message_id], now))
    later = _later_webhooks({message_id: emails[message_id] for message_id, _ in webhooks})
    for message_id, email in emails.items():
        for word, name in _ENGAGEMENT.items():
            count, was_later = webhooks.get((message_id, word), (0, 0))
            known, most = getattr(email, name), getattr(details[message_id], name)
            if before[message_id] is not None and known > count:
                most = max(most, known - was_later)
            total = max(count, most + later[message_id, word])
            _set(email, name, min(total, _LARGEST_COUNT), moves)
        if (message_id, OPENED) not in webhooks:  # only the first open is known
            _set(email, "last_opened_at", email.first_opened_at, moves)


def _later_webhooks(emails: Mapping[str, Email]) -> Counter[tuple[str, str]]:
    """Count webhooks about opens and clicks after all that was answered; seldom is there one."""
    reaches = [email.answers_until for email in emails.values() if email.answers_until is not None]
    if not reaches:
        return Counter()
    found = EmailEvent.objects.filter(
        message_id__in=emails.keys(), type__in=_ENGAGEMENT.keys(), occurred_at__gt=min(reaches)
    )
    events = found.exclude(email=None).only("message_id", "type", "source", "occurred_at")
    return Counter(
        (event.message_id, event.type)
        for event in events.order_by()
        if _is_later(event, emails[event.message_id])
    )


CLOCKS_APART = timedelta(minutes=10)
"""No more than this, a clock is taken to be behind Truncus's. (More than 300 seconds, and none of
its webhooks is taken.)"""


def _reach(told: EmailDetails, now: datetime) -> datetime:
    """Return until when an answer knows everything, by Truncus's clock.

    That is when it was made: the end of the second in the answer's ``Date``, or the present where
    it has none. Where it tells of something later, that clock is behind by an unknown while.
    """
    made_at = storable_moment(told.answered_at + timedelta(seconds=1) if told.answered_at else now)
    moments = [event.created_at for event in told.events]
    moments += [told.created_at, told.updated_at, told.first_opened_at]
    known = [storable_moment(moment) for moment in moments if moment is not None]
    latest = max(known, default=made_at)
    return latest + CLOCKS_APART if latest > made_at else made_at


def _observe(email: Email, event: EmailEvent, moves: _Moves) -> None:
    at = event.occurred_at
    if event.type == OPENED:
        _set(email, "first_opened_at", _earliest(email.first_opened_at, at), moves)
    state = state_of_event(event.type)
    if state is not None:
        _move(email, state, at, "", moves)
        if event.reason and state == email.state:
            moves.reasons.setdefault(email, set())  # it is found among the events


def _set(email: Email, name: str, value: Any, moves: _Moves) -> None:
    if getattr(email, name) != value:
        setattr(email, name, value)
        moves.emails[email.pk] = email


def _move(email: Email, state: State, at: datetime, reason: str, moves: _Moves) -> None:
    """Note when a state was reached, and move to it if it outranks the present one.

    Args:
        reason: one that no event tells.
    """
    for name in _TIMES.get(state, ()):
        _set(email, name, _earliest(getattr(email, name), at), moves)
    if outranks(state, email.state):
        moves.old_states.setdefault(email.pk, email.state)
        _set(email, "state", state, moves)
        _set(email, "reason", "", moves)
        moves.reasons.pop(email, None)
        email.next_sync_at = next_question(email, now=timezone.now())
    if reason and state == email.state:
        moves.reasons.setdefault(email, set()).add(reason[:300])


def _find_reasons(moves: _Moves) -> None:
    """Give emails the reasons of their states, by the rule at the top."""
    if not moves.reasons:
        return
    emails = {email.message_id: email for email in moves.reasons if email.message_id}
    told = EmailEvent.objects.filter(message_id__in=emails.keys()).exclude(reason="").order_by()
    first: dict[str | None, str] = {}
    # Sorted here, as databases differ in how they sort text.
    for *_, message_id, word, reason in sorted(
        told.values_list("occurred_at", "event_id", "message_id", "type", "reason")
    ):
        # MariaDB takes ids for equal that differ in spaces at their end.
        if message_id in emails and state_of_event(word) == emails[message_id].state:
            first.setdefault(message_id, reason)
    for email, reasons in moves.reasons.items():
        others = [reason for reason in (email.reason, *reasons) if reason]
        _set(email, "reason", first.get(email.message_id) or min(others, default=""), moves)


_TIMES: Mapping[str, Sequence[str]] = {
    State.SENT: ["sent_at"],
    State.DELIVERED: ["sent_at", "delivered_at"],
    State.BOUNCED: ["sent_at", "bounced_at"],
    State.COMPLAINED: ["sent_at", "complained_at"],
}
"""Which times a state tells: what was delivered has been sent."""


_LARGEST_COUNT = 2**31 - 1
"""What a column of counts holds on every database."""


def _apply_details(email: Email, told: EmailDetails, moves: _Moves) -> None:
    if told.first_opened_at is not None:
        opened_at = storable_moment(told.first_opened_at)
        _set(email, "first_opened_at", _earliest(email.first_opened_at, opened_at), moves)
    for name in ("global_message_id", "provider_message_id"):
        if not getattr(email, name) and getattr(told, name):
            _set(email, name, _clean_text(getattr(told, name))[:255], moves)
    state = state_of(told.status)
    if state is not None:
        reason = told.intelligence.get("failure_reason")
        _move(
            email,
            state,
            storable_moment(told.updated_at) if told.updated_at else timezone.now(),
            _clean_text(reason) if isinstance(reason, str) else "",
            moves,
        )


def _events_of(message_id: str, told: EmailDetails) -> Iterable[IncomingEvent]:
    undated: Counter[str] = Counter()
    for event in told.events:
        at = event.created_at or told.updated_at or timezone.now()
        moment = at.isoformat()
        if event.created_at is None:  # another one with the next answer
            undated[event.type] += 1
            moment = f"{undated[event.type]}"
        reason = event.payload.get("reason")
        yield IncomingEvent(
            message_id=message_id,
            type=event.type,
            occurred_at=at,
            event_id=event.id or digest(message_id, event.type, moment),
            reason=reason if isinstance(reason, str) else "",
            payload=event.payload,
            source=EmailEvent.Source.SYNC,
        )


_MOVING_FIELDS = [
    "state",
    "reason",
    "global_message_id",
    "provider_message_id",
    "sent_at",
    "delivered_at",
    "bounced_at",
    "complained_at",
    "first_opened_at",
    "last_opened_at",
    "open_count",
    "click_count",
    "next_sync_at",
    "answers_until",
]


def _finish(moves: _Moves, using: str) -> None:
    """Write what has changed, and tell receivers after the commit."""
    _find_reasons(moves)
    _write(moves)
    _tell_after_commit(moves, using)


def _write(moves: _Moves) -> None:
    if len(moves.emails) == 1:  # a bulk update of one is the slower way
        for email in moves.emails.values():
            email.save(update_fields=_MOVING_FIELDS, using=Email.objects.db)
    elif moves.emails:
        update_each(Email.objects.all(), moves.emails.values(), _MOVING_FIELDS)


def _tell_after_commit(moves: _Moves, using: str) -> None:
    def tell() -> None:
        for event in moves.events:
            signals.tell(signals.email_event, sender=Email, email=event.email, event=event)
        for pk, old_state in moves.old_states.items():
            email = moves.emails[pk]
            signals.tell(
                signals.email_state_changed,
                sender=Email,
                email=email,
                old_state=old_state,
                new_state=email.state,
            )

    if moves.events or moves.old_states:
        transaction.on_commit(tell, using=using)


def _earliest(*moments: datetime | None) -> datetime | None:
    return _choose(min, moments)


def _latest(*moments: datetime | None) -> datetime | None:
    return _choose(max, moments)


def _choose(
    choose: Callable[[list[datetime]], datetime], moments: tuple[datetime | None, ...]
) -> datetime | None:
    known = [moment for moment in moments if moment is not None]
    return choose(known) if known else None
