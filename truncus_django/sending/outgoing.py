"""Messages on their way to Truncus, the batches that share a request, and what became of each."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Self
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import SendCancelled, TruncusError
from truncus_django.api.results import SendResult
from truncus_django.sending.fingerprint import fingerprint
from truncus_django.sending.payload import Payload


@dataclass(frozen=True, slots=True)
class AmbiguousSend:
    """A request that may have been accepted, and a message's place in it.

    Attributes:
        idempotency_key: of the request whose answer was lost.
        account: digest of the account that it went to; another knows nothing of the key.
        email, is_sandbox, size: what was sent, to be sent again unchanged.
        wire_format: the form that it was sent in.
        fingerprint: of the message, to tell whether it is still the same.
        index, batch_size: the message's place in the batch.
        since: unix seconds of the first try; Truncus forgets keys after 24 hours.
        is_ambiguous: whether it may have been accepted. If not, Truncus said that it failed, and
            the key is kept because to use it again is always safe.
        email_pk: of its record; ``None`` where it was not recorded.
        is_handed_over: whether it is the fallback mailer that may have sent it.
    """

    idempotency_key: str = field(repr=False)
    account: str
    email: EmailFields = field(repr=False)
    is_sandbox: bool
    size: int
    wire_format: WireFormat
    fingerprint: str
    index: int
    batch_size: int
    since: float
    is_ambiguous: bool
    email_pk: UUID | None = None
    is_handed_over: bool = False


class Original:
    """A message with merge data, of which one is made for each recipient.

    Attributes:
        message: as the project made it.
    """

    def __init__(self, message: EmailMessage) -> None:
        self.message = message

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the message; long merge data takes long, and is rarely asked for."""
        return fingerprint(self.message)


class OutgoingMessage(NamedTuple):
    """One message on its way.

    A named tuple, as :class:`SendOutcome` is: there are two and one for each message of a long
    list, and a frozen dataclass takes three to five times as long to make (benchmarks, "as a
    list, CPU: Anymail").

    Attributes:
        position: its place in the list that was given to ``send_messages()``.
        message: as the project made it; with merge data, the one for ``recipient``.
        occurrence: how often the same message object comes before it in the list.
        payload: what is sent; ``None`` where the message could not become one.
        ambiguous_send: an earlier send that may have been accepted, if the message is unchanged.
        error: why it cannot be sent, or ``None``.
        original: what it was made from for one recipient; ``None`` without merge data.
        recipient: that recipient, as :func:`truncus_django.sending.addresses.mailbox` tells.
        tenant: whose own account it goes by; empty for the mailer's own.
    """

    position: int
    message: EmailMessage
    occurrence: int = 0
    payload: Payload | None = None
    ambiguous_send: AmbiguousSend | None = None
    error: TruncusError | None = None
    original: Original | None = None
    recipient: str = ""
    tenant: str = ""

    def __repr__(self) -> str:
        """Tell its place alone: the rest holds addresses and bodies."""
        return f"<{type(self).__name__} {self.position}>"

    @property
    def noted_on(self) -> tuple[tuple[EmailMessage, Hashable], ...]:
        """The messages that an ambiguous send of it is noted on, and under what.

        With merge data there are two: the project may send either again.
        """
        if self.original is None:
            return ((self.message, self.occurrence),)
        return ((self.message, 0), (self.original.message, (self.occurrence, self.recipient)))

    @property
    def is_ambiguous(self) -> bool:
        """Whether an earlier send of it may have been accepted."""
        return self.ambiguous_send is not None and self.ambiguous_send.is_ambiguous


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one request, in their order.

    Attributes:
        key: the request's idempotency key; empty where the messages cannot be sent.
    """

    key: str = field(repr=False)
    messages: Sequence[OutgoingMessage]


class SendOutcome(NamedTuple):
    """What became of one message.

    Attributes:
        result: Truncus's answer about it.
        error: why it was not sent. With a ``result`` where Truncus refused it.
        is_cancelled: whether a ``pre_send`` receiver cancelled it.
        idempotency_key: of its latest request; empty where there was none.
        attempts: requests that were made for it.
        batch_size: how many messages shared its request.
        batch_index: its place in the request; ``None`` where it was alone.
        email_pk: of its record in the outbox, where it waits.
        redirected_to: who got it instead, by the guard; ``None`` where its record tells already.
        sent_by: the fallback mailer that it was handed to; empty where none was.
        reason: why that was.
        refused_by: what Truncus said of it before.
        left_out: those of its recipients who did not get it, as they are suppressed.
    """

    result: SendResult | None = None
    error: TruncusError | None = None
    is_cancelled: bool = False
    idempotency_key: str = ""
    attempts: int = 0
    batch_size: int = 1
    batch_index: int | None = None
    email_pk: UUID | None = None
    redirected_to: Sequence[str] | None = None
    sent_by: str = ""
    reason: str = ""
    refused_by: TruncusError | None = None
    left_out: Sequence[str] = ()

    def __repr__(self) -> str:
        """Tell whether it was accepted: the rest holds addresses and a key."""
        return f"<{type(self).__name__} accepted={self.is_accepted}>"

    @classmethod
    def without_request(cls, error: TruncusError | None) -> Self:
        """Return the outcome of a message that cannot be sent, or that a receiver cancelled."""
        is_cancelled = isinstance(error, SendCancelled)
        return cls(error=None if is_cancelled else error, is_cancelled=is_cancelled)

    @property
    def is_accepted(self) -> bool:
        """Whether Truncus, the fallback mailer or the outbox took the message."""
        is_taken = self.result is not None or self.email_pk is not None or bool(self.sent_by)
        return self.error is None and is_taken


Sent = tuple[OutgoingMessage, SendOutcome]
"""A message and what became of it."""
