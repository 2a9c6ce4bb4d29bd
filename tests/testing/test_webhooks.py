"""Events that a test delivers go through the project's own URL, as Truncus's webhooks do."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse, HttpResponseRedirect
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from tests.testing.conftest import order
from truncus_django import views
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import email_event, email_state_changed
from truncus_django.states import EVENT_WORDS
from truncus_django.testing import (
    assert_email_sent,
    deliver_event,
    run_emulator,
    send_outbox,
    use_emulator,
)

# The emulator has delivered the email, and nothing of a lower rank moves it.
STATES = {"delivered": "delivered", "bounced": "bounced", "complained": "complained"}
SYNONYMS = {"bounce": "bounced", "complaint": "complained", "open": "opened", "CLICK": "clicked"}


@pytest.mark.parametrize("word", [*EVENT_WORDS, *SYNONYMS])
def test_each_event_reaches_the_record(word, recorded):
    order().send()
    meaning = SYNONYMS.get(word, word)

    email = deliver_event(assert_email_sent(), word, reason="because")

    assert email.state == STATES.get(meaning, "delivered")
    assert email.reason == ("because" if meaning in STATES else "")
    assert (email.open_count, email.click_count) == (meaning == "opened", meaning == "clicked")
    event = EmailEvent.objects.get()
    assert (event.email, event.type, event.reason) == (email, meaning, "because")


def test_each_kind_of_email_is_understood(recorded):
    message = order()
    message.send()
    record = Email.objects.get()
    [in_emulator] = recorded.emails
    kinds = [record, message, assert_email_sent(), in_emulator, record.message_id]

    for count, kind in enumerate(kinds, start=1):
        assert deliver_event(kind, "opened").open_count == count
    record.open_count = -1
    assert deliver_event(record, "opened") is record
    assert record.open_count == len(kinds) + 1


def test_the_moment_may_be_in_the_past(recorded):
    order().send()
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert deliver_event(assert_email_sent(), "bounced", at=moment).bounced_at == moment
    record = deliver_event(assert_email_sent(), "complained", at=moment.timestamp())
    assert record.complained_at == moment


def test_an_email_is_still_known_when_it_has_left_the_outbox(recorded, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    message = order()
    message.send()
    waiting = assert_email_sent()
    for email in (waiting, message, Email.objects.get()):
        with pytest.raises(ValueError, match=r"waits in the outbox.*send_outbox\(\)"):
            deliver_event(email, "bounced")

    send_outbox()

    assert deliver_event(waiting, "bounced").state == "bounced"
    assert deliver_event(message, "complained").state == "complained"


@pytest.fixture
def heard():
    """What the log's signals told."""
    heard = []

    def on_state(new_state, **kwargs):
        heard.append(new_state)

    def on_event(event, **kwargs):
        heard.append(event.type)

    email_state_changed.connect(on_state)
    email_event.connect(on_event)
    yield heard
    email_state_changed.disconnect(on_state)
    email_event.disconnect(on_event)


def test_receivers_of_the_signals_run_in_a_transaction_that_is_never_committed(recorded, heard):
    order().send()
    deliver_event(assert_email_sent(), "bounced")

    assert heard == ["bounced", "bounced"]


@pytest.mark.django_db(transaction=True)
def test_receivers_of_the_signals_run_once_after_a_commit(
    transactional_db, truncus_emulator, settings, heard
):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    order().send()
    deliver_event(assert_email_sent(), "bounced")

    assert heard == ["bounced", "bounced"]


# The project --------------------------------------------------------------------------------------


@csrf_exempt
def with_another_secret(request):
    with override_settings(TRUNCUS={"WEBHOOK_SECRETS": ["not the one that signed"]}):
        return views.webhook(request)


def patterns(view):
    return [path("hook/", include(([path("", view, name="webhook")], "truncus_django")))]


class OtherUrls:
    """URLs whose webhook is verified by another secret."""

    urlpatterns = patterns(with_another_secret)


class MovedUrls:
    """URLs whose webhook has moved."""

    urlpatterns = patterns(csrf_exempt(lambda request: HttpResponseRedirect("/elsewhere/")))


class UnprotectedUrls:
    """URLs with a view that needs a CSRF token."""

    urlpatterns = patterns(lambda request: HttpResponse("never"))


class NoUrls:
    """URLs without a webhook."""

    urlpatterns = ()


