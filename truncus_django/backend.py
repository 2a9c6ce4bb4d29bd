"""TruncusBackend: Django's emails through the Truncus API."""

import copy
import logging
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import django
from django.apps import apps
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError

from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    Failure,
    MessageError,
    MessagesNotSent,
    SendCancelled,
    TruncusError,
    log_text,
    redacted,
)
from truncus_django.conf import SETTING_NAMES, ConfigurationError, Settings, get_settings, mailers
from truncus_django.event_loop import is_database_refused
from truncus_django.mailers import Mailer, own_options
from truncus_django.message import TruncusStatus
from truncus_django.sending.ambiguous import fingerprint, forget, recall
from truncus_django.sending.direct import note_acceptance, plan, send_batches
from truncus_django.sending.outgoing import AmbiguousSend, OutgoingMessage
from truncus_django.sending.payload import Payload, build_payload, measure, merge_receiver_changes
from truncus_django.signals import post_send, pre_send, send_failed, sends_concluded, tell
from truncus_django.validation import did_you_mean

__all__ = ["TruncusBackend"]

logger = logging.getLogger("truncus_django")


class TruncusBackend(BaseEmailBackend):
    """Sends Django's emails through Truncus.

    One message is one request, several are batches of up to 100. Connections are kept by the
    process, so that ``open()``, ``close()`` and ``with`` are allowed and not needed.

    Args:
        fail_silently: hide that emails were not delivered; never that settings are wrong.
        alias: the mailer's name in ``MAILERS``, given by Django 6.1 and later.
        **options: settings in lower case, before those in ``TRUNCUS``; see
            :class:`truncus_django.conf.Settings`. Those of Django's SMTP backend are ignored, but
            for ``timeout`` (seconds). Others are ignored with a warning, and refused in
            ``MAILERS``.
    """

    def __init__(
        self, fail_silently: bool = False, *, alias: str | None = None, **options: Any
    ) -> None:
        own = own_options(options)
        options = {
            redacted(name): value  # one may be a key
            for name, value in options.items()
            if name not in SETTING_NAMES
        }
        if alias is None:
            options = {name: options[name] for name in options if name not in _SMTP_OPTIONS}
            _warn_of_unknown(options)
        if django.VERSION >= (6, 1):
            # Warns of what is unknown, and refuses it in MAILERS.
            super().__init__(alias=alias, **options)
        else:
            super().__init__()
        self.alias = alias
        self.fail_silently = fail_silently
        self._options = own
        self._lacks_key = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the API key behind: a message that travels to a task takes its backend along."""
        options = {name: value for name, value in self._options.items() if name != "api_key"}
        return self.__dict__ | {
            "_options": options,
            "_lacks_key": self._lacks_key or len(options) < len(self._options),
        }

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the backend itself, key and all: it does not change, and stays in the process."""
        return self

    @property
    def settings(self) -> Settings:
        """The settings in force; raises :class:`ConfigurationError` where they are wrong."""
        return get_settings(self._options_with_key() if self._lacks_key else self._options)

    def _options_with_key(self) -> dict[str, Any]:
        """Return the options of a backend that was pickled, with the key of its mailer."""
        key = dict(mailers()).get(self.alias, {}).get("api_key")
        if key is None:
            raise ConfigurationError(
                "This backend was pickled, and API keys do not travel: make a new backend with its "
                "key, or name the mailer in MAILERS."
            )
        return {**self._options, "api_key": key}

    def _options_by_hand(self) -> list[str]:
        """Return the names of the options that are not those of the mailer in ``MAILERS``."""
        configured = dict(mailers()).get(self.alias, {})
        return [
            name
            for name, value in self._options.items()
            if name not in configured or configured[name] != value
        ]

    @property
    def mailer(self) -> Mailer:
        """The mailer that the backend sends by."""
        return Mailer(self.alias or "", self.settings, self._options)

    @property
    def client(self) -> TruncusClient:
        """The client for these settings, shared by all backends that have the same."""
        return self.mailer.client

    def open(self) -> bool:
        """Check the settings; there is no connection to open. Returns ``False``."""
        self.client  # noqa: B018  raises where the settings are wrong
        return False

    def close(self) -> None:
        """Do nothing: the process keeps its connections for the next email."""

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Send messages and return how many Truncus accepted.

        Every message is tried, and ``message.truncus_status`` tells what became of it. One without
        recipients is skipped, as Django's SMTP backend does: its status stays ``None``.

        Raises:
            TruncusError: of a single message, why it was not sent.
            MessagesNotSent: of several, which were not sent and why.
        """
        messages = list(email_messages or ())
        for message in messages:
            if not isinstance(message, EmailMessage):
                raise TypeError(f"send_messages() takes messages, not {type(message).__name__}.")
        if not messages:
            return 0
        client, settings, now = self.client, self.settings, time.time()
        outgoing_messages = _outgoing_messages(messages)
        if settings.delivery == "outbox":
            return self._put_into_outbox(outgoing_messages, client, settings, now)
        prepared = (
            self._prepared(outgoing, client, settings, now) for outgoing in outgoing_messages
        )
        try:
            for batch in send_batches(client, plan(prepared, now=now), now=now):
                self._finish(batch.outgoing_messages)
        finally:
            # What never made a request; and, when a time limit or Ctrl-C ends the call, the
            # request that it broke into.
            self._finish(
                [
                    outgoing
                    for outgoing in outgoing_messages
                    if outgoing.has_outcome and not outgoing.is_finished
                ]
            )
        return self._report(outgoing_messages)

    def _put_into_outbox(
        self,
        outgoing_messages: Sequence[OutgoingMessage],
        client: TruncusClient,
        settings: Settings,
        now: float,
    ) -> int:
        """Write messages into the outbox; return how many, or raise what is wrong with the others.

        Raises:
            ConfigurationError: there is no table to write to, or none of these settings would be
                known to whoever sends, or Django refuses the database because this is a coroutine.
        """
        if is_database_refused():
            raise ConfigurationError(
                "DELIVERY is 'outbox', which writes to the database, and Django allows no queries "
                "in a coroutine. Call await sync_to_async(message.send)() instead, with "
                "sync_to_async of asgiref.sync."
            )
        outbox = _outbox()
        outbox.check_options(self._options_by_hand())
        rows = []
        for outgoing in outgoing_messages:
            self._prepared(outgoing, client, settings, now)
            if outgoing.payload is None:
                continue
            try:
                row = outbox.row_of(outgoing, alias=self.alias, settings=settings)
            except TruncusError as error:
                outgoing.error = error
            else:
                rows.append(row)
                outgoing.email_pk = row.email.pk
            outgoing.payload = None  # the row holds it as text
        if rows:
            try:
                outbox.enqueue(rows, settings)
            except DatabaseError as exc:
                exc.add_note("If the outbox has no tables yet, run manage.py migrate.")
                raise
        for outgoing in outgoing_messages:
            if not outgoing.has_outcome and outgoing.email_pk is None:
                continue  # nobody to send it to
            outgoing.message.truncus_status = _status(outgoing)  # type: ignore[attr-defined]
            outgoing.is_finished = True
            if outgoing.error is not None:
                outgoing.error.__traceback__ = outgoing.error.__context__ = None
                self._notify_of(outgoing)
        return self._report(outgoing_messages)

    # The steps of a send ----------------------------------------------------------------------

    def _prepared(
        self, outgoing: OutgoingMessage, client: TruncusClient, settings: Settings, now: float
    ) -> OutgoingMessage:
        """Return the message with its payload, or with what keeps it from being sent.

        It has neither if there is nobody to send the message to.
        """
        try:
            if not _has_recipients(outgoing.message):
                return outgoing
            sandbox = getattr(outgoing.message, "sandbox", None)
            is_sandbox = settings.sandbox if sandbox is None else sandbox is True
            outgoing.ambiguous_send = recall(outgoing, client, is_sandbox=is_sandbox)
            if outgoing.ambiguous_send is not None:
                # Sent again as it was; receivers were asked then.
                outgoing.payload = _payload_of(outgoing.ambiguous_send, outgoing.message)
            else:
                self._prepare(outgoing, settings, datetime.fromtimestamp(now, UTC))
        except SendCancelled:
            outgoing.is_cancelled = True
        except TruncusError as error:
            outgoing.error = error
        except Exception as exc:  # noqa: BLE001  one message must not cost the others of a list
            outgoing.error = MessageError(
                f"The message raised {type(exc).__name__} when it was read; it was not sent."
            )
        return outgoing

    def _prepare(self, outgoing: OutgoingMessage, settings: Settings, now: datetime) -> None:
        """Build the payload, and let receivers change or cancel it."""
        payload = build_payload(outgoing.message, settings, now=now)
        if pre_send.has_listeners(type(self)):
            before, built = fingerprint(outgoing.message), copy.deepcopy(payload.email)
            self._ask_receivers(outgoing.message, payload.email)
            if fingerprint(outgoing.message) != before:
                if not _has_recipients(outgoing.message):
                    return
                changed = payload.email
                payload = build_payload(outgoing.message, settings, now=now)
                merge_receiver_changes(payload.email, built=built, changed=changed)
            measure(payload)
        outgoing.payload = payload
        if payload.dropped:
            logger.warning(
                "Truncus cannot carry a part of an email, which was dropped: %s",
                "; ".join(payload.dropped),
            )

    def _ask_receivers(self, message: EmailMessage, email: dict[str, Any]) -> None:
        try:
            pre_send.send(sender=type(self), message=message, payload=email, alias=self.alias)
        except TruncusError:
            raise
        except Exception as exc:  # noqa: BLE001  its fault must not cost the others of a list
            where = traceback.extract_tb(exc.__traceback__)[-1]
            # Without the cause, whose frames hold the email.
            raise MessageError(
                f"A pre_send receiver failed with {type(exc).__name__} in {where.name}() "
                f"({Path(where.filename).name}, line {where.lineno}); the email was not sent."
            ) from None

    def _finish(self, outgoing_messages: Sequence[OutgoingMessage]) -> None:
        """Tell messages, log and receivers what became of the messages of a request."""
        for outgoing in outgoing_messages:
            outgoing.message.truncus_status = _status(outgoing)  # type: ignore[attr-defined]
            outgoing.is_finished = True
            if outgoing.error is not None:
                # The frames of a traceback hold the email: for error reports, and in memory.
                outgoing.error.__traceback__ = outgoing.error.__context__ = None
            if outgoing.result is not None:
                forget(outgoing)
        if sends_concluded.has_listeners(type(self)):
            self._record(outgoing_messages)
        for outgoing in outgoing_messages:
            outgoing.payload = None  # a list may hold more than fits into memory at once
            self._notify_of(outgoing)

    def _record(self, outgoing_messages: Sequence[OutgoingMessage]) -> None:
        """Have the request's emails recorded; what fails there harms nothing."""
        for _, answer in sends_concluded.send_robust(
            sender=type(self),
            outgoing_messages=outgoing_messages,
            alias=self.alias,
            settings=self.settings,
        ):
            if isinstance(answer, Exception):
                logger.error("Emails were sent and not recorded: %s", type(answer).__name__)

    def _notify_of(self, outgoing: OutgoingMessage) -> None:
        message, error = outgoing.message, outgoing.error
        if error is not None:
            if send_failed.has_listeners(type(self)):
                self._notify(send_failed, message=message, error=error)
        elif outgoing.result is not None:
            note_acceptance(outgoing.result)
            if post_send.has_listeners(type(self)):
                status = message.truncus_status  # type: ignore[attr-defined]
                self._notify(post_send, message=message, status=status)

    def _notify(self, signal: django.dispatch.Signal, **facts: Any) -> None:
        with _outermost() as is_outermost:
            if is_outermost:
                tell(signal, sender=type(self), alias=self.alias, **facts)

    def _report(self, outgoing_messages: Sequence[OutgoingMessage]) -> int:
        """Return how many were accepted, or raise what kept the others from it."""
        failures = [
            Failure(outgoing.index, outgoing.error, outgoing.message)
            for outgoing in outgoing_messages
            if outgoing.error is not None
        ]
        accepted = sum(
            (outgoing.result is not None or outgoing.email_pk is not None)
            and outgoing.error is None
            for outgoing in outgoing_messages
        )
        if not failures:
            return accepted
        errors = [failure.error for failure in failures]
        wrong_settings = next((error for error in errors if error.is_misconfiguration), None)
        if self.fail_silently and wrong_settings is None:
            with _outermost() as is_outermost:
                for error in errors if is_outermost else ():
                    logger.error("An email was not sent: %s", log_text(error))
            return accepted
        if len(outgoing_messages) == 1:
            raise errors[0]
        raise MessagesNotSent(
            f"{len(failures)} of {len(outgoing_messages)} emails were not sent.",
            failures=failures,
            accepted=accepted,
        ) from wrong_settings


