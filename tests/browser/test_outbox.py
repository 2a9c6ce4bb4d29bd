"""The outbox in the admin, in a real browser: seeing what waits, and doing something about it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from tests.browser.chromium import expect
from tests.browser.conftest import LOG
from truncus_django.db.clock import Clock
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def outbox(settings: Any, emulator: Any) -> Any:
    """A local Truncus, to which emails go by way of the outbox; texts are not kept."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "STORE_BODIES": False}
    return emulator


@pytest.fixture
def put(outbox: Any) -> Callable[..., Email]:
    """Return a function that puts an email into the outbox and returns its record."""

    def putting(subject: str, **options: Any) -> Email:
        TruncusMessage(
            subject, "Secret link.", "shop@example.com", ["ann@example.org"], **options
        ).send()
        return Email.objects.get(subject=subject)

    return putting


def drain() -> None:
    Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5).drain()


def press(page: Any, email: Email, button: str) -> None:
    """Press a button on an email's page and confirm."""
    page.goto(f"{LOG}{email.pk}/change/")
    page.click("summary >> text=More")
    page.get_by_role("button", name=button, exact=True).click()
    page.click("input[name=confirmed]")


@pytest.fixture
def unknown(put: Any, outbox: Any, monkeypatch: pytest.MonkeyPatch) -> Email:
    """An email whose answer was lost a day ago."""
    email: Email = put("Your order")
    outbox.faults.next("reset_after")
    with monkeypatch.context() as patch:  # however busy the machine is, it is not tried again yet
        patch.setattr("truncus_django.outbox.retry_policy.pause_s", lambda *args, **kwargs: 1000.0)
        drain()
    real = Clock.now
    monkeypatch.setattr(Clock, "now", lambda clock: real(clock) + 25 * 3600)
    drain()
    outbox.reset()
    email.refresh_from_db()
    assert email.state == State.UNKNOWN
    return email


@pytest.mark.parametrize("path", ["", "dashboard/"])
def test_the_panel_leads_to_what_waits(page, put, path):
    put("Your order")
    put("Your invoice")
    page.goto(LOG + path)

    panel = page.locator(".truncus-outbox")
    expect(panel).to_contain_text("Waiting2")
    box = panel.bounding_box()
    assert box["width"] > 600
    assert box["height"] < 200
    panel.locator("a >> text=2").click()
    page.wait_for_url("**/?state__exact=pending")
    expect(page.locator("#result_list tbody tr")).to_have_count(2)
    expect(page.locator("#result_list .field-sent").first).to_contain_text("waiting: ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_or_on_top_of_something_else(page, put, outbox, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 1440, "height": 800})
    outbox.faults.next("provider_502")
    put("Your order")
    drain()
    put("Your invoice")
    page.goto(LOG)

    panel = page.locator(".truncus-outbox").bounding_box()
    tools = page.locator(".object-tools a").bounding_box()
    search = page.locator("#changelist-search").bounding_box()
    assert tools["y"] + tools["height"] <= panel["y"]
    assert panel["y"] + panel["height"] <= search["y"]
    table = page.locator("#result_list")
    assert table.evaluate("table => table.offsetWidth <= table.parentNode.clientWidth")
    colours = "element => { const s = getComputedStyle(element); return [s.color, s.opacity] }"
    assert page.locator(".truncus-outbox dd").first.evaluate(colours)[0] != (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(0, 0, 0)"
    )


def test_what_waits_is_not_shown(page, put):
    email = put("Your password", html="<p>Secret link.</p>")
    page.goto(f"{LOG}{email.pk}/change/")

    expect(page.locator("#content")).to_contain_text("Waits for its first request")
    assert "Secret" not in page.content()
    assert page.locator("iframe").count() == 0


def test_cancel_and_take_back(page, put, outbox):
    email = put("Your order")

    press(page, email, "Cancel sending")
    expect(page.locator(".messagelist")).to_contain_text("Cancelled.")
    expect(page.locator("h1 .truncus-state")).to_have_text("cancelled")
    press(page, email, "Try again now")
    expect(page.locator("h1 .truncus-state")).to_have_text("pending")
    drain()

    assert outbox.accepted == 1
    assert LogEntry.objects.count() == 2


def test_retry_from_the_list(page, put, outbox):
    outbox.reset(domains={"example.com": "paused"})
    for number in range(3):
        put(f"Order {number}")
    drain()
    outbox.reset()
    page.goto(LOG)
    expect(page.locator(".truncus-outbox")).to_contain_text("Failed, can be tried again3")

    page.check("#action-toggle")
    page.select_option("select[name=action]", "retry")
    page.click("button[name=index]")
    page.click("input[name=confirmed]")

    expect(page.locator(".messagelist")).to_contain_text("3 emails: Waiting to be sent again.")
    drain()
    assert outbox.accepted == 3


@pytest.mark.parametrize(
    ("button", "state", "accepted"),
    [
        ("Mark as sent", "sent", 0),
        ("Mark as not sent and send it", "pending", 1),
        ("Mark as not sent", "failed", 0),
    ],
)
def test_decide(page, unknown, outbox, button, state, accepted):
    press(page, unknown, button)

    expect(page.locator("h1 .truncus-state")).to_have_text(state)
    drain()
    assert outbox.accepted == accepted
    assert LogEntry.objects.get().object_id == str(unknown.pk)


def test_a_paused_account_goes_on(page, put, outbox):
    outbox.faults.next("rate_limit", retry_after=600)
    put("Your order")
    drain()
    page.goto(LOG)

    expect(page.locator(".truncus-outbox .truncus-warning")).to_contain_text("paused until")
    page.click("text=Resume sending")
    page.click("input[type=submit][value='Resume sending']")

    expect(page.locator(".messagelist")).to_contain_text("Sending resumed.")
    drain()
    assert outbox.accepted == 1


def test_the_panel_asks_for_nothing_from_other_servers(page, put, live_server):
    put("Your order")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(LOG, wait_until="networkidle")

    assert [url for url in asked if not url.startswith((live_server.url, "data:"))] == []
