"""A browser, somebody signed in, a log, and a server elsewhere that must see nothing."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.test import Client

from tests.browser.chromium import BrowserMissing, running_browser, shared_connection_stays_open
from tests.servers import LocalServer, QuietHandler, serving
from tests.waiting import PATIENCE_S

LOG = "/admin/truncus_django/email/"


@pytest.fixture(scope="session")
def browser(live_server: Any) -> Iterator[Any]:
    """Chromium; without one the tests fail, and say what to install.

    It hangs up before the live server stops.
    """
    try:
        with shared_connection_stays_open(), running_browser() as running:
            yield running
    except BrowserMissing as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture
def emulator(settings: Any, truncus_emulator: Any) -> Any:
    """A local Truncus; what is sent to it is recorded, bodies included."""
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True, "STORE_BODIES": True}
    return truncus_emulator


def sign_in(context: Any, live_server: Any, user: Any) -> None:
    """Let ``user`` be signed in to the admin in a browser's context."""
    client = Client()
    client.force_login(user)
    cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value}
    context.add_cookies([{**cookie, "url": live_server.url}])


@pytest.fixture
def page(
    browser: Any, live_server: Any, admin_user: Any, emulator: Any, under_way: "UnderWay"
) -> Iterator[Any]:
    """A page of a browser in which an administrator is signed in."""
    context = browser.new_context(base_url=live_server.url, accept_downloads=True)
    sign_in(context, live_server, admin_user)
    yield from page_without_errors(context, under_way)


def page_without_errors(context: Any, under_way: "UnderWay") -> Iterator[Any]:
    """Yield a page, on which no script may fail; then close its context."""
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    under_way.wait_until_none()
    assert errors == []


class UnderWay:
    """The live server's requests that are under way.

    They share the test's connection to the database, which is emptied next.
    """

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, **kwargs: Any) -> None:
        """Count a request that begins."""
        with self._changed:
            self._count += 1

    def remove(self, **kwargs: Any) -> None:
        """Count a request that is over."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_until_none(self) -> None:
        """Wait until all are over."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._count <= 0, timeout=PATIENCE_S)


@pytest.fixture
def under_way() -> Iterator[UnderWay]:
    """Return what counts the requests that are under way."""
    counted = UnderWay()
    request_started.connect(counted.add)
    request_finished.connect(counted.remove)
    yield counted
    request_started.disconnect(counted.add)
    request_finished.disconnect(counted.remove)


@pytest.fixture(autouse=True)
def _content_types(transactional_db: None) -> None:
    """Put back what the flush after a test with a live server takes away."""
    call_command("migrate", verbosity=0)


class Elsewhere(LocalServer):
    """A server that is not ours, and notes who comes."""

    def __init__(self) -> None:
        super().__init__(_Note)
        self.connections = 0
        self.paths: list[str] = []
        self.referrers: list[str] = []
        """Of the requests that had one."""
        self.html = b""
        self._changed = threading.Condition()

    def get_request(self) -> Any:
        accepted = super().get_request()
        with self._changed:
            self.connections += 1
            self._changed.notify_all()
        return accepted

    def note(self, path: str, referrer: str | None) -> None:
        """Note a request."""
        with self._changed:
            self.paths.append(path)
            self.referrers += [referrer] if referrer else []
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` is true of what was noted."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=PATIENCE_S)


class _Note(QuietHandler):
    server: Elsewhere

    def do_GET(self) -> None:  # noqa: N802
        self.server.note(self.path, self.headers["Referer"])
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.server.html)))
        self.end_headers()
        self.wfile.write(self.server.html)

    do_POST = do_GET  # noqa: N815


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with serving(Elsewhere()) as server:
        yield server


@pytest.fixture
def unprotected() -> Iterator[Elsewhere]:
    """A server of pages that are under no policy."""
    with serving(Elsewhere()) as server:
        yield server
