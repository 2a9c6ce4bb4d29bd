"""The pages of the admin and of the emulator's inbox, checked by axe-core."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from example_project.shop import history
from tests.browser.conftest import LOG, sign_in
from tests.browser.outbox_scene import write_outbox
from tests.browser.scene import write_present
from tests.browser.suppression_scene import write_suppressed
from truncus_django.api.errors import TruncusError
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, SuppressedAddress
from truncus_django.states import State
from truncus_django.unsubscribe import Subscription, token_of

pytestmark = pytest.mark.django_db(transaction=True)

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SCHEMES = ("light", "dark")
SUPPRESSED = "/admin/truncus_django/suppressedaddress/"
WIDTHS = (1400, 900, 390)
SHOWN_STATES = (
    State.PENDING,
    State.SENDING,
    State.UNKNOWN,
    State.SCHEDULED,
    State.SENT,
    State.BOUNCED,
    State.FAILED,
    State.CANCELLED,
)
ACTIONS = ("resend", "decide_send", "export_csv", "delete_selected")


class Checker:
    """A page that is looked at in some schemes and at all widths."""

    def __init__(self, page: Any, schemes: Sequence[str]) -> None:
        self.page = page
        self.schemes = schemes
        self.found: dict[str, set[tuple[str, str, str]]] = {}
        self.checked: list[str] = []

    def check(self, name: str) -> None:
        """Note what is serious or critical on the page as it stands: rule, element and why."""
        self.page.evaluate(AXE)
        # A colour on its way to another is neither of both.
        self.page.add_style_tag(content="* { transition: none !important }")
        violations = set()
        for scheme in self.schemes:
            self.page.emulate_media(color_scheme=scheme)
            for width in WIDTHS:
                self.page.set_viewport_size({"width": width, "height": 900})
                violations |= {tuple(one) for one in self.page.evaluate(_RUN)}
        self.checked.append(name)
        if violations:
            self.found[name] = violations


_RUN = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"], iframes: false});
    return found.violations.filter(rule => ["serious", "critical"].includes(rule.impact)).flatMap(
        rule => rule.nodes.map(node => [rule.id, node.html, node.failureSummary]));
}"""


@contextmanager
def checking(browser: Any, base_url: str, schemes: Sequence[str] = SCHEMES) -> Iterator[Checker]:
    # The policies of some pages would keep axe from running.
    context = browser.new_context(base_url=base_url, bypass_csp=True)
    try:
        yield Checker(context.new_page(), schemes)
    finally:
        context.close()


def test_the_check_finds_what_is_wrong_and_where(browser, live_server):
    with checking(browser, live_server.url) as checker:
        checker.page.set_content(
            "<html lang=en><title>x</title><style>@media (prefers-color-scheme: dark) and "
            "(max-width: 400px) { p { color: #eee } }</style><main><p>Text</p></main>"
        )
        checker.check("grey on white")

    [(rule, element, _)] = checker.found["grey on white"]
    assert (rule, element) == ("color-contrast", "<p>Text</p>")


