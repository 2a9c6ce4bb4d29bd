"""The guard of a staging site, on every path that an email can take."""

from contextlib import suppress

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.paths import PATHS, bare, delivery_of, recipients_in_requests, send_by
from truncus_django.api.errors import (
    ConfigurationError,
    EmailRefused,
    MessagesNotSent,
    TruncusError,
)
from truncus_django.backend import TruncusBackend
from truncus_django.checks import check_settings
from truncus_django.doctor import examine_settings
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.sending.guard import HEADER
from truncus_django.signals import pre_send
from truncus_django.states import State
from truncus_django.testing import send_outbox

pytestmark = pytest.mark.django_db(transaction=True)

DEV = "dev@example.com"
GUARD = {"REDIRECT_TO": [DEV], "ALLOW_RECIPIENTS": ["@ok.example", "qa+*@example.org"]}
ALLOWED = {DEV, "me@ok.example", "qa+7@example.org"}


@pytest.fixture
def emulator(truncus_emulator, settings):
    own = {"RECORD": True, "STORE_BODIES": True, "REQUESTS_PER_SECOND": 0, "REQUESTS_PER_MINUTE": 0}
    settings.TRUNCUS = {**settings.TRUNCUS, **own, **GUARD}
    return truncus_emulator


def message(**options):
    options = {"to": ["ann@example.net"], **options}
    return TruncusMessage("Hello", "Text", "shop@example.com", html="<p>Text", **options)


def test_recipients_are_replaced_and_named_in_a_header_and_in_the_record(emulator):
    message(
        to=["Ann <ann@example.net>", "Me <me@ok.example>"],
        cc=["bob@example.net"],
        bcc=["qa+7@example.org", "eve@example.net"],
    ).send()

    [email] = emulator.emails
    assert email.payload["to"] == ["Me <me@ok.example>", DEV]
    assert "cc" not in email.payload
    assert email.payload["bcc"] == ["qa+7@example.org"]
    assert email.payload["headers"][HEADER] == (
        "to: ann@example.net, me@ok.example; cc: bob@example.net; "
        "bcc: qa+7@example.org, eve@example.net"
    )
    record = Email.objects.get()
    assert record.to == ["Ann <ann@example.net>", "Me <me@ok.example>"]
    assert record.bcc == ["qa+7@example.org", "eve@example.net"]
    assert record.redirected_to == ["Me <me@ok.example>", DEV, "qa+7@example.org"]
    assert "dev" not in record.search_text


def test_what_may_go_goes_unchanged(emulator):
    message(to=["me@ok.example"], cc=["QA+x@Example.ORG"]).send()
    [email] = emulator.emails
    assert email.payload["to"] == "me@ok.example"
    assert "headers" not in email.payload
    assert Email.objects.get().redirected_to == []


@pytest.mark.parametrize(
    "address",
    [
        "me@sub.ok.example",
        "me@ok.example.net",
        "qa@example.org",
        "xqa+1@example.org",
        '"me@ok.example" <x@example.net>',
        "me@ok.example <x@example.net>",
    ],
)
def test_what_only_looks_like_a_pattern_is_redirected(emulator, address):
    message(to=[address]).send()
    assert recipients_in_requests(emulator) == {DEV}


@pytest.mark.parametrize(
    "hidden",
    [
        "victim@example.net, me@ok.example",
        "V <victim@example.net>, <me@ok.example>",
        "victim@example.net\nme@ok.example",
        "victim@example.net;me@ok.example",
        '"victim@example.net"@ok.example',
        ["me@ok.example", ["victim@example.net"]],
        {"victim@example.net": "me@ok.example"},
    ],
)
def test_nobody_hides_beside_somebody_who_may(emulator, hidden):
    with suppress(TruncusError):
        message(esp_extra={"to": hidden}).send()
    assert "victim" not in str([request.body.get("to") for request in emulator.requests])


@pytest.mark.parametrize("to", ["ann@example.net", "me@ok.example"])
def test_no_header_names_somebody_beside_the_recipients(emulator, to):
    headers = {"Bcc": "z@example.net", "cc": "y@example.net", "Resent-To": "x@example.net"}
    headers |= {"X-Order": "7", "x-original-recipients": "w@example.net"}
    message(to=[to], esp_extra={"headers": headers}).send()
    [email] = emulator.emails
    sent = {name: text for name, text in email.payload["headers"].items() if name != HEADER}
    assert sent == {"X-Order": "7"}


