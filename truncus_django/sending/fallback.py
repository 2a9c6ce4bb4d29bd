"""The fallback mailer: sends what Truncus certainly did not take.

No other way to send has an idempotency key. So an email is handed over once at most: whoever does
not learn whether the fallback mailer took it leaves that to a person.
"""

import logging
import smtplib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.core import mail
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from truncus_django.api.errors import EmailRefused, TruncusError, log_fields, log_text
from truncus_django.conf import ConfigurationError, Settings, configured_mailers, fallback_problem
from truncus_django.sending.rebuilt import rebuilt
from truncus_django.sending.requests import as_allowed_now

logger = logging.getLogger("truncus_django")


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The fallback mailer sent an email.

    Attributes:
        left_out: those of its recipients who did not get it, as they are suppressed.
    """

    left_out: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class HandoverFailure:
    """Why the fallback mailer did not send an email, as far as that is known.

    Attributes:
        text: completes a sentence that begins with the mailer; says nothing of the email.
        is_ambiguous: whether it may have been sent all the same.
        is_about_email: whether the next email may fare better.
        refusal: why this site lets nobody send it, neither this mailer nor Truncus.
    """

    text: str
    is_ambiguous: bool = False
    is_about_email: bool = False
    refusal: EmailRefused | None = None


class FallbackMailer:
    """A mailer of the project that is not Truncus. A context manager, which closes its connection.

    Args:
        name: ``FALLBACK_MAILER``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._connection: Any = None

    def __enter__(self) -> "FallbackMailer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # what was sent is sent
                connection.close()

    def open(self) -> None:
        """Connect to the mailer's server.

        Raises:
            Exception: whatever keeps it from that.
        """
        if self._connection is None:
            connection = _backend(self.name)
            connection.open()
            self._connection = connection

    @sensitive_variables()
    def send(self, email: Mapping[str, Any]) -> HandedOver | HandoverFailure:
        """Send an email, the API's fields and this package's own; or return why it was not sent."""
        try:
            allowed, left_out = as_allowed_now(email)
            message = rebuilt(allowed)
        except TruncusError as error:
            return HandoverFailure(
                f"was not given it: {error.message}",
                is_about_email=True,
                refusal=error if isinstance(error, EmailRefused) else None,
            )
        try:
            self.open()
        except Exception as exc:  # noqa: BLE001  whatever keeps it from sending
            self.close()
            return HandoverFailure(f"cannot be used ({_kind(exc)})")
        try:
            count = self._connection.send_messages([message])
        except _REFUSALS as exc:
            self.close()
            return HandoverFailure(f"refused it ({_kind(exc)})", is_about_email=True)
        except Exception as exc:  # noqa: BLE001  whatever it is, it may have come too late
            self.close()
            return HandoverFailure(f"failed while it sent ({_kind(exc)})", is_ambiguous=True)
        if count == 0:
            return HandoverFailure("does not say that it sent it", is_ambiguous=True)
        return HandedOver(left_out)


_REFUSALS = (
    smtplib.SMTPSenderRefused,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPDataError,
    smtplib.SMTPNotSupportedError,
)
"""With these answers a server says that it did not take the email."""


def _kind(exc: Exception) -> str:
    """Return what may be said of another library's error, whose text may hold addresses."""
    code = getattr(exc, "smtp_code", None)
    return f"{type(exc).__name__}, {code}" if isinstance(code, int) else type(exc).__name__


def _backend(name: str) -> Any:
    if configured_mailers() is not None:
        return mail.mailers[name]
    return import_string(name)()


def fallback_of(settings: Settings) -> FallbackMailer | None:
    """Return the fallback mailer that the settings name, or ``None``.

    Raises:
        ConfigurationError: they name one that cannot be used.
    """
    if settings.fallback_mailer is None:
        return None
    problem = fallback_problem(settings.fallback_mailer)
    if problem is not None:
        raise ConfigurationError(problem)
    return FallbackMailer(settings.fallback_mailer)


def reason_of(name: str, why: str) -> str:
    """Return what the record of an email says that the fallback mailer sent."""
    return f"The fallback mailer {name!r} sent it, as Truncus did not take it: {why}"


def note_fallback(name: str, count: int, error: TruncusError) -> None:
    """Log that a fallback mailer sent emails, louder where a person must act."""
    level = logging.ERROR if error.is_misconfiguration else logging.WARNING
    emails = "an email" if count == 1 else f"{count} emails"
    logger.log(
        level,
        "The fallback mailer %r sent %s: %s",
        name,
        emails,
        log_text(error),
        extra={
            "truncus_event": "fallback_mailer_used",
            "truncus_count": count,
            "truncus_mailer": name,
            **log_fields(error),
        },
    )
