"""TruncusBackend: what becomes of a message given to it."""

import copy
import pickle

import pytest
import requests
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, mail_admins, send_mail

from tests.conftest import API_KEY
from tests.messages import bad_message, message, messages
from truncus_django.api.errors import EmailRefused, InvalidAddress, MessageError, MessageTooLarge
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.signals import post_send, pre_send, send_failed

pytestmark = pytest.mark.usefixtures("naps")


def test_send_mail_is_one_request_with_the_key_of_the_settings(truncus):
    assert send_mail("Hi", "Text", None, ["ann@example.org"], html_message="<p>Hi</p>") == 1
    assert truncus.last.path == "/api/v1/emails/send"
    assert truncus.last.headers["Authorization"] == "Bearer tr_test_unit"
    assert truncus.last.body == {
        "from": "Shop <shop@example.com>", "to": "ann@example.org", "subject": "Hi",
        "text": "Text", "html": "<p>Hi</p>",
    }  # fmt: skip


def test_every_way_of_django_goes_through_truncus(truncus):
    mail.send_mass_mail([("Hi", "Text", None, ["ann@example.org"])] * 2)
    mail_admins("Alarm", "Text")
    EmailMessage("Hi", "Text", to=["ann@example.org"]).send()
    EmailMultiAlternatives("Hi", "Text", to=["ann@example.org"]).send()
    paths = [seen.path.rpartition("/")[2] for seen in truncus.seen]
    assert paths == ["batch", "send", "send", "send"]


def test_status_on_the_message_tells_what_became_of_it(truncus):
    sent = message()
    sent.send()
    status = sent.truncus_status
    assert (status.status, status.id, status.is_accepted) == ("sent", "id-1", True)
    assert status.idempotency_key == truncus.last.key
    assert (status.attempts, status.batch_size, status.error) == (1, 1, None)
    assert status.answer.message_id == "id-1"


@pytest.mark.parametrize("answer", [
    {"status": "delivered", "message_id": "m"},
    {"status": "bounced", "message_id": "m", "reason": "mailbox_full"},
    {"status": "sent", "message_id": "m", "sandbox": True},
    {"status": "sandbox", "message_id": "m"},
    {"status": "scheduled", "message_id": "m", "send_at": "2030-01-01T00:00:00Z"},
    {"status": "queued", "message_id": "m", "retry_scheduled": True},
    {"status": "duplicate", "message_id": "m", "email_status": "sent"},
    {"status": "duplicate", "message": "Same", "original_global_message_id": "g"},
    {"status": "something_new"},
])  # fmt: skip
def test_accepted_states_count(truncus, answer):
    truncus.answers(200, answer)
    sent = message()
    assert sent.send() == 1
    assert sent.truncus_status.status == answer["status"]


@pytest.mark.parametrize("answer", [
    {"status": "blocked", "code": "ALL_RECIPIENTS_SUPPRESSED", "reason": "Suppressed",
     "suppressed_addresses": ["ann@example.org"]},
    {"status": "rejected", "reason": "suppression_list", "message_id": "m"},
    {"status": "rejected", "reason": "invalid_address", "message_id": "m"},
    {"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"},
])  # fmt: skip
def test_refused_states_raise_and_are_told_on_the_message(truncus, answer):
    truncus.answers(200, answer)
    refused = message()
    with pytest.raises(EmailRefused) as caught:
        refused.send()
    assert answer["status"] in str(caught.value)
    assert "@" not in str(caught.value)
    assert refused.truncus_status.status == answer["status"]
    assert refused.truncus_status.error is caught.value
    assert not refused.truncus_status.is_accepted


@pytest.mark.parametrize("code", [
    {"reason": "suppression_list"}, {"reason": "x", "code": "ALL_RECIPIENTS_SUPPRESSED"},
])  # fmt: skip
def test_suppressed_recipients_are_not_to_be_tried_again(truncus, code):
    truncus.answers(200, {"status": "blocked", **code})
    with pytest.raises(EmailRefused, match="do not retry") as caught:
        message().send()
    assert not caught.value.retryable


def test_a_duplicate_of_a_failed_email_is_refused_and_not_accepted(truncus):
    [one] = messages(1)
    truncus.answers(200, {"status": "duplicate", "message_id": "1", "email_status": "failed"})

    with pytest.raises(EmailRefused, match="another idempotency_key"):
        TruncusBackend().send_messages([one])


@pytest.mark.parametrize("to", [[], ["", None]])
def test_a_message_without_recipients_is_skipped_and_not_counted(truncus, to):
    nobody = TruncusMessage("Nobody", "Text", "shop@example.com", to)
    nobody.truncus_status = "that of an earlier send"
    assert TruncusBackend().send_messages([nobody]) == 0
    assert truncus.seen == []
    assert TruncusBackend().send_messages([nobody, message("Somebody")]) == 1
    assert truncus.last.body["subject"] == "Somebody"
    assert nobody.truncus_status is None


