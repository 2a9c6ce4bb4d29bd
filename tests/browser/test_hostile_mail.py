"""Emails that try everything: nothing of them runs, and nothing is asked of any server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import everyday_browser, expect
from tests.browser.conftest import LOG, Elsewhere, sign_in
from tests.browser.hostile_html import HOSTILE, hostile_html
from tests.servers import serving
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)

ELSEWHERE, NOWHERE = "elsewhere.test", "nowhere.test"
"""Names below these lead to this machine, and to none."""
CONTROL = "control.test"
"""Names below this one lead to this machine, too, and are in no email."""
VIEWS = ("admin page", "admin frame", "inbox page", "inbox frame")


class Watched:
    """A browser that writes down all that it asks of the network."""

    def __init__(self, context: Any, log: Path) -> None:
        self.context = context
        self._log = log

    def asked_for(self, word: str) -> list[str]:
        """Return the entries of the browser's log in which ``word`` occurs, once it is closed."""
        _, begun, events = self._log.read_text(encoding="utf-8").partition('"events": [')
        assert begun
        return [line for line in events.splitlines() if word in line]


@contextmanager
def watched_browser(browser: Any, folder: Path) -> Iterator[Watched]:
    log = folder / "log.json"
    rules = f"--host-resolver-rules=MAP *.{ELSEWHERE} 127.0.0.1, MAP *.{CONTROL} 127.0.0.1"
    with everyday_browser(browser, folder / "profile", f"--log-net-log={log}", rules) as context:
        yield Watched(context, log)


def connect_ahead(page: Any) -> None:
    """See that the browser connects where a page asks for it, which does nothing else.

    Whatever it was asked for before, it has done by then.
    """
    with serving(Elsewhere()) as unprotected, serving(Elsewhere()) as target:
        url = f"http://ahead.{CONTROL}:{target.server_port}"
        unprotected.html = f'{ICON}<link rel="preconnect" href="{url}">'.encode()
        page.goto(unprotected.url)
        target.wait_for(lambda: target.connections > 0)


ICON = '<!doctype html><link rel="icon" href="data:,">'
LURES = {
    "preconnect": '<link rel="preconnect" href="{url}">',
    "prefetch": '<link rel="prefetch" href="{url}">',
    "img": '<img src="{url}">',
    "ping": '<a href="#" ping="{url}">Click</a>',
    "speculation-rules": '<script type="speculationrules">{{"prefetch": [{{"urls": ["{url}"], '
    '"eagerness": "immediate"}}]}}</script>',
}
"""What an everyday browser follows by itself; each on a page that does nothing else."""


@pytest.mark.parametrize("lure", LURES)
def test_a_watched_browser_connects_where_an_unprotected_page_asks_for_it(
    browser, elsewhere, unprotected, tmp_path, lure
):
    # Speculation rules need a target that is trusted.
    host = "localhost" if lure == "speculation-rules" else f"lure.{ELSEWHERE}"
    url = f"http://{host}:{elsewhere.server_port}/lure"
    unprotected.html = (ICON + LURES[lure].format(url=url)).encode()
    with watched_browser(browser, tmp_path) as watched:
        page = watched.context.new_page()
        page.goto(unprotected.url)
        if lure == "ping":
            page.click("a")
        elsewhere.wait_for(lambda: lure == "preconnect" or "/lure" in elsewhere.paths)
        elsewhere.wait_for(lambda: elsewhere.connections > 0)

    assert elsewhere.paths == ([] if lure == "preconnect" else ["/lure"])
    assert watched.asked_for(host)


def test_a_watched_browser_tells_which_names_it_looks_up(browser, unprotected, tmp_path):
    unprotected.html = (
        f'{ICON}<link rel="dns-prefetch" href="//name.{NOWHERE}">'
        f'<a href="http://link.{NOWHERE}">Link</a>'
    ).encode()
    with watched_browser(browser, tmp_path) as watched:
        page = watched.context.new_page()
        page.goto(unprotected.url)
        page.hover("a")
        connect_ahead(page)

    assert watched.asked_for(f"name.{NOWHERE}")
    assert watched.asked_for(f"link.{NOWHERE}")


