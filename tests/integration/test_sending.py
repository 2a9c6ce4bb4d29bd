"""What users do every day, over real HTTP, in both dialects."""

import json
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail, send_mass_mail
from django.core.management import call_command
from django.test.utils import override_settings

from truncus_django.api import TruncusClient
from truncus_django.api.errors import (
    Conflict,
    DomainError,
    EmailRefused,
    MessagesNotSent,
    NotFound,
    QuotaExceeded,
    RateLimited,
    ScopeError,
)
from truncus_django.message import TruncusMessage
from truncus_django.testing import BACKEND, run_emulator, use_emulator

pytestmark = pytest.mark.usefixtures("truncus_emulator")


@pytest.fixture(params=["manual", "sdk"])
def emulator(request: pytest.FixtureRequest, truncus_emulator: Any) -> Any:
    truncus_emulator.reset(dialect=request.param)
    return truncus_emulator


def client_of(emulator: Any, **options: Any) -> TruncusClient:
    return TruncusClient("tr_test_integration", base_url=emulator.url, **options)


# Django's own ways of sending --------------------------------------------------------------------


def test_send_mail_arrives(emulator):
    assert send_mail("Hello", "Text", "shop@example.com", ["ann@example.org"]) == 1

    [email] = emulator.emails
    assert (email.sender, email.to, email.subject) == (
        "shop@example.com",
        ("ann@example.org",),
        "Hello",
    )
    assert email.payload["text"] == "Text"


def test_a_mass_mail_of_250_is_three_requests(emulator):
    send_mail("First", "learns the dialect", None, ["ann@example.org"])
    before = len(emulator.requests)

    sent = send_mass_mail(
        [(f"Order {n}", "Late", None, [f"customer-{n}@example.org"]) for n in range(250)]
    )

    assert sent == 250
    assert len(emulator.requests) - before == 3
    assert len({email.to for email in emulator.emails}) == 251


def test_mail_admins_and_sendtestemail_go_through_truncus(emulator):
    mail.mail_admins("Error", "Traceback")
    call_command("sendtestemail", "ann@example.org")

    assert [email.to[0].rpartition(" ")[2] for email in emulator.emails] == [
        "admin@example.com",
        "ann@example.org",
    ]


def test_several_recipients_copies_and_a_file_arrive_whole(emulator):
    message = EmailMultiAlternatives(
        "Rechnung für Zoë",
        "Text",
        "Größe & Co. <shop@example.com>",
        ["ann@example.org", "Bob <bob@example.org>"],
        cc=["carl@example.org"],
        bcc=["dora@example.org"],
        reply_to=["help@example.com", "Sales <sales@example.com>"],
        headers={"X-Entity-Ref-ID": 42},
    )
    message.attach_alternative("<p>HTML</p>", "text/html")
    message.attach("Übersicht.pdf", b"%PDF-1.4", "application/pdf")

    assert message.send() == 1

    [email] = emulator.emails
    payload = email.payload
    everybody = {*([payload["to"]] if isinstance(payload["to"], str) else payload["to"])}
    everybody |= {*payload["cc"], *payload["bcc"]}
    assert everybody == {
        "ann@example.org",
        "Bob <bob@example.org>",
        "carl@example.org",
        "dora@example.org",
    }
    assert payload["bcc"] == ["dora@example.org"]
    assert payload["reply_to"] == "help@example.com, Sales <sales@example.com>"
    assert payload["headers"] == {"X-Entity-Ref-ID": "42"}
    [attachment] = payload["attachments"]
    assert attachment["filename"] == "Übersicht.pdf"
    assert b64decode(attachment["content"]) == b"%PDF-1.4"


@pytest.fixture
def untouched_emulator() -> Iterator[Any]:
    """A server that nobody has connected to yet."""
    with run_emulator() as emulator, use_emulator(emulator):
        yield emulator


def test_one_tcp_connection_serves_500_sends(untouched_emulator):
    for number in range(500):
        send_mail("Hello", "Text", None, [f"customer-{number}@example.org"])

    assert untouched_emulator.accepted == 500
    assert untouched_emulator.connections == 1


def test_threads_send_at_once_over_a_connection_each(untouched_emulator):
    start = threading.Barrier(6)

    def send(thread: int) -> None:
        start.wait()
        for number in range(30):
            send_mail("Hello", "Text", None, [f"customer-{thread}-{number}@example.org"])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({email.to for email in untouched_emulator.emails}) == 180
    assert untouched_emulator.connections <= 6


# Truncus's own options ---------------------------------------------------------------------------


def test_options_reach_the_api(emulator):
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    message = TruncusMessage(
        "Hello",
        "Text",
        "shop@example.com",
        ["ann@example.org"],
        html="<p>Hello</p>",
        tenant_id="acme",
        metadata={"order": 42},
        send_at=tomorrow,
        track_opens=False,
        idempotency_key="order-42",
    )
    message.send()

    [email] = emulator.emails
    assert email.status == "scheduled"
    assert email.tenant_id == "acme"
    assert email.idempotency_key == "order-42"
    assert email.payload["metadata"] == {"order": "42"}
    assert email.payload["track_opens"] is False
    assert message.truncus_status.status in {"scheduled", "delivered"}
    assert message.truncus_status.id == email.id


