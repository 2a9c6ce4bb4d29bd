"""A real, headless Chromium, driven by Playwright. Nothing is downloaded: it is the system's."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connection

from tests.waiting import PATIENCE_S

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A key that is pressed while a page still glides from the key before can be lost.
    "--disable-smooth-scrolling",
]
EVERYDAY_ARGUMENTS = ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run"]
MISSING = (
    "The browser tests need Chromium: apt-get install chromium, or set CHROMIUM to the path of one."
)
PLAYWRIGHT_MISSING = "The browser tests need Playwright: pip install playwright"


class BrowserMissing(Exception):
    """There is no browser to test with; the text says what to install."""


def chromium_path() -> str:
    """Return where Chromium is; raises :class:`BrowserMissing`."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None or not os.access(path, os.X_OK):
        raise BrowserMissing(MISSING)
    return path


def expect(locator: Any) -> Any:
    """Return Playwright's assertions, which wait for what they assert."""
    from playwright.sync_api import expect as waiting

    return waiting(locator)


@contextmanager
def running_browser() -> Iterator[Any]:
    """Yield a browser; raises :class:`BrowserMissing`.

    It is Debian's headless shell where that is installed, too: the same engine in less time.
    """
    path = chromium_path()
    if not os.environ.get("CHROMIUM"):
        path = shutil.which("chromium-headless-shell") or path
    try:
        from playwright.sync_api import expect as waiting
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BrowserMissing(PLAYWRIGHT_MISSING) from None
    waiting.set_options(timeout=PATIENCE_S * 1000)
    # Playwright keeps an event loop in this thread, beside which Django refuses its database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            try:
                yield browser
            finally:
                browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@contextmanager
def everyday_browser(browser: Any, profile: Path, *arguments: str) -> Iterator[Any]:
    """Yield the context of a second browser that works as at a person's desk.

    Playwright's own contexts are private windows, which never look up a name or connect ahead of
    time, whatever a page asks for. Its own arguments switch off more than a person's browser does,
    and not the same in each version: this browser has none of them.
    """
    context = _start(browser, profile, arguments)
    try:
        yield context
    finally:
        context.close()


def _start(browser: Any, profile: Path, arguments: tuple[str, ...]) -> Any:
    """Start it, and once more where it never gets ready, as happens to one in some hundred."""
    from playwright.sync_api import TimeoutError as NeverReady

    def start(folder: Path) -> Any:
        return browser.browser_type.launch_persistent_context(
            folder,
            executable_path=chromium_path(),
            ignore_default_args=True,
            args=[*EVERYDAY_ARGUMENTS, f"--user-data-dir={folder}", *arguments],
            timeout=PATIENCE_S * 1000 / 2,
        )

    try:
        return start(profile)
    except NeverReady:
        return start(profile.with_name(f"second-{profile.name}"))


@contextmanager
def shared_connection_stays_open() -> Iterator[None]:
    """Let the live server's threads leave a connection alone that is not theirs.

    A database in memory has one connection, which all threads share. Each would close it when the
    browser hangs up, and Django refuses that once the server has stopped.
    """
    close = ThreadedWSGIServer._close_connections  # type: ignore[attr-defined]

    def close_own(server: ThreadedWSGIServer) -> None:
        if connection.vendor != "sqlite":
            close(server)

    with patch.object(ThreadedWSGIServer, "_close_connections", close_own):
        yield
