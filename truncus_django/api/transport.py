"""HTTP: connections that are kept, timeouts, retries, and failures translated.

Connections belong to the process: one pool for each host, shared by all clients and threads,
never by a process and its fork.
"""

import json
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import (
    ConnectTimeout,
    InvalidProxyURL,
    InvalidSchema,
    InvalidURL,
    RequestException,
    SSLError,
    Timeout,
)
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
    ProxySchemeUnknown,
)

from truncus_django.api import contract, deadline
from truncus_django.api.deadline import BoundedAdapter
from truncus_django.api.errors import (
    AnswerLost,
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    NetworkError,
    TLSError,
    TruncusError,
    log_fields,
    loggable_id,
    refusal,
    rules_out_acceptance,
)
from truncus_django.api.retry import RetryPolicy, no_more_tries
from truncus_django.api.urls import check_base_url, is_loopback

logger = logging.getLogger("truncus_django")

CONNECT_TIMEOUT_S = 10.0
MAX_KEPT_CONNECTIONS = 100
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of an answer no more is read. The largest of the contract tells of 100 emails."""

_pools: dict[str, BoundedAdapter] = {}
_pools_lock = Lock()


def _pool(base_url: str) -> BoundedAdapter:
    pool = _pools.get(base_url)
    if pool is None:
        with _pools_lock:
            pool = _pools.setdefault(
                base_url, BoundedAdapter(pool_connections=4, pool_maxsize=MAX_KEPT_CONNECTIONS)
            )
    return pool


def _forget_connections() -> None:
    """Leave the parent's connections alone: after a fork, both would write into one socket."""
    global _pools_lock
    _pools.clear()
    _pools_lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx answer: its HTTP status, JSON object, headers, and how many requests it took."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    attempts: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it is repeated when it must be."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    @property
    def is_send(self) -> bool:
        """Whether emails may be accepted by it."""
        return contract.IDEMPOTENCY_KEY_HEADER in self.headers


def longest_request_s(timeout_s: float) -> float:
    """Return how many seconds a request may take: to connect, for TLS, and for the exchange."""
    return 2 * min(timeout_s, CONNECT_TIMEOUT_S) + timeout_s


