"""The list of emails at each width, with Django's sidebar as it is: nothing is out of view."""

from typing import Any

import pytest

from tests.browser.chromium import expect
from tests.browser.conftest import LOG
from tests.browser.outbox_scene import write_outbox
from tests.browser.scene import write_present
from tests.browser.suppression_scene import write_suppressed
from truncus_django.log.search_text import search_text
from truncus_django.models import Email, SuppressedAddress
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)

WIDTHS = (1400, 1280, 900, 390)
TABLE_WIDTHS = (1400, 1280)
COLUMNS = ("state_label", "sent", "recipients", "subject_line", "tenant", "engagement")
ADDRESS = f"{'somebody.with.a.long.name.' * 2}indeed@{'long-label.' * 4}example.org"
SUPPRESSED = "/admin/truncus_django/suppressedaddress/"
SUBJECT = "An order of many things " * 12 + "x" * 200


@pytest.fixture
def emails(settings: Any) -> None:
    """One of each fate, those of an outbox, and one whose texts are long."""
    write_present()
    write_outbox()
    Email.objects.create(
        state=State.COMPLAINED,
        reason="The provider wrote at length " * 8,
        is_sandbox=True,
        to=[ADDRESS, "ben@example.org"],
        subject=SUBJECT,
        search_text=search_text([ADDRESS], SUBJECT, {}),
        tenant_id="a-tenant-with-a-name-of-many-letters" * 3,
        open_count=123_456,
        click_count=98_765,
    )
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}


def open_list(page: Any, width: int, query: str = "", *, of: str = LOG) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(of + query)
    assert page.locator("#nav-sidebar").is_visible() == (width > 767)


OUT_OF_VIEW = """() => {
    const list = document.querySelector("#changelist-form").getBoundingClientRect();
    const shown = [...document.querySelectorAll(
        "#toolbar, .truncus-active-filters li, .actions select, .actions button, #result_list, "
        + "#result_list th, #result_list td, #result_list td *, #result_list th *"
    )].filter(each => each.checkVisibility() && each.getClientRects().length);
    return shown.filter(each => {
        const box = each.getBoundingClientRect();
        return box.left < list.left - 1 || box.right > list.right + 1;
    }).map(each => each.outerHTML.slice(0, 200));
}"""


