"""TruncusBackend: Django's emails through the Truncus API."""

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

from django.apps import apps
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError
from django.dispatch import Signal
from django.views.decorators.debug import sensitive_variables

from truncus_django import telemetry
from truncus_django.accounts import Accounts
from truncus_django.api import contract
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import (
    Failure,
    MessagesNotSent,
    TruncusError,
    clear_frames,
    log_fields,
    log_text,
    redacted,
)
from truncus_django.conf import SETTING_NAMES, ConfigurationError, Settings, get_settings, mailers
from truncus_django.event_loop import is_database_refused
from truncus_django.mailers import Mailer, own_options
from truncus_django.message import TruncusStatus
from truncus_django.sending.ambiguous import remember_merged
from truncus_django.sending.batching import make_batches
from truncus_django.sending.breaker import breaker_of
from truncus_django.sending.capture import capture, is_capturing
from truncus_django.sending.direct import send_batches
from truncus_django.sending.failover import hand_over_failed
from truncus_django.sending.fallback import fallback_of
from truncus_django.sending.inline_images import host_of
from truncus_django.sending.outgoing import OutgoingMessage, SendOutcome, Sent
from truncus_django.sending.prepare import Preparer, refuse_suppressed
from truncus_django.sending.recipient_statuses import note_recipients
from truncus_django.sending.requests import note_acceptance
from truncus_django.sending.screening import SUPPRESSED_CODE, is_on
from truncus_django.signals import outermost, post_send, send_failed, send_safely
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
        **options: settings in lower case, which override ``TRUNCUS``; see
            :class:`truncus_django.conf.Settings`. Those of Django's SMTP backend are ignored, but
            for ``timeout`` (seconds). Others are ignored with a warning, and refused in
            ``MAILERS``.
    """

    check_in_outbox: Callable[[], None] | None = None
    """Called in the transaction that writes into the outbox, after all receivers of ``pre_send``.

    What it raises, ``send_messages()`` raises, and nothing is written.
    """

    def __init__(
        self, fail_silently: bool = False, *, alias: str | None = None, **options: Any
    ) -> None:
        if alias is not None and not isinstance(alias, str):
            raise ConfigurationError("The alias of a mailer in MAILERS must be a string.")
        own = own_options(options)
        options = {
            redacted(name): value  # one may be a key
            for name, value in options.items()
            if name not in SETTING_NAMES
        }
        if alias is not None:  # Django refuses what is unknown in MAILERS
            super().__init__(alias=alias, **options)
        else:
            super().__init__()
            _warn_of_unknown(options.keys() - _SMTP_OPTIONS)
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

    @sensitive_variables()
    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Send messages; return how many Truncus accepted, or how many were put into the outbox.

        ``message.truncus_status`` says what became of each. One bad message does not stop the
        others. After an error that all would meet, such as a refused API key, the rest is not
        tried. A message without recipients is skipped, as in Django's SMTP backend: its status
        stays ``None``.

        Raises:
            ConfigurationError: the settings are wrong.
            TruncusError: of a single message, why it was not sent.
            MessagesNotSent: of several, which were not sent and why.
            django.db.DatabaseError: nothing could be written into the outbox.

        With ``fail_silently`` only wrong settings and the database's errors are raised.
        """
        messages = _check_and_reset(email_messages)
        if not messages:
            return 0
        if is_capturing():
            capture(messages, self.settings)
            return len(messages)
        mailer, now = self.mailer, time.time()
        settings = mailer.settings
        fallback_of(settings)  # raises where it cannot be used
        is_on(settings)  # raises where there is no table of suppressed addresses
        accounts = Accounts(mailer, is_for_outbox=settings.delivery == "outbox")
        client = None if accounts.are_told else mailer.client
        report = _Report(len(messages))
        with telemetry.sending(len(messages), self.alias, settings.delivery) as observed:
            preparer = Preparer(
                type(self),
                self.alias,
                client,
                settings,
                now,
                host_of(settings),
                accounts if accounts.are_told else None,
            )
            prepared = preparer.prepare(messages)
            if settings.delivery == "outbox":
                queued = self._enqueue(prepared, settings)
                self._send_signals(queued)
                report.add(queued)
            else:
                with closing(_send(accounts, prepared, now=now)) as all_sent:
                    for sent in all_sent:
                        self._record(sent, _mailer_of(sent, accounts))
                        self._send_signals(sent)
                        report.add(sent)
            if observed is not None:
                observed.note(report.accepted, [failure.error for failure in report.failures])
            report.raise_failures(fail_silently=self.fail_silently)
        return report.accepted

    # The steps of a send ----------------------------------------------------------------------

    def _enqueue(self, prepared: Iterable[OutgoingMessage], settings: Settings) -> list[Sent]:
        """Write messages into the outbox; a worker sends them.

        Raises:
            ConfigurationError: there is no table to write to, or none of these settings would be
                known to whoever sends, or Django refuses the database because this is a coroutine.
        """
        if is_database_refused():
            raise ConfigurationError(
                "DELIVERY is 'outbox', which writes to the database, and Django allows no queries "
                "in a coroutine. Call await asend(message) instead, with asend of "
                "truncus_django.message."
            )
        outbox = _outbox()
        outbox.check_options(self._options_by_hand())
        rows, queued, refused = [], [], []
        for outgoing in refuse_suppressed(prepared, get_settings()):
            row = outgoing.error or outbox.row_or_error(outgoing, self.alias, settings)
            if isinstance(row, TruncusError):
                clear_frames(row)
                outcome = SendOutcome.without_request(row)
                if row.code == SUPPRESSED_CODE:
                    refused.append((outgoing, outcome))
            else:
                rows.append(row)
                outcome = SendOutcome(email_pk=row.email.pk)
            # Without the payload, which the row holds as text.
            queued.append((outgoing._replace(payload=None), outcome))
        if rows:
            try:
                outbox.enqueue(rows, settings, check=self.check_in_outbox)
            except DatabaseError as exc:
                exc.add_note("If the outbox has no tables yet, run manage.py migrate.")
                raise
        _set_statuses(queued)
        if refused:
            self._record(refused, self.mailer)
        note_recipients(queued)
        return queued

    def _record(self, sent: Sequence[Sent], mailer: Mailer) -> None:
        """Write what became of messages onto them, and into the log where there is one.

        What their answers told of the account's quota is kept there, too.
        """
        settings = mailer.settings
        _set_statuses(sent)
        if settings.record and apps.ready and apps.is_installed("truncus_django"):
            # Here, because its models need the app, which is optional.
            from truncus_django.log.recording import record
            from truncus_django.quota.keeping import note_sends

            if record(sent, alias=self.alias, settings=settings):
                note_sends(mailer, sent)
        note_recipients(sent)

    def _send_signals(self, sent: Sequence[Sent]) -> None:
        """Send ``post_send`` or ``send_failed`` for each message."""
        is_told = post_send.has_listeners(type(self))
        for outgoing, outcome in sent:
            if outcome.error is not None:
                self._send_signal(send_failed, message=outgoing.message, error=outcome.error)
            elif outcome.result is not None or outcome.sent_by:
                if outcome.result is not None:
                    note_acceptance(outcome.result)
                if is_told:
                    status = outgoing.message.truncus_status  # type: ignore[attr-defined]
                    self._send_signal(post_send, message=outgoing.message, status=status)

    def _send_signal(self, signal: Signal, **facts: Any) -> None:
        if signal.has_listeners(type(self)):
            with outermost() as is_outermost:
                if is_outermost:
                    send_safely(signal, sender=type(self), alias=self.alias, **facts)


