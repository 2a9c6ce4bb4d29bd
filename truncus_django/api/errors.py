"""Every exception of the package.

* TruncusError

  * ConfigurationError: a missing or impossible key, URL or option
  * MessageError: the email itself cannot be sent; raised before any request

    * UnsupportedFeature: the API cannot carry a part of it
    * InvalidAddress
    * InvalidHeader: a header's name or value, a line break above all
    * MessageTooLarge: over the documented sizes or counts

  * NetworkError: no answer came

    * ConnectionFailed: no connection was made, so nothing was sent
    * AnswerLost: the request went out and the answer did not come back
    * TLSError: the server's certificate or its TLS is not acceptable

  * APIError: an answer that is a refusal

    * InvalidRequest (400, 413, 422)
    * AuthenticationError (401)
    * ScopeError (403)
    * DomainError (400, 403, 404): the sender's domain
    * NotFound (404)
    * Conflict (409)
    * RateLimited (429): a burst; wait ``retry_after`` seconds
    * QuotaExceeded (429): a monthly or daily cap; waiting minutes does not help
    * ServerError (5xx, 408)
    * InvalidAnswer: an answer that is not what the contract says
    * EmailRefused: the request was taken and this email refused (blocked, rejected, failed)

  * OutcomeUnknown: an earlier send of this message may have been accepted
  * MessagesNotSent: some messages of a list were not sent; ``failures`` says which and why
  * SendCancelled: raised by a ``pre_send`` receiver to keep an email from being sent
  * WebhookVerificationError

Whatever keeps an email from being sent is an :exc:`OSError` too, as ``smtplib.SMTPException`` is:
MessageError, NetworkError, APIError, OutcomeUnknown and MessagesNotSent. Reusable apps written for
SMTP catch that. A ConfigurationError is not, as no app can go on with it. The ``errno``,
``strerror`` and ``filename`` of these errors are ``None``.

Texts of errors are made without API keys, addresses and content. What the API wrote is freed of
addresses and keys before it becomes part of one; it may still quote a subject, and so is not logged
(:func:`log_summary`).
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

from truncus_django.api import contract

if TYPE_CHECKING:
    from truncus_django.api.capabilities import WireFormat

__all__ = [
    "APIError",
    "AnswerLost",
    "AuthenticationError",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "DomainError",
    "EmailRefused",
    "Failure",
    "InvalidAddress",
    "InvalidAnswer",
    "InvalidHeader",
    "InvalidRequest",
    "MessageError",
    "MessageTooLarge",
    "MessagesNotSent",
    "NetworkError",
    "NotFound",
    "OutcomeUnknown",
    "QuotaExceeded",
    "RateLimited",
    "ScopeError",
    "SendCancelled",
    "ServerError",
    "TLSError",
    "TruncusError",
    "UnsupportedFeature",
    "WebhookVerificationError",
]

_HINTS: dict[str, str] = {
    "invalid_api_key": "Check the API key.",
    "MISSING_API_KEY": "Check the API key.",
    "INVALID_API_KEY": "Check the API key.",
    "API_KEY_REVOKED": "Create a new API key in the Truncus dashboard.",
    contract.SCOPE_CODE: (
        "Give the API key the scope it lacks: 'send' to send and cancel, 'read_events' to read."
    ),
    "domain_not_verified": "Verify the domain of the sender in Truncus.",
    "DOMAIN_NOT_VERIFIED": "Finish the DNS records of the sender's domain in Truncus.",
    "DOMAIN_NOT_FOUND": "Add the sender's domain in Truncus and verify it.",
    "DOMAIN_PAUSED": "Truncus paused the domain for its bounces or complaints; see its dashboard.",
    "DOMAIN_TYPE_MISMATCH": "Use a domain that Truncus knows as transactional.",
    "MONTHLY_LIMIT_EXCEEDED": "The plan's emails of this month are used up.",
    "WARMUP_CAP_EXCEEDED": "The domain is warming up; its emails of today are used up.",
    contract.SUPPRESSED_CODE: "The recipients bounced or complained before; do not retry.",
    "suppression_list": "The recipient bounced or complained before; do not retry.",
}

_ADDRESS = re.compile(
    r"""(?:"[^"@]*"|[^\s<>"',;:()\[\]]+)@(?:\[[^\s\]]*\]|[^\s<>"',;()\[\]]+)""",
)
_KEY = re.compile(r"\btr_[A-Za-z0-9_]+")
_MAX_TEXT = 300


def redacted(text: object) -> str:
    """Return ``text`` on one line, shortened, without email addresses and API keys.

    Characters that cannot be shown are replaced: a terminal would obey some of them, and no
    encoding has half a character.
    """
    line = " ".join(str(text)[: 4 * _MAX_TEXT].split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    line = _KEY.sub("tr_…", _ADDRESS.sub("<address>", line))
    return line if len(line) <= _MAX_TEXT else line[:_MAX_TEXT] + "…"


_CODE = re.compile(r"[A-Z0-9]+|[A-Za-z0-9]+(_[A-Za-z0-9]+)+")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def loggable_code(code: str | None) -> str | None:
    """Return a code as log lines may hold it; ``None`` where it does not look like one."""
    return code if code and len(code) <= 64 and _CODE.fullmatch(code) else None


def loggable_id(given: str | None) -> str:
    """Return an id as log lines may hold it; ``"…"`` where it does not look like one."""
    return given if given and _ID.fullmatch(given) else "…"


def log_summary(error: "TruncusError") -> str:
    """Return an error as log lines and the output of commands tell it: its class, code and status.

    What Truncus writes about an email may quote its subject, and other errors name what the
    message has. Those texts are in the exception and in the email's record.
    """
    facts = [loggable_code(error.code), f"HTTP {error.status}" if error.status else None]
    told = ", ".join(fact for fact in facts if fact)
    return f"{type(error).__name__} ({told})" if told else type(error).__name__


def log_fields(error: "TruncusError") -> dict[str, object]:
    """Return what :func:`log_summary` tells as fields of a log record, for ``extra``.

    Without an answer there is no status, and without a code none.
    """
    told = {"truncus_code": loggable_code(error.code), "truncus_http_status": error.status}
    known = {name: value for name, value in told.items() if value}
    return {"truncus_error": type(error).__name__, **known}


def log_text(error: "TruncusError") -> str:
    """Return what :func:`log_summary` does, and what to do about it where that is known."""
    is_about_no_email = isinstance(error, ConfigurationError | NetworkError)
    advice = error.message if is_about_no_email else error.hint
    return f"{log_summary(error)}. {advice}" if advice else log_summary(error)


def log_text_of_code(code: str | None) -> str:
    """Return a stored error's code as log lines tell it, and what to do about it if known."""
    told, hint = loggable_code(code) or "an error without a code", hint_for(code)
    return f"{told}. {hint}" if hint else told


