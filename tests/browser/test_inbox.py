"""The emulator's inbox in a real browser: its links, and its pages on small screens."""

from typing import Any

import pytest
import requests

from tests.browser.chromium import expect
from tests.test_links import NO_LINKS
from tests.waiting import PATIENCE_S
from truncus_django.testing import API_KEY

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def send(emulator: Any) -> Any:
    """Return a function that sends an email as it is and returns the URL of its page."""

    def sent(**fields: Any) -> str:
        email = {"from": "shop@example.com", "to": "ada@example.org", "subject": "Hello"}
        answer = requests.post(
            f"{emulator.url}/api/v1/emails/send",
            json={**email, "html": "<p>Hello</p>", **fields},
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE_S,
        )
        answer.raise_for_status()
        return f"{emulator.url}/mail/{answer.json()['message_id']}"

    return sent


def test_a_reset_link_is_followed_from_the_html_the_list_and_the_text(page, send, elsewhere):
    elsewhere.html = b"<link rel=icon href=data:,>"  # or its request has a referrer
    url = f"{elsewhere.url}/reset/MQ/x-1/?next=/a&copy=2"
    mail = send(
        html=f'<p>Please <a href="{url}">choose a password</a>.</p>', text=f"Please follow {url}."
    )
    page.goto(mail)

    for link in (
        page.frame_locator("iframe").get_by_text("choose a password"),
        page.locator("section li a"),
        page.locator("pre a"),
    ):
        for follow in (link.click, lambda link=link: link.press("Enter")):
            with page.context.expect_page() as opening:
                follow()
            tab = opening.value
            tab.wait_for_load_state()
            assert tab.url == url
            assert tab.evaluate("[opener, document.referrer]") == [None, ""]
            tab.close()

    assert page.url == mail
    assert elsewhere.referrers == []
    assert [path for path in elsewhere.paths if "/reset/" in path] == [
        url.removeprefix(elsewhere.url)
    ] * 6


def test_no_other_link_leads_anywhere(page, send):
    urls = [url for url in NO_LINKS if url.isascii() and '"' not in url]
    html = "".join(f'<p><a href="{url}">Link</a></p>' for url in urls)
    page.goto(send(html=html, text="\n".join(f"<{url}>" for url in urls)))
    opened: list[str] = []
    page.context.on("page", lambda tab: opened.append(tab.url))
    links = page.frames[-1].locator("a")
    expect(links).to_have_count(len(urls))

    # White space is left out in the one, and a text has no URL that goes on in the next line.
    for link in links.all():
        if link.get_attribute("href") != "https://example.com/":
            link.click()
    page.frame_locator("iframe").locator("body").click()

    assert opened == []
    assert page.frames[-1].url.endswith("/html")


@pytest.mark.parametrize("style", ["position:fixed;inset:0", "display:block;height:600px"])
def test_no_link_without_content_or_with_a_position_lies_over_an_email(page, send, style):
    html = (
        f'<p>Before</p><a href="http://127.0.0.1:9/" style="{style}"></a>'
        f'<p><a href="http://127.0.0.1:9/" style="{style}">'
        f'<span style="{style}">Link</span></a></p>'
        "<p>After</p>"
    )
    page.goto(f"{send(html=html)}/html")

    for text in ("Before", "After"):
        # Playwright clicks where nothing else is.
        page.get_by_text(text).click(position={"x": 200, "y": 5})

    assert len(page.context.pages) == 1


@pytest.fixture
def extremes(send: Any) -> list[str]:
    """Emails with much of everything; the URLs of their pages."""
    long_address = f"{'p' * 60}@{'d' * 60}.{'e' * 60}.example.com"
    word = "W" * 300
    return [
        send(subject=word, to=f"bounce+{'a' * 50}@{'d' * 60}.example.com", text=word),
        send(
            subject="Überprüfung Ihrer Bestellung",
            to=[f"{number}{long_address[2:]}" for number in range(30)],
            tenant_id="t" * 60,
            metadata={"k" * 60: "v" * 300},
            html=f'<a href="https://example.com/{word}">x</a><table width=2000><tr><td>x',
            text=f"https://example.com/{word}",
            attachments=[{"filename": f"{'f' * 120}.pdf", "content": "eA=="}],
        ),
        send(subject="Choose a new password", send_at="2099-01-01T12:00:00Z"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 900, 390])
def test_nothing_is_wider_than_the_page(page, emulator, extremes, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})

    for url in (emulator.url, f"{emulator.url}/?q=nothing", *extremes):
        page.goto(url)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        # An address is cut off on purpose; its title has it whole.
        cut_off = page.evaluate(
            "width => [...document.querySelectorAll('body :not(.address *)')].filter("
            "e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML)",
            width,
        )
        assert cut_off == []


def test_on_a_phone_the_subject_is_read_at_a_glance(page, emulator, extremes):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(emulator.url)

    subject = page.get_by_role("link", name="Choose a new password").bounding_box()
    to, time = (
        page.locator(f"tr:first-child {cell}").bounding_box()
        for cell in ("td:nth-child(2)", "td.time")
    )
    assert subject["width"] > 300
    assert subject["height"] < 30  # on one line
    assert subject["y"] < to["y"]
    assert to["x"] + to["width"] <= time["x"]
    for row in page.locator("tbody tr").all():
        assert row.bounding_box()["height"] < 200
