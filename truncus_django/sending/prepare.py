"""Django's messages → outgoing messages, each with its payload or with why it has none."""

import copy
import logging
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.mail import EmailMessage
from django.views.decorators.debug import sensitive_variables

from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import MessageError, TruncusError, clear_frames
from truncus_django.conf import Settings
from truncus_django.sending.ambiguous import fingerprint, recall
from truncus_django.sending.outgoing import AmbiguousSend, OutgoingMessage
from truncus_django.sending.payload import Payload, build_payload, measured, merge_receiver_changes
from truncus_django.signals import pre_send

logger = logging.getLogger("truncus_django")


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes outgoing messages of Django's.

    Attributes:
        sender: the class of the backend, which ``pre_send`` tells its receivers.
        alias: of the mailer, told with it.
        client: the account that the messages go to.
        settings: their defaults.
        now: unix seconds.
    """

    sender: type
    alias: str | None
    client: TruncusClient
    settings: Settings
    now: float

    def prepare(self, messages: Iterable[EmailMessage]) -> Iterator[OutgoingMessage]:
        """Yield the messages that have recipients, each when it is asked for."""
        seen: Counter[int] = Counter()
        for index, message in enumerate(messages):
            occurrence = seen[id(message)]
            seen[id(message)] += 1
            found = self._payload_or_error(message, occurrence)
            if isinstance(found, TruncusError):
                clear_frames(found)
                yield OutgoingMessage(index, message, occurrence, error=found)
            elif found is not None:
                payload, earlier = found
                yield OutgoingMessage(index, message, occurrence, payload, earlier)

    @sensitive_variables()  # as in direct._request()
    def _payload_or_error(
        self, message: EmailMessage, occurrence: int
    ) -> tuple[Payload, AmbiguousSend | None] | TruncusError | None:
        try:
            return self._payload(message, occurrence)
        except TruncusError as error:
            return error
        except Exception as exc:  # noqa: BLE001  one message must not cost the others of a list
            return MessageError(
                f"The message raised {type(exc).__name__} when it was read; it was not sent."
            )

    def _payload(
        self, message: EmailMessage, occurrence: int
    ) -> tuple[Payload, AmbiguousSend | None] | None:
        """Return a message's payload, and the ambiguous send that it repeats if it does.

        ``None`` if there is nobody to send it to.
        """
        if not _has_recipients(message):
            return None
        sandbox = getattr(message, "sandbox", None)
        is_sandbox = self.settings.sandbox if sandbox is None else sandbox is True
        earlier = recall(message, occurrence, self.client, is_sandbox=is_sandbox)
        if earlier is not None:
            # The earlier payload, unchanged; pre_send was sent the first time.
            own_key = getattr(message, "idempotency_key", None)
            repeated = Payload(
                email=earlier.email,
                idempotency_key=earlier.idempotency_key if own_key is not None else None,
                is_sandbox=earlier.is_sandbox,
                size=earlier.size,
            )
            return repeated, earlier
        now = datetime.fromtimestamp(self.now, UTC)
        payload: Payload | None = build_payload(message, self.settings, now=now)
        if payload is not None and pre_send.has_listeners(self.sender):
            payload = self._changed_by_receivers(message, payload, now)
        if payload is None:
            return None
        if payload.dropped:
            logger.warning(
                "Truncus cannot carry a part of an email, which was dropped: %s",
                "; ".join(payload.dropped),
            )
        return payload, None

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
            payload = build_payload(message, self.settings, now=now)
            merge_receiver_changes(payload.email, built=built, changed=changed)
        return measured(payload)

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
