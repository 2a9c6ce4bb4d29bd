"""The admin as people use it: in a real browser, against a real server and a local Truncus."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from tests.browser.chromium import expect
from tests.browser.conftest import LOG, sign_in
from tests.browser.scene import write_past
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def send(emulator: Any) -> Callable[..., Email]:
    """Return a function that sends an email and returns its record."""

    def sending(subject: str, to: str = "ann@example.org", **options: Any) -> Email:
        TruncusMessage(subject, "Hello.", "shop@example.com", [to], **options).send()
        return Email.objects.get(subject=subject)

    return sending


def test_somebody_signs_in_filters_and_opens_an_email(page, send):
    send("Your order", html="<h1>Thank you</h1>")
    send("No such person", to="bounce@example.org")
    page.context.clear_cookies()

    page.goto(LOG)
    page.fill("#id_username", "admin")
    page.fill("#id_password", "password")
    page.click("input[type=submit]")
    expect(page.locator("#result_list tbody tr")).to_have_count(2)

    page.click("#changelist-filter >> text=bounced")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator("#result_list .truncus-state")).to_have_text("bounced")

    page.goto(LOG)
    page.fill("#searchbar", "order ANN")
    page.press("#searchbar", "Enter")
    page.click("#result_list >> text=Your order")
    expect(page.locator("h1 bdi")).to_have_text("Your order")
    assert page.frame_locator("iframe").locator("h1").inner_text() == "Thank you"
    assert page.inner_text(".truncus-text") == "Hello."


def test_an_id_is_copied_with_one_click(page, send):
    email = send("Your order")
    page.goto(f"{LOG}{email.pk}/change/")

    page.locator("code.truncus-id").first.click()

    assert page.evaluate("getSelection().toString()").strip() == str(email.pk)


def press(page: Any, email: Email, button: str) -> None:
    """Press a button on an email's page and confirm."""
    page.goto(f"{LOG}{email.pk}/change/")
    page.click("summary >> text=More")
    page.click(f".truncus-actions >> text={button}")
    page.click("input[name=confirmed]")


def test_sync_now(page, send, emulator):
    email = send("Your order", to="open@example.org")
    emulator.wait_for(lambda e: "opened" in [event.type for event in e.emails[0].events])

    press(page, email, "Sync now")

    expect(page.locator(".messagelist")).to_contain_text("Truncus was asked")
    expect(page.locator(".truncus-facts dt:text-is('Opens') + dd")).to_contain_text("1 · ")
    assert LogEntry.objects.get().object_id == str(email.pk)


def test_send_again(page, send, emulator):
    email = send("Your order", html="<p>Thank you</p>")

    press(page, email, "Resend")
    page.click(".messagelist a")

    expect(page.locator(".truncus-facts")).to_contain_text(["Sent again from", "Our id"])
    again = Email.objects.get(resend_of=email)
    assert page.url.endswith(f"/{again.pk}/change/")
    assert emulator.accepted == 2
    page.click(f"text={email.pk}")
    page.wait_for_url(f"**/{email.pk}/change/")


def test_cancel(page, send):
    email = send("Tomorrow", send_at=timezone.now() + timedelta(days=1))

    press(page, email, "Cancel sending")

    expect(page.locator(".messagelist")).to_contain_text("Cancelled.")
    expect(page.locator("h1 .truncus-state")).to_have_text("cancelled")
    assert Email.objects.get().state == State.CANCELLED


def test_no_is_no(page, send, emulator):
    email = send("Your order", html="<p>Thank you</p>")
    page.goto(f"{LOG}{email.pk}/change/")

    page.click(".truncus-actions >> text=Resend")
    page.click("text=No, go back")

    page.wait_for_url(f"**/{email.pk}/change/")
    assert emulator.accepted == 1


