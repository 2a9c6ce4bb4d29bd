"""The circuit breaker: while Truncus fails, it is not asked where another mailer can send."""

import pytest
from django.core import mail

from tests.fallback import backend, message, subjects
from truncus_django.api import errors
from truncus_django.api.errors import AuthenticationError, EmailRefused, TruncusError
from truncus_django.models import SuppressedAddress
from truncus_django.sending.breaker import FAILURES, OPEN_S, WITHIN_S, Breaker, breaker_of

pytestmark = pytest.mark.usefixtures("fallback")


def test_after_some_failures_truncus_is_not_asked_where_another_can_send(truncus_emulator):
    truncus_emulator.reset(revoked_keys=["tr_test_emulator"])
    for number in range(FAILURES + 3):
        message(number).send()
    assert len(mail.outbox) == FAILURES + 3
    assert len(truncus_emulator.requests) == FAILURES
    with pytest.raises(AuthenticationError):
        message(template_id="t").send()
    assert len(truncus_emulator.requests) == FAILURES + 1


def test_without_a_fallback_mailer_truncus_is_always_asked(truncus_emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "FALLBACK_MAILER": None}
    truncus_emulator.reset(revoked_keys=["tr_test_emulator"])
    for _ in range(FAILURES + 1):
        with pytest.raises(AuthenticationError):
            message().send()
    assert len(truncus_emulator.requests) == FAILURES + 1


def test_an_ambiguous_message_is_sent_again_to_truncus_though_the_breaker_is_open(
    truncus_emulator, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "MAX_RETRIES": 0}
    truncus_emulator.faults.next("reset_after", times=FAILURES)
    lost = [message(number) for number in range(FAILURES)]
    for one in lost:
        with pytest.raises(TruncusError):
            one.send()
    message(9).send()
    assert subjects() == ["Order 9"]
    for one in lost:
        assert one.send() == 1
    assert len(mail.outbox) == 1
    assert len(truncus_emulator.emails) == FAILURES


@pytest.mark.django_db
def test_a_refusal_of_this_site_tells_nothing_of_truncus(down, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "manual"}
    SuppressedAddress.objects.create(address="ann@example.net")
    for number in range(FAILURES - 1):
        message(number).send()
        with pytest.raises(EmailRefused):
            message(to=["ann@example.net"]).send()
    message().send()
    assert breaker_of(backend().client.account).admit() is not None


def test_the_breaker():
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    lost = errors.AnswerLost("No", ambiguous=True)
    for _ in range(FAILURES - 1):
        breaker.note(lost)
    breaker.note(None)  # not in a row
    breaker.note(lost)
    now[0] += WITHIN_S
    for _ in range(FAILURES - 1):
        breaker.note(lost)
    assert breaker.admit() is None  # not within a minute
    breaker.note(lost)
    assert isinstance(breaker.admit(), errors.AnswerLost)
    now[0] += OPEN_S
    assert breaker.admit() is None  # one tries
    assert breaker.admit() is not None  # and the others wait for it
    breaker.note(lost)
    assert breaker.admit() is not None
    now[0] += OPEN_S
    assert breaker.admit() is None
    breaker.note(EmailRefused("No"))  # Truncus answers
    assert breaker.admit() is None
