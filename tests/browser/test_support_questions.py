"""What support asks, and in how many steps the admin answers it.

A step is a click, or a form that is filled in and sent. Each question begins where the one before
it would leave a person: on the log's list, or on the page of the email.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.browser.chromium import expect
from tests.browser.conftest import LOG
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)


class Person:
    """Somebody at a browser, whose steps are counted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.steps = 0

    def click(self, target: str) -> None:
        """Click on something that is in view without scrolling."""
        self.steps += 1
        expect(self.page.locator(target).first).to_be_in_viewport()
        self.page.click(target)

    def search(self, text: str) -> None:
        """Type into the field for searches, and send it."""
        self.steps += 1
        self.page.fill("#searchbar", text)
        self.page.press("#searchbar", "Enter")
        self.page.wait_for_url("**q=*")


@pytest.fixture
def person(page: Any) -> Person:
    return Person(page)


@pytest.fixture
def send(emulator: Any) -> Callable[..., Email]:
    def sending(subject: str, to: str = "ann@example.org", **options: Any) -> Email:
        TruncusMessage(subject, "Hello.", "shop@example.com", [to], **options).send()
        return Email.objects.get(subject=subject, to=[to])

    return sending


def test_what_became_of_anns_password_reset(person, send):
    send("Choose your password")
    send("Choose your password", to="ben@example.org")
    send("Your order")
    person.page.goto(LOG)

    person.search("Ann Lee <ann@example.org> password")
    rows = person.page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.locator(".truncus-state")).to_have_text("delivered")
    person.click("#result_list >> text=Choose your password")

    expect(person.page.locator(".truncus-timeline")).to_contain_text("delivered")
    assert person.steps <= 2


def test_why_it_bounced(person, send):
    send("Choose your password", to="full@example.org", sandbox=False)
    Email.objects.update(state=State.BOUNCED, reason="mailbox_full", bounced_at=timezone.now())
    person.page.goto(LOG)
    expect(person.page.locator("#result_list tbody tr")).to_contain_text("mailbox full")

    person.click("#result_list >> text=Choose your password")

    told = person.page.locator(".truncus-error")
    expect(told).to_contain_text("The recipient's mailbox is full.")
    expect(told).not_to_contain_text("another address")
    assert person.steps <= 1


def test_resend(person, send, emulator):
    email = send("Choose your password")
    person.page.goto(f"{LOG}{email.pk}/change/")

    person.click(".truncus-actions >> text=Resend")
    person.click("input[name=confirmed]")

    expect(person.page.locator(".messagelist")).to_contain_text("Sent again")
    assert person.steps <= 2
    assert len(emulator.emails) == 2


def test_cancel_a_scheduled_one(person, send):
    email = send("Your table is booked", send_at=timezone.now() + timedelta(days=1))
    person.page.goto(LOG)

    person.click("#result_list >> text=Your table is booked")
    person.click(".truncus-actions >> text=Cancel")
    person.click("input[name=confirmed]")

    expect(person.page.locator(".truncus-title .truncus-state")).to_have_text("cancelled")
    assert person.steps <= 3
    email.refresh_from_db()
    assert email.state == State.CANCELLED


def test_yesterdays_bounce_rate_of_a_tenant(person):
    yesterday = timezone.now() - timedelta(days=1)
    for number in range(40):
        for tenant, bounces in (("acme", 3), ("other", 0)):
            Email.objects.create(
                to=["a@example.org"],
                tenant_id=tenant,
                state=State.BOUNCED if number < bounces else State.DELIVERED,
                created_at=yesterday,
            )
            Email.objects.create(
                to=["a@example.org"],
                tenant_id=tenant,
                state=State.BOUNCED,
                created_at=timezone.now(),
            )
    person.page.goto(LOG)

    person.click(".object-tools >> text=Dashboard")
    person.click(".truncus-spans >> text=Yesterday")

    row = person.page.get_by_label("By tenant").locator("tr", has_text="acme")
    expect(row).to_contain_text("7.5 %")
    assert person.steps <= 2
