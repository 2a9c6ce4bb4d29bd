"""Direct sends whose emails Truncus certainly did not take, and that another mailer sends."""

import asyncio
import pickle
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta

import pytest
import requests
from django.core import mail
from django.core.mail import EmailMessage
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.conftest import BASE_URL
from tests.fallback import (
    ImpatientBackend,
    SlowBackend,
    backend,
    message,
    subjects,
    use_fallback,
)
from truncus_django.api import errors
from truncus_django.api.errors import (
    ConnectionFailed,
    EmailRefused,
    MessagesNotSent,
    OutcomeUnknown,
    TruncusError,
)
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, SuppressedAddress
from truncus_django.sending.breaker import FAILURES, forget_breakers
from truncus_django.sending.guard import HEADER
from truncus_django.signals import post_send, pre_send, send_failed
from truncus_django.states import State

pytestmark = pytest.mark.usefixtures("fallback")


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


@pytest.mark.parametrize(("days", "sent"), [(0.5, []), (12, ["Order 0"])])
def test_the_code_of_all_limits_is_the_month_if_it_asks_for_days(truncus, settings, days, sent):
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": BASE_URL}
    use_fallback(settings)
    body = {"error": "rate_limit_exceeded", "message": "No", "retry_after": days * 86_400}
    truncus.answers(429, body)
    with nullcontext() if sent else pytest.raises(errors.RateLimited):
        message().send()
    assert [each.subject for each in mail.outbox] == sent


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


def test_a_payload_that_is_none_is_told(down):
    def spoil(payload, **kwargs):
        payload["headers"] = ["no dict"]

    pre_send.connect(spoil)
    try:
        with pytest.raises(ConnectionFailed, match=r"was not given it: The email's payload"):
            message().send()
    finally:
        pre_send.disconnect(spoil)


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


# Lists --------------------------------------------------------------------------------------------


def test_all_of_a_list(down):
    messages = [message(number) for number in range(150)]
    assert backend().send_messages(messages) == 150
    assert subjects() == [f"Order {number}" for number in range(150)]


def test_no_connection_waits_while_truncus_is_asked_about_the_next_batch(down, settings):
    use_fallback(settings, f"{ImpatientBackend.__module__}.{ImpatientBackend.__qualname__}")
    post_send.connect(ImpatientBackend.hang_up)
    try:
        assert backend().send_messages([message(number) for number in range(101)]) == 101
    finally:
        post_send.disconnect(ImpatientBackend.hang_up)
    assert len(mail.outbox) == 101


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


# Merge data ---------------------------------------------------------------------------------------


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


# Who may be mailed --------------------------------------------------------------------------------


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