def test_the_project_verifies_the_signature(recorded, settings):
    order().send()
    settings.ROOT_URLCONF = OtherUrls

    with pytest.raises(AssertionError, match=r"answered the webhook with 403.*Refused"):
        deliver_event(assert_email_sent(), "bounced")
    assert not EmailEvent.objects.exists()


@pytest.mark.parametrize(
    ("urls", "text"),
    [(MovedUrls, "302.*a redirect to /elsewhere/"), (UnprotectedUrls, "403, .*: 403 Forbidden")],
)
def test_another_answer_than_200_is_a_failure(urls, text, recorded, settings):
    order().send()
    settings.ROOT_URLCONF = urls

    with pytest.raises(AssertionError, match=f"(?s){text}"):
        deliver_event(assert_email_sent(), "bounced")


def test_the_project_is_asked_by_https_and_without_a_login(recorded, settings):
    order().send()
    settings.SECURE_SSL_REDIRECT = True
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]

    assert deliver_event(assert_email_sent(), "bounced").state == "bounced"


def test_a_project_without_the_url_is_told(recorded, settings):
    order().send()
    settings.ROOT_URLCONF = NoUrls

    with pytest.raises(ImproperlyConfigured, match=r"include\('truncus_django.urls'\)"):
        deliver_event(assert_email_sent(), "bounced")


def test_a_project_without_a_secret_is_told(recorded, settings):
    order().send()
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": []}

    with pytest.raises(ImproperlyConfigured, match="WEBHOOK_SECRETS"):
        deliver_event(assert_email_sent(), "bounced")


def test_a_project_without_the_log_is_told(settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "truncus_django"]

    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        deliver_event("msg_1", "bounced")


# The email and the event --------------------------------------------------------------------------


def test_an_unknown_event_is_told_with_those_that_there_are(recorded):
    order().send()

    with pytest.raises(ValueError, match=r"no event 'bounse'; did you mean 'bounced'\?") as caught:
        deliver_event(assert_email_sent(), "bounse")
    assert "delivered, " in str(caught.value)
    assert "opened, clicked." in str(caught.value)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("soon", "at must be"),
        ([], "at must be"),
        (datetime.now(UTC) + timedelta(days=2), "more than a day ahead"),
    ],
)
def test_a_moment_that_is_none_is_told(at, text, recorded):
    order().send()

    with pytest.raises(ValueError, match=text):
        deliver_event(assert_email_sent(), "bounced", at=at)


def test_emails_that_are_not_recorded_are_told(recorded, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    message = order()
    message.send()
    mail.outbox = [order()]
    unsaved = Email(message_id="msg_1")

    for email in (message, assert_email_sent(), "msg_1", order(), unsaved):
        with pytest.raises(ValueError, match=r"not recorded.*truncus_emulator"):
            deliver_event(email, "bounced")


def test_an_email_that_was_refused_is_told(recorded):
    recorded.reset(domains={"example.com": "paused"})
    message = order()
    with pytest.raises(OSError, match="paused"):
        message.send()

    with pytest.raises(ValueError, match="not accepted the email, which is 'failed'"):
        deliver_event(message, "bounced")


def test_of_a_message_with_merge_data_one_recipient_is_to_be_chosen(recorded):
    message = TruncusMessage("Hi", "Text", to=["ann@example.org"], merge_data={})
    message.send()

    with pytest.raises(ValueError, match=r"recipients\[address\]\.id"):
        deliver_event(message, "bounced")
    one = message.truncus_status.recipients["ann@example.org"].id
    assert deliver_event(one, "bounced").to == ["ann@example.org"]


def test_what_is_no_email_is_told(recorded):
    with pytest.raises(TypeError, match="not int"):
        deliver_event(5, "bounced")


# Without pytest -----------------------------------------------------------------------------------


class _UnittestTests:
    def setUp(self):
        truncus = {"API_KEY": "tr_test_unittest", "WEBHOOK_SECRETS": ["a secret"]}
        self.enterContext(override_settings(TRUNCUS=truncus))
        self.enterContext(use_emulator(self.enterContext(run_emulator())))

    def test_bounce(self):
        order().send()
        assert deliver_event(assert_email_sent(), "bounced").state == "bounced"


class UnittestTests(_UnittestTests, TestCase):
    """In a transaction that is rolled back."""


class CommittingUnittestTests(_UnittestTests, TransactionTestCase):
    """With real commits."""
