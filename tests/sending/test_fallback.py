"""Direct sends whose emails Truncus certainly did not take, and that another mailer sends."""

import asyncio
import copy
import pickle
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import django
import pytest
import requests
from django.core import mail
from django.core.mail import EmailMessage
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import BASE_URL
from tests.fallback import LOCMEM, SMTP, UNREACHABLE, SlowBackend, smtp_server, use_fallback
from truncus_django.api import contract, errors, retry
from truncus_django.api.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    EmailRefused,
    MessagesNotSent,
    OutcomeUnknown,
    TruncusError,
    refusal,
)
from truncus_django.api.results import SendResult
from truncus_django.backend import TruncusBackend
from truncus_django.checks import check_settings
from truncus_django.doctor import Level, examine_mailer
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, SuppressedAddress
from truncus_django.sending.breaker import (
    FAILURES,
    OPEN_S,
    WITHIN_S,
    Breaker,
    breaker_of,
    forget_breakers,
)
from truncus_django.sending.guard import HEADER
from truncus_django.sending.rebuilt import rebuilt
from truncus_django.sending.requests import refusal_of
from truncus_django.signals import post_send, pre_send, send_failed
from truncus_django.states import State


@pytest.fixture(autouse=True)
def fallback(truncus_emulator, settings, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 0.0)
    return use_fallback(settings)


@pytest.fixture
def down(fallback, settings):
    """Let nobody answer where Truncus is."""
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": UNREACHABLE}


@pytest.fixture
def smtp(fallback, settings):
    """A real server as the fallback mailer."""
    with smtp_server() as server:
        use_fallback(settings, SMTP, {"host": "127.0.0.1", "port": server.port, "timeout": 10})
        yield server


HAS_MAILERS = django.VERSION >= (6, 1)


def backend():
    return TruncusBackend(alias="default" if HAS_MAILERS else None)


def message(number=0, **options):
    to = options.pop("to", [f"customer-{number}@example.org"])
    return TruncusMessage(f"Order {number}", "Text", "shop@example.com", to, **options)


def subjects():
    return [message.subject for message in mail.outbox]


# Which errors allow it ----------------------------------------------------------------------------

CODES = {
    "API_KEY_REVOKED": True,
    "INVALID_API_KEY": True,
    "MISSING_API_KEY": True,
    "invalid_api_key": True,
    "SCOPE_REQUIRED": True,
    "MONTHLY_LIMIT_EXCEEDED": True,
    "WARMUP_CAP_EXCEEDED": False,
    "RATE_LIMIT_EXCEEDED": False,
    "invalid_payload": False,
    "invalid_address": False,
    "INVALID_REQUEST": False,
    "MISSING_IDEMPOTENCY_KEY": False,
    "domain_not_verified": False,
    "DOMAIN_NOT_FOUND": False,
    "DOMAIN_NOT_VERIFIED": False,
    "DOMAIN_PAUSED": False,
    "DOMAIN_TYPE_MISMATCH": False,
    "ALL_RECIPIENTS_SUPPRESSED": False,
    "PROVIDER_ERROR": False,
    "transient_failure": False,
}
STATUSES = {
    contract.AUTHENTICATION_CODES: 401,
    contract.DOMAIN_CODES: 403,
    contract.INVALID_REQUEST_CODES: 400,
    frozenset({contract.SCOPE_CODE}): 403,
    contract.QUOTA_CODES | {"RATE_LIMIT_EXCEEDED"}: 429,
    frozenset({contract.SUPPRESSED_CODE}): 422,
    frozenset({contract.PROVIDER_ERROR_CODE}): 502,
    frozenset({contract.TRANSIENT_CODE}): 500,
}


@pytest.mark.parametrize(("code", "allows"), CODES.items())
def test_each_code_says_whether_another_mailer_may_send(code, allows):
    status = next(status for codes, status in STATUSES.items() if code in codes)
    of_request = refusal(status, {"error": "No", "code": code}, {}, now=0.0)
    of_request.attempts = 1
    assert of_request.allows_fallback is allows
    assert refusal_of(SendResult(status="failed", code=code)).allows_fallback is allows
    of_request.ambiguous = True
    assert not of_request.allows_fallback


def test_the_table_has_every_code_of_the_contract():
    assert {code for codes in STATUSES for code in codes} == CODES.keys()


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_each_class_says_whether_another_mailer_may_send(kind):
    if not issubclass(kind, TruncusError):
        return
    error = kind("No")
    error.attempts = 1
    assert error.allows_fallback is (kind.__name__ in {"ConnectionFailed", "TLSError"})


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503])
def test_what_a_proxy_says_allows_nothing(status):
    error = refusal(status, None, {}, now=0.0)
    error.attempts = 1
    assert not error.allows_fallback


