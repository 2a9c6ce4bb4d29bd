"""Every email the emulator took, its events, and the frozen records that callers see."""

import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator.request_log import KEPT_BYTES
from truncus_django.emulator.validation import Draft


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an email."""

    id: str
    type: str
    """One of `contract.EVENT_TYPES`, or ``blocked``, ``rejected`` and ``cancelled``."""
    at: float
    """Unix seconds."""
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmailRecord:
    """An email as it stood when it was asked for."""

    id: str
    """The ``message_id`` of the answer."""
    global_message_id: str
    provider_message_id: str
    status: str
    reason: str
    """Why it bounced, was blocked or rejected."""
    payload: Mapping[str, Any] | None
    """The JSON that was posted; None once it fell out of the inbox."""
    to: tuple[str, ...]
    sender: str
    subject: str
    api_key: str
    """A fingerprint, from which the key cannot be found."""
    idempotency_key: str
    tenant_id: str
    sandbox: bool
    batch_index: int | None
    """Its place in the batch; None when it was sent alone."""
    batch_size: int | None
    created_at: float
    """Unix seconds."""
    send_at: float | None
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """Who sends, and how: what is the same for all emails of one request."""

    api_key: str
    """The key's fingerprint."""
    idempotency_key: str
    sandbox: bool
    batch_size: int | None = None


@dataclass(slots=True, eq=False)
class StoredEmail:
    """An email as the emulator works on it; only under the service's lock."""

    draft: Draft
    """Without its content once it fell out of the inbox."""
    submission: Submission
    created_at: float
    updated_at: float
    html: str = ""
    """As delivered: a template is rendered."""
    status: str = contract.QUEUED
    reason: str = ""
    id: str = ""
    global_message_id: str = ""
    provider_message_id: str = ""
    batch_index: int | None = None
    retry_at: float | None = None
    retry_count: int = 0
    suppressed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    provider_accepted_at: float | None = None
    delivered_at: float | None = None
    events: list[Event] = field(default_factory=list)

    def size_bytes(self) -> int:
        """Return about how much memory the body takes."""
        return len(self.html) + self.draft.size_bytes()

    def forget_content(self) -> None:
        """Free the memory of the body."""
        self.draft = self.draft.without_content()
        self.html = ""

    def record(self) -> EmailRecord:
        """Return what a caller may keep."""
        draft, submission = self.draft, self.submission
        return EmailRecord(
            id=self.id,
            global_message_id=self.global_message_id,
            provider_message_id=self.provider_message_id,
            status=self.status,
            reason=self.reason,
            payload=draft.payload or None,
            to=draft.to,
            sender=draft.sender,
            subject=draft.subject,
            api_key=submission.api_key,
            idempotency_key=submission.idempotency_key,
            tenant_id=draft.tenant_id,
            sandbox=submission.sandbox,
            batch_index=self.batch_index,
            batch_size=submission.batch_size,
            created_at=self.created_at,
            send_at=draft.send_at,
            events=tuple(self.events),
        )


class Mailbox:
    """All emails by id, oldest first; the bodies of the newest ``keep`` only."""

    def __init__(self, *, keep: int, id_prefix: str) -> None:
        """Begin empty. Ids begin with ``id_prefix``."""
        self._keep = keep
        self._id_prefix = id_prefix
        self._by_id: dict[str, StoredEmail] = {}
        self._with_body: deque[StoredEmail] = deque()
        self._kept_bytes = 0
        self._event_owner: dict[str, StoredEmail] = {}
        self.accepted = 0
        """How many emails were accepted; the blocked and rejected are not among them."""

    def __len__(self) -> int:
        """Return how many emails there are, the blocked and rejected among them."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[StoredEmail]:
        """Yield all emails, oldest first."""
        return iter(self._by_id.values())

    def add(self, email: StoredEmail) -> None:
        """Store an email and give it its ids."""
        token = secrets.token_hex(12)
        email.id = f"{self._id_prefix}{token}"
        email.global_message_id = f"tr_gmid_{token}"
        self._by_id[email.id] = email
        if email.status not in contract.REFUSED_STATUSES:
            self.accepted += 1
        self._with_body.append(email)
        self._kept_bytes += email.size_bytes()
        while len(self._with_body) > self._keep or self._kept_bytes > KEPT_BYTES:
            old = self._with_body.popleft()
            self._kept_bytes -= old.size_bytes()
            old.forget_content()

    def get(self, message_id: str) -> StoredEmail | None:
        """Return the email with this ``message_id`` or ``global_message_id``, or None."""
        token = message_id.rpartition("_")[2]
        email = self._by_id.get(self._id_prefix + token)
        return email if email and message_id in {email.id, email.global_message_id} else None

    def log(
        self, email: StoredEmail, kind: str, *, at: float, payload: Mapping[str, Any] | None = None
    ) -> Event:
        """Add an event to an email and return it."""
        event = Event(f"evt_{secrets.token_hex(10)}", kind, at, payload or {})
        email.events.append(event)
        email.updated_at = max(email.updated_at, at)
        self._event_owner[event.id] = email
        return event

    def find_event(self, event_id: str) -> tuple[StoredEmail, Event] | None:
        """Return an event and its email, or None."""
        email = self._event_owner.get(event_id)
        if email is None:
            return None
        return next((email, event) for event in email.events if event.id == event_id)

    def newest(self, *, query: str = "") -> Iterator[StoredEmail]:
        """Yield emails that still have their body, newest first, that hold ``query``."""
        needle = query.casefold()
        for email in reversed(self._with_body):
            if not needle or needle in _searchable(email):
                yield email


def _searchable(email: StoredEmail) -> str:
    draft = email.draft
    recipients = (*draft.to, *draft.cc, *draft.bcc)
    words = (email.id, email.status, draft.sender, draft.subject, draft.text, draft.tenant_id)
    return " ".join((*words, *recipients)).casefold()


def iso(at: float) -> str:
    """Return unix seconds as the API writes times: UTC with milliseconds and ``Z``."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