class Transport:
    """Sends requests to one base URL and brings back answers or errors.

    Args:
        base_url: scheme and host, see :func:`check_base_url`.
        timeout_s: seconds that a request and its answer may take together, from when there is a
            connection; one is waited for at most :data:`CONNECT_TIMEOUT_S` before.
        policy: when to try again.
        sleep, jitter, clock: time and chance, for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        policy: RetryPolicy | None = None,
        plain_http_hosts: tuple[str, ...] = (),
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.base_url = check_base_url(base_url, plain_http_hosts)
        self.policy = policy or RetryPolicy()
        self._timeout = (min(timeout_s, CONNECT_TIMEOUT_S), timeout_s)
        self._sleep = sleep
        self._jitter = jitter
        self._clock = clock
        self._route: dict[str, Any] | None = None

    def send(self, request: Request) -> Answer:
        """Send ``request``, again and again where that is safe, and return the answer.

        Raises:
            NetworkError: no answer came.
            APIError: the answer is a refusal, or not what the contract says.
        """
        retries, waited_s, ambiguous, service_failed = 0, 0.0, False, False
        while True:
            try:
                return self._exchange(request, attempts=retries + 1)
            except TruncusError as error:
                error.attempts = retries + 1
                error.ambiguous = error.ambiguous and request.is_send
                ambiguous = ambiguous or error.ambiguous
                error.follows_service_failure = service_failed
                service_failed = service_failed or error.is_service_failure
                wait_s = self.policy.wait_s(
                    error, retries=retries, waited_s=waited_s, jitter=self._jitter()
                )
                if wait_s is not None:
                    path = _loggable_path(request.path)
                    logger.info(
                        "Truncus %s: %s (%s); trying again in %.2f s, retry %d of %d",
                        path,
                        type(error).__name__,
                        error.status or "no answer",
                        wait_s,
                        retries + 1,
                        self.policy.max_retries,
                        extra={
                            "truncus_event": "request_retried",
                            "truncus_path": path,
                            "truncus_attempt": retries + 1,
                            "truncus_seconds": wait_s,
                            **log_fields(error),
                        },
                    )
                if wait_s is None or not self._wait(wait_s):
                    # A lost answer stays ambiguous whatever came after it, except where the
                    # content itself is refused: an accepted one would have been recognised.
                    error.ambiguous = ambiguous and not rules_out_acceptance(error)
                    raise
            waited_s += wait_s
            retries += 1

    def _wait(self, seconds: float) -> bool:
        """Wait before the next try; return whether one is still wanted."""
        stop = no_more_tries.get()
        if stop is not None:
            return not stop.wait(seconds)
        self._sleep(seconds)
        return True

    def _exchange(self, request: Request, *, attempts: int) -> Answer:
        """Make one request; return its answer or raise what it means."""
        response, content = self._respond(request)
        body = _json_object(content)
        if not 200 <= response.status_code < 300:
            raise refusal(response.status_code, body, response.headers, now=self._clock())
        if body is None:
            raise InvalidAnswer(
                "The answer's JSON is broken or missing, or far too large",
                status=response.status_code,
                retryable=True,
                ambiguous=True,
            )
        return Answer(response.status_code, body, response.headers, attempts)

    def _respond(self, request: Request) -> tuple[requests.Response, bytes]:
        """Return the response and its body, or raise a :class:`NetworkError`."""
        prepared = self._prepared(request)
        deadline.begin(self._timeout[1])
        try:
            # The adapter is used without a Session: there are no cookies, no redirects to
            # follow and no environment to look up again for each request.
            response = _pool(self.base_url).send(
                prepared, timeout=self._timeout, **self._how_to_get_there()
            )
            return response, _content(response)
        # The frames of a cause would show the request's headers and body.
        except (InvalidURL, InvalidSchema, LocationValueError) as exc:
            raise _wrong_address(exc) from None
        except RequestException as exc:
            raise _translated(exc, self.base_url) from None
        except OSError:
            raise ConfigurationError(
                "The file of certificates that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names cannot "
                "be read."
            ) from None

    def _prepared(self, request: Request) -> requests.PreparedRequest:
        prepared = requests.PreparedRequest()
        prepared.method = request.method
        prepared.url = self.base_url + request.path
        prepared.headers = CaseInsensitiveDict(request.headers)
        prepared.body = request.body
        prepared.hooks = {}
        if request.body is not None:
            prepared.headers["Content-Length"] = str(len(request.body))
            prepared.headers["Content-Type"] = "application/json"
        return prepared

    def _how_to_get_there(self) -> dict[str, Any]:
        """Return proxies and certificates, from the environment as requests reads it."""
        if self._route is None:
            loopback = is_loopback(urlsplit(self.base_url).hostname or "")
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            self._route = {
                "proxies": {} if loopback else requests.utils.get_environ_proxies(self.base_url),
                "verify": bundle or True,
            }
        return self._route


def _loggable_path(path: str) -> str:
    """Return a path as log lines may hold it: what stands for an id may be anything."""
    segments = path.partition("?")[0].split("/")
    return "/".join(segment and loggable_id(segment) for segment in segments)


def _content(response: requests.Response) -> bytes:
    """Read the body, and give the connection back; of one that is too large, return nothing."""
    parts, size = [], 0
    for part in response.iter_content(64 * 1024):
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return b""
    return b"".join(parts)


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _wrong_address(exc: Exception) -> ConfigurationError:
    """Return what cannot be connected to by its name: the proxy, or the host itself."""
    cause = exc.args[0] if exc.args else None
    if isinstance(exc, InvalidProxyURL | InvalidSchema) or isinstance(cause, ProxySchemeUnknown):
        return ConfigurationError(
            f"The proxy in the environment (HTTPS_PROXY) is of no use: {type(exc).__name__}. "
            "Correct it, or name the host in NO_PROXY."
        )
    return ConfigurationError("BASE_URL has no host that can be looked up.")


def _translated(exc: RequestException, base_url: str) -> NetworkError:
    """Return what a failure of requests means, above all: whether the request went out."""
    host = urlsplit(base_url).netloc
    if isinstance(exc, SSLError) and not _broke_off(exc):
        return TLSError(
            f"No secure connection to {host}: its certificate or TLS is not acceptable. Where a "
            "proxy signs certificates itself, name its CA bundle in REQUESTS_CA_BUNDLE."
        )
    was_given_up = deadline.is_over()  # and had a connection by then
    if not was_given_up and (isinstance(exc, ConnectTimeout) or _never_connected(exc)):
        is_here = is_loopback(urlsplit(base_url).hostname or "")
        advice = "Is the emulator running there?" if is_here else "Check DNS and the firewall"
        return ConnectionFailed(
            f"No connection to {host}. Check BASE_URL. {advice}",
            code=contract.NETWORK_CODE,
        )
    late = isinstance(exc, Timeout) or was_given_up
    return AnswerLost(
        f"No answer from {host} in time" if late else f"The connection to {host} broke",
        code=contract.TIMEOUT_CODE if late else contract.NETWORK_CODE,
        ambiguous=True,
    )


def _broke_off(exc: SSLError) -> bool:
    """Whether the other side ended a TLS connection, perhaps with the request in its hands."""
    cause: object = exc.args[0] if exc.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    if isinstance(cause, HTTPError) and cause.args:
        cause = cause.args[0]
    return isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _never_connected(exc: RequestException) -> bool:
    """Whether urllib3 says that it could not even open the connection."""
    if not isinstance(exc, RequestsConnectionError) or not exc.args:
        return False
    cause = exc.args[0]
    return isinstance(cause, MaxRetryError) and isinstance(
        cause.reason, NewConnectionError | ProxyError
    )
