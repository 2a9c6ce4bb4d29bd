"""The client: one method for each endpoint of the Truncus API.

>>> from truncus_django.api import TruncusClient
>>> client = TruncusClient.from_env()           # doctest: +SKIP
>>> client.send({"from": "shop@example.com", "to": "ann@example.org",
...              "subject": "Hello", "text": "Hello"})   # doctest: +SKIP
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

from truncus_django import __version__
from truncus_django.api import contract, results
from truncus_django.api.capabilities import WireFormat
from truncus_django.api.dialect import SDK, Dialect, DialectMemory, adapt
from truncus_django.api.encoding import EmailFields, encode
from truncus_django.api.errors import (
    APIError,
    ConfigurationError,
    Conflict,
    DomainError,
    EmailRefused,
    InvalidRequest,
    MessageError,
    MessageTooLarge,
    NotFound,
    OutcomeUnknown,
    ScopeError,
    TruncusError,
    clear_frames,
    rules_out_acceptance,
)
from truncus_django.api.keys import (
    ApiKey,
    check_api_key,
    check_idempotency_key,
    new_idempotency_key,
)
from truncus_django.api.retry import RetryPolicy
from truncus_django.api.settings import ClientSettings
from truncus_django.api.transport import Answer, Request, Transport

logger = logging.getLogger("truncus_django")

EmailMapping = Mapping[str, Any]
"""An email to send, with the fields that the API documents ("from", "to", "subject", …)."""

_begun_requests: ContextVar[list[str] | None] = ContextVar("begun_requests", default=None)

_AGAIN = ":again"
_ANSWERS_TO_A_KNOWN_KEY = (InvalidRequest, ScopeError, DomainError, EmailRefused)


class TruncusClient:
    """A Truncus account. Thread-safe, cheap to make; connections belong to the process.

    Args:
        api_key: ``tr_live_…``.
        base_url: scheme and host of the API.
        timeout_s: seconds that a request and its answer may take together, once connected.
        max_retries: tries after the first, where repeating is safe.
        retry_budget_s: seconds that one call may wait between its tries, all together.
        sandbox: whether emails are only checked and stored, where a call does not say.
        dialect: ``"auto"``, ``"manual"`` or ``"sdk"``, see :mod:`truncus_django.api.dialect`.
        plain_http_hosts: hosts besides this machine that may be spoken to without TLS.
        transport: another one, for tests.

    Raises:
        ConfigurationError: the key, the URL, the dialect or the timeout is impossible.
    """

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = contract.DEFAULT_BASE_URL,
        timeout_s: float = 30.0,
        max_retries: int = 3,
        retry_budget_s: float = 30.0,
        sandbox: bool = False,
        dialect: str = Dialect.AUTO,
        plain_http_hosts: tuple[str, ...] = (),
        transport: Transport | None = None,
    ) -> None:
        api_key = ApiKey(api_key)
        self.base_url = base_url
        self.is_sandbox = sandbox
        check_api_key(api_key)
        if dialect not in list(Dialect):
            raise ConfigurationError("DIALECT must be 'auto', 'manual' or 'sdk'.")
        if not timeout_s > 0:
            raise ConfigurationError("TIMEOUT must be a number of seconds above 0.")
        self._transport = transport or Transport(
            base_url,
            timeout_s=timeout_s,
            policy=RetryPolicy(max_retries, retry_budget_s),
            plain_http_hosts=plain_http_hosts,
        )
        self.base_url = self._transport.base_url
        self._memory = DialectMemory(Dialect(dialect), base_url=self.base_url, api_key=api_key)
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Accept": "application/json",
            "User-Agent": f"truncus-django/{__version__}",
        }

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return a client set up by ``TRUNCUS_API_KEY`` and the optional ``TRUNCUS_BASE_URL``,
        ``TRUNCUS_TIMEOUT`` (s), ``TRUNCUS_MAX_RETRIES``, ``TRUNCUS_RETRY_BUDGET`` (s),
        ``TRUNCUS_SANDBOX``, ``TRUNCUS_DIALECT`` and ``TRUNCUS_PLAIN_HTTP_HOSTS`` (commas).

        Raises:
            ConfigurationError: the key is missing, or a value is of the wrong kind.
        """
        return cls.from_settings(ClientSettings.from_env(environ))

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> Self:
        """Return a client that goes by ``settings``; raises :class:`ConfigurationError`."""
        return cls(
            settings.api_key or "",
            base_url=settings.base_url,
            timeout_s=settings.timeout,
            max_retries=settings.max_retries,
            retry_budget_s=settings.retry_budget,
            sandbox=settings.sandbox,
            dialect=settings.dialect,
            plain_http_hosts=settings.plain_http_hosts,
        )

    def __repr__(self) -> str:
        sandbox = ", sandbox=True" if self.is_sandbox else ""
        return f"<TruncusClient {self.base_url}{sandbox}>"

    def __reduce__(self) -> str:
        raise TypeError("A client holds an API key and is not pickled; make a new one.")

    @property
    def account(self) -> str:
        """A digest of base URL and key: the same for the same account."""
        return self._memory.account

    @property
    def wire_format(self) -> WireFormat:
        """The form that the account is known to take, or is set to; it may change by a refusal."""
        return self._memory.wire_format

    def capabilities(self) -> dict[str, bool]:
        """What the account has shown of the form of emails, as JSON for another process."""
        return self._memory.export()

    def add_capabilities(self, capabilities: Mapping[str, Any]) -> None:
        """Take over the :meth:`capabilities` that another process found out."""
        self._memory.restore(capabilities)

    # Sending ----------------------------------------------------------------------------------

    def send(
        self,
        email: EmailMapping,
        *,
        idempotency_key: str | None = None,
        sandbox: bool | None = None,
    ) -> results.SendResult:
        """Send one email.

        Args:
            email: the fields of the API. ``None`` values are left out.
            idempotency_key: the same key within 24 hours sends once; made up when ``None``.
            sandbox: check and store only; ``None`` as the client says.

        Raises:
            TruncusError: see :mod:`truncus_django.api.errors`. An email that is blocked or
                rejected is no error here: it is told by the result's ``status``.
        """
        key = check_idempotency_key(idempotency_key or new_idempotency_key())
        with _telling_the_wire_format(self._memory.wire_format):
            adapted = self._memory.adapt(_without_none(email))
            try:
                answer = self._post_emails(contract.SEND_PATH, adapted, key, sandbox)
            except InvalidRequest as error:
                if not self._memory.note_error(error, adapted):
                    raise
                result = self.send(email, idempotency_key=key, sandbox=sandbox)
                return replace(result, attempts=result.attempts + error.attempts)
            result = results.read_send(
                answer.body, attempts=answer.attempts, quota=results.read_quota(answer.headers)
            )
        if result.is_accepted:
            self._memory.confirm(adapted)
        return result

    def send_batch(
        self,
        emails: Sequence[EmailMapping],
        *,
        idempotency_key: str,
        sandbox: bool | None = None,
        wire_format: WireFormat | None = None,
    ) -> results.BatchResult:
        """Send 1 to 100 emails in one request; the result tells of each.

        Args:
            emails: as for :meth:`send`.
            idempotency_key: belongs to the batch as it is: the same emails in the same order.
            sandbox: check and store only; ``None`` as the client says.
            wire_format: where the key was used before and its answer lost, the ``wire_format`` of
                the error, or :attr:`wire_format` at that time.

        Raises:
            MessageTooLarge: there are more than 100 emails.
            TruncusError: the batch was refused as a whole, or no answer came.
        """
        if not 1 <= len(emails) <= contract.MAX_BATCH_SIZE:
            raise MessageTooLarge(
                f"A batch holds 1 to {contract.MAX_BATCH_SIZE} emails, not {len(emails)}."
            )
        key = check_idempotency_key(idempotency_key)
        return self._send_batch(
            emails, key, sandbox, wire_format, is_repeated=wire_format is not None
        )

    def _send_batch(
        self,
        emails: Sequence[EmailMapping],
        key: str,
        sandbox: bool | None,
        wire_format: WireFormat | None,
        *,
        is_repeated: bool,
    ) -> results.BatchResult:
        """Send a batch; ``is_repeated`` tells that an answer to the same call was lost before."""
        # Before the emails are adapted: another thread may find out more; older is more careful.
        wire_format_under_key = wire_format or self._memory.wire_format
        with _telling_the_wire_format(wire_format_under_key):
            adapted = [self._memory.adapt(_without_none(email)) for email in emails]
            try:
                answer = self._post_emails(contract.BATCH_PATH, {"emails": adapted}, key, sandbox)
            except InvalidRequest as error:
                # Every email is asked: one refusal may tell of both.
                wants_another = [self._memory.note_error(error, email) for email in adapted]
                if not any(wants_another):
                    raise
                if rules_out_acceptance(error):
                    wire_format, is_repeated = None, False  # nothing was known under the key
                batch = self._send_batch(emails, key, sandbox, wire_format, is_repeated=is_repeated)
                return replace(batch, attempts=batch.attempts + error.attempts)
            batch = results.read_batch(
                answer.body,
                size=len(emails),
                attempts=answer.attempts,
                quota=results.read_quota(answer.headers),
            )
            if batch.is_replay:
                self._check_replay(emails, wire_format_under_key)
        for email, result in zip(adapted, batch.results, strict=True):
            if result.is_accepted and not batch.is_replay:
                self._memory.confirm(email)
        return self._with_capabilities_applied(
            batch, emails, key, sandbox, wire_format_under_key, is_repeated=is_repeated
        )

    def _check_replay(self, emails: Sequence[EmailMapping], wire_format: WireFormat) -> None:
        """Refuse to take one ``duplicate`` as the answer of a batch that may have been refused.

        The first answer, which was lost, may have refused each of them for its form.
        """
        sent_before = [adapt(_without_none(email), wire_format.capabilities) for email in emails]
        if not wire_format.is_pinned and any(map(self._memory.is_unconfirmed, sent_before)):
            raise OutcomeUnknown(
                "Truncus knows the batch's key and does not tell what became of its emails, which "
                "it may have refused for lack of HTML or for a list in 'to'. Find out in Truncus; "
                "if they were not sent, send new message objects."
            )
        logger.warning(
            "Truncus answered a repeated batch of %d emails as a whole: they count as accepted, "
            "without ids.",
            len(emails),
            extra={"truncus_event": "batch_answered_as_a_whole", "truncus_count": len(emails)},
        )

    def _with_capabilities_applied(
        self,
        batch: results.BatchResult,
        emails: Sequence[EmailMapping],
        key: str,
        sandbox: bool | None,
        wire_format: WireFormat,
        *,
        is_repeated: bool,
    ) -> results.BatchResult:
        """Send those emails of a batch again that were refused for their dialect only.

        Also where the dialect is known by now: a repeated batch gets its first answer again.
        """
        again = [
            index
            for index, result in enumerate(batch.results)
            if result.status == contract.FAILED
            and self._memory.note_refusal(result.error or result.reason, emails[index])
        ]
        if not again or key.endswith(_AGAIN):
            return batch
        # In the SDK's form altogether: the account may refuse more than it has told. The key is
        # derived, so that a repeated call of the same batch repeats this request too.
        second = self._batch_or_error(
            [adapt(_without_none(emails[index]), SDK) for index in again],
            key + _AGAIN,
            sandbox,
            is_repeated=is_repeated,
        )
        if isinstance(second, TruncusError):
            error = second
            # The lost answer of an earlier call may have been this request's.
            error.ambiguous |= is_repeated and not rules_out_acceptance(error)
            if error.ambiguous:
                error.wire_format = wire_format  # the caller asks for the first key again
                raise error
            clear_frames(error)  # the result keeps it
            # What was accepted stays told; the others are told what kept them in the end.
            kept = results.SendResult(
                contract.FAILED,
                error=error.message,
                code=error.code,
                attempts=max(1, error.attempts),
                cause=error,
            )
            second = results.BatchResult((kept,) * len(again), attempts=error.attempts)
        merged = list(batch.results)
        for index, result in zip(again, second.results, strict=True):
            merged[index] = result
        return replace(
            batch,
            results=tuple(merged),
            quota=second.quota or batch.quota,
            attempts=batch.attempts + second.attempts,
        )

    def _batch_or_error(
        self, emails: Sequence[EmailMapping], key: str, sandbox: bool | None, *, is_repeated: bool
    ) -> results.BatchResult | TruncusError:
        try:
            return self._send_batch(emails, key, sandbox, None, is_repeated=is_repeated)
        except TruncusError as error:
            return error

    def validate(self, email: EmailMapping) -> results.Validation:
        """Return what Truncus thinks of an email, without creating it.

        Only ``from``, ``to``, ``subject``, ``html`` and ``text`` are looked at.
        """
        return results.read_validation(self._validate(email).body)

    def _validate(self, email: EmailMapping) -> Answer:
        fields = {
            key: email[key]
            for key in ("from", "to", "subject", "html", "text")
            if email.get(key) is not None
        }
        return self._request("POST", contract.VALIDATE_PATH, body=fields)

    def cancel(self, message_id: str) -> results.Cancellation:
        """Cancel a scheduled email; raises :class:`Conflict` unless it is scheduled."""
        path = contract.EMAIL_PATH.format(id=_quoted(message_id))
        try:
            return results.read_cancellation(self._request("DELETE", path).body)
        except Conflict as error:
            # After a lost answer, the conflict may be with this very cancellation.
            if error.attempts > 1 and self.get_email(message_id).status == contract.CANCELLED:
                return results.Cancellation(message_id, contract.CANCELLED)
            raise

    # Reading ----------------------------------------------------------------------------------

    def get_email(self, message_id: str) -> results.EmailDetails:
        """Return an email's state and engagement; raises :class:`NotFound`."""
        path = contract.EMAIL_PATH.format(id=_quoted(message_id))
        answer = self._request("GET", path)
        return results.read_email(
            answer.body,
            answered_at=results.read_server_time(answer.headers),
            quota=results.read_quota(answer.headers),
        )

    def list_events(self, message_id: str) -> tuple[results.DeliveryEvent, ...]:
        """Return the delivery events of an email; Truncus keeps them for 90 days."""
        path = f"{contract.EVENTS_PATH}?message_id={_quoted(message_id)}"
        return results.read_events(self._request("GET", path).body)

    def replay_event(self, event_id: str) -> results.Replay:
        """Have one event's webhook sent again. The email is not."""
        path = contract.REPLAY_EVENT_PATH.format(id=_quoted(event_id))
        return results.read_replay(self._request("POST", path).body)

    def replay_message(self, message_id: str) -> results.Replay:
        """Have the webhooks of all events of an email sent again. The email is not."""
        path = contract.REPLAY_MESSAGE_PATH.format(id=_quoted(message_id))
        return results.read_replay(self._request("POST", path).body)

    def check(self) -> results.CheckResult:
        """Prove that Truncus is reachable and knows the API key; creates no email.

        Raises:
            NetworkError: Truncus cannot be reached.
            AuthenticationError: the key is missing, unknown or revoked.
            APIError: what answers is not Truncus, or not able to.
        """
        self._probe()  # opens the connection, so that its set-up is not counted as latency
        started = time.perf_counter()
        answer = self._probe()
        return results.CheckResult(
            latency_s=time.perf_counter() - started,
            base_url=self.base_url,
            is_sandbox=self.is_sandbox,
            server_time=results.read_server_time(answer.headers) if answer else None,
        )

    def _probe(self) -> Answer | None:
        """Return the answer that proves it; ``None`` where a refusal does."""
        email = {
            "from": "check@example.com",
            "to": "check@example.com",
            "subject": "Check",
            "html": "<p>Check</p>",
            "text": "Check",
        }
        try:
            answer = self._validate(email)
            results.read_validation(answer.body)
        except _ANSWERS_TO_A_KNOWN_KEY:
            return None
        except APIError as error:
            if error.status not in {404, 405}:
                raise
            # Only one source knows the validation; an email that does not exist needs a key too.
            with suppress(NotFound, *_ANSWERS_TO_A_KNOWN_KEY):
                self.get_email("check")
            return None
        return answer

    # Requests ---------------------------------------------------------------------------------

    def _post_emails(
        self, path: str, body: Mapping[str, Any], key: str, sandbox: bool | None
    ) -> Answer:
        headers = {contract.IDEMPOTENCY_KEY_HEADER: key}
        if self.is_sandbox if sandbox is None else sandbox:
            headers[contract.SANDBOX_HEADER] = "true"
        return self._request("POST", path, body=body, headers=headers)

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        request = Request(
            method,
            path,
            headers={**self._headers, **(headers or {})},
            body=None if body is None else encode(body),
        )
        begun = _begun_requests.get()
        if begun is not None:
            begun.append(path)
        return self._transport.send(request)


@contextmanager
def noting_requests() -> Iterator[Sequence[str]]:
    """Note the paths of the requests that this thread begins inside the block.

    Whoever meets an exception that is no :class:`TruncusError` can tell by it whether an email may
    have been accepted.
    """
    begun: list[str] = []
    token = _begun_requests.set(begun)
    try:
        yield begun
    finally:
        _begun_requests.reset(token)


@contextmanager
def _telling_the_wire_format(wire_format: WireFormat) -> Iterator[None]:
    """Have an ambiguous error tell the form that its emails were sent in."""
    try:
        yield
    except TruncusError as error:
        if error.ambiguous and error.wire_format is None:
            error.wire_format = wire_format
        raise


def _without_none(email: EmailMapping) -> EmailMapping:
    if None not in email.values():
        return email
    return EmailFields((name, value) for name, value in email.items() if value is not None)


def _quoted(identifier: str) -> str:
    if identifier.strip(".") == "":
        raise MessageError("The id is empty or made of dots.")
    return quote(identifier, safe="")
