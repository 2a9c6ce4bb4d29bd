"""What happened to an email, newest first."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from truncus_django.admin import display
from truncus_django.admin.reasons import reason_label, short_reason
from truncus_django.api import contract
from truncus_django.models import Email, EmailEvent
from truncus_django.states import (
    CLICKED,
    OPENED,
    RANKS,
    State,
    state_of_event,
    usual_word,
)


@dataclass(frozen=True)
class TimelineEntry:
    """One line of the timeline; ``at`` is ``None`` for the present state, since an unknown time."""

    at: datetime | None
    title: str
    kind: str
    rank: int
    """Of two in the same second, the one that comes later in an email's life has the higher one."""
    note: Any = ""
    reason: str = ""
    recipient: str = ""
    by: str = ""
    payload: str = field(default="", repr=False)

    @property
    def time(self) -> SafeString | str:
        """The time to the second, as the page shows it."""
        return _("now") if self.at is None else display.moment(self.at, seconds=True)


_LAST = max(RANKS.values())
_RANKS: Mapping[str, int] = {contract.QUEUED: -1, **RANKS, OPENED: _LAST + 1, CLICKED: _LAST + 2}
"""The event ``queued`` begins an email's life, scheduled or not."""
_RECORDED = -2
_NEW = _LAST + 3
"""The rank of an event that is not known here."""

_NOTES: Mapping[str, Any] = {
    State.PENDING: gettext_lazy("It waits in the outbox."),
    State.SENDING: gettext_lazy("It is part of a request that a worker makes or repeats."),
    State.DEFERRED: gettext_lazy("Truncus tries again by itself."),
    State.CANCELLED: gettext_lazy("It is not sent."),
}
"""What the page says about a state nowhere else."""


def timeline(email: Email, events: Sequence[EmailEvent]) -> list[TimelineEntry]:
    """Return the events and the moments of the record, newest first.

    The present state comes first where no event and no column tells since when it is.

    Args:
        events: the latest of its events.
    """
    entries = [_from_event(event, names_recipient=len(email.recipients) > 1) for event in events]
    entries += _from_columns(email, {entry.rank for entry in entries})
    if _RANKS.get(email.state, _NEW) not in {entry.rank for entry in entries}:
        entries.append(_present_state(email))
    entries.append(TimelineEntry(email.created_at, _("recorded"), "quiet", _RECORDED))

    def place(entry: TimelineEntry) -> tuple[bool, datetime, int]:
        at = entry.at or email.created_at
        return entry.at is None, at.replace(microsecond=0), entry.rank

    return sorted(entries, key=place, reverse=True)


def _from_columns(email: Email, known: set[int]) -> Iterator[TimelineEntry]:
    for state, at in (
        (State.SENT, email.sent_at),
        (State.DELIVERED, email.delivered_at),
        (State.BOUNCED, email.bounced_at),
        (State.COMPLAINED, email.complained_at),
    ):
        if at is not None and RANKS[state] not in known:
            yield _entry(state, at, reason=short_reason(email) if state == email.state else "")


def _from_event(event: EmailEvent, *, names_recipient: bool) -> TimelineEntry:
    is_known = event.source in EmailEvent.Source
    return _entry(
        state_of_event(event.type) or usual_word(event.type),
        event.occurred_at,
        reason=reason_label(event.reason),
        recipient=event.recipient if names_recipient else "",
        by=str(EmailEvent.Source(event.source).label) if is_known else "",
        payload=json.dumps(event.payload, indent=2, ensure_ascii=False) if event.payload else "",
    )


def _present_state(email: Email) -> TimelineEntry:
    note = _NOTES.get(email.state, "")
    if email.state == State.SCHEDULED and email.send_at is not None:
        at = display.moment(email.send_at, seconds=True)
        note = format_html(_("Truncus sends it at {time}"), time=at)
    return _entry(email.state, None, note=note, reason=short_reason(email))


def _entry(word: str, at: datetime | None, **texts: Any) -> TimelineEntry:
    """Return the entry for a state, or for an event that leads to none."""
    title = str(State(word).label) if word in State else word
    kind = "good" if word in {OPENED, CLICKED} else display.KINDS.get(word, "quiet")
    return TimelineEntry(at, title, kind, _RANKS.get(word, _NEW), **texts)