@pytest.mark.parametrize("width", [1400, 900, 390])
def test_both_answers_to_a_question_are_of_the_same_size(page, send, width):
    email = send("Tomorrow", send_at=timezone.now() + timedelta(days=1))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{LOG}{email.pk}/change/")

    page.click(".truncus-actions >> text=Cancel sending")

    yes, no = (page.locator(f".truncus-answers > {name}") for name in ("input", "a"))
    expect(yes).to_have_value("Do not send 1 email")
    expect(no).to_have_text("No, go back")
    sizes = [(box["width"], box["height"]) for box in (yes.bounding_box(), no.bounding_box())]
    assert sizes[0] == sizes[1]
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [1400, 900, 390])
def test_the_menu_opens_by_keyboard_and_without_scripts(
    browser, live_server, admin_user, send, under_way, width
):
    email = send("Your order")
    context = browser.new_context(
        base_url=live_server.url,
        java_script_enabled=False,
        viewport={"width": width, "height": 900},
    )
    sign_in(context, live_server, admin_user)
    page = context.new_page()
    page.goto(f"{LOG}{email.pk}/change/")
    expect(page.get_by_role("link", name="History")).to_be_hidden()

    page.focus(".truncus-menu summary")
    page.keyboard.press("Enter")

    # Each is in view, and nothing lies on top of it.
    page.get_by_role("link", name="History").click(trial=True)
    page.get_by_role("link", name="Delete", exact=True).click(trial=True)
    menu = page.locator(".truncus-menu > div").bounding_box()
    assert menu["x"] >= 0
    assert menu["x"] + menu["width"] <= width
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Export as CSV")
    context.close()
    under_way.wait_until_none()


@pytest.mark.parametrize("width", [1400, 390])
def test_the_html_is_reached_and_scrolled_by_keyboard(page, send, width):
    email = send("Your order", html="<p>Line</p>" * 200)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{LOG}{email.pk}/change/")
    lines = page.frame_locator("iframe").locator("p")
    expect(lines.first).to_be_visible()

    page.focus(".truncus-menu summary")
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.className === 'truncus-frame'")
    page.keyboard.press("PageDown")
    expect(lines.first).not_to_be_in_viewport()
    page.keyboard.press("Home")
    expect(lines.first).to_be_in_viewport()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(lines.first).not_to_be_in_viewport()
    page.keyboard.press("End")
    expect(lines.last).to_be_in_viewport()


def test_export_from_the_list(page, send):
    for number in range(3):
        send(f"Order {number}")
    page.goto(LOG)

    page.check("#action-toggle")
    page.select_option("select[name=action]", "export_csv")
    page.click("button[name=index]")
    with page.expect_download() as download:
        page.click("input[name=confirmed]")

    lines = Path(download.value.path()).read_text().splitlines()
    assert download.value.suggested_filename.startswith("emails-")
    assert len(lines) == 4
    assert all(f"Order {number}" in "".join(lines) for number in range(3))


def test_an_action_for_several_from_the_list(page, send, emulator):
    for number in range(3):
        send(f"Order {number}")
    page.goto(LOG)

    page.check("#action-toggle")
    page.select_option("select[name=action]", "sync_now")
    page.click("button[name=index]")
    page.click("input[name=confirmed]")

    expect(page.locator(".messagelist li")).to_contain_text("3 emails: Truncus was asked.")
    assert LogEntry.objects.count() == 3


def test_the_dashboard(page, send):
    send("Your order")
    send("No such person", to="bounce@example.org")
    page.goto(LOG)

    page.click("text=Dashboard")
    page.click("text=7 days")
    page.wait_for_url("**/dashboard/?days=7")

    tiles = page.locator(".truncus-tile").all_inner_texts()
    assert [tile.split("\n")[:2] for tile in tiles[:2]] == [["Sent", "2"], ["Delivered", "1"]]
    assert page.locator("figure svg").count() == 3
    for plot in page.locator("figure svg").all():
        box = plot.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 100
    bar = page.locator("rect.plot-bar.plot-good")
    assert bar.evaluate("bar => getComputedStyle(bar).fill") != "rgb(0, 0, 0)"
    assert "no such mailbox" in page.get_by_label("Why emails bounced").inner_text()
    assert "249,999" in page.get_by_label("Monthly quota").inner_text()


OVERLAPPING_LABELS = """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
    const boxes = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect())
        .filter(box => box.width);
    return boxes.filter((box, i) => box.height < 8 || box.left < 0 || boxes.some((other, j) =>
        i < j && box.left < other.right && other.left < box.right
        && box.top < other.bottom && other.top < box.bottom));
})"""


def test_what_plots_are_labelled_with_can_be_read(page):
    write_past()
    page.goto(f"{LOG}dashboard/?days=90")
    overlapping = {}
    for width in (1400, 900, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator("figure svg text:visible").count() > 15
        overlapping[width] = page.evaluate(OVERLAPPING_LABELS)

    assert overlapping == {1400: [], 900: [], 390: []}


@pytest.mark.parametrize("path", ["", "dashboard/"])
def test_pages_ask_for_nothing_from_other_servers(page, send, live_server, path):
    send("Your order")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(LOG + path, wait_until="networkidle")

    assert asked
    assert [url for url in asked if not url.startswith((live_server.url, "data:"))] == []
