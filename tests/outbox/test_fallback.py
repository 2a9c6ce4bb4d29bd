"""What the outbox hands to the fallback mailer while Truncus is down."""

import pytest
from django.core import mail

from tests.fallback import UNREACHABLE, use_fallback
from tests.outbox.conftest import reload
from truncus_django.models import OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fallback(emulator, settings):
    return use_fallback(settings)


@pytest.fixture
def down(fallback, settings):
    """Let nobody answer where Truncus is."""
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}


def subjects():
    return sorted(message.subject for message in mail.outbox)


def test_what_truncus_cannot_be_asked_about_goes_to_the_fallback_mailer(
    down, fallback, put, dispatcher
):
    emails = put(3)
    stats = dispatcher.drain()
    assert subjects() == ["Order 0", "Order 1", "Order 2"]
    assert (stats.requests, stats.accepted) == (1, 3)
    for email in map(reload, emails):
        assert (email.state, email.sent_by) == (State.SENT, fallback)
        assert f"The fallback mailer {fallback!r} sent it" in email.reason
        assert "NETWORK_ERROR" in email.reason
        assert (email.error, email.error_code, email.message_id) == ("", "", None)
    assert not OutboxEntry.objects.exists()
    assert not OutboxBatch.objects.exists()
    assert OutboxAccount.objects.get().allows_fallback
