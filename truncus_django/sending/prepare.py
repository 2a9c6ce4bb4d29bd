"""Django's messages → outgoing messages, each with its payload or with why it has none."""

import copy
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from django.core.mail import EmailMessage
from django.views.decorators.debug import sensitive_variables

from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import MessageError, TruncusError, clear_frames
from truncus_django.conf import Settings
from truncus_django.message import has_merge_data
from truncus_django.sending.ambiguous import fingerprint, recall
from truncus_django.sending.inline_images import ImageHost
from truncus_django.sending.merge import Merge
from truncus_django.sending.outgoing import OutgoingMessage
from truncus_django.sending.payload import (
    RECIPIENT_FIELDS,
    Payload,
    build_payload,
    measured,
    merge_receiver_changes,
)
from truncus_django.signals import pre_send

logger = logging.getLogger("truncus_django")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes outgoing messages of Django's.

    Attributes:
        sender: the class of the backend, which ``pre_send`` tells its receivers.
        alias: of the mailer, told with it.
        client: the account that the messages go to.
        settings: their defaults.
        now: unix seconds.
        images: where those inside the HTML are put; ``None`` refuses them.
    """

    sender: type
    alias: str | None
    client: TruncusClient
    settings: Settings
    now: float
    images: ImageHost | None

    def prepare(self, messages: Iterable[EmailMessage]) -> Iterator[OutgoingMessage]:
        """Yield the messages that have recipients, each when it is asked for.

        One with merge data is one for each of its recipients.
        """
        seen: Counter[int] = Counter()
        for index, message in enumerate(messages):
            occurrence = seen[id(message)]
            seen[id(message)] += 1
            if has_merge_data(message):
                yield from self._prepare_merged(index, message, occurrence)
                continue
            prepared = self._prepared(OutgoingMessage(index, message, occurrence))
            if prepared is not None:
                yield prepared

    def _prepare_merged(
        self, index: int, message: EmailMessage, occurrence: int
    ) -> Iterator[OutgoingMessage]:
        """Yield a message with merge data as one for each of its recipients."""
        merge = self._or_error(lambda: Merge(message))
        if isinstance(merge, TruncusError):
            clear_frames(merge)
            yield OutgoingMessage(index, message, occurrence, error=merge)
            return
        for recipient in merge.recipients:
            one = OutgoingMessage(
                index,
                merge.message_for(recipient),
                occurrence,
                original=message,
                recipient=recipient,
                original_fingerprint=merge.fingerprint,
            )
            prepared = self._prepared(one, merge)
            if prepared is not None:
                yield prepared

    def _prepared(
        self, outgoing: OutgoingMessage, merge: Merge | None = None
    ) -> OutgoingMessage | None:
        """Return a message with its payload or its error; ``None`` if it has no recipients."""
        found = self._or_error(lambda: self._payload(outgoing, merge))
        if isinstance(found, TruncusError):
            clear_frames(found)
            return replace(outgoing, error=found)
        return found

    @sensitive_variables()  # as in direct._request()
    def _or_error(self, work: Callable[[], _Result]) -> _Result | TruncusError:
        try:
            return work()
        except TruncusError as error:
            return error
        except Exception as exc:  # noqa: BLE001  one message must not cost the others of a list
            return MessageError(
                f"The message raised {type(exc).__name__} when it was read; it was not sent."
            )

    def _payload(self, outgoing: OutgoingMessage, merge: Merge | None) -> OutgoingMessage | None:
        """Return a message with its payload, and the ambiguous send that it repeats if it does.

        ``None`` if there is nobody to send it to.
        """
        message = outgoing.message
        if not _has_recipients(message):
            return None
        if merge is not None:
            merge.fill_in(message, outgoing.recipient)
        sandbox = getattr(message, "sandbox", None)
        is_sandbox = self.settings.sandbox if sandbox is None else sandbox is True
        earlier = recall(outgoing, self.client, is_sandbox=is_sandbox)
        if earlier is not None:
            # The earlier payload, unchanged; pre_send was sent the first time.
            own_key = getattr(message, "idempotency_key", None)
            repeated = Payload(
                email=earlier.email,
                idempotency_key=earlier.idempotency_key if own_key is not None else None,
                is_sandbox=earlier.is_sandbox,
                size=earlier.size,
            )
            return outgoing.with_payload(repeated, earlier)
        now = datetime.fromtimestamp(self.now, UTC)
        payload: Payload | None = build_payload(message, self.settings, now=now, images=self.images)
        if payload is not None and pre_send.has_listeners(self.sender):
            payload = self._changed_by_receivers(message, payload, now)
        if payload is None:
            return None
        if payload.dropped:
            logger.warning(
                "Truncus cannot carry an email as it is; dropped or replaced: %s",
                "; ".join(payload.dropped),
                extra={
                    "truncus_event": "email_changed_to_fit",
                    "truncus_reason": "; ".join(payload.dropped),
                },
            )
        return outgoing.with_payload(payload)

    def _changed_by_receivers(
        self, message: EmailMessage, payload: Payload, now: datetime
    ) -> Payload | None:
        """Let receivers change or cancel the email; ``None`` if they took all its recipients."""
        before, built = fingerprint(message), copy.deepcopy(payload.email)
        self._ask_receivers(message, payload.email)
        if fingerprint(message) != before:
            if not _has_recipients(message):
                return None
            changed = payload.email
            payload = build_payload(message, self.settings, now=now, images=self.images)
            merge_receiver_changes(payload.email, built=built, changed=changed)
        payload = measured(payload)
        return payload if any(payload.email.get(name) for name in RECIPIENT_FIELDS) else None

    def _ask_receivers(self, message: EmailMessage, email: dict[str, Any]) -> None:
        try:
            pre_send.send(sender=self.sender, message=message, payload=email, alias=self.alias)
        except TruncusError:
            raise
        except Exception as exc:  # noqa: BLE001  its fault must not cost the others of a list
            where = traceback.extract_tb(exc.__traceback__)[-1]
            # Without the cause, whose frames hold the email.
            raise MessageError(
                f"A pre_send receiver failed with {type(exc).__name__} in {where.name}() "
                f"({Path(where.filename).name}, line {where.lineno}); the email was not sent."
            ) from None


def _has_recipients(message: EmailMessage) -> bool:
    try:
        return bool(message.recipients())
    except TypeError:  # they are no lists; whether they are usable, the payload tells
        return True
