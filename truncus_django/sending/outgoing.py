"""Messages on their way to Truncus, and the batches that share a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.capabilities import WireFormat
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import TruncusError
from truncus_django.api.results import SendResult
from truncus_django.sending.payload import Payload


@dataclass(frozen=True, slots=True)
class AmbiguousSend:
    """A request that may have been accepted, and a message's place in it.

    Attributes:
        idempotency_key: of the request whose answer was lost.
        account: digest of the account that it went to; another knows nothing of the key.
        email, is_sandbox, size: what was sent, to be sent again just so.
        wire_format: the form that it was sent in.
        fingerprint: of the message, to tell whether it is still the same.
        index, batch_size: the message's place in the batch.
        since: unix seconds of the first try; Truncus forgets keys after 24 hours.
        is_ambiguous: whether it may have been accepted. If not, Truncus said that it failed, and
            the key is kept because the same key is never worse.
    """

    idempotency_key: str = field(repr=False)
    account: str
    email: EmailFields
    is_sandbox: bool
    size: int
    wire_format: WireFormat
    fingerprint: str
    index: int
    batch_size: int
    since: float
    is_ambiguous: bool


@dataclass(slots=True, eq=False)
class OutgoingMessage:
    """One message on its way, and what became of it.

    Attributes:
        index: its place in the list that was given to ``send_messages()``.
        payload: what is sent; ``None`` before it is built, where the message could not become
            one, and after the end.
        ambiguous_send: an earlier send whose outcome is unknown, if the message is still the same.
        wire_format: the form in force when its request was made.
        occurrence: how often the same message object comes before it in the list.
        result, error: at the end, one of them is set (both where Truncus refused this email), or
            ``is_cancelled`` is; nothing of it where the message has no recipients.
        is_finished: whether message, receivers and log have been told.
        email_pk: of its record in the outbox, once it is there.
    """

    index: int
    message: EmailMessage
    payload: Payload | None = field(default=None, repr=False)
    ambiguous_send: AmbiguousSend | None = None
    wire_format: WireFormat | None = None
    key: str | None = None
    batch_size: int = 1
    batch_index: int | None = None
    result: SendResult | None = None
    error: TruncusError | None = None
    is_cancelled: bool = False
    occurrence: int = 0
    is_finished: bool = False
    email_pk: UUID | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether an earlier send of it may have been accepted."""
        return self.ambiguous_send is not None and self.ambiguous_send.is_ambiguous

    @property
    def has_outcome(self) -> bool:
        """Whether it is known what became of it, be it that the outcome is unknown."""
        return self.result is not None or self.error is not None or self.is_cancelled


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one request, in their order, and the request's idempotency key."""

    key: str
    outgoing_messages: Sequence[OutgoingMessage]
