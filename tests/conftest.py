"""Fixtures of all tests: a process that remembers nothing, and a Truncus made of queued answers."""

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import django
import pytest
import requests
import responses
from django.apps import apps
from hypothesis import HealthCheck, settings

from truncus_django.api.capabilities import forget_capabilities
from truncus_django.api.transport import Transport
from truncus_django.conf import forget_settings
from truncus_django.mailers import _shared_client
from truncus_django.sending.breaker import forget_breakers

BACKEND = "truncus_django.backend.TruncusBackend"
# How long an example takes depends on what else the machine does.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

BASE_URL = "https://truncus.co"
API_KEY = "tr_live_" + "0123456789abcdef" * 4

HTML_REQUIRED = {
    "error": "Either html, react, or template_id is required",
    "code": "INVALID_REQUEST",
}
ONE_RECIPIENT = {"error": "to: Expected string, received array", "code": "INVALID_REQUEST"}


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with nothing learned, nothing cached and no TRUNCUS_… variables."""
    for name in [name for name in os.environ if name.startswith("TRUNCUS_")]:
        monkeypatch.delenv(name)
    _forget()
    yield
    _forget()


def _forget() -> None:
    forget_breakers()
    if apps.ready:  # the models, of which tests of the client alone know nothing
        from truncus_django.quota.keeping import forget_noted

        forget_noted()
    forget_capabilities()
    forget_settings()
    _shared_client.cache_clear()


@dataclass(frozen=True)
class Seen:
    """A request that arrived at the fake Truncus."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    kwargs: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.headers["Idempotency-Key"]

    @property
    def emails(self) -> list[dict[str, Any]]:
        """The emails of the request, of a batch or alone."""
        return self.body.get("emails", [self.body])

    @property
    def subjects(self) -> list[str]:
        return [email["subject"] for email in self.emails]


class FakeTruncus:
    """Accepts every email, but for the answers that a test queues before."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.seen: list[Seen] = []
        self._queued: deque[Any] = deque()
        self._always: Any = None
        for method in ("GET", "POST", "DELETE"):
            mock.add_callback(method, re.compile(".*"), self._answer)

    def answers(
        self,
        status: int,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """Queue an answer; a body that is a string or bytes is sent as it is."""
        self._queued.extend([(status, dict(headers or {}), _raw(body))] * times)

    def breaks(self, exc: BaseException, times: int = 1) -> None:
        """Queue a failure in place of an answer."""
        self._queued.extend([exc] * times)

    def loses_the_answer(self, times: int = 1) -> None:
        self.breaks(requests.exceptions.ReadTimeout(), times)

    def always_answers(self, status: int, body: Any = None, **headers: str) -> None:
        """Answer so once nothing is queued any more."""
        self._always = (status, headers, _raw(body))

    def refuses(self, subject: str, status: int = 400, code: str = "INVALID_REQUEST") -> None:
        """Refuse every request that holds an email with this subject."""
        refusal = (status, {}, _raw({"error": "No", "code": code}))
        self._always = lambda seen: refusal if subject in seen.subjects else None

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    @property
    def keys(self) -> list[str]:
        return [seen.key for seen in self.seen]

    def _answer(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        seen = Seen(
            method=str(request.method),
            path=str(request.url).removeprefix(BASE_URL),
            headers=request.headers,
            body=json.loads(request.body) if request.body else None,
            kwargs=request.req_kwargs,
        )
        self.seen.append(seen)
        answer = self._queued.popleft() if self._queued else self._always
        if callable(answer):
            answer = answer(seen)
        if isinstance(answer, BaseException):
            raise answer
        return answer or (200, {}, _raw(self._accepted(seen)))

    def _accepted(self, seen: Seen) -> dict[str, Any]:
        number = len(self.seen)
        if "emails" not in seen.body:
            return {"status": "sent", "message_id": f"id-{number}"}
        items = [
            {"index": index, "status": "sent", "message_id": f"id-{number}-{index}"}
            for index in range(len(seen.body["emails"]))
        ]
        return {"total": len(items), "sent": len(items), "results": items}


def _raw(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body or {}).encode()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Return a function that changes TRUNCUS."""

    def change(**own: Any) -> None:
        settings.TRUNCUS = {**settings.TRUNCUS, **own}

    return change


@pytest.fixture
def truncus_mailer(settings: Any) -> None:
    """Let Django send through Truncus, not into its test outbox."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": BACKEND}}
    else:
        settings.EMAIL_BACKEND = BACKEND


@pytest.fixture
def truncus(truncus_mailer: None) -> Iterator[FakeTruncus]:
    """A Truncus that all requests go to."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield FakeTruncus(mock)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait between two tries, in seconds; none is really waited. Jitter is 1/2."""
    slept: list[float] = []
    defaults = Transport.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "sleep", slept.append)
    monkeypatch.setitem(defaults, "jitter", lambda: 0.5)
    return slept