_is_notifying: ContextVar[bool] = ContextVar("is_notifying", default=False)


@contextmanager
def _outermost() -> Iterator[bool]:
    """Yield whether this call is not inside here yet; what fails inside harms nothing.

    Signals and failure logs run receivers and log handlers that may send email themselves,
    Django's handler for the admins above all. Those inner sends are neither signalled nor logged
    again, or it would have no end.
    """
    if _is_notifying.get():
        yield False
        return
    outer = _is_notifying.set(True)
    try:
        with suppress(Exception):
            yield True
    finally:
        _is_notifying.reset(outer)


_SMTP_OPTIONS = frozenset(
    {"host", "port", "username", "password", "use_tls", "use_ssl", "ssl_keyfile", "ssl_certfile"}
)
"""Options of Django's SMTP backend that libraries, and Django itself, pass to any backend."""


def _warn_of_unknown(names: Iterable[str]) -> None:
    for name in names:
        hint = did_you_mean(name, SETTING_NAMES)
        warnings.warn(f"TruncusBackend ignores the unknown option {name!r}{hint}", stacklevel=3)


def _outbox() -> ModuleType:
    """Return the module that writes into the outbox, which direct sends need not import.

    Raises:
        ConfigurationError: there are no tables for it.
    """
    if not apps.is_installed("truncus_django"):
        raise ConfigurationError(
            "DELIVERY is 'outbox', which needs 'truncus_django' in INSTALLED_APPS and "
            "manage.py migrate."
        )
    from truncus_django.outbox import enqueue

    return enqueue