AMBIGUOUS_HINT = (
    "It is not known whether Truncus accepted the email; sending the same unchanged message object"
    " again cannot send it twice."
)
"""What an ambiguous error says at its end, to whoever writes the code that sends."""


def hint_for(code: str | None) -> str | None:
    """Return what to do about an error or a bounce with this code or reason, where it is known."""
    return _HINTS.get(code or "")


def set_hints(hints: Mapping[str, str]) -> None:
    """Replace what :func:`hint_for` returns for these codes, where it can be said more exactly."""
    _HINTS.update(hints)


class TruncusError(Exception):
    """The base of every error of this package.

    Attributes:
        message: what happened, in a sentence.
        code: Truncus's code, such as ``"DOMAIN_NOT_VERIFIED"``, or ``None``.
        status: the HTTP status of the answer, or ``None`` where there was no answer.
        retry_after: seconds that the API asked to wait, or ``None``.
        request_id: the answer's request id, where one was sent.
        retryable: whether the same request may succeed later. Told by class and code, unless
            whoever raises it knows better.
        is_account_wide: whether every request with the same API key would fail alike.
        is_service_failure: whether Truncus or the way to it failed, and not the email.
        met_service_failure: whether any try met such a failure, which does not say for certain that
            nobody took the email.
        is_misconfiguration: whether a person must correct the configuration, the API key or
            a certificate.
        is_outage: whether Truncus, the way to it or the account fails, so that emails which it
            was not asked about may go another way.
        allows_fallback: whether this email may go another way, too: it is an outage, and Truncus
            certainly did not take the email.
        ambiguous: whether the email may have been accepted all the same. Sending the same
            unchanged message object again uses the same idempotency key.
        attempts: how many requests were made.
        follows_service_failure: whether one of them before the last met a failure of the service.
        is_from_truncus: whether it is Truncus's own word, told in its JSON. A proxy's page, a
            lost connection and what this side found are not.
        wire_format: where ``ambiguous``, the form that the emails of the lost answer went out in,
            to be given to :meth:`TruncusClient.send_batch` with the same key.
    """

    is_service_failure: ClassVar[bool] = False
    is_misconfiguration: ClassVar[bool] = False
    _is_account_wide: ClassVar[bool] = False
    _is_outage: ClassVar[bool] = False
    _is_retryable: ClassVar[bool] = False
    _retryable_codes: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        ambiguous: bool = False,
        is_from_truncus: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id
        if retryable is None:
            retryable = self._is_retryable or code in self._retryable_codes
        self.retryable = retryable
        self.ambiguous = ambiguous
        self.is_from_truncus = is_from_truncus
        self.wire_format: WireFormat | None = None
        self.attempts = 0
        self.follows_service_failure = False

    @property
    def is_account_wide(self) -> bool:
        return self._is_account_wide

    @property
    def is_outage(self) -> bool:
        return self._is_outage

    @property
    def met_service_failure(self) -> bool:
        return self.attempts > 0 and (self.is_service_failure or self.follows_service_failure)

    @property
    def allows_fallback(self) -> bool:
        return self.is_outage and not self.met_service_failure and not self.ambiguous

    @property
    def hint(self) -> str | None:
        """What to do about it, where that is known."""
        return hint_for(self.code)

    def __str__(self) -> str:
        facts = [
            self.code,
            f"HTTP {self.status}" if self.status else None,
            f"retry after {self.retry_after:g} s" if self.retry_after is not None else None,
            f"request {self.request_id}" if self.request_id else None,
        ]
        told = ", ".join(fact for fact in facts if fact)
        sentence = self.message.rstrip(".")
        text = f"{sentence} ({told})." if told else f"{sentence}."
        if self.hint:
            text += f" {self.hint}"
        if self.ambiguous:
            text += f" {AMBIGUOUS_HINT}"
        return text