@pytest.mark.parametrize("kind", [errors.AnswerLost, errors.ServerError])
def test_a_failure_of_the_service_lets_those_go_that_it_was_not_asked_about(kind):
    error = kind("No", ambiguous=True)
    assert error.is_outage
    error.ambiguous = False
    assert error.allows_fallback


# One message --------------------------------------------------------------------------------------


def test_what_truncus_cannot_be_asked_about_goes_to_the_fallback_mailer(down, fallback):
    one = message(html="<p>Text")
    assert one.send() == 1
    [sent] = mail.outbox
    assert (sent.subject, sent.body, sent.to) == ("Order 0", "Text", ["customer-0@example.org"])
    assert sent.alternatives == [("<p>Text", "text/html")]
    status = one.truncus_status
    assert (status.status, status.sent_by) == ("sent", fallback)
    assert (status.id, status.answer, status.error) == (None, None, None)
    assert status.is_accepted


def test_truncus_sends_what_it_can(truncus_emulator):
    one = message()
    one.send()
    assert len(truncus_emulator.emails) == 1
    assert mail.outbox == []
    assert one.truncus_status.sent_by is None


@pytest.mark.parametrize(
    "options", [{"revoked_keys": ["tr_test_emulator"]}, {"api_keys": {"tr_another": []}}]
)
def test_a_key_that_truncus_refuses(truncus_emulator, options, caplog):
    truncus_emulator.reset(**options)
    assert message().send() == 1
    assert subjects() == ["Order 0"]
    [line] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "AuthenticationError" in line.message  # a person must act


@pytest.mark.parametrize(
    "fault", ["reset_before", "reset_after", "truncated", "error_500", "provider_502", "html_502"]
)
def test_what_truncus_may_have_taken_or_refused_is_not_sent_again(truncus_emulator, fault):
    truncus_emulator.faults.next(fault, times=4)
    with pytest.raises(TruncusError):
        message().send()
    assert mail.outbox == []


@pytest.mark.parametrize("then", [requests.ConnectTimeout(), requests.exceptions.SSLError(), 401])
@pytest.mark.parametrize("is_same_call", [True, False])
def test_what_follows_a_failure_of_the_provider_does_not_go_another_way(
    truncus, naps, settings, then, is_same_call
):
    """The failure does not say for certain that nobody took the email, whatever came after it."""
    retries = {"MAX_RETRIES": 1 if is_same_call else 0, "BASE_URL": BASE_URL}
    settings.TRUNCUS = {**settings.TRUNCUS, **retries}
    use_fallback(settings)
    again = message()
    truncus.answers(502, {"error": "No", "code": "PROVIDER_ERROR"})
    if then == 401:
        truncus.answers(401, {"error": "No", "code": "API_KEY_REVOKED"})
    else:
        truncus.breaks(then)
    for _ in range(1 if is_same_call else 2):
        with pytest.raises(TruncusError):
            again.send()
    assert len(truncus.seen) == 2
    assert truncus.keys[0] == truncus.keys[1]
    assert mail.outbox == []
    again.send()
    assert truncus.keys[2] == truncus.keys[0]


@pytest.mark.parametrize(
    "options",
    [
        {"domains": {"example.com": "paused"}},
        {"suppressed": ["customer-0@example.org"]},
        {"daily_limit": 1},
    ],
)
def test_what_truncus_refuses_is_not_sent(truncus_emulator, options):
    truncus_emulator.reset(**options)
    if "daily_limit" in options:
        message(1).send()
    with pytest.raises(TruncusError):
        message().send()
    assert mail.outbox == []


def test_a_bad_message_is_not_sent(down):
    with pytest.raises(errors.MessageError):
        EmailMessage("", "Text", "shop@example.com", ["ann@example.org"]).send()
    assert mail.outbox == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"template_id": "t"}, "template is stored in Truncus"),
        ({"idempotency_key": "invoice-7"}, "idempotency key"),
        ({"sandbox": True}, "sandbox"),
        ({"send_at": datetime.now(UTC) + timedelta(days=1)}, "sent later"),
        ({"esp_extra": {"unsubscribe_group": 7}}, "field that only Truncus knows"),
        ({"esp_extra": {"template_id": "t"}}, "template is stored in Truncus"),
    ],
)
def test_what_only_truncus_can_send_says_so(down, options, why):
    one = message(**options)
    with pytest.raises(ConnectionFailed, match=why) as caught:
        one.send()
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    assert mail.outbox == []
    assert one.truncus_status.status == "failed"


