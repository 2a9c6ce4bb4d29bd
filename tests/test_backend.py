"""TruncusBackend: what becomes of the messages given to it."""

import copy
import logging
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import django
import pytest
import requests
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, mail_admins, send_mail
from django.test import override_settings

from tests.conftest import API_KEY
from truncus_django.api.errors import (
    AuthenticationError,
    ConfigurationError,
    EmailRefused,
    InvalidAddress,
    InvalidRequest,
    MessageError,
    MessagesNotSent,
    MessageTooLarge,
    ScopeError,
    ServerError,
    TLSError,
)
from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.signals import post_send, pre_send, send_failed

pytestmark = pytest.mark.usefixtures("naps")

DAY = 24 * 60 * 60


def message(subject="Hello", **options):
    return TruncusMessage(subject, "Text", "shop@example.com", ["ann@example.org"], **options)


def messages(count):
    return [message(str(number)) for number in range(count)]


def bad_message():
    return message("Line\nbreak")


@contextmanager
def every_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


# One message --------------------------------------------------------------------------------------


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


def test_no_messages_are_no_request(truncus):
    assert TruncusBackend().send_messages([]) == 0
    assert TruncusBackend().send_messages(None) == 0
    assert TruncusBackend().send_messages(iter(())) == 0
    assert truncus.seen == []


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


def test_a_skipped_message_leaves_the_others_their_places_in_the_list(truncus):
    sent = [EmailMessage("Nobody", "Text"), bad_message()]
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value] == [1]
    assert caught.value.accepted == 0


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


def test_an_app_that_catches_what_smtp_raises_goes_on_after_a_list(truncus):
    with pytest.raises(OSError, match="1 of 2 emails were not sent"):
        TruncusBackend().send_messages([message(), bad_message()])


def test_open_close_and_with_are_allowed_and_not_needed(truncus):
    with TruncusBackend() as connection:
        connection.send_messages([message()])
        connection.close()
        connection.send_messages([message()])
    assert TruncusBackend().open() is False
    assert len(truncus.seen) == 2


# Several messages ---------------------------------------------------------------------------------


def test_250_messages_are_three_requests(truncus):
    sent = messages(250)
    assert TruncusBackend().send_messages(sent) == 250
    assert [len(seen.emails) for seen in truncus.seen] == [100, 100, 50]
    subjects = [subject for seen in truncus.seen for subject in seen.subjects]
    assert subjects == [str(number) for number in range(250)]
    assert sent[249].truncus_status.id == "id-3-49"
    assert sent[249].truncus_status.batch_size == 50


def test_a_generator_of_messages_is_taken(truncus):
    assert TruncusBackend().send_messages(message() for _ in range(3)) == 3
    assert len(truncus.last.emails) == 3


def test_one_bad_message_never_costs_the_others(truncus):
    sent = [message("0"), bad_message(), message("2")]
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert truncus.last.subjects == ["0", "2"]
    assert caught.value.accepted == 2
    (failure,) = caught.value.failures
    assert (failure.index, failure.message) == (1, sent[1])
    assert [one.truncus_status.status for one in sent] == ["sent", "failed", "sent"]


def test_a_message_refused_in_a_batch_carries_its_own_status(truncus):
    truncus.answers(200, {"results": [
        {"index": 0, "status": "sent", "message_id": "m-0"},
        {"index": 1, "status": "blocked", "code": "ALL_RECIPIENTS_SUPPRESSED"},
    ]})  # fmt: skip
    sent = messages(2)
    with pytest.raises(MessagesNotSent, match="1 of 2 emails were not sent") as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value] == [1]
    assert caught.value.accepted == 1
    assert [one.truncus_status.status for one in sent] == ["sent", "blocked"]


def test_one_of_100_that_the_api_refuses_is_found_and_the_others_are_sent(truncus):
    truncus.refuses("37")
    sent = messages(100)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(sent)
    assert caught.value.accepted == 99
    assert [failure.index for failure in caught.value] == [37]
    assert isinstance(caught.value.failures[0].error, InvalidRequest)
    assert len(truncus.seen) < 20
    assert len(set(truncus.keys)) == len(truncus.seen)


def test_one_duplicate_for_a_repeated_batch_counts_all_as_accepted(truncus):
    truncus.answers(200, {"status": "duplicate", "message_id": "b", "email_status": "sent"})
    sent = messages(3)
    for one in sent:
        one.content_subtype = "html"  # a form that every account takes
    assert TruncusBackend().send_messages(sent) == 3
    assert [one.truncus_status.id for one in sent] == [None] * 3


def test_threads_send_at_the_same_time(truncus):
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda number: message(str(number)).send(), range(40)))
    assert counts == [1] * 40
    assert len(set(truncus.keys)) == 40