@pytest.fixture
def hostilemails(emulator: Any, elsewhere: Elsewhere) -> dict[str, tuple[Email, str]]:
    """An email of each kind, which speaks to another server and to the one that shows it."""
    sent = {}
    for kind in HOSTILE:
        urls = (
            f"http://{kind}.{ELSEWHERE}:{elsewhere.server_port}/lure/{kind}",
            f"//{kind}.{NOWHERE}/lure/{kind}",
            f"/lure/{kind}",
        )
        html = "".join(hostile_html(kind, url) for url in urls)
        message = TruncusMessage(kind, "Hello.", "a@example.com", ["b@example.org"], html=html)
        message.send()
        sent[kind] = (Email.objects.get(subject=kind), str(message.truncus_status.id))
    return sent


@pytest.mark.parametrize("view", VIEWS)
def test_no_mail_speaks_to_anybody(
    browser, hostilemails, elsewhere, emulator, live_server, admin_user, tmp_path, view
):
    found: dict[str, list[str]] = {}
    with watched_browser(browser, tmp_path) as watched:
        sign_in(watched.context, live_server, admin_user)
        page = watched.context.new_page()
        happened = note_trouble(page)
        for kind, (email, message_id) in hostilemails.items():
            url = {
                "admin page": f"{live_server.url}{LOG}{email.pk}/change/",
                "admin frame": f"{live_server.url}{LOG}{email.pk}/html/",
                "inbox page": f"{emulator.url}/mail/{message_id}",
                "inbox frame": f"{emulator.url}/mail/{message_id}/html",
            }[view]
            page.goto(url)
            if trouble := provoke(page, url, happened, follow_links="admin" in view):
                found[kind] = trouble
        connect_ahead(page)

    assert found == {}
    assert [word for word in (ELSEWHERE, NOWHERE, "/lure") if watched.asked_for(word)] == []
    assert elsewhere.connections == 0


def note_trouble(page: Any) -> list[str]:
    """Return a list to which is added whatever must not happen in the page."""
    happened: list[str] = []

    def note_dialog(dialog: Any) -> None:
        happened.append("dialog")
        dialog.dismiss()

    def note_request(request: Any) -> None:
        if "/lure" in request.url:
            happened.append(request.url)

    page.on("dialog", note_dialog)
    page.on("request", note_request)
    page.on("popup", lambda opened: happened.append(f"window {opened.url}"))
    return happened


def provoke(page: Any, url: str, happened: list[str], *, follow_links: bool) -> list[str]:
    """Click on everything in the email at ``url``; return what happened since, and forget it.

    Without ``follow_links``, those that can be followed are pointed at.
    """
    click_on_everything(page.frames[-1], follow_links=follow_links)
    if page.url != url:
        happened.append(f"left for {page.url}")
    if "pwned" in page.title():
        happened.append("script")
    trouble = [*happened]
    happened.clear()
    return trouble


def click_on_everything(mail: Any, *, follow_links: bool) -> None:
    targets = ":is(a, button, img, input, rect, summary)"
    if not follow_links:
        targets += ":not(a[href], a[href] *)"
        for link in mail.locator("a[href]").all():
            link.hover()
    for target in mail.locator(targets).all()[:4]:
        if target.is_visible():
            target.click(force=True, no_wait_after=True)


def test_no_link_of_the_inbox_is_looked_up_before_it_is_followed(browser, emulator, tmp_path):
    html, text = (f"http://{part}.{NOWHERE}/" for part in ("html", "text"))
    message = TruncusMessage("Links", text, "a@example.com", ["b@example.org"])
    message.attach_alternative(f'<a href="{html}">Link</a>', "text/html")
    message.send()
    with watched_browser(browser, tmp_path) as watched:
        page = watched.context.new_page()
        page.goto(f"{emulator.url}/mail/{message.truncus_status.id}")
        for frame in page.frames:
            for link in frame.locator("a[target]").all():
                link.hover()
        connect_ahead(page)

    assert watched.asked_for(NOWHERE) == []


LINKED = {
    "image-map",
    "link",
    "link-download",
    "link-new",
    "link-top",
    "meta-dns",
    "overlay",
}
"""The kinds with a link that can be followed where links can be."""