def _send(
    accounts: Accounts, prepared: Iterable[OutgoingMessage], *, now: float
) -> Generator[Sequence[Sent]]:
    """Send messages in batches, those of each account one after the other."""
    groups = _by_account(prepared, accounts) if accounts.are_told else [(accounts.mailer, prepared)]
    sent_batches = (
        sent for mailer, messages in groups for sent in _send_by(mailer, messages, now=now)
    )
    return remember_merged(sent_batches, lambda each: accounts.of(each.tenant).client, now=now)


def _send_by(
    mailer: Mailer, messages: Iterable[OutgoingMessage], *, now: float
) -> Generator[Sequence[Sent]]:
    """Send messages by one account; what it certainly did not take goes to the fallback mailer.

    What a mailer without a usable key has are those that cannot be sent.
    """
    if not mailer.has_account:
        yield [(each, SendOutcome.without_request(each.error)) for each in messages]
        return
    client, fallback = mailer.client, fallback_of(mailer.settings)
    batches = make_batches(messages, now=now)
    if fallback is None:
        yield from send_batches(client, batches, now=now)
        return
    breaker = breaker_of(client.account)
    sent_batches = send_batches(client, batches, now=now, breaker=breaker)
    yield from hand_over_failed(sent_batches, fallback, client, now=now)