@pytest.mark.parametrize("scheme", SCHEMES)  # each of them takes long
def test_no_page_of_the_admin_has_a_serious_violation(
    browser, live_server, admin_user, settings, emulator, scheme
):
    history.write(days=12, per_day=3)
    shown = write_present()
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    write_outbox()
    write_more(shown)
    write_suppressed()
    with checking(browser, live_server.url, [scheme]) as checker:
        page = checker.page
        sign_in(page.context, live_server, admin_user)
        page.goto(LOG)
        page.click("text=Resume sending")  # before the pause ends
        checker.check("resuming")
        for name, path in {
            "list": LOG,
            "search without result": f"{LOG}?q=nothing",
            "filtered list": f"{LOG}?state__exact=unknown",
            "rich email": f"{LOG}{shown.pk}/change/",
            "dashboard": f"{LOG}dashboard/",
            "dashboard of 7 days": f"{LOG}dashboard/?days=7",
            "history": f"{LOG}{shown.pk}/history/",
            "deletion": f"{LOG}{shown.pk}/delete/",
            "suppressed addresses": SUPPRESSED,
            "new suppressed address": f"{SUPPRESSED}add/",
            "suppressed address": f"{SUPPRESSED}{SuppressedAddress.objects.first().pk}/change/",
        }.items():
            page.goto(path)
            checker.check(name)
        page.goto(f"{LOG}{shown.pk}/change/")
        page.click("summary >> text=More")
        checker.check("menu of an email")
        page.click("text=Forget a recipient")
        checker.check("forgetting")
        for state in SHOWN_STATES:
            page.goto(f"{LOG}{Email.objects.filter(state=state).first().pk}/change/")
            checker.check(f"{state} email")
        for action in ACTIONS:
            page.goto(LOG)
            for box in page.locator("input[name=_selected_action]").all()[:8]:
                box.check()
            page.select_option("select[name=action]", action)
            page.click("button[name=index]")
            page.wait_for_selector("input[type=submit], .cancel-link")
            assert page.locator("#result_list").count() == 0
            checker.check(action)
        page.goto(SUPPRESSED)
        page.check("#action-toggle")
        page.select_option("select[name=action]", "end_now")
        page.click("button[name=index]")
        page.wait_for_selector("input[name=confirmed]")
        checker.check("letting addresses be mailed again")

    assert checker.found == {}
    assert len(checker.checked) == 15 + len(SHOWN_STATES) + len(ACTIONS)


def test_the_pages_to_unsubscribe_work_without_scripts_and_have_no_serious_violation(
    browser, live_server
):
    token = token_of(Subscription("ann@example.net", "digest"))
    path = reverse("truncus_django:unsubscribe", args=[token])
    with checking(browser, live_server.url) as checker:
        checker.page.goto(path)
        checker.check("question")
        assert not SuppressedAddress.objects.exists()
        checker.page.focus("button")
        checker.page.keyboard.press("Enter")
        checker.page.wait_for_selector("text=You are unsubscribed")
        checker.check("answer")
        assert SuppressedAddress.objects.get().list_name == "digest"

    assert checker.found == {}
    context = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(path)
    page.click("button")
    page.wait_for_selector("text=You are unsubscribed")
    context.close()


def write_more(email: Email) -> None:
    """Record what the scenes lack: each state, a resend, and tenants too many for a list."""
    Email.objects.create(
        to=["ada.lindqvist@example.com"],
        subject=email.subject,
        resend_of=email,
        state=State.UNKNOWN,
        error=str(TruncusError("The connection was lost", ambiguous=True)),
    )
    for state in State:
        if not Email.objects.filter(state=state).exists():
            Email.objects.create(to=["a@example.com"], subject="One more", state=state)
    for number in range(31):
        Email.objects.create(
            to=["a@example.com"],
            subject="Hello",
            tenant_id=f"tenant-{number}",
            state=State.BOUNCED if number % 2 else State.DELIVERED,
            reason="mailbox_full",
        )


def test_no_page_of_the_inbox_has_a_serious_violation(browser, emulator):
    for subject, options in {
        "Plain": {},
        "Rich": {"html": "<h1>Hello</h1><p>Thank you!</p>", "tenant_id": "acme", "sandbox": True},
        "Deep": {"html": "<div>" * 200 + "Hello", "send_at": timezone.now() + timedelta(days=1)},
    }.items():
        message = TruncusMessage(
            subject, "Hello.", "a@example.com", ["bounce@example.org", "b@example.org"], **options
        )
        message.attach("invoice.pdf", b"%PDF-1.4", "application/pdf")
        message.send()
    for number in range(50):
        TruncusMessage(f"{number}", "Hello.", "a@example.com", ["open@example.org"]).send()
    paths = ["/", "/?page=2", "/?q=nothing", "/mail/none"]
    for email in emulator.emails[:3]:
        paths += [f"/mail/{email.id}", f"/mail/{email.id}/html"]
    with checking(browser, emulator.url) as checker:
        for path in paths:
            checker.page.goto(path)
            checker.check(path)

    assert checker.found == {}
    assert len(checker.checked) == 10