TOO_WIDE = """() => [...document.querySelectorAll("#result_list tbody tr > *")]
    .filter(cell => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth + 1)
    .map(cell => cell.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_out_of_view(page, emails, width):
    open_list(page, width, "?created_at__gte=2020-01-01")
    assert page.locator("#result_list tbody tr").count() == Email.objects.count()

    assert page.evaluate(OUT_OF_VIEW) == []
    assert page.evaluate(
        "[document.documentElement, document.querySelector('.results')]"
        ".every(each => each.scrollWidth <= each.clientWidth)"
    )
    edge = page.evaluate("document.documentElement.clientWidth")
    for name in COLUMNS:
        for cell in page.locator(f"#result_list tbody .field-{name}:visible").all():
            box = cell.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= edge


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_of_the_suppressed_addresses_is_out_of_view(page, width):
    write_suppressed()
    SuppressedAddress.objects.create(
        address=ADDRESS, tenant_id="a-tenant-with-a-name-of-many-letters", list_name="x" * 60
    )
    open_list(page, width, of=SUPPRESSED)
    assert page.locator("#result_list tbody tr").count() == SuppressedAddress.objects.count()

    assert page.evaluate(OUT_OF_VIEW) == []
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(
        "[document.documentElement, document.querySelector('.results')]"
        ".every(each => each.scrollWidth <= each.clientWidth)"
    )
    row = page.locator("#result_list tbody tr", has_text="old-address@example.net")
    is_table = width in TABLE_WIDTHS
    assert row.locator(".field-until").is_visible() == is_table  # "for ever", under its heading
    expect(row.locator(".field-reason")).to_be_visible()
    assert row.locator(".field-whom").bounding_box()["width"] > 170


@pytest.mark.parametrize("width", WIDTHS)
def test_no_cell_runs_into_another(page, emails, width):
    open_list(page, width)

    assert page.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_are_a_table_where_there_is_room_and_cards_elsewhere(page, emails, width):
    open_list(page, width)
    row = page.locator("#result_list tbody tr", has_text="Your order 48213 is on its way").first
    state, sent, to, subject, tenant, opened = (
        row.locator(f".field-{name}").bounding_box() for name in COLUMNS
    )

    if width in TABLE_WIDTHS:
        tops = {each["y"] for each in (state, sent, to, subject, tenant, opened)}
        assert len(tops) == 1
        assert state["x"] < sent["x"] < to["x"] < subject["x"] < tenant["x"] < opened["x"]
    else:
        assert state["y"] < to["y"] < subject["y"] < tenant["y"]
        assert subject["width"] > 200
    assert row.locator(".field-engagement span").all_inner_texts() == ["2 opens", "1 click"]


def test_long_texts_are_cut_and_whole_in_their_titles(page, emails):
    open_list(page, 1280)
    subject = page.locator(".field-subject_line bdi").first
    tenant = page.locator(".field-tenant .truncus-tag").first

    assert subject.get_attribute("title") == SUBJECT
    assert subject.evaluate("each => each.scrollHeight > each.clientHeight")
    assert subject.bounding_box()["height"] < 60
    assert tenant.get_attribute("title").startswith("a-tenant")
    assert tenant.evaluate("each => each.scrollWidth > each.clientWidth")


def test_a_column_that_no_email_needs_is_not_there(page, emails):
    open_list(page, 1400, "?q=stock")
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    expect(page.locator(".column-tenant")).to_be_hidden()

    open_list(page, 1400)
    expect(page.locator(".column-tenant")).to_be_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_field_keeps_its_width(page, emails, width):
    widths = set()
    for query in (
        "",
        "?q=order",
        "?q=nobody",
        "?state__exact=delivered",
        "?q=order&state__exact=delivered&reason__exact=x&created_at__gte=2020-01-01",
    ):
        open_list(page, width, query)
        widths.add(page.locator("#searchbar").bounding_box()["width"])

    assert len(widths) == 1
    assert min(widths) > 150


@pytest.mark.parametrize("width", [1400, 390])
def test_a_filter_of_a_link_is_removed_with_a_click(page, emails, width):
    open_list(page, width, "?reason__exact=mailbox_does_not_exist&state__exact=bounced")
    active = page.locator(".truncus-active-filters li")
    expect(active).to_contain_text(["Reason: no such mailbox", "State: bounced"])
    expect(page.locator("#result_list tbody tr")).to_have_count(1)

    page.click("[aria-label='Remove the filter reason: no such mailbox']")
    expect(active).to_contain_text(["State: bounced"])

    page.click("[aria-label='Remove the filter state: bounced']")
    expect(active).to_have_count(0)
    expect(page.locator("#result_list tbody tr")).to_have_count(Email.objects.count())


@pytest.mark.parametrize("width", [1400, 390])
def test_from_a_search_without_result_a_click_leads_to_all_emails(page, emails, width):
    open_list(page, width, "?q=nobody")
    expect(page.locator(".truncus-empty")).to_contain_text("No email matches this search.")
    expect(page.locator(".actions")).to_have_count(0)
    expect(page.locator("body")).not_to_contain_text("0 of 0")

    page.click("text=Show all emails")

    expect(page.locator("#result_list tbody tr")).to_have_count(Email.objects.count())


def test_on_a_phone_emails_are_chosen_and_sorted(page, emails):
    open_list(page, 390)
    page.check("#action-toggle")
    expect(page.locator(".action-counter")).to_contain_text(f"{Email.objects.count()} of")

    page.click("#result_list .column-sent a.toggle")
    page.wait_for_url("**?o=*")
    oldest = Email.objects.order_by("created_at").first()
    expect(page.locator("#result_list .field-subject_line").first).to_contain_text(oldest.subject)