def test_the_same_key_sends_one_invoice(emulator):
    for _ in range(3):
        message = TruncusMessage(
            "Invoice 7", "Pay", None, ["ann@example.org"], idempotency_key="invoice-7"
        )
        assert message.send() == 1

    assert emulator.accepted == 1


def test_templates_are_filled_in_by_truncus(emulator):
    emulator.reset(dialect=emulator.options.dialect, templates={"welcome": "<p>Hi {{name}}</p>"})
    TruncusMessage(
        "Welcome", "", None, ["ann@example.org"], template_id="welcome", variables={"name": "Ann"}
    ).send()

    [email] = emulator.emails
    assert email.payload["template_id"] == "welcome"
    assert email.payload["variables"] == {"name": "Ann"}


def test_sandbox_and_real_messages_of_one_list_keep_apart(emulator, backend):
    messages = [
        TruncusMessage(f"{n}", "Text", None, [f"c{n}@example.org"], sandbox=bool(n % 2))
        for n in range(10)
    ]

    backend().send_messages(messages)

    by_recipient = {email.to[0]: email.sandbox for email in emulator.emails}
    assert by_recipient == {f"c{n}@example.org": bool(n % 2) for n in range(10)}
    assert all(message.truncus_status.answer.is_sandbox for message in messages[1::2])


def test_suppression_is_kept_apart_by_tenant(emulator):
    emulator.suppress("ann@example.org", tenant="acme")

    TruncusMessage("Hi", "Text", None, ["ann@example.org"], tenant_id="other").send()
    with pytest.raises(EmailRefused) as caught:
        TruncusMessage("Hi", "Text", None, ["ann@example.org"], tenant_id="acme").send()

    assert "do not retry" in str(caught.value)
    assert "ann" not in str(caught.value)


def test_one_suppressed_recipient_costs_the_others_of_a_list_nothing(emulator, backend, messages):
    many = messages(30)
    many[3].to = ["suppressed@example.org"]

    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(many)

    assert [failure.index for failure in caught.value.failures] == [3]
    assert caught.value.accepted == 29
    assert many[4].truncus_status.is_accepted
    assert backend(fail_silently=True).send_messages(many) == 29


@pytest.mark.parametrize("batch_refusal", ["item", "whole"])
def test_one_malformed_message_costs_the_others_of_a_list_nothing(
    emulator, backend, messages, batch_refusal
):
    emulator.reset(dialect=emulator.options.dialect, batch_refusal=batch_refusal)
    many = messages(100)
    many[42].esp_extra = {"cc": "not a list"}

    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(many)

    assert [failure.index for failure in caught.value.failures] == [42]
    assert sorted(email.to[0] for email in emulator.emails) == sorted(
        message.to[0] for number, message in enumerate(many) if number != 42
    )


@pytest.mark.parametrize("batch_refusal", ["item", "whole"])
def test_one_unverified_domain_costs_the_others_of_a_list_nothing(
    emulator, backend, messages, batch_refusal
):
    emulator.reset(
        dialect=emulator.options.dialect,
        verified_domains=["example.com"],
        batch_refusal=batch_refusal,
    )
    many = messages(20)
    many[5].from_email = "other@elsewhere.example"

    with pytest.raises(MessagesNotSent) as caught:
        backend().send_messages(many)

    assert [failure.index for failure in caught.value.failures] == [5]
    assert emulator.accepted == 19


# Several mailers ---------------------------------------------------------------------------------


def test_mailers_have_their_own_key_tenant_and_sandbox(emulator):
    own = {"base_url": emulator.url}
    acme = own | {"api_key": "tr_live_acme", "tenant_id": "acme", "sandbox": True}
    with two_mailers(default=own, acme=acme) as mailers:
        for mailer in mailers:
            mailer.send_messages([EmailMessage("Hi", "Text", None, ["ann@example.org"])])

    first, second = emulator.emails
    assert (first.tenant_id, first.sandbox) == ("", False)
    assert (second.tenant_id, second.sandbox) == ("acme", True)
    assert first.api_key != second.api_key


@contextmanager
def two_mailers(**options: dict[str, Any]) -> Iterator[list[Any]]:
    """Make mailers in the way of the Django at hand: ``MAILERS``, or ``get_connection()``."""
    if django.VERSION < (6, 1):
        yield [mail.get_connection(BACKEND, **own) for own in options.values()]
        return
    mailers = {alias: {"BACKEND": BACKEND, "OPTIONS": own} for alias, own in options.items()}
    with override_settings(MAILERS=mailers):
        found = [mail.mailers[alias] for alias in options]
        assert [mailer.alias for mailer in found] == list(options)
        yield found


# The client --------------------------------------------------------------------------------------


