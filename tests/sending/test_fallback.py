"""Direct sends whose emails Truncus certainly did not take, and that another mailer sends."""

import pytest
from django.core import mail
from django.core.mail import send_mail

from tests.fallback import UNREACHABLE, use_fallback
from truncus_django.api import retry
from truncus_django.message import TruncusMessage


@pytest.fixture(autouse=True)
def fallback(truncus_emulator, settings, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.001)
    return use_fallback(settings)


@pytest.fixture
def down(fallback, settings):
    """Let nobody answer where Truncus is."""
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}


def message(number=0, **options):
    to = options.pop("to", [f"customer-{number}@example.org"])
    return TruncusMessage(f"Order {number}", "Text", "shop@example.com", to, **options)


def test_what_truncus_cannot_be_asked_about_goes_to_the_fallback_mailer(down, fallback):
    one = message(html="<p>Text")
    assert one.send() == 1
    [sent] = mail.outbox
    assert (sent.subject, sent.body, sent.to) == ("Order 0", "Text", ["customer-0@example.org"])
    assert sent.alternatives == [("<p>Text", "text/html")]
    status = one.truncus_status
    assert (status.status, status.sent_by, status.id, status.error) == (
        "sent",
        fallback,
        None,
        None,
    )
    assert status.is_accepted


def test_truncus_sends_what_it_can(truncus_emulator):
    send_mail("Order", "Text", None, ["ann@example.org"])
    assert len(truncus_emulator.emails) == 1
    assert mail.outbox == []
