"""News about e-mails → their state and engagement: the only place that moves a state.

News comes by webhook, one piece at a time, or by asking, for many e-mails at once; late, twice,
out of order, and before the e-mail is recorded. Either way it is stored once as an
:class:`~truncus_django.models.EmailEvent`, and applied once.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from truncus_django import signals
from truncus_django.api.results import EmailDetails
from truncus_django.models import Email, EmailEvent
from truncus_django.states import CLICKED, OPENED, State, next_sync, outranks, state_of


@dataclass(frozen=True, slots=True)
class News:
    """One thing that was heard about an e-mail.

    Attributes:
        message_id: Truncus's id of the e-mail.
        type: Truncus's word for what happened, such as ``"delivered"`` or ``"opened"``.
        occurred_at: when, aware.
        event_id: the provider's id of the event, or a digest that is the same for the same news.
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


def hear(news: Sequence[News]) -> int:
    """Store and apply ``news``; return how many pieces were not known before.

    In one transaction: on any trouble nothing is stored, and it can be told again.
    """
    using = Email.objects.db
    with transaction.atomic(using=using):
        events = _store_new(_as_event(piece) for piece in news)
        emails = _locked({event.message_id for event in events})
        moves = _Moves()
        _attach(events, emails, moves)
        _write(moves)
        _tell_after_commit(moves, using)
        strays = {event.message_id for event in events if event.message_id not in emails}
        if strays:
            # The e-mail may be recorded in this very moment, by a transaction that cannot see
            # these events either: who commits last must look again.
            transaction.on_commit(lambda: adopt(strays), using=using, robust=True)
    return len(events)


def adopt(message_ids: Iterable[str]) -> None:
    """Apply events that came before their e-mails were recorded."""
    strays = EmailEvent.objects.filter(message_id__in=set(message_ids), email=None)
    if not strays.exists():
        return
    using = Email.objects.db
    with transaction.atomic(using=using):
        emails = _locked(set(strays.values_list("message_id", flat=True)))
        events = list(strays.filter(message_id__in=emails.keys()).order_by("occurred_at", "id"))
        moves = _Moves()
        _attach(events, emails, moves)
        EmailEvent.objects.bulk_update(events, ["email"])
        _write(moves)
        _tell_after_commit(moves, using)


def learn(details: Mapping[str, EmailDetails], *, now: datetime | None = None) -> int:
    """Apply what Truncus tells of e-mails that it was asked about; return how many changed.

    A constant number of queries for any number of e-mails.

    Args:
        details: by ``message_id``.
        now: the present, from which the next question is dated.
    """
    moment = now or timezone.now()
    using = Email.objects.db
    with transaction.atomic(using=using):
        events = _store_new(
            _as_event(piece) for key, told in details.items() for piece in _news_of(key, told)
        )
        emails = _locked(set(details))
        moves = _Moves()
        _attach(events, emails, moves)
        for message_id, told in details.items():
            email = emails.get(message_id)
            if email is not None:
                _apply_details(email, told, moves)
                email.next_sync_at = next_sync(
                    email.state, sent_at=email.sent_at or email.created_at, now=moment
                )
        changed = len(moves.emails)
        moves.emails.update((email.pk, email) for email in emails.values())
        _write(moves)
        _tell_after_commit(moves, using)
    return changed


def move(email: Email, state: State, *, reason: str = "", at: datetime | None = None) -> bool:
    """Move one e-mail's state, if it gives way to ``state``; return whether it did.

    For what this process itself knows, such as a cancellation.
    """
    using = Email.objects.db
    with transaction.atomic(using=using):
        locked = Email.objects.select_for_update().get(pk=email.pk)
        moves = _Moves()
        _move(locked, state, at or timezone.now(), reason, moves)
        _write(moves)
        _tell_after_commit(moves, using)
    email.refresh_from_db()
    return bool(moves.old_states)


