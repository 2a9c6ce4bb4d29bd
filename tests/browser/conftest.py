"""A browser, somebody signed in, a log, and a server elsewhere that must see nothing."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from tests.browser.chromium import BrowserMissing, running_browser, shared_connection_stays_open

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


@pytest.fixture
def page(browser: Any, live_server: Any, admin_user: Any, emulator: Any) -> Iterator[Any]:
    """A page of a browser in which an administrator is signed in."""
    client = Client()
    client.force_login(admin_user)
    context = browser.new_context(base_url=live_server.url, accept_downloads=True)
    cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value}
    context.add_cookies([{**cookie, "url": live_server.url}])
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(autouse=True)
def _content_types(transactional_db: None) -> None:
    """Put back what the flush after a test with a live server takes away."""
    call_command("migrate", verbosity=0)


class Elsewhere(ThreadingHTTPServer):
    """A server that is not ours, and notes who comes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Note)
        self.connections = 0
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        accepted = super().get_request()
        self.connections += 1
        return accepted


class _Note(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        """Stay silent."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