@pytest.mark.parametrize("view", ["inbox page", "inbox frame"])
def test_a_click_on_a_link_opens_its_url_and_nothing_else(
    browser, hostilemails, elsewhere, emulator, tmp_path, view
):
    opened: dict[str, list[str]] = {}
    elsewhere.html = f"{ICON}<title>Elsewhere</title>".encode()
    with watched_browser(browser, tmp_path) as watched:
        page = watched.context.new_page()
        for kind, (_, message_id) in hostilemails.items():
            if "<a" not in HOSTILE[kind].lower():
                continue
            path = f"/mail/{message_id}{'/html' if view == 'inbox frame' else ''}"
            page.goto(f"{emulator.url}{path}")
            opened[kind] = follow_links(page)

    followed = {
        kind: [f"http://{kind}.{ELSEWHERE}:{elsewhere.server_port}/lure/{kind}"] for kind in LINKED
    }
    assert {kind: urls for kind, urls in opened.items() if urls} == followed
    assert sorted(elsewhere.paths) == sorted(f"/lure/{kind}" for kind in LINKED)
    assert elsewhere.referrers == []
    assert watched.asked_for(NOWHERE) == []


def follow_links(page: Any) -> list[str]:
    """Click on all links of the email, and see that no tab knows where it was opened."""
    urls = []
    at, frame_at = page.url, page.frames[-1].url
    for link in page.frames[-1].locator("a[href]").all():
        with page.context.expect_page() as opening:
            link.click()
        tab = opening.value
        tab.wait_for_load_state()
        assert tab.evaluate("[opener, document.referrer, history.length]") == [None, "", 1]
        urls.append(tab.url)
        tab.close()
    assert len(page.context.pages) == 2  # with the one that was there at first
    assert (page.url, page.frames[-1].url) == (at, frame_at)
    return urls


@pytest.fixture
def mail(elsewhere: Elsewhere) -> Email:
    """An email whose every field is markup."""
    run = f"top.document.title='pwned';alert(1);fetch('{elsewhere.url}/run')"
    tag = f"<img src='{elsewhere.url}/field' onerror=\"{run}\"><script>{run}</script>"
    return Email.objects.create(
        state=State.FAILED,
        message_id=tag,
        to=[tag],
        from_email=tag,
        subject=tag,
        tenant_id=tag[:255],
        reason=tag[:300],
        error=tag,
        metadata={tag: tag},
        attachments=[{"filename": tag, "content_type": tag, "size": 1}],
        text_body=tag,
    )


def test_the_pages_show_what_is_no_html_as_text(page, mail, elsewhere):
    happened = note_trouble(page)

    page.goto(f"{LOG}{mail.pk}/change/", wait_until="networkidle")
    assert "<script>" in page.inner_text("h1")
    assert "<script>" in page.inner_text(".truncus-text")
    page.goto(LOG, wait_until="networkidle")
    assert "<script>" in page.inner_text("#result_list")
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "sync_now")
    page.click("button[name=index]")
    page.wait_for_load_state("networkidle")

    assert "<script>" in page.inner_text("#content")
    assert "pwned" not in page.title()
    assert elsewhere.connections == 0
    assert happened == []


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<ul><li>", "<table><tr><td>"])
def test_markup_nested_20_000_deep_does_not_hang_the_page(page, emulator, tag):
    html = tag * (20_000 // tag.count("<")) + "The end."
    message = TruncusMessage("Deep", "Hello.", "a@example.com", ["b@example.org"], html=html)
    message.send()
    email = Email.objects.get()

    for url in (
        f"{LOG}{email.pk}/change/",
        f"{emulator.url}/mail/{message.truncus_status.id}",
    ):
        page.goto(url)
        mail = page.frames[-1].locator("body")
        expect(mail).to_contain_text("The end.")
        expect(mail).to_contain_text("nested more than 100 deep")


def test_a_layout_that_doubles_with_each_table_does_not_hang_the_page(page, emulator):
    html = '<table style="width:90%"><tr><td style="padding:1%">' * 30 + "The end."
    TruncusMessage("Slow", "Hello.", "a@example.com", ["b@example.org"], html=html).send()

    page.goto(f"{LOG}{Email.objects.get().pk}/change/")

    expect(page.frame_locator("iframe").locator("body")).to_contain_text("The end.")
