"""Django's messages → outgoing messages, each with its payload or with why it has none."""

import copy
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from django.core.mail import EmailMessage
from django.views.decorators.debug import sensitive_variables

from truncus_django.api import contract
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import EmailRefused, MessageError, TruncusError, clear_frames
from truncus_django.conf import Settings, get_settings
from truncus_django.message import has_merge_data
from truncus_django.sending.addresses import RECIPIENT_FIELDS
from truncus_django.sending.ambiguous import recall
from truncus_django.sending.fingerprint import fingerprint
from truncus_django.sending.inline_images import ImageHost
from truncus_django.sending.merge import Merge
from truncus_django.sending.outgoing import Original, OutgoingMessage
from truncus_django.sending.payload import (
    Payload,
    build_payload,
    measured,
    merge_receiver_changes,
)
from truncus_django.sending.screening import is_on, screen, with_left_out
from truncus_django.sending.unsubscribe import add_unsubscribe
from truncus_django.signals import pre_send

logger = logging.getLogger("truncus_django")

MAX_TENANT_LENGTH = 255
"""Of a tenant that has an account of its own: rows name it."""

_Result = TypeVar("_Result")


class Accounts(Protocol):
    """Whose account the emails of tenants go by."""

    def name_for(self, tenant: str) -> str:
        """Return the name by which to ask for a tenant's account; empty for the mailer's own."""

    def digest_for(self, tenant: str) -> str:
        """Return what tells a tenant's account from others."""


@dataclass(frozen=True)
class Preparer:
    """Makes outgoing messages of Django's.

    Attributes:
        sender: the class of the backend, which ``pre_send`` tells its receivers.
        alias: of the mailer, told with it.
        client: the account that the messages go to; ``None`` where ``accounts`` tell it.
        settings: their defaults.
        now: unix seconds.
        images: where those inside the HTML are put; ``None`` refuses them.
        accounts: of tenants; ``None`` where all go by the one of ``client``.
    """

    sender: type
    alias: str | None
    client: TruncusClient | None
    settings: Settings
    now: float
    images: ImageHost | None
    accounts: Accounts | None = None

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
        original = Original(message)
        for recipient in merge.recipients:
            one = OutgoingMessage(
                index,
                merge.message_for(recipient),
                occurrence,
                original=original,
                recipient=recipient,
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
            return outgoing._replace(error=found)
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
        earlier = recall(
            outgoing,
            self.client,
            is_sandbox=is_sandbox,
            account_of=_told_by(self.accounts),
        )
        if earlier is not None:
            # The earlier payload, unchanged; pre_send was sent the first time.
            own_key = getattr(message, "idempotency_key", None)
            repeated = Payload(
                email=earlier.email,
                idempotency_key=earlier.idempotency_key if own_key is not None else None,
                is_sandbox=earlier.is_sandbox,
                size=earlier.size,
            )
            return self._addressed(outgoing._replace(payload=repeated, ambiguous_send=earlier))
        payload: Payload | None = self._built(message)
        if payload is not None and self._has_receivers:
            payload = self._changed_by_receivers(message, payload)
        if payload is None:
            return None
        if add_unsubscribe(message, payload.email, self._project_settings):
            payload = measured(payload)
        if payload.dropped:
            logger.warning(
                "Truncus cannot carry an email as it is; dropped or replaced: %s",
                "; ".join(payload.dropped),
                extra={
                    "truncus_event": "email_changed_to_fit",
                    "truncus_reason": "; ".join(payload.dropped),
                },
            )
        return self._addressed(outgoing._replace(payload=payload))

    def _addressed(self, outgoing: OutgoingMessage) -> OutgoingMessage:
        """Return a message with the name of the account that it goes by."""
        if self.accounts is None or outgoing.payload is None:
            return outgoing
        tenant = _tenant_of(outgoing.payload.email)
        return outgoing._replace(tenant=self.accounts.name_for(tenant))

    def _built(self, message: EmailMessage) -> Payload:
        return build_payload(message, self.settings, now=self._moment, images=self.images)

    @cached_property
    def _project_settings(self) -> Settings:
        return get_settings()

    @cached_property
    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    @cached_property
    def _has_receivers(self) -> bool:
        return pre_send.has_listeners(self.sender)

    def _changed_by_receivers(self, message: EmailMessage, payload: Payload) -> Payload | None:
        """Let receivers change or cancel the email; ``None`` if they took all its recipients."""
        before, built = fingerprint(message), copy.deepcopy(payload.email)
        self._ask_receivers(message, payload.email)
        if fingerprint(message) != before:
            if not _has_recipients(message):
                return None
            changed = payload.email
            payload = self._built(message)
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


def refuse_suppressed(
    prepared: Iterable[OutgoingMessage], settings: Settings
) -> Iterator[OutgoingMessage]:
    """Yield messages for the outbox, those to suppressed recipients with the error that says so.

    One query for up to 100. Before the request they are looked up again, and dropped if that is
    what ``ON_SUPPRESSED`` says: somebody may be suppressed while they wait.
    """
    if not is_on(settings):
        yield from prepared
        return
    remaining = iter(prepared)
    while chunk := list(islice(remaining, contract.MAX_BATCH_SIZE)):
        emails = [each.payload.email if each.payload else {} for each in chunk]
        screened = screen(emails, settings, has_tables=True)
        for outgoing, found in zip(chunk, screened, strict=True):
            if outgoing.payload is None or outgoing.is_ambiguous:
                yield outgoing
            elif isinstance(found.error, EmailRefused):
                yield outgoing._replace(error=found.error)
            elif found.left_out:
                email = with_left_out(outgoing.payload.email, found.left_out)
                yield outgoing._replace(payload=replace(outgoing.payload, email=email))
            else:
                yield outgoing


def _told_by(accounts: Accounts | None) -> Callable[[Mapping[str, Any]], str] | None:
    """Return which account an email of an earlier send goes by now."""
    return None if accounts is None else lambda email: accounts.digest_for(_tenant_of(email))


def _tenant_of(email: Mapping[str, Any]) -> str:
    """Return the tenant that an account is asked for; empty where there is none.

    Raises:
        MessageError: it is no name that a row can hold.
    """
    tenant = email.get("tenant_id")
    if tenant is None:
        return ""
    # For some databases, a name is the same with spaces at its end.
    is_name = isinstance(tenant, str) and tenant.isprintable() and tenant == tenant.strip()
    if not is_name or len(tenant) > MAX_TENANT_LENGTH:
        raise MessageError(
            f"With ACCOUNTS, tenant_id must be a string of at most {MAX_TENANT_LENGTH} characters, "
            "without spaces around it."
        )
    return str(tenant)


def _has_recipients(message: EmailMessage) -> bool:
    try:
        return bool(message.recipients())
    except TypeError:  # they are no lists; whether they are usable, the payload tells
        return True
