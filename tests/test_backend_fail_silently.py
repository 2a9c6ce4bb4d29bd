"""``fail_silently`` hides failures of delivery, and nothing else."""

import logging

import pytest
import requests
from django.test import override_settings

from tests.messages import bad_message, message, messages
from truncus_django.api.errors import AuthenticationError, ConfigurationError, ScopeError, TLSError
from truncus_django.backend import TruncusBackend

pytestmark = pytest.mark.usefixtures("naps")


def test_fail_silently_counts_what_went_and_logs_the_rest(truncus, caplog):
    truncus.refuses("1")
    sent = messages(3)
    assert TruncusBackend(fail_silently=True).send_messages(sent) == 2
    assert "was not sent" in caplog.text
    assert sent[1].truncus_status.error is not None


@pytest.mark.parametrize("kind", ["lost", "refused", "quota", "broken message"])
def test_fail_silently_hides_delivery_failures(truncus, kind):
    if kind == "lost":
        truncus.loses_the_answer(times=4)
    elif kind == "refused":
        truncus.answers(400, {"error": "invalid_payload"})
    elif kind == "quota":
        truncus.answers(429, {"error": "Used up", "code": "MONTHLY_LIMIT_EXCEEDED"})
    sent = bad_message() if kind == "broken message" else message()
    assert TruncusBackend(fail_silently=True).send_messages([sent]) == 0


def test_a_log_handler_that_sends_emails_itself_does_not_go_on_without_end(truncus):
    class MailHandler(logging.Handler):
        def emit(self, record):
            TruncusBackend(fail_silently=True).send_messages([message("Alarm")])

    handler = MailHandler(level="ERROR")
    truncus.always_answers(400, {"error": "invalid_payload"})
    logger = logging.getLogger("truncus_django")
    logger.addHandler(handler)
    try:
        assert TruncusBackend(fail_silently=True).send_messages([message()]) == 0
    finally:
        logger.removeHandler(handler)
    assert len(truncus.seen) == 2


@pytest.mark.parametrize(("status", "code", "kind"), [
    (401, "INVALID_API_KEY", AuthenticationError),
    (403, "SCOPE_REQUIRED", ScopeError),
])  # fmt: skip
def test_fail_silently_never_hides_a_wrong_key(truncus, status, code, kind):
    truncus.answers(status, {"error": "No", "code": code})
    with pytest.raises(kind):
        TruncusBackend(fail_silently=True).send_messages([message()])


def test_fail_silently_never_hides_wrong_tls(truncus):
    truncus.breaks(requests.exceptions.SSLError())
    with pytest.raises(TLSError):
        TruncusBackend(fail_silently=True).send_messages([message()])


def test_fail_silently_never_hides_wrong_settings(truncus):
    with override_settings(TRUNCUS={}), pytest.raises(ConfigurationError):
        TruncusBackend(fail_silently=True).send_messages([message()])