def test_signals(down, fallback):
    heard = []

    def hear(signal, status=None, error=None, **kwargs):
        heard.append((signal, status))

    post_send.connect(hear)
    send_failed.connect(hear)
    try:
        message().send()
    finally:
        post_send.disconnect(hear)
        send_failed.disconnect(hear)
    [(signal, status)] = heard
    assert (signal, status.sent_by) == (post_send, fallback)


def test_from_a_coroutine(down, fallback):
    one = message()

    async def twice():
        return await one.asend(), await one.asend()

    assert asyncio.run(twice()) == (1, 1)  # the answer was learned, and it was sent again
    assert subjects() == ["Order 0", "Order 0"]


def test_a_cancelled_send_is_not_sent_again(down, settings):
    """Whoever is cancelled does not learn that the fallback mailer has sent it."""
    use_fallback(settings, "tests.fallback.SlowBackend")
    one = message()

    async def cancelled():
        task = asyncio.ensure_future(one.asend())
        await asyncio.to_thread(SlowBackend.is_sending.wait)
        task.cancel()
        SlowBackend.may_go_on.set()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(cancelled())
    assert subjects() == ["Order 0"]
    with pytest.raises(OutcomeUnknown):
        one.send()
    assert subjects() == ["Order 0"]


@pytest.mark.django_db
def test_the_record_names_the_mailer(down, fallback, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    one = message()
    one.send()
    row = Email.objects.get(pk=one.truncus_status.email_pk)
    assert (row.state, row.sent_by, row.error) == (State.SENT, fallback, "")
    assert row.reason == (
        f"The fallback mailer {fallback!r} sent it, as Truncus did not take it: "
        "ConnectionFailed (NETWORK_ERROR)"
    )
    assert row.sent_at is not None
    assert row.next_sync_at is None  # Truncus knows nothing of it


# The same email -----------------------------------------------------------------------------------


def test_the_payload_is_what_is_sent(down, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "INLINE_CSS": True, "METADATA": {"site": "shop"}}
    one = message(
        to=["Ann Lee <ann@example.org>", "bob@example.org"],
        html="<style>p { color: red }</style><p>Text</p>",
        cc=["cc@example.org"],
        bcc=["bcc@example.org"],
        reply_to=['"Help, desk" <help@example.com>', "other@example.com"],
        headers={"X-Order": "7"},
        in_reply_to="<1@example.com>",
        track_opens=False,
        tenant_id="acme",
    )
    one.attach("réport.csv", "größe;1\n", "text/csv")
    one.attach("data.bin", b"\0\xff", "application/x-data")
    one.attach("meeting.ics", "BEGIN:VCALENDAR", "text/calendar; method=REQUEST")

    def change(payload, **kwargs):
        payload["subject"] = "Changed"

    pre_send.connect(change)
    try:
        one.send()
    finally:
        pre_send.disconnect(change)
    [sent] = mail.outbox
    assert sent.subject == "Changed"
    assert sent.to == ["Ann Lee <ann@example.org>", "bob@example.org"]
    assert (sent.cc, sent.bcc) == (["cc@example.org"], ["bcc@example.org"])
    assert sent.reply_to == ['"Help, desk" <help@example.com>', "other@example.com"]
    assert sent.extra_headers["X-Order"] == "7"
    assert sent.extra_headers["In-Reply-To"] == "<1@example.com>"
    assert 'style="color: red' in sent.alternatives[0][0]
    parts = {part.get_filename(): part for part in sent.message().walk() if part.get_filename()}
    assert parts["réport.csv"].get_payload(decode=True).decode().strip() == "größe;1"
    assert parts["data.bin"].get_payload(decode=True) == b"\0\xff"
    assert parts["meeting.ics"].get_param("method") == "REQUEST"
    assert parts["meeting.ics"].get_content_charset() == "utf-8"


def test_html_alone_and_text_that_is_no_unicode(down):
    one = TruncusMessage("Order", "", "shop@example.com", ["ann@example.org"], html="<p>Text")
    one.attach("old.txt", "größe".encode("latin-1"), "text/plain")
    one.send()
    [sent] = mail.outbox
    assert (sent.body, sent.content_subtype) == ("<p>Text", "html")
    [part] = [part for part in sent.message().walk() if part.get_filename()]
    assert part.get_payload(decode=True) == "größe".encode("latin-1")


def test_merge_data(down, fallback):
    one = TruncusMessage(
        "Hello {{ name }}",
        "Text",
        "shop@example.com",
        ["ann@example.org", "bob@example.org"],
        merge_data={"ann@example.org": {"name": "Ann"}, "bob@example.org": {"name": "Bob"}},
    )
    assert one.send() == 2
    assert [(sent.subject, sent.to) for sent in mail.outbox] == [
        ("Hello Ann", ["ann@example.org"]),
        ("Hello Bob", ["bob@example.org"]),
    ]
    assert {status.sent_by for status in one.truncus_status.recipients.values()} == {fallback}
    assert one.truncus_status.is_accepted


def test_merge_data_of_which_truncus_took_a_part_reaches_nobody_twice(smtp, truncus_emulator):
    """What Truncus took is noted, too, where only the fallback mailer leaves others in doubt."""
    truncus_emulator.reset(dialect="sdk", monthly_limit=100)
    to = [f"customer{number}@example.org" for number in range(150)]
    one = TruncusMessage("Hello", "Text", "shop@example.com", to, merge_data={})
    smtp.answers["."] = [None]  # the first email of all that it is given
    for _ in range(2):
        with pytest.raises(MessagesNotSent) as caught:
            one.send()
        assert caught.value.ambiguous
    reached = [email.to for email in truncus_emulator.emails]
    reached += [[address] for recipients, _ in smtp.taken for address in recipients]
    flat = [address for each in reached for address in ([each] if isinstance(each, str) else each)]
    assert len(flat) == len(set(flat)) == 150
    assert truncus_emulator.accepted == 100


def test_merge_data_of_which_one_email_is_ambiguous_reaches_nobody_twice(smtp, down):
    to = [f"{name}@example.org" for name in ("ann", "bob", "eve")]
    one = TruncusMessage("Hello", "Text", "shop@example.com", to, merge_data={})
    smtp.answers["."] = [b"250 ok", None, b"550 no"]
    for _ in range(2):
        with pytest.raises(MessagesNotSent):
            one.send()
    assert [recipients for recipients, _ in smtp.taken] == [
        ["ann@example.org"],
        ["bob@example.org"],
        ["eve@example.org"],  # refused, and then taken
        ["eve@example.org"],
    ]


def test_the_guard_holds(down, settings):
    guard = {"REDIRECT_TO": ["dev@example.com"], "ALLOW_RECIPIENTS": ["@ok.example"]}
    settings.TRUNCUS = {**settings.TRUNCUS, **guard}
    message(to=["ann@example.net"], cc=["me@ok.example"], bcc=["eve@example.net"]).send()
    [sent] = mail.outbox
    assert sent.recipients() == ["dev@example.com", "me@ok.example"]
    assert sent.extra_headers[HEADER].startswith("to: ann@example.net")
    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": []}
    with pytest.raises(EmailRefused):
        message().send()
    assert len(mail.outbox) == 1


@pytest.mark.django_db
def test_who_is_suppressed_gets_nothing_from_it_either(down, settings):
    unsubscribe = {"SUPPRESS": "manual", "UNSUBSCRIBE_BASE_URL": "https://shop.example.com"}
    settings.TRUNCUS = {**settings.TRUNCUS, **unsubscribe}
    SuppressedAddress.objects.create(address="ann@example.net", list_name="digest")
    with pytest.raises(EmailRefused):
        message(to=["ann@example.net"], unsubscribe="digest").send()
    for number in range(FAILURES + 1):  # the breaker opens on the way
        message(number, unsubscribe="digest").send()
    with pytest.raises(EmailRefused):
        message(to=["ann@example.net"], unsubscribe="digest").send()
    reached = {address for each in mail.outbox for address in each.recipients()}
    assert reached == {f"customer-{number}@example.org" for number in range(FAILURES + 1)}


@pytest.mark.django_db
def test_who_is_dropped_is_told_in_the_record(down, settings):
    own = {"SUPPRESS": "manual", "ON_SUPPRESSED": "drop", "RECORD": True}
    settings.TRUNCUS = {**settings.TRUNCUS, **own}
    SuppressedAddress.objects.create(address="ann@example.net")
    for number in range(FAILURES + 1):  # the breaker opens on the way
        message(number, to=["bob@example.org", "ann@example.net"]).send()
    assert {tuple(each.recipients()) for each in mail.outbox} == {("bob@example.org",)}
    assert [each.suppressed for each in Email.objects.all()] == [["ann@example.net"]] * 4


@pytest.mark.django_db
def test_a_refusal_of_this_site_tells_nothing_of_truncus(down, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "manual"}
    SuppressedAddress.objects.create(address="ann@example.net")
    for number in range(FAILURES - 1):
        message(number).send()
        with pytest.raises(EmailRefused):
            message(to=["ann@example.net"]).send()
    message().send()
    assert breaker_of(backend().client.account).refuses() is not None


def test_a_payload_that_is_none_is_told(down):
    def spoil(payload, **kwargs):
        payload["headers"] = ["no dict"]

    pre_send.connect(spoil)
    try:
        with pytest.raises(ConnectionFailed, match=r"was not given it: The email's payload"):
            message().send()
    finally:
        pre_send.disconnect(spoil)


# Lists --------------------------------------------------------------------------------------------


def test_all_of_a_list(down):
    messages = [message(number) for number in range(150)]
    assert backend().send_messages(messages) == 150
    assert subjects() == [f"Order {number}" for number in range(150)]


def test_a_quota_that_ends_in_the_middle_of_a_batch(truncus_emulator):
    truncus_emulator.reset(dialect="sdk", monthly_limit=2)
    messages = [message(number, html="<p>") for number in range(4)]
    assert backend().send_messages(messages) == 4
    assert [email.subject for email in truncus_emulator.emails] == ["Order 0", "Order 1"]
    assert subjects() == ["Order 2", "Order 3"]


def test_those_behind_a_timeout_go_and_those_in_it_do_not(truncus_emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "TIMEOUT": 0.3, "MAX_RETRIES": 0}
    truncus_emulator.faults.next("delay_after", seconds=1.0)
    messages = [message(number) for number in range(101)]
    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(messages)
    assert len(caught.value.failures) == 100
    assert caught.value.ambiguous
    assert subjects() == ["Order 100"]


def test_a_list_in_which_some_only_truncus_can_send(down):
    messages = [message(0), message(1, template_id="t"), message(2)]
    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(messages)
    assert [failure.index for failure in caught.value.failures] == [1]
    assert subjects() == ["Order 0", "Order 2"]


# The circuit breaker ------------------------------------------------------------------------------


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
    assert breaker.refuses() is None  # not within a minute
    breaker.note(lost)
    assert isinstance(breaker.refuses(), errors.AnswerLost)
    now[0] += OPEN_S
    assert breaker.refuses() is None  # one tries
    assert breaker.refuses() is not None  # and the others wait for it
    breaker.note(lost)
    assert breaker.refuses() is not None
    now[0] += OPEN_S
    assert breaker.refuses() is None
    breaker.note(EmailRefused("No"))  # Truncus answers
    assert breaker.refuses() is None


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


# Never both ---------------------------------------------------------------------------------------

FAULTS = st.sampled_from(
    [
        *("reset_before", "reset_after", "truncated", "truncated_before", "rate_limit"),
        *("error_500", "error_500_after", "provider_502", "html_502"),
    ]
)
SENDS = st.lists(st.tuples(st.integers(1, 3), st.lists(FAULTS, max_size=3)), max_size=8)


@hypothesis_settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(sends=SENDS, limit=st.integers(1, 12))
def test_whatever_fails_no_email_goes_both_ways(truncus_emulator, settings, sends, limit):
    guard = {"REDIRECT_TO": ["dev@example.com"], "MAX_RETRIES": 1}
    settings.TRUNCUS = {**settings.TRUNCUS, **guard}
    truncus_emulator.reset(dialect="sdk", monthly_limit=limit)
    forget_breakers()
    mail.outbox.clear()
    numbers = iter(range(100))
    waiting, accepted = [], set()
    for count, faults in [*sends, (1, []), (1, [])]:
        for fault in faults:
            truncus_emulator.faults.next(fault, retry_after=0)
        waiting += [message(next(numbers), html="<p>") for _ in range(count)]
        with suppress(TruncusError):
            backend().send_messages(waiting)
        accepted |= {one.subject for one in waiting if one.truncus_status.is_accepted}
        waiting = [one for one in waiting if not one.truncus_status.is_accepted]
        truncus_emulator.faults.clear()
    by_truncus = [email.subject for email in truncus_emulator.emails]
    sent = by_truncus + subjects()
    assert len(sent) == len(set(sent)), "sent twice"
    assert accepted <= set(sent)
    assert {address for one in mail.outbox for address in one.recipients()} <= {"dev@example.com"}


def test_the_rebuilt_message_needs_no_list(fallback):
    email = {"from": "a@example.com", "to": "b@example.org", "subject": "S", "text": "T"}
    before = copy.deepcopy(email)
    assert rebuilt(email).to == ["b@example.org"]
    assert email == before
