"""The only place that changes the state of a recorded email.

A state gives way only to one of a higher rank (:mod:`truncus_django.states`):

* :func:`advance_emails` writes what came back from requests, or what a person decided;
* :class:`Changes` collects what events and answers about emails change, see :mod:`.ingest`;
* :func:`mark_sending` notes that a request is about to be made;
* :func:`restart_emails` is the one way back, on which only a person decides.

A new record begins in the state that its send led to, see :mod:`.recording`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from truncus_django import signals
from truncus_django.db.bulk import update_rows
from truncus_django.db.locks import take_write_lock
from truncus_django.db.timestamps import earliest
from truncus_django.log.suppression import suppress
from truncus_django.models import Email, EmailEvent, EmailQuerySet, SuppressedAddress
from truncus_django.states import (
    RESTARTABLE_STATES,
    State,
    next_sync,
    outranks,
    state_of_event,
)


@dataclass(slots=True)
class EmailUpdate:
    """New values for the record of an email, under the names of its fields.

    Lighter than a record of which most would be empty.
    """

    pk: UUID
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
    redirected_to: list[str] = field(default_factory=list)
    attempts: int = 0
    send_at: datetime | None = None
    created_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    bounced_at: datetime | None = None
    next_sync_at: datetime | None = None
    suppressed: list[str] = field(default_factory=list)
    sent_by: str = ""


_IDS = ("message_id", "global_message_id", "provider_message_id")
_TIMES = ("sent_at", "delivered_at", "bounced_at")
"""What answers and events both tell of: the earliest moment counts."""


def mark_sending(email_ids: Sequence[UUID]) -> None:
    """Note that waiting emails have become part of a request, which is about to be made."""
    # Not filter(state="pending"): SQLite would go through all that wait, by the index of states.
    higher = [state for state in State if not outranks(State.SENDING, state)]
    waiting = Email.objects.filter(pk__in=email_ids).exclude(state__in=higher).order_by()
    waiting.update(state=State.SENDING)


def restart_emails(email_ids: Sequence[UUID]) -> int:
    """Let emails wait in the outbox again, as a person asks; return how many."""
    again = Email.objects.filter(pk__in=email_ids, state__in=RESTARTABLE_STATES).order_by()
    # The ids are of the attempt before: its late events must not change this one.
    fields = {
        "message_id": None,
        "global_message_id": "",
        "provider_message_id": "",
        "error": "",
        "error_code": "",
        "reason": "",
        "sent_by": "",
        "next_sync_at": None,
        **dict.fromkeys(_TIMES),
    }
    return int(again.update(state=State.PENDING, **fields))


def advance_emails(
    updates: Sequence[Email | EmailUpdate],
    field_names: Sequence[str],
    *,
    emails: EmailQuerySet | None = None,
) -> set[UUID]:
    """Write fields of recorded emails; their states change by rank only.

    Where the stored state is as high as the new one, or higher, it stays, and so does its reason:
    an event was faster. An id that is stored stays where the update has none, and of each time the
    earlier one counts. When to ask Truncus next follows from the result.

    The emails are locked, in the caller's transaction or in one of its own. A constant number of
    queries for any number of emails. ``email_state_changed`` is sent after the commit.

    Args:
        updates: new values, one update for each email, with its primary key. Afterwards they hold
            what is stored: ``update.state`` is the higher of the two states.
        field_names: the fields to write, ``state`` among them.
        emails: the records that may be written, all if ``None``. A filter on a state is checked
            under the lock: of two processes that want to complete the same ambiguous send, one
            finds it.

    Returns:
        the primary keys of the emails that were found and written.
    """
    among = Email.objects.all() if emails is None else emails
    by_pk = {update.pk: update for update in updates}
    now = timezone.now()
    changes: dict[UUID, tuple[str, str]] = {}
    found = []
    stored_names = ("pk", "state", "reason", "is_sandbox", "send_at", "created_at", *_IDS, *_TIMES)
    with transaction.atomic(using=among.db, savepoint=False):
        take_write_lock(among)
        locked = among.filter(pk__in=by_pk).select_for_update().order_by("pk")
        for stored in locked.values(*stored_names):
            update = by_pk[stored["pk"]]
            if _gives_way(stored, update):
                changes[update.pk] = (stored["state"], update.state)
            _merge_stored(update, stored)
            update.next_sync_at = next_sync_at(update, now=now)
            found.append(update)
        names = list(dict.fromkeys([*field_names, "next_sync_at"]))
        update_rows(Email, found, names, using=among.db)
        if changes:
            transaction.on_commit(lambda: _send_state_changes(changes, among.db), using=among.db)
    return {update.pk for update in found}


def _gives_way(stored: Mapping[str, Any], update: Email | EmailUpdate) -> bool:
    """Whether a stored state gives way: by rank, or to the first answer to a direct send.

    A record without an id can have had no event. So the answer that brings the id is true even
    where an earlier send of the same message failed.
    """
    is_first_answer = isinstance(update, Email) and update.message_id and not stored["message_id"]
    return bool(is_first_answer) or outranks(update.state, stored["state"])


def _merge_stored(update: Email | EmailUpdate, stored: Mapping[str, Any]) -> None:
    """Keep in an update what is stored and still holds."""
    if not _gives_way(stored, update):
        if stored["reason"] or update.state != stored["state"]:
            update.reason = stored["reason"]
        update.state = stored["state"]
    for name in _IDS:
        setattr(update, name, getattr(update, name) or stored[name])
    for name in _TIMES:
        setattr(update, name, earliest(getattr(update, name), stored[name]))
    update.is_sandbox = update.is_sandbox or stored["is_sandbox"]
    update.send_at, update.created_at = stored["send_at"], stored["created_at"]


def _send_state_changes(changes: Mapping[UUID, tuple[str, str]], using: str) -> None:
    """Send the signals of changes, as (old, new); by now an email may be further than that."""
    if not signals.email_state_changed.has_listeners(Email):
        return
    emails = Email.objects.using(using).defer("text_body", "html_body").in_bulk(changes)
    for pk, email in emails.items():
        _send_state_change(email, *changes[pk])


def _send_state_change(email: Email, old_state: str, new_state: str) -> None:
    signals.send_safely(
        signals.email_state_changed,
        sender=Email,
        email=email,
        old_state=old_state,
        new_state=new_state,
    )


def next_sync_at(email: Email | EmailUpdate, *, now: datetime) -> datetime | None:
    """Return when to ask Truncus about an email next; never about one in the sandbox."""
    if email.is_sandbox or not email.message_id:
        return None
    sent_at = email.sent_at or email.send_at or email.created_at or now
    return next_sync(email.state, sent_at=sent_at, now=now)


# Events and answers -------------------------------------------------------------------------------


_TIMES_OF_STATES: Mapping[str, Sequence[str]] = {
    State.SENT: ["sent_at"],
    State.DELIVERED: ["sent_at", "delivered_at"],
    State.BOUNCED: ["sent_at", "bounced_at"],
    State.COMPLAINED: ["sent_at", "complained_at"],
}
"""Which times a state has: what was delivered has been sent."""

_CHANGING_FIELDS = [
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


@dataclass(slots=True)
class Changes:
    """Changes of locked emails: collected, written together, and signalled after the commit."""

    emails: dict[UUID, Email] = field(default_factory=dict)
    """The emails that have changed."""
    events: list[EmailEvent] = field(default_factory=list)
    """Events to send signals about."""
    suppressed: list[SuppressedAddress] = field(default_factory=list)
    """Who must not be mailed any more."""
    _old_states: dict[UUID, str] = field(default_factory=dict)
    _reasons: dict[Email, set[str]] = field(default_factory=dict)
    """Emails whose reason may have changed, with the reasons that came now."""

    def set(self, email: Email, name: str, value: Any) -> None:
        """Set a field of an email, other than its state."""
        if getattr(email, name) != value:
            setattr(email, name, value)
            self.emails[email.pk] = email

    def advance(self, email: Email, state: State, *, at: datetime, reason: str) -> None:
        """Note when an email reached a state, and change to it if it outranks the present one."""
        for name in _TIMES_OF_STATES.get(state, ()):
            self.set(email, name, earliest(getattr(email, name), at))
        if outranks(state, email.state):
            self._old_states.setdefault(email.pk, email.state)
            self.set(email, "state", state)
            self.set(email, "reason", "")
            self._reasons.pop(email, None)
            email.next_sync_at = next_sync_at(email, now=timezone.now())
        if reason and state == email.state:
            self._reasons.setdefault(email, set()).add(reason[:300])

    def save(self) -> None:
        """Write the changes, and send signals after the commit."""
        self._choose_reasons()
        emails = list(self.emails.values())
        update_rows(Email, emails, _CHANGING_FIELDS, using=Email.objects.db)
        suppress(self.suppressed)
        if self.events or self._old_states:
            transaction.on_commit(self._send_signals, using=Email.objects.db)

    def _choose_reasons(self) -> None:
        """Give emails the reasons of their states.

        The reason is that of the first event, by time and id, that leads to the state and has one.
        Without such an event it is the one that sorts first of those in answers.
        """
        if not self._reasons:
            return
        emails = {email.message_id: email for email in self._reasons if email.message_id}
        events = EmailEvent.objects.filter(message_id__in=emails).exclude(reason="").order_by()
        first: dict[str | None, str] = {}
        # Sorted here, as databases differ in how they sort text.
        for *_, message_id, word, reason in sorted(
            events.values_list("occurred_at", "event_id", "message_id", "type", "reason")
        ):
            # MariaDB takes ids for equal that differ in spaces at their end.
            if message_id in emails and state_of_event(word) == emails[message_id].state:
                first.setdefault(message_id, reason)
        for email, reasons in self._reasons.items():
            others = [reason for reason in (email.reason, *reasons) if reason]
            self.set(email, "reason", first.get(email.message_id) or min(others, default=""))

    def _send_signals(self) -> None:
        for event in self.events:
            signals.send_safely(signals.email_event, sender=Email, email=event.email, event=event)
        for pk, old_state in self._old_states.items():
            _send_state_change(self.emails[pk], old_state, self.emails[pk].state)