class ConfigurationError(TruncusError):
    """The API key, the URL or an option is missing or impossible; no email can be sent."""

    _is_account_wide = True
    is_misconfiguration = True


class MessageError(TruncusError, OSError):
    """The email cannot be sent as it is; nothing was requested."""


class UnsupportedFeature(MessageError):
    """The email has a part that the Truncus API cannot carry."""


class InvalidAddress(MessageError):
    """An address is malformed, or no mail system would take it."""


class InvalidHeader(MessageError):
    """A header has an impossible name or value, or a line break."""


class MessageTooLarge(MessageError):
    """The email is over a documented size or count."""


class NetworkError(TruncusError, OSError):
    """No answer came from Truncus."""


class ConnectionFailed(NetworkError):
    """No connection could be made, so nothing was sent."""

    _is_account_wide = True
    _is_outage = True
    _is_retryable = True


class AnswerLost(NetworkError):
    """The request went out, and no whole answer came back."""

    _is_outage = True
    _is_retryable = True
    is_service_failure = True


class TLSError(NetworkError):
    """The server's certificate or TLS version is not acceptable."""

    _is_account_wide = True
    _is_outage = True
    is_misconfiguration = True


class APIError(TruncusError, OSError):
    """Truncus answered with a refusal."""


class InvalidRequest(APIError):
    """Truncus found the request's content wrong (400, 413, 422)."""


class AuthenticationError(APIError):
    """The API key is missing, unknown or revoked (401)."""

    _is_account_wide = True
    is_misconfiguration = True

    @property
    def is_outage(self) -> bool:
        return self.is_from_truncus  # a proxy's 401 says nothing of the account


class ScopeError(APIError):
    """The API key may not do this (403)."""

    _is_account_wide = True
    is_misconfiguration = True

    @property
    def is_outage(self) -> bool:
        return self.is_from_truncus


class DomainError(APIError):
    """The sender's domain is unknown, not verified, paused or of another kind."""


class NotFound(APIError):
    """Truncus does not know this id (404)."""


class Conflict(APIError):
    """The email's state does not allow this, such as cancelling what was sent (409)."""


class RateLimited(APIError):
    """Too many requests for now (429); ``retry_after`` says how long to wait."""

    _is_account_wide = True
    _is_retryable = True

    @property
    def is_outage(self) -> bool:
        # The manual has one code for all limits. Only the month's asks for more than a day.
        return self.is_from_truncus and (self.retry_after or 0.0) > _DAY_S