def _outgoing_messages(messages: Sequence[EmailMessage]) -> list[OutgoingMessage]:
    seen: Counter[int] = Counter()
    outgoing_messages = []
    for index, message in enumerate(messages):
        message.__dict__["truncus_status"] = None  # not that of an earlier send
        outgoing_messages.append(OutgoingMessage(index, message, occurrence=seen[id(message)]))
        seen[id(message)] += 1
    return outgoing_messages


def _has_recipients(message: EmailMessage) -> bool:
    try:
        return bool(message.recipients())
    except TypeError:  # they are no lists; whether they are usable, the payload tells
        return True


def _payload_of(earlier: AmbiguousSend, message: EmailMessage) -> Payload:
    own_key = getattr(message, "idempotency_key", None)
    return Payload(
        email=earlier.email,
        idempotency_key=earlier.idempotency_key if own_key is not None else None,
        is_sandbox=earlier.is_sandbox,
        size=earlier.size,
    )


def _status(outgoing: OutgoingMessage) -> TruncusStatus:
    result, error = outgoing.result, outgoing.error
    if outgoing.is_cancelled:
        status = "cancelled"
    elif outgoing.email_pk is not None:
        status = "pending"
    elif result is not None:
        status = result.status
    else:
        status = "unknown" if error is not None and error.ambiguous else "failed"
    return TruncusStatus(
        status=status,
        id=result.message_id if result else None,
        idempotency_key=outgoing.key,
        answer=result,
        error=error,
        attempts=result.attempts if result else error.attempts if error else 0,
        batch_size=outgoing.batch_size,
        email_pk=outgoing.email_pk,
    )
