"""The fallback mailer: its settings, and what may go wrong while it sends."""

import pytest

from tests.fallback import HAS_MAILERS, LOCMEM, SMTP, backend, message, subjects, use_fallback
from truncus_django.api.errors import (
    ConfigurationError,
    ConnectionFailed,
    MessagesNotSent,
    OutcomeUnknown,
)
from truncus_django.backend import TruncusBackend
from truncus_django.checks import check_settings
from truncus_django.doctor import Level, examine_mailer
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.usefixtures("fallback")


# Settings -----------------------------------------------------------------------------------------


ITSELF = "default" if HAS_MAILERS else "truncus_django.backend.TruncusBackend"


@pytest.mark.parametrize("name", ["nothing.like_it", ITSELF, "emails"])
def test_a_fallback_that_cannot_be_one_is_a_check_error(settings, name):
    settings.TRUNCUS = {**settings.TRUNCUS, "FALLBACK_MAILER": name}
    [problem] = [found for found in check_settings() if found.id == "truncus.E012"]
    assert "FALLBACK_MAILER" in problem.msg
    with pytest.raises(ConfigurationError, match="FALLBACK_MAILER"):
        message().send()


class OwnBackend(TruncusBackend):
    """A project's own, which a project may take for another mailer."""


@pytest.mark.parametrize(
    "backend",
    [
        f"{__name__}.OwnBackend",
        "django.core.mail.backends.smpt.EmailBackend",
        "django.core.mail.backends.smtp.Backend",
        "tests.sending.broken_backend.EmailBackend",
    ],
)
def test_a_backend_that_cannot_take_over_is_a_check_error(settings, backend):
    use_fallback(settings, backend)
    [problem] = [found for found in check_settings() if found.id == "truncus.E012"]
    assert "FALLBACK_MAILER" in problem.msg
    with pytest.raises(ConfigurationError, match="FALLBACK_MAILER"):
        message().send()


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS is Django 6.1's")
def test_a_mailer_without_backend_is_django_s_smtp(settings):
    use_fallback(settings)
    settings.MAILERS["elsewhere"] = {"OPTIONS": {"host": "127.0.0.1"}}
    assert [found.id for found in check_settings() if found.id == "truncus.E012"] == []


@pytest.mark.skipif(not HAS_MAILERS, reason="MAILERS is Django 6.1's")
def test_a_mailer_that_hides_its_failures_is_a_check_error(settings):
    use_fallback(settings, LOCMEM, {"fail_silently": True})
    [problem] = [found for found in check_settings() if found.id == "truncus.E012"]
    assert "fail_silently" in problem.msg


def test_a_good_one_is_no_problem(fallback):
    assert [found.id for found in check_settings() if found.id == "truncus.E012"] == []


def test_the_doctor_connects_to_it(smtp, settings):
    def finding():
        found = examine_mailer("default" if HAS_MAILERS else "")
        return next(each for each in found if each.what.startswith("fallback mailer"))

    assert finding().level is Level.OK
    smtp.answers["connect"] = b"554 no"
    assert (finding().level, "SMTPConnectError" in finding().found) == (Level.FAIL, True)
    assert smtp.taken == []
    settings.TRUNCUS = {**settings.TRUNCUS, "FALLBACK_MAILER": "nothing"}
    assert finding().level is Level.FAIL


# Real SMTP, and what may go wrong there -----------------------------------------------------------


def test_over_smtp(down, smtp):
    backend().send_messages([message(number) for number in range(3)])
    assert [email["Subject"] for _, email in smtp.taken] == ["Order 0", "Order 1", "Order 2"]
    assert smtp.taken[0][0] == ["customer-0@example.org"]


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "."])
def test_an_email_that_the_server_refuses(down, smtp, command):
    smtp.answers[command] = b"550 no"
    one, other = message(), message(1)
    with pytest.raises(ConnectionFailed, match=r"refused it \(SMTP\w+") as caught:
        one.send()
    assert "example.org" not in str(caught.value)
    assert one.truncus_status.status == "failed"
    smtp.answers.clear()
    smtp.taken.clear()
    assert one.send() == other.send() == 1
    assert len(smtp.taken) == 2


def test_a_server_that_is_not_there(down, settings, fallback):
    use_fallback(settings, SMTP, {"host": "127.0.0.1", "port": 9})
    messages = [message(number) for number in range(2)]
    with pytest.raises(MessagesNotSent, match=r"cannot be used \(ConnectionRefusedError\)"):
        backend().send_messages(messages)


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["DATA", "."])
def test_a_connection_that_breaks_while_it_sends_is_ambiguous(down, smtp, settings, command):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    smtp.answers[command] = None
    one = message()
    with pytest.raises(OutcomeUnknown, match="it may have sent the email"):
        one.send()
    assert one.truncus_status.status == "unknown"
    row = Email.objects.get()
    assert (row.state, row.sent_by) == (State.UNKNOWN, one.truncus_status.sent_by)
    smtp.answers.clear()
    smtp.taken.clear()
    with pytest.raises(OutcomeUnknown, match="handed to the fallback mailer"):
        one.send()
    assert smtp.taken == []


def test_a_mailer_that_does_not_say_that_it_sent(down, settings):
    use_fallback(settings, "tests.fallback.SilentBackend")
    with pytest.raises(OutcomeUnknown):
        message().send()


@pytest.mark.django_db
def test_ctrl_c_while_it_sends(down, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    use_fallback(settings, "tests.fallback.InterruptedBackend")
    messages = [message(number) for number in range(3)]
    with pytest.raises(KeyboardInterrupt):
        backend().send_messages(messages)
    assert subjects() == ["Order 0"]
    states = list(Email.objects.order_by("subject").values_list("state", flat=True))
    assert states == [State.SENT, State.UNKNOWN, State.FAILED]
    with pytest.raises(OutcomeUnknown):
        messages[1].send()
