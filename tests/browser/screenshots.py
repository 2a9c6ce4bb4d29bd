"""Writes the screenshots of the documentation: ``python -m tests.browser.screenshots``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH = 1280
FOLDER = Path(__file__).parent.parent.parent / "docs" / "images"


def main() -> None:
    """Serve a log with a past and take pictures of it."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django
    from django.conf import settings

    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.browser.shop"]
    settings.TRUNCUS = {**settings.TRUNCUS, "PREVIEWS_FOR_STAFF": True}
    django.setup()
    settings.LANGUAGE_CODE = "en-gb"
    from tests.browser.chromium import running_browser, shared_connection_stays_open
    from tests.browser.outbox_scene import write_outbox
    from tests.browser.suppression_scene import write_suppressed
    from truncus_django.conf import forget_settings

    FOLDER.mkdir(parents=True, exist_ok=True)
    with shared_connection_stays_open(), _site() as (url, email), running_browser() as browser:
        log = f"{url}/admin/truncus_django/email/"
        write_suppressed()
        for name, address, scheme, height in (
            ("log", log, "light", 900),
            ("email", f"{log}{email.pk}/change/", "light", 0),
            ("dashboard", f"{log}dashboard/", "light", 1210),
            ("dashboard-dark", f"{log}dashboard/", "dark", 1210),
            ("suppressed", f"{url}/admin/truncus_django/suppressedaddress/", "light", 770),
            ("preview", f"{url}/emails/shop/OrderPreviews/on_its_way/", "light", 1020),
        ):
            _take(browser, url, name, address, scheme, height)
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
        forget_settings()
        tried, unknown = write_outbox()
        for name, address, scheme, height in (
            ("outbox", log, "light", 860),
            ("outbox-email", f"{log}{tried.pk}/change/", "light", 0),
            ("outbox-unknown", f"{log}{unknown.pk}/change/", "dark", 0),
        ):
            _take(browser, url, name, address, scheme, height)


def _take(browser: Any, url: str, name: str, address: str, scheme: str, height: int) -> None:
    """Take a picture of a page, ``height`` pixels of it or, for 0, all."""
    page = _signed_in(browser, url, scheme)
    page.goto(address, wait_until="networkidle")
    path = FOLDER / f"{name}.png"
    # A picture of the whole page would have the frame empty, which is not in view.
    height = height or page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    print(path.relative_to(FOLDER.parent.parent))
    page.context.close()


@contextmanager
def _site() -> Iterator[tuple[str, Any]]:
    """Serve the admin over a database in memory; yield its URL and an email with a life."""
    from django.contrib.auth.models import User
    from django.contrib.staticfiles.testing import StaticLiveServerTestCase
    from django.test.utils import setup_databases, teardown_databases

    from tests.browser.scene import write_past, write_present

    databases = setup_databases(verbosity=0, interactive=False)
    try:
        User.objects.create_superuser("mira", "mira@example.com", "mira")
        write_past()
        email = write_present()
        StaticLiveServerTestCase.setUpClass()
        try:
            yield StaticLiveServerTestCase.live_server_url, email
        finally:
            StaticLiveServerTestCase.doClassCleanups()
    finally:
        teardown_databases(databases, verbosity=0)


def _signed_in(browser: Any, url: str, scheme: str) -> Any:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": WIDTH, "height": 900}, locale="en-GB"
    )
    page = context.new_page()
    page.goto(f"{url}/admin/login/")
    page.fill("#id_username", "mira")
    page.fill("#id_password", "mira")
    page.click("input[type=submit]")
    return page


if __name__ == "__main__":
    sys.exit(main())
