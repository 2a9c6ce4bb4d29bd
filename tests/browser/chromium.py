"""A real, headless Chromium, driven by Playwright. Nothing is downloaded: it is the system's."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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
    """Yield a browser; raises :class:`BrowserMissing`."""
    path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BrowserMissing(PLAYWRIGHT_MISSING) from None
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


def wait_until_served(timeout_s: float = 10.0) -> None:
    """Return when the live server has no connections any more, which hold on to its database.

    Raises:
        TimeoutError: it still has some.
    """
    deadline = time.monotonic() + timeout_s
    while any("process_request_thread" in thread.name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            raise TimeoutError("The live server still has connections.")
        time.sleep(0.01)