class QuotaExceeded(APIError):
    """A monthly or daily cap is used up (429); waiting minutes does not help."""

    @property
    def is_account_wide(self) -> bool:
        return self.code != contract.WARMUP_CODE  # the cap of one domain

    @property
    def is_outage(self) -> bool:
        # Nothing goes around the cap of a domain that is warming up: it protects its reputation.
        return self.is_account_wide and self.is_from_truncus


class ServerError(APIError):
    """Truncus or a proxy before it failed (5xx, 408)."""

    _is_outage = True
    _is_retryable = True
    is_service_failure = True


class InvalidAnswer(APIError):
    """The answer is not what the contract says: not JSON, or not of the documented form."""


class EmailRefused(APIError):
    """This email was refused: blocked, rejected or failed.

    Truncus took the request and refused it, or whoever sends did so without a request.
    """

    _retryable_codes = frozenset({contract.PROVIDER_ERROR_CODE})


class OutcomeUnknown(TruncusError, OSError):
    """An earlier send of this message may have been accepted, and this call cannot find out."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ambiguous=True)

    def __str__(self) -> str:
        return self.message  # says itself what can be done


class SendCancelled(TruncusError):
    """Raised by a ``pre_send`` receiver: the email is not sent, and that is no error."""

    def __init__(self, message: str = "A pre_send receiver cancelled this email.") -> None:
        super().__init__(message)


class WebhookVerificationError(TruncusError):
    """A webhook was not signed by Truncus, or not recently."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One message of a list that was not sent.

    Attributes:
        index: its place in the list that was given to ``send_messages()``.
        error: why.
        message: the message object; ``None`` after pickling, so that no email travels with an
            error.
    """

    index: int
    error: TruncusError
    message: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["Failure"], tuple[int, TruncusError]]:
        return Failure, (self.index, self.error)


class MessagesNotSent(TruncusError, OSError):
    """Some messages of a list were not sent; every other one was.

    Attributes:
        failures: a tuple of :class:`Failure`, in the order of the list.
        accepted: how many messages were accepted.
    """

    def __init__(
        self, message: str, *, failures: Sequence[Failure] = (), accepted: int = 0
    ) -> None:
        super().__init__(
            message,
            retryable=any(failure.error.retryable for failure in failures),
            ambiguous=any(failure.error.ambiguous for failure in failures),
        )
        self.failures = tuple(failures)
        self.accepted = accepted

    def __iter__(self) -> Iterator[Failure]:
        return iter(self.failures)

    def __str__(self) -> str:
        reasons: dict[str, int] = {}
        for failure in self.failures:
            text = str(failure.error)
            reasons[text] = reasons.get(text, 0) + 1
        shown = [f"{count} × {text}" for text, count in list(reasons.items())[:5]]
        if len(reasons) > len(shown):
            shown.append(f"and {len(reasons) - len(shown)} other reasons")
        return f"{self.message} " + " · ".join(shown)


def refusal(
    status: int, body: Mapping[str, Any] | None, headers: Mapping[str, str], *, now: float
) -> APIError:
    """Return the error that an answer with HTTP ``status`` means.

    Args:
        status: the HTTP status, not 2xx.
        body: the answer's JSON object, or ``None`` where it is none (a proxy's page).
        headers: of the answer; case-insensitive.
        now: unix seconds, for a ``Retry-After`` that is a date.
    """
    code, text = _code_and_text(body)
    kind = _kind(status, code)
    if body is None:
        if kind in _NEEDS_JSON and status != 413:
            kind = InvalidAnswer  # whoever said so, it was not the API
        text = (
            f"An answer came that is not from Truncus's API (HTTP {status}, no JSON); "
            "a proxy in between, or a wrong BASE_URL"
        )
    return kind(
        redacted(text) if text else f"Truncus refused the request with HTTP {status}",
        code=code,
        status=status,
        retry_after=retry_after_s(headers, body, now=now),
        request_id=_request_id(headers),
        # PROVIDER_ERROR with status "failed" tells that the provider did not take the email; any
        # other failure of the server leaves that open.
        ambiguous=kind is ServerError and code != contract.PROVIDER_ERROR_CODE,
        is_from_truncus=_is_the_apis(body),
    )


def clear_frames(error: BaseException) -> None:
    """Empty the finished frames of an error's traceback, and drop the exception behind it.

    Lines and functions stay. The local variables of these frames go, which hold emails and API
    keys, and the exception of the HTTP library, which holds the request. Frames that still run are
    left: those that called, up to the project's own.
    """
    traceback.clear_frames(error.__traceback__)
    error.__context__ = None


def rules_out_acceptance(error: TruncusError) -> bool:
    """Return whether ``error`` shows that no earlier request under the same key was accepted.

    Only a refusal of the content itself, in Truncus's own words: an accepted request would have
    been recognised by its key first. Limits, keys and domains may be looked at before the key; a
    proxy knows no keys; and what this side refuses has not asked.
    """
    return isinstance(error, InvalidRequest) and error.is_from_truncus


def kind_of(code: str | None) -> type[APIError] | None:
    """Return the error that a code means wherever it is told; ``None`` where that depends.

    Depends on the HTTP status or on what was asked for: wrong content, a provider's failure, an
    unknown code, none at all.
    """
    if not code:
        return None
    if code in contract.QUOTA_CODES:
        return QuotaExceeded
    if code.upper().startswith(_RATE_LIMIT):
        return RateLimited
    if code.lower() == contract.TRANSIENT_CODE:
        return ServerError
    if code in contract.AUTHENTICATION_CODES:
        return AuthenticationError
    if code == contract.SCOPE_CODE:
        return ScopeError
    return DomainError if code in contract.DOMAIN_CODES else None


_DAY_S = 24 * 60 * 60.0
_RATE_LIMIT = "RATE_LIMIT_"  # also of the manual's rate_limit_exceeded
_NEEDS_JSON = frozenset({InvalidRequest, ScopeError, NotFound, Conflict})


def _request_id(headers: Mapping[str, str]) -> str | None:
    request_id = headers.get(contract.REQUEST_ID_HEADER)
    return redacted(request_id) if request_id else None


def _code_and_text(body: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """Read both shapes: ``{error: code, message}`` and ``{error|message|reason: text, code}``."""
    if body is None:
        return None, None
    texts = [body[key] for key in ("message", "error", "reason") if isinstance(body.get(key), str)]
    code = body.get("code")
    if isinstance(code, str) and code:
        told = [text for text in texts if text != code and not _is_code(text)]
        return redacted(code), (told or texts or [None])[0]
    error = body.get("error")
    if isinstance(error, str) and _is_code(error):
        return redacted(error), next((text for text in texts if text != error), error)
    return None, texts[0] if texts else None


def _is_the_apis(body: Mapping[str, Any] | None) -> bool:
    """Whether a body is of one of the API's two shapes; gateways have a ``message`` alone."""
    return body is not None and any(
        isinstance(body.get(key), str) and bool(body[key]) for key in ("error", "code")
    )