# fail_silently ------------------------------------------------------------------------------------


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


# Keys of their own, sandbox, errors of the account ------------------------------------------------


def test_messages_with_a_key_of_their_own_go_alone(truncus):
    sent = [message("0"), message("1", idempotency_key="invoice-1"), message("2")]
    assert TruncusBackend().send_messages(sent) == 3
    by_key = {seen.key: seen.subjects for seen in truncus.seen}
    assert by_key.pop("invoice-1") == ["1"]
    assert list(by_key.values()) == [["0", "2"]]


def test_sandbox_and_real_messages_never_share_a_request(truncus):
    sent = [message(str(number), sandbox=number % 2 == 0) for number in range(4)]
    assert TruncusBackend().send_messages(sent) == 4
    told = {tuple(seen.subjects): seen.headers.get("X-Truncus-Sandbox") for seen in truncus.seen}
    assert told == {("0", "2"): "true", ("1", "3"): None}


def test_a_refused_key_stops_the_rest(truncus):
    truncus.always_answers(401, {"error": "Invalid API key", "code": "INVALID_API_KEY"})
    sent = messages(250)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend(fail_silently=True).send_messages(sent)
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert len(truncus.seen) == 1
    assert {type(one.truncus_status.error) for one in sent} == {AuthenticationError}


def test_a_server_error_of_one_batch_does_not_stop_the_next(truncus):
    truncus.answers(500, {"error": "transient_failure"}, times=4)
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages(101))
    assert caught.value.accepted == 1
    assert isinstance(caught.value.failures[0].error, ServerError)


# Options ------------------------------------------------------------------------------------------


def test_options_come_before_the_settings(truncus):
    backend = TruncusBackend(api_key="tr_live_other", sandbox=True, tenant_id="acme")
    backend.send_messages([message()])
    assert truncus.last.headers["Authorization"] == "Bearer tr_live_other"
    assert truncus.last.headers["X-Truncus-Sandbox"] == "true"
    assert truncus.last.body["tenant_id"] == "acme"


def test_backends_with_the_same_settings_share_a_client():
    assert TruncusBackend().client is TruncusBackend().client
    assert TruncusBackend(api_key="tr_live_other").client is not TruncusBackend().client


def test_options_of_djangos_smtp_backend_are_ignored_without_a_warning(truncus):
    backend = TruncusBackend(
        host="localhost",
        port=25,
        username="shop",
        password=None,
        use_tls=True,
        use_ssl=False,
        ssl_keyfile=None,
        ssl_certfile=None,
    )
    assert backend.send_messages([message()]) == 1


@pytest.mark.parametrize(("given", "in_force"), [(5, 5), (None, 30)])
def test_smtps_timeout_is_that_of_requests_and_none_as_the_settings_say(given, in_force):
    assert TruncusBackend(timeout=given).settings.timeout == in_force


def test_an_unknown_option_is_ignored_with_a_warning_of_what_was_meant(truncus):
    with every_warning() as caught:
        backend = TruncusBackend(tenant="acme", port=25)
    assert [str(each.message) for each in caught] == [
        "TruncusBackend ignores the unknown option 'tenant'; did you mean 'tenant_id'?"
    ]
    assert caught[0].filename == __file__
    assert backend.send_messages([message()]) == 1
    assert "tenant_id" not in truncus.last.body


def test_a_key_in_the_place_of_an_option_shows_in_no_warning():
    with every_warning() as caught:
        TruncusBackend(**{API_KEY: True})
    assert "tr_…" in str(caught[0].message)
    assert not [each for each in caught if API_KEY in str(each.message)]


def test_representation_and_pickle_carry_no_key():
    backend = TruncusBackend(api_key=API_KEY)
    assert API_KEY not in repr(backend)
    assert API_KEY not in repr(backend.settings)
    assert API_KEY.encode() not in pickle.dumps(backend)