def _by_account(
    prepared: Iterable[OutgoingMessage], accounts: Accounts
) -> list[tuple[Mailer, list[OutgoingMessage]]]:
    """Part messages by the account that they go by: no request is for two accounts."""
    groups: dict[Any, tuple[Mailer, list[OutgoingMessage]]] = {}
    for outgoing in prepared:
        mailer = accounts.of(outgoing.tenant)
        groups.setdefault(_kind(mailer), (mailer, []))[1].append(outgoing)
    return list(groups.values())


def _kind(mailer: Mailer) -> Any:
    """Return what tells mailers apart that send by another account, or fall back on another."""
    if not mailer.has_account:
        return ()
    return mailer.client.account, mailer.settings.fallback_mailer, mailer.settings.base_url


def _mailer_of(sent: Sequence[Sent], accounts: Accounts) -> Mailer:
    return accounts.of(sent[0][0].tenant) if sent else accounts.mailer


@dataclass(slots=True)
class _Report:
    """What became of the messages of a call.

    Attributes:
        count: of all its messages; with merge data, of all their recipients' emails.
        accepted: how many Truncus or the outbox took.
        failures: the others, but for those without recipients and those that were cancelled.
    """

    count: int
    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)
    _added: int = 0

    def add(self, sent: Sequence[Sent]) -> None:
        """Count what became of some messages."""
        self._added += len(sent)
        self.count = max(self.count, self._added)
        for outgoing, outcome in sent:
            self.accepted += outcome.is_accepted
            if outcome.error is not None:
                self.failures.append(Failure(outgoing.position, outcome.error, outgoing.message))

    def raise_failures(self, *, fail_silently: bool) -> None:
        """Raise why messages were not sent; wrong settings even where failures are silent."""
        self.failures.sort(key=lambda failure: failure.index)
        errors = [failure.error for failure in self.failures]
        wrong_settings = next((error for error in errors if error.is_misconfiguration), None)
        if fail_silently and wrong_settings is None:
            with outermost() as is_outermost:
                for error in errors if is_outermost else ():
                    logger.error(
                        "An email was not sent: %s",
                        log_text(error),
                        extra={"truncus_event": "email_not_sent", **log_fields(error)},
                    )
        elif errors and self.count == 1:
            raise errors[0]
        elif errors:
            raise MessagesNotSent(
                f"{len(errors)} of {self.count} emails were not sent.",
                failures=self.failures,
                accepted=self.accepted,
            ) from wrong_settings


_SMTP_OPTIONS = frozenset(
    {"host", "port", "username", "password", "use_tls", "use_ssl", "ssl_keyfile", "ssl_certfile"}
)
"""Options of Django's SMTP backend that libraries, and Django itself, pass to any backend."""


def _warn_of_unknown(names: Iterable[str]) -> None:
    for name in names:
        hint = did_you_mean(name, SETTING_NAMES)
        warnings.warn(f"TruncusBackend ignores the unknown option {name!r}{hint}", stacklevel=3)


def _outbox() -> ModuleType:
    """Return the module that writes into the outbox.

    Raises:
        ConfigurationError: there are no tables for it.
    """
    if not apps.is_installed("truncus_django"):
        raise ConfigurationError(
            "DELIVERY is 'outbox', which needs 'truncus_django' in INSTALLED_APPS and "
            "manage.py migrate."
        )
    # Here, because its models need the app, which is optional.
    from truncus_django.outbox import enqueue

    return enqueue


def _check_and_reset(email_messages: Iterable[EmailMessage] | None) -> list[EmailMessage]:
    """Check the types of messages, and clear their status of an earlier send."""
    messages = list(email_messages or ())
    for message in messages:
        if not isinstance(message, EmailMessage):
            raise TypeError(f"send_messages() takes messages, not {type(message).__name__}.")
    for message in messages:
        message.truncus_status = None  # type: ignore[attr-defined]
    return messages


def _set_statuses(sent: Iterable[Sent]) -> None:
    for outgoing, outcome in sent:
        outgoing.message.truncus_status = _status(outcome)  # type: ignore[attr-defined]


def _status(outcome: SendOutcome) -> TruncusStatus:
    result, error = outcome.result, outcome.error
    if outcome.is_cancelled:
        status = "cancelled"
    elif outcome.email_pk is not None:
        status = "pending"
    elif outcome.sent_by and error is None:
        status = contract.SENT
    elif result is not None:
        status = result.status
    else:
        status = "unknown" if error is not None and error.ambiguous else "failed"
    return TruncusStatus(
        status=status,
        id=result.message_id if result else None,
        idempotency_key=outcome.idempotency_key or None,
        answer=result,
        error=error,
        attempts=outcome.attempts,
        batch_size=outcome.batch_size,
        email_pk=outcome.email_pk,
        sent_by=outcome.sent_by or None,
    )