def test_a_message_without_recipients_is_told_to_no_receiver(truncus):
    told = []

    def note(signal, **kwargs):
        told.append(signal)

    signals = (pre_send, post_send, send_failed)
    for signal in signals:
        signal.connect(note)
    try:
        TruncusBackend().send_messages([TruncusMessage("Nobody", "Text", "shop@example.com")])
    finally:
        for signal in signals:
            signal.disconnect(note)
    assert told == []


def test_a_hidden_recipient_alone_is_no_message_to_nobody(truncus):
    hidden = EmailMessage("Hello", "Text", bcc=["ann@example.org"])
    with pytest.raises(InvalidAddress, match="put your own address into 'to'"):
        TruncusBackend().send_messages([hidden])


def test_a_tuple_of_recipients_is_not_taken_for_none(truncus):
    one = message()
    one.to = ("ann@example.org",)
    assert TruncusBackend().send_messages([one]) == 1


def test_a_wrong_message_is_refused_before_any_request(truncus):
    wrong = bad_message()
    with pytest.raises(MessageError):
        wrong.send()
    assert truncus.seen == []
    assert wrong.truncus_status.status == "failed"
    assert wrong.truncus_status.attempts == 0


def test_what_receivers_add_is_measured(truncus):
    def enlarge(payload, **kwargs):
        payload["html"] = "x" * 300_000

    pre_send.connect(enlarge)
    try:
        with pytest.raises(MessageTooLarge):
            TruncusBackend().send_messages(messages(1))
    finally:
        pre_send.disconnect(enlarge)
    assert truncus.seen == []


def test_what_extras_and_receivers_add_is_measured(truncus):
    [one] = messages(1)
    one.esp_extra = {"html": "x" * 300_000}

    with pytest.raises(MessageTooLarge):
        TruncusBackend().send_messages([one])
    one.esp_extra = {"react": object()}
    with pytest.raises(MessageError, match="JSON"):
        TruncusBackend().send_messages([one])
    assert truncus.seen == []


def test_an_app_that_catches_what_smtp_raises_goes_on_with_its_next_message(truncus):
    truncus.answers(200, {"status": "blocked", "code": "ALL_RECIPIENTS_SUPPRESSED"})
    truncus.answers(422, {"error": "No", "code": "INVALID_REQUEST"})
    truncus.breaks(requests.exceptions.ConnectTimeout(), times=4)
    waiting = [message(), message(), message(), bad_message(), message()]
    deferred = []
    for each in waiting:
        try:
            each.send()
        except OSError:  # as django-mailer and django-newsletter do
            deferred.append(each)
    assert deferred == waiting[:4]
    assert waiting[4].truncus_status.status == "sent"


def test_open_close_and_with_are_allowed_and_not_needed(truncus):
    with TruncusBackend() as connection:
        connection.send_messages([message()])
        connection.close()
        connection.send_messages([message()])
    assert TruncusBackend().open() is False
    assert len(truncus.seen) == 2


def test_messages_can_be_pickled_and_copied_after_a_send(truncus):
    truncus.answers(200, {"status": "blocked", "reason": "suppression_list"})
    sent = message(metadata={"order": "42"})
    with pytest.raises(EmailRefused):
        sent.send()
    for again in (pickle.loads(pickle.dumps(sent)), copy.copy(sent)):
        assert again.truncus_status.status == "blocked"
        assert again.truncus_status.error.code == "suppression_list"
        assert again.metadata == {"order": "42"}


# The log ------------------------------------------------------------------------------------------


def test_content_duplicate_is_accepted_with_a_warning_in_the_log(truncus, caplog):
    truncus.answers(200, {"status": "duplicate", "original_global_message_id": "g-1"})
    assert message().send() == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "g-1" in record.message


def test_warnings_of_the_api_are_counted_in_the_log(truncus, caplog):
    truncus.answers(200, {"status": "sent", "message_id": "m-1", "warnings": ["ann@example.org"]})
    message().send()
    assert "m-1 with 1 warnings" in caplog.text


def test_log_carries_ids_and_states_and_nothing_of_the_email(truncus, caplog):
    caplog.set_level("DEBUG", logger="truncus_django")
    truncus.refuses("secret subject")
    sent = [message("secret subject"), message("another secret")]
    TruncusBackend(fail_silently=True, api_key=API_KEY).send_messages(sent)
    assert "id-" in caplog.text
    for private in ("secret", "ann@", "shop@", "Text", API_KEY):
        assert private not in caplog.text


def test_what_unsupported_warn_dropped_is_logged(truncus, caplog):
    sent = message()
    sent.tags = ["welcome"]
    TruncusBackend(unsupported="warn").send_messages([sent])
    assert "'tags'" in caplog.text