def digest(*parts: object) -> str:
    """Return an event id for news that has none: the same for the same parts."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()


# The steps ----------------------------------------------------------------------------------------


def _as_event(piece: News) -> EmailEvent:
    return EmailEvent(
        message_id=piece.message_id[:255],
        event_id=piece.event_id[:255],
        type=piece.type[:60],
        reason=piece.reason[:300],
        recipient=piece.recipient[:500],
        occurred_at=piece.occurred_at,
        source=piece.source,
        payload=dict(piece.payload),
    )


def _store_new(events: Iterable[EmailEvent]) -> list[EmailEvent]:
    """Write the events that are not known yet and return them, in the order of time.

    The write comes first in its transaction: it waits for whoever stores the same events now,
    and on SQLite it takes the lock that everything after it needs.
    """
    unique = {event.event_id: event for event in events}
    if not unique:
        return []
    EmailEvent.objects.bulk_create(unique.values(), ignore_conflicts=True)
    mine = set(EmailEvent.objects.filter(event_id__in=unique).values_list("pk", flat=True))
    new = [event for event in unique.values() if event.pk in mine]
    return sorted(new, key=lambda event: (event.occurred_at, event.pk))


def _locked(message_ids: set[str]) -> dict[str, Email]:
    """Return the e-mails with these ids, locked in an order that all share."""
    if not message_ids:
        return {}
    found = Email.objects.filter(message_id__in=message_ids).select_for_update().order_by("pk")
    return {email.message_id: email for email in found if email.message_id}


def _attach(events: Sequence[EmailEvent], emails: Mapping[str, Email], moves: _Moves) -> None:
    """Give events to their e-mails and apply each, but what another source has told already."""
    attached = [event for event in events if event.message_id in emails]
    if not attached:
        return
    told_before = _told_by_others(attached)
    for event in attached:
        email = emails[event.message_id]
        event.email = email
        repeats = _same_moment(event) in told_before
        _observe(email, event, moves, counts=not repeats)
        moves.events.append(event)
    EmailEvent.objects.bulk_update(attached, ["email"])


def _told_by_others(events: Sequence[EmailEvent]) -> set[tuple[str, str, int]]:
    """Return the engagement that the other source told of: opens have no id in a webhook."""
    engagement = [event for event in events if event.type in {OPENED, CLICKED}]
    if not engagement:
        return set()
    others = EmailEvent.objects.filter(
        message_id__in={event.message_id for event in engagement}, type__in=[OPENED, CLICKED]
    ).exclude(source=engagement[0].source)
    return {_same_moment(event) for event in others.only("message_id", "type", "occurred_at")}


def _same_moment(event: EmailEvent) -> tuple[str, str, int]:
    return event.message_id, event.type, int(event.occurred_at.timestamp())


def _observe(email: Email, event: EmailEvent, moves: _Moves, *, counts: bool) -> None:
    at = event.occurred_at
    if event.type in {OPENED, CLICKED}:
        if counts and event.type == OPENED:
            email.open_count += 1
        elif counts:
            email.click_count += 1
        if event.type == OPENED:
            email.first_opened_at = _earliest(email.first_opened_at, at)
            email.last_opened_at = _latest(email.last_opened_at, at)
        moves.emails[email.pk] = email
    state = state_of(event.type)
    if state is not None:
        _move(email, state, at, event.reason, moves)


def _move(email: Email, state: State, at: datetime, reason: str, moves: _Moves) -> None:
    """Note when a state was reached, and move to it if it outranks the present one."""
    name = _TIMES.get(state)
    if name is not None and getattr(email, name) is None:
        setattr(email, name, at)
        moves.emails[email.pk] = email
    if not outranks(state, email.state):
        return
    moves.old_states.setdefault(email.pk, email.state)
    moves.emails[email.pk] = email
    email.state = state
    email.reason = reason[:300] if reason else email.reason
    email.next_sync_at = next_sync(
        state, sent_at=email.sent_at or email.created_at, now=timezone.now()
    )


_TIMES = {
    State.SENT: "sent_at",
    State.DELIVERED: "delivered_at",
    State.BOUNCED: "bounced_at",
    State.COMPLAINED: "complained_at",
}


def _apply_details(email: Email, told: EmailDetails, moves: _Moves) -> None:
    before = (email.open_count, email.click_count, email.first_opened_at, email.last_opened_at)
    email.open_count = max(email.open_count, told.open_count)
    email.click_count = max(email.click_count, told.click_count)
    email.first_opened_at = _earliest(email.first_opened_at, told.first_opened_at)
    email.last_opened_at = _latest(email.last_opened_at, told.last_opened_at)
    for name in ("global_message_id", "provider_message_id"):
        if not getattr(email, name) and getattr(told, name):
            setattr(email, name, getattr(told, name)[:255])
    after = (email.open_count, email.click_count, email.first_opened_at, email.last_opened_at)
    if after != before:
        moves.emails[email.pk] = email
    state = state_of(told.status)
    if state is not None:
        reason = told.intelligence.get("failure_reason")
        _move(
            email,
            state,
            told.updated_at or timezone.now(),
            reason if isinstance(reason, str) else "",
            moves,
        )


def _news_of(message_id: str, told: EmailDetails) -> Iterable[News]:
    for event in told.events:
        at = event.created_at or told.updated_at or timezone.now()
        reason = event.payload.get("reason")
        yield News(
            message_id=message_id,
            type=event.type,
            occurred_at=at,
            event_id=event.id or digest(message_id, event.type, at.isoformat()),
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
]


def _write(moves: _Moves) -> None:
    if len(moves.emails) == 1:  # a bulk update of one is the slower way
        for email in moves.emails.values():
            email.save(update_fields=_MOVING_FIELDS, using=Email.objects.db)
    elif moves.emails:
        Email.objects.bulk_update(moves.emails.values(), _MOVING_FIELDS)


def _tell_after_commit(moves: _Moves, using: str) -> None:
    def tell() -> None:
        for event in moves.events:
            signals.email_event.send_robust(sender=Email, email=event.email, event=event)
        for pk, old_state in moves.old_states.items():
            email = moves.emails[pk]
            signals.email_state_changed.send_robust(
                sender=Email, email=email, old_state=old_state, new_state=email.state
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