def test_an_email_is_read_back_with_its_engagement(emulator):
    client = client_of(emulator)
    result = client.send(
        {
            "from": "shop@example.com",
            "to": "click@example.org",
            "subject": "Hi",
            "html": '<a href="https://example.com">x</a>',
        }
    )

    emulator.wait_for(lambda e: client.get_email(result.message_id).click_count == 1)
    details = client.get_email(result.message_id)
    assert details.status == "delivered"
    assert details.open_count == 1
    assert details.first_opened_at is not None
    assert details.to == ("click@example.org",)


def test_a_bounce_is_accepted_and_told_later(emulator):
    message = TruncusMessage("Hi", "Text", None, ["bounce@example.org"])
    assert message.send() == 1

    client = client_of(emulator)
    emulator.wait_for(lambda e: client.get_email(message.truncus_status.id).status == "bounced")


def test_a_deferred_email_is_queued_and_delivered_later(truncus_emulator):
    truncus_emulator.reset(dialect="sdk")
    message = TruncusMessage("Hi", "Text", None, ["deferred@example.org"])
    assert message.send() == 1
    assert message.truncus_status.status == "queued"
    assert message.truncus_status.answer.retry_at is not None

    client = client_of(truncus_emulator)
    truncus_emulator.wait_for(
        lambda e: client.get_email(message.truncus_status.id).status == "delivered"
    )


def test_a_scheduled_email_is_cancelled_once(emulator):
    client = client_of(emulator)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    result = client.send(
        {
            "from": "shop@example.com",
            "to": "ann@example.org",
            "subject": "Hi",
            "html": "x",
            "send_at": later,
        }
    )

    assert client.cancel(result.message_id).status == "cancelled"
    with pytest.raises(Conflict):
        client.cancel(result.message_id)
    assert client.get_email(result.message_id).status == "cancelled"


def test_events_are_listed_and_replayed(emulator):
    client = client_of(emulator)
    result = client.send(
        {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "html": "x"}
    )
    emulator.wait_for(lambda e: client.list_events(result.message_id))
    [event, *_] = client.list_events(result.message_id)

    assert event.message_id == result.message_id
    assert client.replay_event(event.event_id).event_id == event.event_id
    assert client.replay_message(result.message_id).message_id == result.message_id
    assert emulator.accepted == 1
    with pytest.raises(NotFound):
        client.replay_event("evt_unknown")


def test_validation_and_check_create_no_email(emulator):
    client = client_of(emulator)

    decision = client.validate(
        {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "html": "x"}
    )
    check = client.check()

    assert decision.recommendation in {"safe_to_send", "send_with_caution", "do_not_send"}
    assert check.latency_s > 0
    assert emulator.accepted == 0


def test_what_is_not_found_and_not_allowed_is_told(emulator):
    emulator.reset(
        dialect=emulator.options.dialect, api_keys={"tr_test_integration": ["read_events"]}
    )
    client = client_of(emulator)

    with pytest.raises(NotFound):
        client.get_email("no-such-email")
    with pytest.raises(ScopeError, match="scope it lacks"):
        client.send({"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"})
    assert client.check().latency_s > 0


def test_monthly_quota_is_told_and_not_retried(emulator):
    emulator.reset(dialect=emulator.options.dialect, monthly_limit=1)
    client = client_of(emulator)
    email = {"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"}

    assert client.send(email).quota.remaining == 0
    with pytest.raises(QuotaExceeded if emulator.options.dialect == "sdk" else RateLimited):
        client.send(email)
    assert len(emulator.requests) == 2


def test_a_burst_over_the_limit_is_told_how_long_to_wait():
    start_of_a_minute = 60 * 30_000_000.0
    email = {"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"}
    with run_emulator(
        dialect="sdk", requests_per_minute=2, clock=lambda: start_of_a_minute
    ) as emulator:
        client = client_of(emulator, retry_budget_s=5)
        client.send(email)
        client.send(email)

        with pytest.raises(RateLimited) as caught:
            client.send(email)

    assert caught.value.retry_after == 60
    assert caught.value.attempts == 1


def test_a_domain_that_warms_up_is_a_quota(truncus_emulator):
    truncus_emulator.reset(dialect="sdk", daily_limit=1)
    client = client_of(truncus_emulator)
    email = {"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"}
    client.send(email)

    with pytest.raises(QuotaExceeded) as caught:
        client.send(email)
    assert caught.value.code == "WARMUP_CAP_EXCEEDED"


def test_unverified_domain_says_what_to_do(emulator):
    emulator.reset(dialect=emulator.options.dialect, verified_domains=["example.com"])

    with pytest.raises(DomainError, match=r"Verify|Add"):
        send_mail("Hi", "Text", "me@elsewhere.example", ["ann@example.org"])


def test_the_client_works_without_django(truncus_emulator):
    program = """
import json, sys
from truncus_django.api import TruncusClient
result = TruncusClient.from_env().send(
    {"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"})
print(json.dumps({"id": result.message_id, "django": "django" in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"TRUNCUS_API_KEY": "tr_test_env", "TRUNCUS_BASE_URL": truncus_emulator.url},
        capture_output=True,
        text=True,
        check=True,
    )

    told = json.loads(done.stdout)
    assert told == {"id": truncus_emulator.emails[0].id, "django": False}
