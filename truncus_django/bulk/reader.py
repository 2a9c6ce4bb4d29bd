"""Reads the messages of a bulk, a hundred at a time, and makes them ready as a send would."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.accounts import Accounts
from truncus_django.api.errors import MessageError, SendCancelled, TruncusError, clear_frames
from truncus_django.backend import TruncusBackend
from truncus_django.bulk.identity import identity_of
from truncus_django.mailers import Mailer
from truncus_django.message import TruncusStatus
from truncus_django.models import Priority
from truncus_django.outbox.enqueue import MAX_INSERT_BYTES, Row, row_or_error
from truncus_django.sending.inline_images import host_of, host_without_storage
from truncus_django.sending.outgoing import Original, OutgoingMessage
from truncus_django.sending.prepare import Preparer

CHUNK = 100
"""So many messages are read, and written in one transaction."""


@dataclass(slots=True)
class PreparedEmail:
    """An email of a message that was read.

    Attributes:
        place: of the message among all, from 1.
        message: whatever the iterable gave.
        row: what is to be written of it; ``None`` where it cannot be sent.
        identity: tells it from the others of a bulk with a key.
        status: why it cannot be sent, or what became of it.
        is_skipped: whether it was sent under the key before.
        original, recipient: with merge data, what it was made from, and for whom.
    """

    place: int
    message: Any = field(repr=False)
    row: Row | None = field(default=None, repr=False)
    identity: UUID | None = None
    status: TruncusStatus | None = None
    is_skipped: bool = False
    original: Original | None = field(default=None, repr=False)
    recipient: str = field(default="", repr=False)


class MessageReader:
    """Reads the messages of a bulk.

    Attributes:
        count: how many were read.
        is_exhausted: whether there are no more.
        error: what the iterable raised at its end, if it did.

    Args:
        messages: the iterable.
        key: of the bulk.
        mailer: whose defaults the messages get.
        is_dry_run: put no images into a storage, and leave the messages as they are.
    """

    def __init__(
        self, messages: Iterable[Any], key: str | None, mailer: Mailer, *, is_dry_run: bool = False
    ) -> None:
        self.count = 0
        self.is_exhausted = False
        self.error: Exception | None = None
        self._source = iter(messages)
        self._key = key
        self._mailer = mailer
        self._alias = mailer.name or None
        self._host = host_without_storage if is_dry_run else host_of
        self._is_dry_run = is_dry_run
        self._bytes = 0
        self._emails = 0

    def read(self) -> tuple[list[PreparedEmail], int]:
        """Return the emails of the next messages, and how many messages have no recipients."""
        settings = self._mailer.settings
        accounts = Accounts(self._mailer, is_for_outbox=True)
        preparer = Preparer(
            TruncusBackend,
            self._alias,
            None if accounts.are_told else self._mailer.client,
            settings,
            time.time(),
            self._host(settings),
            accounts if accounts.are_told else None,
        )
        self._bytes = self._emails = 0
        places: list[int] = []
        unusable: list[PreparedEmail] = []
        emails = []
        prepared = set()
        for outgoing in preparer.prepare(self._messages(places, unusable)):
            prepared.add(outgoing.position)
            self._emails += 1
            emails.append(self._email(outgoing, places[outgoing.position]))
        in_order = sorted(emails + unusable, key=lambda each: each.place)
        return in_order, len(places) - len(prepared)

    def _messages(self, places: list[int], unusable: list[PreparedEmail]) -> Iterator[EmailMessage]:
        """Yield messages until they are enough, and note their places; set aside what is none."""
        for _ in range(CHUNK):
            try:
                message = next(self._source)
            except StopIteration:
                self.is_exhausted = True
                return
            except Exception as exc:  # noqa: BLE001  what came before is sent, then this is raised
                self.is_exhausted = True
                self.error = exc
                return
            self.count += 1
            if isinstance(message, EmailMessage):
                places.append(self.count)
                if not self._is_dry_run:
                    message.truncus_status = None  # type: ignore[attr-defined]  # of another send
                yield message
                if self._bytes >= MAX_INSERT_BYTES or self._emails >= CHUNK:
                    return
            else:
                kind = type(message).__name__
                error = MessageError(f"send_bulk() takes messages, and was given a {kind}.")
                unusable.append(PreparedEmail(self.count, message, status=_status_of(error)))

    def _email(self, outgoing: OutgoingMessage, place: int) -> PreparedEmail:
        row = outgoing.error or row_or_error(outgoing, self._alias, self._mailer.settings)
        if isinstance(row, TruncusError):
            clear_frames(row)
            return PreparedEmail(
                place,
                outgoing.message,
                status=_status_of(row),
                original=outgoing.original,
                recipient=outgoing.recipient,
            )
        if getattr(outgoing.message, "priority", None) is None:
            row.entry.priority = Priority.LOW  # nobody's new password waits for a newsletter
        self._bytes += row.entry.size
        identity = None
        if self._key is not None and outgoing.payload is not None:
            identity = identity_of(outgoing.payload, self._key)
        return PreparedEmail(
            place,
            outgoing.message,
            row,
            identity,
            original=outgoing.original,
            recipient=outgoing.recipient,
        )


def _status_of(error: TruncusError) -> TruncusStatus:
    """Return the status of a message for which no request is made."""
    if isinstance(error, SendCancelled):
        return TruncusStatus(status="cancelled")
    return TruncusStatus(status="unknown" if error.ambiguous else "failed", error=error)