def test_without_somebody_instead_an_email_is_refused_before_any_request(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": []}
    good = message(to=["me@ok.example"])
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages([message(), good])
    assert recipients_in_requests(emulator) == {"me@ok.example"}
    states = dict(Email.objects.values_list("state", "error"))
    assert set(states) == {State.REJECTED, State.DELIVERED}
    assert "ALLOW_RECIPIENTS" in states[State.REJECTED]
    with pytest.raises(EmailRefused, match="ALLOW_RECIPIENTS") as caught:
        message().send()
    assert "example.net" not in str(caught.value)


def test_an_email_that_waited_before_the_guard_was_on_is_redirected(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "REDIRECT_TO": []}
    settings.TRUNCUS = {**settings.TRUNCUS, "ALLOW_RECIPIENTS": []}
    TruncusBackend().send_messages([message(), message(to=["me@ok.example"])])

    settings.TRUNCUS = {**settings.TRUNCUS, **GUARD}
    assert send_outbox() == 2
    assert recipients_in_requests(emulator) == {DEV, "me@ok.example"}
    told = {email.to[0]: email.redirected_to for email in Email.objects.all()}
    assert told == {"ann@example.net": [DEV], "me@ok.example": []}


def test_an_email_that_waited_while_the_guard_was_on_tells_of_no_redirect(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    message().send()
    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": [], "ALLOW_RECIPIENTS": []}
    assert send_outbox() == 1
    assert recipients_in_requests(emulator) == {"ann@example.net"}
    assert Email.objects.get().redirected_to == []


@pytest.mark.parametrize("path", ["outbox", "bulk", "bulk in the outbox"])
def test_what_may_go_to_nobody_is_recorded_as_rejected_on_every_path(emulator, settings, path):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery_of(path), "REDIRECT_TO": []}
    send_by(path, message())
    send_outbox()
    assert emulator.requests == []
    record = Email.objects.get()
    assert record.state == State.REJECTED
    assert "ALLOW_RECIPIENTS" in record.error


def test_one_that_may_go_to_nobody_costs_no_other_in_the_outbox(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "REDIRECT_TO": []}
    settings.TRUNCUS = {**settings.TRUNCUS, "ALLOW_RECIPIENTS": []}
    TruncusBackend().send_messages([message(), message(to=["me@ok.example"])])

    settings.TRUNCUS = {**settings.TRUNCUS, "ALLOW_RECIPIENTS": ["@ok.example"]}
    assert send_outbox() == 1
    assert recipients_in_requests(emulator) == {"me@ok.example"}
    assert sorted(Email.objects.values_list("state", flat=True)) == ["delivered", "rejected"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ALLOW_RECIPIENTS", ["example.com"], "its number 1, that can match no address"),
        ("ALLOW_RECIPIENTS", ["@ok.example", "a@b@c"], "its number 2, that can match no address"),
        ("ALLOW_RECIPIENTS", ["Ann <ann@example.com>"], "its number 1, that can match no address"),
        ("ALLOW_RECIPIENTS", ["*"], "its number 1, that can match no address"),
        ("ALLOW_RECIPIENTS", "@example.com", "must be"),
        ("ALLOW_RECIPIENTS", ["mailto:*@example.com"], "its number 1, that can match no address"),
        ("REDIRECT_TO", ["mailto:dev@example.com"], "its number 1, that is no address"),
        ("REDIRECT_TO", ["dev"], "its number 1, that is no address"),
        ("REDIRECT_TO", ["dev*@example.com"], "its number 1, that is no address"),
        ("REDIRECT_TO", "dev@example.com", "must be"),
    ],
)
def test_a_pattern_that_is_none_is_an_error_of_the_checks(emulator, settings, name, value, text):
    settings.TRUNCUS = {**settings.TRUNCUS, name: value}
    found = [each for each in check_settings() if each.id == "truncus.E002"]
    assert text in found[0].msg
    with pytest.raises(ConfigurationError):
        message().send()
    assert emulator.requests == []


def test_pages_and_doctor_say_that_it_is_on(emulator, admin_client, settings):
    email = Email.objects.create(state=State.SENT, redirected_to=[DEV])
    log = reverse("admin:truncus_django_email_changelist")
    pages = [log, reverse("admin:truncus_django_email_dashboard")]
    pages.append(reverse("admin:truncus_django_email_change", args=[email.pk]))
    for page in pages:
        assert f"emails go to {DEV} instead" in admin_client.get(page).text
    assert "Redirected to" in admin_client.get(pages[-1]).text
    [found] = [each for each in examine_settings() if each.what == "staging guard"]
    assert f"emails go to {DEV} instead" in found.found

    settings.TRUNCUS = {**settings.TRUNCUS, "REDIRECT_TO": [], "ALLOW_RECIPIENTS": []}
    assert "staging guard" not in Client().get(log).text
    assert not [each for each in examine_settings() if each.what == "staging guard"]


# On every path ------------------------------------------------------------------------------------

ADDRESSES = st.sampled_from(
    ["ann@example.net", "Bob <bob@example.net>", "me@ok.example", "QA+7@example.org", "x@ok.exampl"]
)


def add_strangers(message, payload, **kwargs):
    payload["cc"] = [*(payload.get("cc") or []), "cc-stranger@example.net"]
    message.bcc = [*message.bcc, "bcc-stranger@example.net"]


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    to=st.lists(ADDRESSES, min_size=1, max_size=3, unique=True),
    cc=st.lists(ADDRESSES, max_size=2),
    extra=st.sampled_from([None, {"to": ["extra@example.net"]}, {"bcc": "extra@example.net"}]),
    with_receiver=st.booleans(),
    path=st.sampled_from(PATHS),
)
def test_no_path_leads_around_it(emulator, settings, to, cc, extra, with_receiver, path):
    Email.objects.all().delete()
    emulator.reset()
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery_of(path)}
    # With merge data, esp_extra may set no recipients.
    sent = message(to=to, cc=cc, esp_extra=None if path == "merge" else extra)
    if with_receiver:
        pre_send.connect(add_strangers)
    try:
        send_by(path, sent)
        send_outbox()
    finally:
        pre_send.disconnect(add_strangers)
    assert emulator.requests
    assert {bare(address) for address in recipients_in_requests(emulator)} <= ALLOWED
