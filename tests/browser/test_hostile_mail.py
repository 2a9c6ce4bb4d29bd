"""Emails that try everything: nothing of them runs, and nothing is asked of any server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import everyday_browser, expect
from tests.browser.conftest import LOG, Elsewhere, sign_in
from tests.browser.hostile_html import HOSTILE, hostile_html
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)

ELSEWHERE, NOWHERE = "elsewhere.test", "nowhere.test"
"""Names below these lead to this machine, and to none."""
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
    rule = f"--host-resolver-rules=MAP *.{ELSEWHERE} 127.0.0.1"
    with everyday_browser(browser, folder / "profile", f"--log-net-log={log}", rule) as context:
        yield Watched(context, log)


def test_a_watched_browser_tells_whom_it_looks_for(browser, elsewhere, tmp_path):
    port = elsewhere.server_port
    elsewhere.html = (
        f"<link rel=preconnect href=http://connect.{ELSEWHERE}:{port}>"
        f"<link rel=dns-prefetch href=//name.{NOWHERE}><img src=/lure>"
    ).encode()
    with watched_browser(browser, tmp_path) as watched:
        watched.context.new_page().goto(elsewhere.url, wait_until="networkidle")

    assert "/lure" in elsewhere.paths
    for name in (f"connect.{ELSEWHERE}", f"name.{NOWHERE}", "/lure"):
        assert watched.asked_for(name)


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
            if trouble := provoke(page, url, happened):
                found[kind] = trouble

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


def provoke(page: Any, url: str, happened: list[str]) -> list[str]:
    """Click on everything in the email at ``url``; return what happened since, and forget it."""
    click_on_everything(page.frames[-1])
    if page.url != url:
        happened.append(f"left for {page.url}")
    if "pwned" in page.title():
        happened.append("script")
    trouble = [*happened]
    happened.clear()
    return trouble


def click_on_everything(mail: Any) -> None:
    for target in mail.locator("a, button, img, input, rect, summary").all()[:4]:
        if target.is_visible():
            target.click(force=True, timeout=1_000, no_wait_after=True)


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