def _is_code(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)+", text) is not None


def _kind(status: int, code: str | None) -> type[APIError]:
    if status == 429:
        return QuotaExceeded if code in contract.QUOTA_CODES else RateLimited
    if status == 408 or status >= 500:
        return ServerError
    if code in contract.DOMAIN_CODES:
        return DomainError
    if code == contract.SUPPRESSED_CODE:
        return EmailRefused
    return {
        400: InvalidRequest,
        401: AuthenticationError,
        403: ScopeError,
        404: NotFound,
        409: Conflict,
        413: InvalidRequest,
        422: InvalidRequest,
    }.get(status, InvalidAnswer if status < 400 else APIError)


def retry_after_s(
    headers: Mapping[str, str], body: Mapping[str, Any] | None, *, now: float
) -> float | None:
    """Return the seconds that an answer asks to wait, or ``None``.

    Reads ``Retry-After`` (seconds or a date) and the manual's ``retry_after`` in the body; the
    longer of the two counts, and ``X-RateLimit-Reset`` where there is neither. What is no number
    of seconds from 0 on is passed over.
    """
    asked = []
    header = headers.get(contract.RETRY_AFTER_HEADER)
    if header is not None:
        asked.append(_seconds(header) if _seconds(header) is not None else _until(header, now))
    if body is not None:
        asked.append(_seconds(body.get("retry_after")))
    waits = [wait for wait in asked if wait is not None]
    if waits:
        return max(waits)
    reset = _seconds(headers.get(contract.RATE_RESET_HEADER))
    return None if reset is None else max(0.0, reset - now)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _until(value: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - now)
