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
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
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
    AuthenticationError,
    ConfigurationError,
    Failure,
    MessageError,
    MessagesNotSent,
    ScopeError,
    SendCancelled,
    TLSError,
    TruncusError,
    log_text,
    redacted,
)
from truncus_django.api.keys import ApiKey
from truncus_django.conf import SETTING_NAMES, Settings, get_settings, mailers
from truncus_django.event_loop import is_database_refused
from truncus_django.message import TruncusStatus
from truncus_django.sending.ambiguous import fingerprint, forget, recall
from truncus_django.sending.direct import note_acceptance, plan, send_batches
from truncus_django.sending.outgoing import Parcel, UnknownSend
from truncus_django.sending.payload import Payload, build_payload, carry_over, measure
from truncus_django.signals import post_send, pre_send, send_failed, sends_concluded, tell
from truncus_django.validation import did_you_mean

__all__ = ["TruncusBackend"]

logger = logging.getLogger("truncus_django")

_MISCONFIGURATION = (ConfigurationError, AuthenticationError, ScopeError, TLSError)


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
        own = {name: options.pop(name) for name in options.keys() & SETTING_NAMES}
        if isinstance(own.get("api_key"), str):
            own["api_key"] = ApiKey(own["api_key"])
        options = {redacted(name): value for name, value in options.items()}  # one may be a key
        if alias is None:
            options = {name: options[name] for name in options if name not in _SMTP_OPTIONS}
            _warn_of_unknown(options)
        if own.get("timeout") is None:  # such as Django's EMAIL_TIMEOUT
            own.pop("timeout", None)
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
    def client_without_retries(self) -> TruncusClient:
        """The client of workers, who write down when to try again instead of waiting for it."""
        return _client(replace(self.settings, max_retries=0))

    @property
    def client(self) -> TruncusClient:
        """The client for these settings, shared by all backends that have the same."""
        return _client(self.settings)

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
        parcels = _parcels(messages)
        if settings.delivery == "outbox":
            return self._put_into_outbox(parcels, client, settings, now)
        prepared = (self._prepared(parcel, client, settings, now) for parcel in parcels)
        try:
            for batch in send_batches(client, plan(prepared, now=now), now=now):
                self._conclude(batch.parcels)
        finally:
            # What never made a request; and, when a time limit or Ctrl-C ends the call, the
            # request that it broke into.
            self._conclude(
                [parcel for parcel in parcels if parcel.is_settled and not parcel.is_concluded]
            )
        return self._report(parcels)

    def _put_into_outbox(
        self, parcels: Sequence[Parcel], client: TruncusClient, settings: Settings, now: float
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
        for parcel in parcels:
            self._prepared(parcel, client, settings, now)
            if parcel.payload is None:
                continue
            try:
                row = outbox.row_of(parcel, alias=self.alias, settings=settings)
            except TruncusError as error:
                parcel.error = error
            else:
                rows.append(row)
                parcel.email_id = row.email.pk
            parcel.payload = None  # the row holds it as text
        if rows:
            try:
                outbox.enqueue(rows, settings)
            except DatabaseError as exc:
                exc.add_note("If the outbox has no tables yet, run manage.py migrate.")
                raise
        for parcel in parcels:
            if not parcel.is_settled and parcel.email_id is None:
                continue  # nobody to send it to
            parcel.message.truncus_status = _status(parcel)  # type: ignore[attr-defined]
            parcel.is_concluded = True
            if parcel.error is not None:
                parcel.error.__traceback__ = parcel.error.__context__ = None
                self._notify_of(parcel)
        return self._report(parcels)

    # The steps of a send ----------------------------------------------------------------------

    def _prepared(
        self, parcel: Parcel, client: TruncusClient, settings: Settings, now: float
    ) -> Parcel:
        """Return the parcel with its payload, or with what keeps it from being sent.

        It has neither if there is nobody to send the message to.
        """
        try:
            if not _has_recipients(parcel.message):
                return parcel
            sandbox = getattr(parcel.message, "sandbox", None)
            is_sandbox = settings.sandbox if sandbox is None else sandbox is True
            parcel.unknown_send = recall(parcel, client, is_sandbox=is_sandbox)
            if parcel.unknown_send is not None:
                # Sent again as it was; receivers were asked then.
                parcel.payload = _payload_of(parcel.unknown_send, parcel.message)
            else:
                self._prepare(parcel, settings, datetime.fromtimestamp(now, UTC))
        except SendCancelled:
            parcel.is_cancelled = True
        except TruncusError as error:
            parcel.error = error
        except Exception as exc:  # noqa: BLE001  one message must not cost the others of a list
            parcel.error = MessageError(
                f"The message raised {type(exc).__name__} when it was read; it was not sent."
            )
        return parcel

    def _prepare(self, parcel: Parcel, settings: Settings, now: datetime) -> None:
        """Build the payload, and let receivers change or cancel it."""
        payload = build_payload(parcel.message, settings, now=now)
        if pre_send.has_listeners(type(self)):
            before, built = fingerprint(parcel.message), copy.deepcopy(payload.email)
            self._ask_receivers(parcel.message, payload.email)
            if fingerprint(parcel.message) != before:
                if not _has_recipients(parcel.message):
                    return
                changed = payload.email
                payload = build_payload(parcel.message, settings, now=now)
                carry_over(payload.email, built=built, changed=changed)
            measure(payload)
        parcel.payload = payload
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

    def _conclude(self, parcels: Sequence[Parcel]) -> None:
        """Tell messages, log and receivers what became of the parcels of a request."""
        for parcel in parcels:
            parcel.message.truncus_status = _status(parcel)  # type: ignore[attr-defined]
            parcel.is_concluded = True
            if parcel.error is not None:
                # The frames of a traceback hold the email: for error reports, and in memory.
                parcel.error.__traceback__ = parcel.error.__context__ = None
            if parcel.result is not None:
                forget(parcel)
        if sends_concluded.has_listeners(type(self)):
            self._record(parcels)
        for parcel in parcels:
            parcel.payload = None  # a list may hold more than fits into memory at once
            self._notify_of(parcel)

    def _record(self, parcels: Sequence[Parcel]) -> None:
        """Have the request's emails recorded; what fails there harms nothing."""
        for _, answer in sends_concluded.send_robust(
            sender=type(self), parcels=parcels, alias=self.alias, settings=self.settings
        ):
            if isinstance(answer, Exception):
                logger.error("Emails were sent and not recorded: %s", type(answer).__name__)

    def _notify_of(self, parcel: Parcel) -> None:
        message, error = parcel.message, parcel.error
        if error is not None:
            if send_failed.has_listeners(type(self)):
                self._notify(send_failed, message=message, error=error)
        elif parcel.result is not None:
            note_acceptance(parcel.result)
            if post_send.has_listeners(type(self)):
                status = message.truncus_status  # type: ignore[attr-defined]
                self._notify(post_send, message=message, status=status)

    def _notify(self, signal: django.dispatch.Signal, **facts: Any) -> None:
        with _outermost() as is_outermost:
            if is_outermost:
                tell(signal, sender=type(self), alias=self.alias, **facts)

    def _report(self, parcels: Sequence[Parcel]) -> int:
        """Return how many were accepted, or raise what kept the others from it."""
        failures = [
            Failure(parcel.index, parcel.error, parcel.message)
            for parcel in parcels
            if parcel.error is not None
        ]
        accepted = sum(
            (parcel.result is not None or parcel.email_id is not None) and parcel.error is None
            for parcel in parcels
        )
        if not failures:
            return accepted
        errors = [failure.error for failure in failures]
        wrong_settings = next(
            (error for error in errors if isinstance(error, _MISCONFIGURATION)), None
        )
        if self.fail_silently and wrong_settings is None:
            with _outermost() as is_outermost:
                for error in errors if is_outermost else ():
                    logger.error("An email was not sent: %s", log_text(error))
            return accepted
        if len(parcels) == 1:
            raise errors[0]
        raise MessagesNotSent(
            f"{len(failures)} of {len(parcels)} emails were not sent.",
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


def _parcels(messages: Sequence[EmailMessage]) -> list[Parcel]:
    seen: Counter[int] = Counter()
    parcels = []
    for index, message in enumerate(messages):
        message.__dict__["truncus_status"] = None  # not that of an earlier send
        parcels.append(Parcel(index, message, occurrence=seen[id(message)]))
        seen[id(message)] += 1
    return parcels


def _has_recipients(message: EmailMessage) -> bool:
    try:
        return bool(message.recipients())
    except TypeError:  # they are no lists; whether they are usable, the payload tells
        return True


def _payload_of(earlier: UnknownSend, message: EmailMessage) -> Payload:
    own_key = getattr(message, "idempotency_key", None)
    return Payload(
        email=earlier.email,
        idempotency_key=earlier.idempotency_key if own_key is not None else None,
        is_sandbox=earlier.is_sandbox,
        size=earlier.size,
    )


def _status(parcel: Parcel) -> TruncusStatus:
    result, error = parcel.result, parcel.error
    if parcel.is_cancelled:
        status = "cancelled"
    elif parcel.email_id is not None:
        status = "pending"
    elif result is not None:
        status = result.status
    else:
        status = "unknown" if error is not None and error.ambiguous else "failed"
    return TruncusStatus(
        status=status,
        id=result.message_id if result else None,
        idempotency_key=parcel.key,
        answer=result,
        error=error,
        attempts=result.attempts if result else error.attempts if error else 0,
        batch_size=parcel.batch_size,
        email_id=parcel.email_id,
    )


def _client(settings: Settings) -> TruncusClient:
    return _shared_client(
        settings.api_key or "",
        settings.base_url,
        settings.timeout,
        settings.max_retries,
        settings.retry_budget,
        settings.dialect,
        settings.plain_http_hosts,
    )


@lru_cache(maxsize=64)
def _shared_client(
    api_key: str,
    base_url: str,
    timeout_s: float,
    max_retries: int,
    retry_budget_s: float,
    dialect: str,
    plain_http_hosts: tuple[str, ...],
) -> TruncusClient:
    return TruncusClient(
        api_key,
        base_url=base_url,
        timeout_s=timeout_s,
        max_retries=max_retries,
        retry_budget_s=retry_budget_s,
        dialect=dialect,
        plain_http_hosts=plain_http_hosts,
    )
