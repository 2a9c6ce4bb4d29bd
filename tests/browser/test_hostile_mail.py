"""An e-mail that tries everything: nothing of it runs, and nothing is loaded from elsewhere."""

from typing import Any

import pytest

from tests.browser.conftest import LOG, Elsewhere
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)

HOSTILE = """<!doctype html><html><head>
<meta http-equiv="refresh" content="0;url={remote}/refresh">
<base href="{remote}/">
<link rel="stylesheet" href="{remote}/style.css">
<link rel="icon" href="{remote}/icon"><link rel="prefetch" href="{remote}/prefetch">
<link rel="preload" as="image" href="{remote}/preload"><link rel="preconnect" href="{remote}">
<link rel="dns-prefetch" href="{remote}"><link rel="modulepreload" href="{remote}/module.js">
<link rel="manifest" href="{remote}/manifest"><link rel="prerender" href="{remote}/prerender">
<script src="{remote}/script.js"></script>
<script type="speculationrules">{{"prefetch": [{{"urls": ["{remote}/rules"]}}]}}</script>
<script>{run}</script>
<style>@import url("{remote}/import.css");
@font-face {{ font-family: f; src: url("{remote}/font") }}
body {{ font-family: f; background: url("{remote}/background");
cursor: url("{remote}/cursor"), auto }}
p::after {{ content: url("{remote}/content") }}</style>
</head><body background="{remote}/body" onload="{run}" onpageshow="{run}">
<p>Hello</p>
<img src="{remote}/img" srcset="{remote}/img2 2x" onerror="{run}" onload="{run}">
<img src="x" onerror="{run}"><picture><source srcset="{remote}/source">
<img src="{remote}/i"></picture>
<svg onload="{run}"><image href="{remote}/svg"/><use href="{remote}/use#x"/>
<script>{run}</script></svg>
<iframe src="{remote}/frame"></iframe><iframe srcdoc="<script>{run}</script>"></iframe>
<iframe src="javascript:{run}"></iframe><object data="{remote}/object"></object>
<embed src="{remote}/embed"><video src="{remote}/video" poster="{remote}/poster" autoplay></video>
<audio src="{remote}/audio" autoplay></audio><table background="{remote}/table"><tr><td>x</table>
<input type="image" src="{remote}/input" autofocus onfocus="{run}"><details open ontoggle="{run}">
<summary>x</summary></details><marquee onstart="{run}">x</marquee>
<form action="{remote}/form" method="post"><button id="submit">Win</button></form>
<a id="script-link" href="javascript:{run}">script</a>
<a id="link" href="{remote}/link" ping="{remote}/ping">link</a>
<a id="top-link" href="{remote}/top" target="_top">top</a>
<a id="new-link" href="{remote}/new" target="_blank">new</a>
<a id="data-link" href="data:text/html,<script>{run}</script>">data</a>
</body></html>"""
RUN = (
    "top.document.title='pwned';parent.pwned=1;alert(1);"
    "fetch('{remote}/run');new Image().src='{remote}/beacon'"
)


@pytest.fixture
def mail(elsewhere: Elsewhere, live_server: Any) -> Email:
    """An e-mail that tries everything, wherever it can put something."""
    run = RUN.format(remote=elsewhere.url)
    html = HOSTILE.format(remote=elsewhere.url, run=run)
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
        html_body=html,
    )


@pytest.fixture
def noted(page: Any) -> list[str]:
    """What must not happen in the page: dialogs and new windows."""
    happened: list[str] = []

    def note_dialog(dialog: Any) -> None:
        happened.append("dialog")
        dialog.dismiss()

    page.on("dialog", note_dialog)
    page.context.on("page", lambda opened: happened.append(f"window {opened.url}"))
    return happened


def settle(page: Any) -> None:
    """Wait until the browser has done whatever it was going to do."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)


def test_the_server_elsewhere_would_see_a_browser(page, elsewhere):
    page.goto(f"{elsewhere.url}/hello")
    assert "/hello" in elsewhere.paths


def test_nothing_runs_and_nothing_is_loaded(page, noted, mail, elsewhere):
    url = f"{LOG}{mail.pk}/change/"
    page.goto(url)
    frame = page.frame_locator("iframe")
    assert frame.locator("p").inner_text() == "Hello"
    settle(page)
    assert elsewhere.connections == 0

    for link in ("script-link", "data-link", "top-link", "new-link", "link", "submit"):
        frame.locator(f"#{link}").click(force=True)
        settle(page)

    assert elsewhere.paths == []
    assert elsewhere.connections == 0
    assert noted == []
    assert page.url.endswith(url)
    assert page.evaluate("window.pwned") is None
    assert "pwned" not in page.title()
    assert frame.locator("p").inner_text() == "Hello"


def test_opened_on_its_own_it_runs_and_loads_nothing_either(page, noted, mail, elsewhere):
    page.goto(f"{LOG}{mail.pk}/html/")
    settle(page)
    page.click("#script-link", force=True)
    settle(page)

    assert elsewhere.paths == []
    assert noted == []
    assert "pwned" not in page.title()
    assert page.inner_text("p") == "Hello"


def test_the_list_and_the_question_show_it_as_text(page, noted, mail, elsewhere):
    page.goto(LOG)
    settle(page)
    page.check("input[name=_selected_action]")
    page.select_option("select[name=action]", "sync_now")
    page.click("button[name=index]")
    settle(page)

    assert "<script>" in page.inner_text("#content")
    assert elsewhere.connections == 0
    assert noted == []
