"""The states of an email, which of them outranks which, and what Truncus's words mean.

Late, repeated and out-of-order events never move an email back: a state gives way only to one of
a higher rank.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import models
from django.utils.translation import gettext_lazy as _

from truncus_django.api import contract


class State(models.TextChoices):
    """What has become of an email."""

    PENDING = "pending", _("pending")
    """It waits in the outbox."""
    SENDING = "sending", _("sending")
    """A worker has claimed it."""
    UNKNOWN = "unknown", _("unknown")
    """It may have been accepted: the answer was lost."""
    SCHEDULED = "scheduled", _("scheduled")
    """Truncus waits for its time."""
    DEFERRED = "deferred", _("deferred")
    """Truncus will try again itself."""
    SENT = "sent", _("sent")
    CANCELLED = "cancelled", _("cancelled")
    EXPIRED = "expired", _("expired")
    FAILED = "failed", _("failed")
    """It was not sent; the error says why."""
    REJECTED = "rejected", _("rejected")
    """Truncus or this site refused it, for its recipients above all."""
    DELIVERED = "delivered", _("delivered")
    BOUNCED = "bounced", _("bounced")
    COMPLAINED = "complained", _("complained")
    """The recipient reported it as spam."""


RANKS: Mapping[str, int] = {
    State.PENDING: 0,
    State.SENDING: 1,
    State.UNKNOWN: 2,
    State.SCHEDULED: 3,
    State.DEFERRED: 4,
    State.SENT: 5,
    State.EXPIRED: 6,
    State.CANCELLED: 7,
    State.FAILED: 8,
    State.REJECTED: 9,
    State.DELIVERED: 10,
    State.BOUNCED: 11,
    State.COMPLAINED: 12,
}
"""No two are equal, so that events lead to the same state in whatever order they come."""

FINAL_STATES = frozenset(
    {
        State.CANCELLED,
        State.EXPIRED,
        State.FAILED,
        State.REJECTED,
        State.BOUNCED,
        State.COMPLAINED,
    }
)
"""States that nothing follows. A delivered email can still bounce or be complained about."""

OUTBOX_STATES = frozenset({State.PENDING, State.SENDING})
"""States of emails that the outbox still tries to send."""

UNSENT_STATES = frozenset({State.PENDING, State.SENDING, State.UNKNOWN, State.SCHEDULED})
"""States of emails that must not be forgotten: something is still to be done with them."""

NEVER_SENT_STATES = frozenset({State.CANCELLED, State.EXPIRED, State.FAILED, State.REJECTED})
"""States of emails that were surely not sent, and will not be unless a person wants it."""

RESTARTABLE_STATES = NEVER_SENT_STATES | {State.UNKNOWN}
"""States from which a person may put an email into the outbox again."""

OPENED, CLICKED = "opened", "clicked"

_SYNONYMS: Mapping[str, str] = {
    "open": OPENED,
    "click": CLICKED,
    "bounce": State.BOUNCED,
    "complaint": State.COMPLAINED,
}
"""Names of events that another word stands for everywhere else."""

_STATES_BY_WORD: Mapping[str, State] = {
    contract.SENT: State.SENT,
    contract.SANDBOX: State.SENT,
    contract.DELIVERED: State.DELIVERED,
    contract.SCHEDULED: State.SCHEDULED,
    contract.QUEUED: State.DEFERRED,
    "deferred": State.DEFERRED,
    contract.BOUNCED: State.BOUNCED,
    "complained": State.COMPLAINED,
    contract.BLOCKED: State.REJECTED,
    contract.REJECTED: State.REJECTED,
    contract.FAILED: State.FAILED,
    contract.CANCELLED: State.CANCELLED,
}

EVENT_WORDS = (
    *(word for word in _STATES_BY_WORD if word not in {contract.QUEUED, contract.SANDBOX}),
    OPENED,
    CLICKED,
)
"""The events that an email's record shows, by Truncus's words."""


def usual_word(word: str) -> str:
    """Return the word for an event or a status that Truncus uses elsewhere, in lower case."""
    lower = word.lower()
    return str(_SYNONYMS.get(lower, lower))


def state_of(word: str | None) -> State | None:
    """Return the state that a status of Truncus means; ``None`` for a new one."""
    return _STATES_BY_WORD.get(usual_word(word or ""))


def state_of_event(word: str) -> State | None:
    """Return the state that an event leads to; ``None`` for a new one, for opens and clicks.

    The event ``queued`` begins the life of each email, scheduled ones too, and tells nothing;
    the status ``queued`` tells that Truncus will try again.
    """
    return None if word.lower() == contract.QUEUED else state_of(word)


def outranks(new: str, old: str) -> bool:
    """Return whether an email in state ``old`` becomes ``new``."""
    return RANKS[new] > RANKS[old]


_SYNC_STEPS = (
    # Until this age, ask so often.
    (timedelta(minutes=10), timedelta(minutes=1)),
    (timedelta(hours=1), timedelta(minutes=10)),
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(days=7), timedelta(hours=6)),
    (timedelta(days=30), timedelta(days=1)),
    (timedelta(days=contract.EVENTS_KEPT_DAYS), timedelta(days=7)),
)


def next_sync(state: str, *, sent_at: datetime, now: datetime) -> datetime | None:
    """Return when to ask Truncus about an email next, or ``None`` for never again.

    Args:
        state: where it stands; nothing follows a final state.
        sent_at: when it went out or will go out; asked about often at first, then ever more
            seldom, and not after the 90 days that Truncus keeps events for.
        now: the present.
    """
    if state in FINAL_STATES:
        return None
    age = max(now - sent_at, timedelta(0))
    for until, pause in _SYNC_STEPS:
        if age < until:
            try:
                return max(now, sent_at) + pause
            except OverflowError:  # a send_at at the end of time
                return None
    return None
