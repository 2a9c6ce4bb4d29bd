"""An emulator per test, a small HTTP client for it, a clock that jumps, a webhook receiver."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from tests.waiting import PATIENCE_S, until
from truncus_django.api import contract
from truncus_django.emulator import Emulator, SpokenDialect

API_KEY = "tr_test_" + "a" * 16


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        self.now += seconds


class Client:
    """The API over one keep-alive session."""

    def __init__(self, emulator: Emulator, api_key: str = API_KEY) -> None:
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {api_key}"
        self._keys = iter(range(1_000_000))

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.emulator.url + path, timeout=PATIENCE_S, **options)

    def send(
        self, *, key: str | None = None, sandbox: bool = False, **changes: Any
    ) -> requests.Response:
        headers = {contract.IDEMPOTENCY_KEY_HEADER: key or f"key-{next(self._keys)}"}
        if sandbox:
            headers[contract.SANDBOX_HEADER] = "true"
        return self.call("POST", contract.SEND_PATH, json=an_email(**changes), headers=headers)

    def batch(self, *emails: object, key: str = "batch") -> requests.Response:
        headers = {contract.IDEMPOTENCY_KEY_HEADER: key}
        return self.call(
            "POST", contract.BATCH_PATH, json={"emails": list(emails)}, headers=headers
        )

    def email(self, message_id: str) -> dict[str, Any]:
        answer = self.call("GET", contract.EMAIL_PATH.format(id=message_id))
        assert answer.status_code == 200
        return answer.json()


def an_email(**changes: Any) -> dict[str, Any]:
    """A good email in both dialects; a field of None is left out."""
    email = {
        "to": "ada@example.com",
        "from": "Shop <shop@mail.example.com>",
        "subject": "Your order",
        "html": "<p>Thank you</p>",
        **{name.rstrip("_"): value for name, value in changes.items()},
    }
    return {name: value for name, value in email.items() if value is not None}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[..., Client]:
    """Start an emulator with options and return a client of it."""

    def start(**options: Any) -> Client:
        emulator = Emulator(**{"delivery_delay_s": 0.01, "retry_delay_s": 0.02, **options}).start()
        request.addfinalizer(emulator.stop)
        client = Client(emulator)
        request.addfinalizer(client.session.close)
        return client

    return start


@pytest.fixture(scope="session")
def kept_emulators() -> Iterator[dict[str, Emulator]]:
    """One emulator of each dialect for the whole run; each test finds it reset."""
    emulators = {
        dialect: Emulator(dialect=dialect, delivery_delay_s=0.01, retry_delay_s=0.02)
        for dialect in SpokenDialect
    }
    yield emulators
    for emulator in emulators.values():
        emulator.stop()


def fresh(emulator: Emulator) -> Iterator[Client]:
    emulator.start()
    emulator.reset()
    client = Client(emulator)
    yield client
    client.session.close()


@pytest.fixture(params=list(SpokenDialect))
def either(request: pytest.FixtureRequest, kept_emulators: dict[str, Emulator]) -> Iterator[Client]:
    """A client of an emulator, once in each dialect."""
    yield from fresh(kept_emulators[request.param])


@pytest.fixture
def manual(kept_emulators: dict[str, Emulator]) -> Iterator[Client]:
    yield from fresh(kept_emulators["manual"])


@pytest.fixture
def sdk(kept_emulators: dict[str, Emulator]) -> Iterator[Client]:
    yield from fresh(kept_emulators["sdk"])


class Receiver:
    """A web server that takes webhooks and answers with the statuses it is told, then 200."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, dict[str, str]]] = []
        self.statuses: list[int] = []
        self.before_answer: Callable[[], object] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((body, dict(self.headers.items())))
                receiver.before_answer()
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.received) >= count, f"{count} received")

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()