if django.VERSION >= (6, 1):
    from django.utils.deprecation import RemovedInDjango2028Warning

    MAILERS = {
        "default": {"BACKEND": "truncus_django.backend.TruncusBackend"},
        "acme": {
            "BACKEND": "truncus_django.backend.TruncusBackend",
            "OPTIONS": {"api_key": "tr_live_acme", "tenant_id": "acme", "sandbox": True},
        },
        "typo": {
            "BACKEND": "truncus_django.backend.TruncusBackend",
            "OPTIONS": {"tenant": "acme"},
        },
    }

    @override_settings(MAILERS=MAILERS)
    def test_each_mailer_has_its_own_key_tenant_and_sandbox(truncus):
        message().send()
        message().send(using="acme")
        first, second = truncus.seen
        assert first.headers["Authorization"] == "Bearer tr_test_unit"
        assert second.headers["Authorization"] == "Bearer tr_live_acme"
        assert "X-Truncus-Sandbox" not in first.headers
        assert second.headers["X-Truncus-Sandbox"] == "true"
        assert second.body["tenant_id"] == "acme"

    @override_settings(MAILERS=MAILERS)
    def test_alias_of_themailer_is_kept():
        assert mail.mailers["acme"].alias == "acme"

    @override_settings(MAILERS=MAILERS)
    def test_unknown_options_are_djangos_own_error():
        with pytest.raises(mail.InvalidMailer, match="'tenant'"):
            mail.mailers["typo"]

    @pytest.mark.parametrize("name", ["host", API_KEY])
    def test_a_mailer_takes_no_other_backends_options_and_shows_no_key(name):
        config = {**MAILERS["default"], "OPTIONS": {name: "x"}}
        with (
            override_settings(MAILERS={"default": config}),
            pytest.raises(mail.InvalidMailer, match="Unknown options") as caught,
        ):
            mail.mailers["default"]
        assert API_KEY not in str(caught.value)

    @override_settings(MAILERS=MAILERS)
    def test_get_connection_takes_what_it_passes_to_any_backend(truncus):
        with pytest.warns(RemovedInDjango2028Warning, match="get_connection"):
            connection = mail.get_connection(host="localhost", timeout=5, nonsense=1)
        assert connection.settings.timeout == 5
        assert connection.send_messages([message()]) == 1

else:

    def test_get_connection_takes_djangos_own_keywords(truncus):
        connection = mail.get_connection(username=None, password=None, fail_silently=True)
        assert connection.fail_silently
        assert connection.send_messages([message()]) == 1


# After a send -------------------------------------------------------------------------------------


def test_messages_can_be_pickled_and_copied_after_a_send(truncus):
    truncus.answers(200, {"status": "blocked", "reason": "suppression_list"})
    sent = message(metadata={"order": "42"})
    with pytest.raises(EmailRefused):
        sent.send()
    for again in (pickle.loads(pickle.dumps(sent)), copy.copy(sent)):
        assert again.truncus_status.status == "blocked"
        assert again.truncus_status.error.code == "suppression_list"
        assert again.metadata == {"order": "42"}


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


def test_a_duplicate_of_a_failed_email_is_refused_and_not_accepted(truncus):
    [one] = messages(1)
    truncus.answers(200, {"status": "duplicate", "message_id": "1", "email_status": "failed"})

    with pytest.raises(EmailRefused, match="another idempotency_key"):
        TruncusBackend().send_messages([one])


def test_a_service_that_hangs_is_not_asked_for_every_batch(truncus, naps):
    truncus.loses_the_answer(times=4)

    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages(250))

    assert len(truncus.seen) == 4
    assert [f.error.ambiguous for f in caught.value.failures] == [True] * 100 + [False] * 150


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


def test_a_worker_has_a_client_that_does_not_wait_for_retries(truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})

    with pytest.raises(ServerError):
        TruncusBackend().mailer.client_without_retries.send(
            {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "text": "T"}
        )
    assert (len(truncus.seen), naps) == (1, [])


def test_a_service_that_fails_twice_in_a_row_is_left_alone(truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})

    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages(messages(1000))

    assert len(truncus.seen) == 2 * 4


def test_a_message_that_raises_when_read_costs_the_others_nothing(truncus):
    class Broken(str):
        def __str__(self):
            raise RuntimeError("private")

    sent = messages(3)
    sent[1].subject = Broken("x")

    with pytest.raises(MessagesNotSent, match="RuntimeError") as caught:
        TruncusBackend().send_messages(sent)
    assert [failure.index for failure in caught.value.failures] == [1]
    assert "private" not in str(caught.value)


def test_what_extras_and_receivers_add_is_measured(truncus):
    [one] = messages(1)
    one.esp_extra = {"html": "x" * 300_000}

    with pytest.raises(MessageTooLarge):
        TruncusBackend().send_messages([one])
    one.esp_extra = {"react": object()}
    with pytest.raises(MessageError, match="JSON"):
        TruncusBackend().send_messages([one])
    assert truncus.seen == []


def test_what_is_no_message_is_refused_before_anything_is_sent(truncus):
    with pytest.raises(TypeError, match="not str"):
        TruncusBackend().send_messages([*messages(1), "Hello"])
    assert truncus.seen == []


def test_a_copied_message_keeps_the_backend_with_its_key():
    backend = TruncusBackend(api_key=API_KEY)
    assert copy.deepcopy(backend) is copy.copy(backend) is backend


def test_a_mailer_without_a_timeout_of_its_own_has_that_of_the_settings():
    assert TruncusBackend(alias="default", timeout=None).settings.timeout == 30
