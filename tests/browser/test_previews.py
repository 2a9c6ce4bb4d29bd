"""The email previews in a real browser: hostile HTML, keyboard, widths, and axe-core."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.browser.chromium import expect
from tests.browser.conftest import Elsewhere, sign_in
from tests.browser.hostile_html import HOSTILE, hostile_html
from tests.browser.test_accessibility import checking
from tests.browser.test_hostile_mail import (
    ELSEWHERE,
    NOWHERE,
    connect_ahead,
    follow_links,
    note_trouble,
    provoke,
    watched_browser,
)
from tests.previews.gallery.email_previews import HostilePreviews

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/emails/"
GALLERY = f"{LIST}gallery/"
CONFIRMATION = f"{GALLERY}OrderPreviews/confirmation/"
HOSTILE_EMAIL = f"{GALLERY}HostilePreviews/hostile/"


@pytest.fixture(autouse=True)
def gallery(settings: Any) -> None:
    """A project with previews, for which staff has asked."""
    settings.INSTALLED_APPS = [
        *settings.INSTALLED_APPS,
        "tests.previews.gallery",
        "tests.previews.broken",
    ]
    settings.TRUNCUS = {**settings.TRUNCUS, "PREVIEWS_FOR_STAFF": True}


@pytest.mark.parametrize("view", ["page", "frame"])
def test_no_previewed_email_speaks_to_anybody(
    browser, elsewhere, live_server, admin_user, monkeypatch, tmp_path, view
):
    found: dict[str, list[str]] = {}
    with watched_browser(browser, tmp_path) as watched:
        sign_in(watched.context, live_server, admin_user)
        page = watched.context.new_page()
        happened = note_trouble(page)
        for kind in HOSTILE:
            monkeypatch.setattr(HostilePreviews, "html", hostile(kind, elsewhere))
            url = f"{live_server.url}{HOSTILE_EMAIL}{'html/' if view == 'frame' else ''}"
            assert page.goto(url).status == 200
            assert len(page.frames) == (3 if view == "page" else 1)
            if trouble := provoke(page, url, happened, follow_links=False):
                found[kind] = trouble
        connect_ahead(page)

    assert found == {}
    # The source of the HTML is on the page, where nothing of it is a link.
    assert [word for word in (ELSEWHERE, NOWHERE, "/lure") if watched.asked_for(word)] == []
    assert elsewhere.connections == 0


def test_a_link_of_a_previewed_email_opens_a_tab_that_knows_nothing(
    browser, elsewhere, live_server, admin_user, monkeypatch, tmp_path
):
    elsewhere.html = b"<link rel=icon href=data:,>"  # or its request has a referrer
    with watched_browser(browser, tmp_path) as watched:
        sign_in(watched.context, live_server, admin_user)
        page = watched.context.new_page()
        monkeypatch.setattr(HostilePreviews, "html", hostile("link-new", elsewhere))
        page.goto(f"{live_server.url}{HOSTILE_EMAIL}")
        [url] = follow_links(page)

    assert url == f"http://link-new.{ELSEWHERE}:{elsewhere.server_port}/lure/link-new"
    assert "/lure/link-new" in elsewhere.paths
    assert elsewhere.referrers == []


def hostile(kind: str, elsewhere: Elsewhere) -> str:
    """Return HTML that speaks to another server, to one that is not there, and to this one."""
    urls = (
        f"http://{kind}.{ELSEWHERE}:{elsewhere.server_port}/lure/{kind}",
        f"//{kind}.{NOWHERE}/lure/{kind}",
        f"/lure/{kind}",
    )
    return "".join(hostile_html(kind, url) for url in urls)


def test_an_email_is_seen_at_both_widths_and_sent_to_who_looks_at_it(page, emulator):
    page.goto(LIST)
    page.click("text=Confirmation")
    frames = page.locator("iframe")
    expect(page.frame_locator("iframe.phone").locator("h1")).to_have_text("Thank you!")
    widths = [frames.nth(number).bounding_box()["width"] for number in (0, 1)]
    assert widths[1] == 375
    assert widths[0] > 640

    page.select_option("#language", "de")
    page.click("text=Show")
    assert "language=de" in page.url
    expect(page.locator("#language")).to_have_value("de")

    page.click("text=Send me this")
    expect(page.get_by_role("status")).to_have_text("It was sent to admin@example.com.")
    [email] = emulator.emails
    assert email.to == ("admin@example.com",)


@pytest.mark.parametrize("width", [1400, 390])
def test_frames_are_reached_and_scrolled_by_keyboard_and_nothing_is_cut_off(
    page, monkeypatch, width
):
    monkeypatch.setattr(HostilePreviews, "html", "<p>Line</p>" * 200)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(HOSTILE_EMAIL)
    assert page.evaluate("document.documentElement.scrollWidth") == width

    page.focus("button.main")
    for reached in ("scrolling", "desktop", "phone"):
        page.keyboard.press("Tab")
        page.wait_for_function("name => document.activeElement.className === name", arg=reached)
    last_line = page.frame_locator("iframe.phone").locator("p").last
    before = last_line.bounding_box()["y"]
    page.keyboard.press("End")
    expect(last_line).to_be_in_viewport()
    assert last_line.bounding_box()["y"] < before


@pytest.fixture
def shop_staff(browser: Any, live_server: Any, emulator: Any) -> Iterator[Any]:
    user = User.objects.create_superuser("mira", "mira@example.com", "mira")
    with checking(browser, live_server.url) as checker:
        sign_in(checker.page.context, live_server, user)
        yield checker


def test_no_page_of_the_previews_has_a_violation(shop_staff):
    page = shop_staff.page
    for name, path in {
        "list": LIST,
        "email": CONFIRMATION,
        "hostile email": HOSTILE_EMAIL,
        "email with warnings": f"{GALLERY}NewsletterPreviews/digest/",
        "email that cannot be sent": f"{GALLERY}UnsendablePreviews/without_recipient/",
        "traceback": f"{GALLERY}FailingPreviews/raises/",
        "frame": f"{CONFIRMATION}html/",
    }.items():
        page.goto(path)
        shop_staff.check(name)
    page.goto(CONFIRMATION)
    page.click("text=Send me this")
    shop_staff.check("sent")
    page.goto(f"{GALLERY}UnsendablePreviews/without_recipient/")
    page.click("text=Send me this")
    shop_staff.check("not sent")

    assert shop_staff.found == {}
    assert len(shop_staff.checked) == 9
