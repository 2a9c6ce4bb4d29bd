"""TruncusBackend: Django's e-mails through the Truncus API."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import django
from django.conf import settings as django_settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

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
)
from truncus_django.conf import OPTION_NAMES, Settings, get_settings, suggestion
from truncus_django.delivery import Parcel, deliver, fingerprint, forget, plan, recall
from truncus_django.message import TruncusStatus
from truncus_django.payload import build_payload
from truncus_django.signals import post_send, pre_send, send_failed

logger = logging.getLogger("truncus_django")

_MISCONFIGURATION = (ConfigurationError, AuthenticationError, ScopeError, TLSError)


class TruncusBackend(BaseEmailBackend):
    """Sends Django's e-mails through Truncus.

    One message is one request, several are batches of up to 100. Connections are kept by the
    process, so that ``open()``, ``close()`` and ``with`` are allowed and not needed.

    Args:
        fail_silently: hide that e-mails were not delivered; never that settings are wrong.
        alias: the mailer's name in ``MAILERS``, given by Django 6.1 and later.
        **options: settings in lower case, before those in ``TRUNCUS``; see
            :class:`truncus_django.conf.Settings`.
    """

    def __init__(
        self, fail_silently: bool = False, *, alias: str | None = None, **options: Any
    ) -> None:
        own = {name: options.pop(name) for name in options.keys() & OPTION_NAMES}
        if django.VERSION >= (6, 1):
            super().__init__(alias=alias, **options)  # unknown: Django refuses
        else:
            super().__init__()
            _refuse_unknown(options)
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

    @property
    def settings(self) -> Settings:
        """The settings in force; raises :class:`ConfigurationError` where they are wrong."""
        return get_settings(self._options_with_key() if self._lacks_key else self._options)

    def _options_with_key(self) -> dict[str, Any]:
        """Return the options of a backend that was pickled, with the key of its mailer."""
        mailers = getattr(django_settings, "MAILERS", {})
        key = mailers.get(self.alias, {}).get("OPTIONS", {}).get("api_key")
        if key is None:
            raise ConfigurationError(
                "This backend was pickled, and API keys do not travel: make a new backend with its "
                "key, or name the mailer in MAILERS."
            )
        return {**self._options, "api_key": key}

    @property
    def client(self) -> TruncusClient:
        """The client for these settings, shared by all backends that have the same."""
        return _client(self.settings)

    def open(self) -> bool:
        """Check the settings; there is no connection to open. Returns ``False``."""
        self.client  # noqa: B018  raises where the settings are wrong
        return False

    def close(self) -> None:
        """Do nothing: the process keeps its connections for the next e-mail."""

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Send messages and return how many Truncus accepted.

        Every message is tried, and ``message.truncus_status`` tells what became of it.

        Raises:
            TruncusError: of a single message, why it was not sent.
            MessagesNotSent: of several, which were not sent and why.
        """
        messages = list(email_messages or ())
        if not messages:
            return 0
        client, settings, now = self.client, self.settings, time.time()
        seen: Counter[int] = Counter()
        parcels = []
        for index, message in enumerate(messages):
            parcel = Parcel(index, message, occurrence=seen[id(message)])
            seen[id(message)] += 1
            self._prepare(parcel, settings, now)
            parcels.append(parcel)
        try:
            deliver(client, plan(parcels, now=now), now=now)
        finally:
            # Also when a time limit or Ctrl-C ends the call: what was sent is told.
            for parcel in parcels:
                self._conclude(parcel)
        return self._report(parcels)

    # The steps of a send ----------------------------------------------------------------------

    def _prepare(self, parcel: Parcel, settings: Settings, now: float) -> None:
        """Build the payload, let receivers change or cancel it, and recall an earlier send."""
        message = parcel.message
        try:
            payload = build_payload(message, settings, now=datetime.fromtimestamp(now, UTC))
            if pre_send.has_listeners(type(self)):
                # What a receiver adds may differ each time; the message is the same all the same.
                parcel.fingerprint = fingerprint(payload)
                self._ask_receivers(message, payload.email)
        except SendCancelled:
            parcel.is_cancelled = True
        except TruncusError as error:
            parcel.error = error
        else:
            parcel.payload = payload
            parcel.pending = recall(parcel, payload)
            if payload.dropped:
                logger.warning(
                    "Truncus cannot carry a part of an e-mail, which was dropped: %s",
                    "; ".join(payload.dropped),
                )

    def _ask_receivers(self, message: EmailMessage, email: dict[str, Any]) -> None:
        try:
            pre_send.send(sender=type(self), message=message, payload=email, alias=self.alias)
        except TruncusError:
            raise
        except Exception as exc:
            # One receiver's fault for one message must not cost the others of a list.
            raise MessageError(
                f"A pre_send receiver failed with {type(exc).__name__}; the e-mail was not sent."
            ) from exc

    def _conclude(self, parcel: Parcel) -> None:
        """Tell message, receivers and log what became of it."""
        result, error, message = parcel.result, parcel.error, parcel.message
        if result is None and error is None and not parcel.is_cancelled:
            return  # never tried: the call was ended from outside
        status = TruncusStatus(
            status="cancelled" if parcel.is_cancelled else result.status if result else "failed",
            id=result.message_id if result else None,
            idempotency_key=parcel.key,
            answer=result,
            error=error,
            attempts=result.attempts if result else error.attempts if error else 0,
            batch_size=parcel.batch_size,
        )
        message.truncus_status = status  # type: ignore[attr-defined]
        if result is not None:
            forget(parcel)
        if error is not None:
            if send_failed.has_listeners(type(self)):
                self._tell(send_failed, message=message, error=error)
        elif result is not None:
            self._log_accepted(status)
            if post_send.has_listeners(type(self)):
                self._tell(post_send, message=message, status=status)

    def _tell(self, signal: django.dispatch.Signal, **facts: Any) -> None:
        with _unless_inside() as is_outermost:
            if not is_outermost:
                return
            responses = signal.send_robust(sender=type(self), alias=self.alias, **facts)
            for receiver, answer in responses:
                if isinstance(answer, Exception):
                    name = getattr(receiver, "__qualname__", type(receiver).__name__)
                    logger.error(
                        "The receiver %s failed after a send: %s", name, type(answer).__name__
                    )

    def _log_accepted(self, status: TruncusStatus) -> None:
        logger.debug("Truncus accepted e-mail %s: %s", status.id, status.status)
        answer = status.answer
        if answer is None:
            return
        if answer.is_content_duplicate:
            logger.warning(
                "Truncus did not send an e-mail because it had just sent the same content: %s",
                answer.original_global_message_id,
            )
        if answer.warnings:
            logger.warning(
                "Truncus sent e-mail %s with %d warnings", status.id, len(answer.warnings)
            )

    def _report(self, parcels: Sequence[Parcel]) -> int:
        """Return how many were accepted, or raise what kept the others from it."""
        failures = [
            Failure(parcel.index, parcel.error, parcel.message)
            for parcel in parcels
            if parcel.error is not None
        ]
        accepted = sum(parcel.result is not None and parcel.error is None for parcel in parcels)
        if not failures:
            return accepted
        errors = [failure.error for failure in failures]
        wrong_settings = next(
            (error for error in errors if isinstance(error, _MISCONFIGURATION)), None
        )
        if self.fail_silently and wrong_settings is None:
            with _unless_inside() as is_outermost:
                for error in errors if is_outermost else ():
                    logger.error("An e-mail was not sent: %s", error)
            return accepted
        if len(parcels) == 1:
            raise errors[0]
        raise MessagesNotSent(
            f"{len(failures)} of {len(parcels)} e-mails were not sent.",
            failures=failures,
            accepted=accepted,
        ) from wrong_settings


_telling = threading.local()


@contextmanager
def _unless_inside() -> Iterator[bool]:
    """Yield whether this thread is not inside here yet; what fails inside harms nothing.

    Receivers send e-mails, and so do log handlers, Django's for the admins above all. To tell of
    a failure of those in the same way would have no end. From Django 6.1 on, the handler for the
    admins raises where its e-mail fails, also when all that it tells is a failing receiver.
    """
    if getattr(_telling, "is_inside", False):
        yield False
        return
    _telling.is_inside = True
    try:
        with suppress(Exception):
            yield True
    finally:
        _telling.is_inside = False


def _refuse_unknown(options: dict[str, Any]) -> None:
    """Refuse unknown options, as Django does itself from 6.1 on.

    ``send_mail()`` passes ``username`` and ``password`` before 6.1, mostly as ``None``.
    """
    for name in options.keys() - {"username", "password"}:
        hint = suggestion(name, iter(sorted(OPTION_NAMES)))
        raise ConfigurationError(f"TruncusBackend has no option {name!r}{hint}")


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
