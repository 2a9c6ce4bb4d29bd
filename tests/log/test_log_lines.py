"""What Truncus answers may quote an email: it is recorded and raised, and never logged."""

import json
import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.mail import EmailMessage
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import include, path
from django.utils import timezone

from tests.conftest import FakeTruncus
from truncus_django.api.errors import TruncusError
from truncus_django.api.webhooks import sign
from truncus_django.backend import TruncusBackend
from truncus_django.doctor import Finding, examine_outbox
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.states import State

urlpatterns = [path("truncus/", include("truncus_django.urls"))]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

SUBJECT = "Kündigung fristlos"
ADDRESS = "ada.lovelace@example.org"
QUOTE = f'subject: "{SUBJECT}" to {ADDRESS} is too long'
PRIVATE = ("ndigung", "fristlos", "lovelace", "example.org")

ANSWERS = {
    "text of a refusal": (400, {"error": QUOTE, "code": "INVALID_REQUEST"}),
    "text in the manual's form": (400, {"error": "invalid_payload", "message": QUOTE}),
    "text alone": (400, {"error": QUOTE}),
    "code": (400, {"error": "No", "code": QUOTE}),
    "code of one word": (400, {"error": "No", "code": ADDRESS.replace("@", "_at_")}),
    "key": (401, {"error": QUOTE, "code": "INVALID_API_KEY"}),
    "key without a known code": (401, {"error": QUOTE, "code": QUOTE}),
    "domain": (403, {"error": QUOTE, "code": "DOMAIN_NOT_VERIFIED"}),
    "suppressed": (422, {"error": QUOTE, "code": "ALL_RECIPIENTS_SUPPRESSED"}),
    "limit": (429, {"error": "rate_limit_exceeded", "message": QUOTE, "retry_after": 86400}),
    "quota": (429, {"error": QUOTE, "code": "MONTHLY_LIMIT_EXCEEDED"}),
    "failure": (500, {"error": "transient_failure", "message": QUOTE}),
    "failure's code": (503, {"error": QUOTE, "code": QUOTE}),
    "provider": (502, {"status": "failed", "error": QUOTE, "code": "PROVIDER_ERROR",
                       "message_id": QUOTE}),
    "no JSON": (502, f"<html>{QUOTE}"),
    "broken JSON": (200, f'{{"status": "{QUOTE}'),
    "no contract": (200, {QUOTE: QUOTE}),
    "status": (200, {"status": QUOTE, "id": QUOTE, "message_id": QUOTE}),
    "status of one word": (200, {"status": "fristlos", "id": "em-1", "message_id": "m-1"}),
    "ids": (200, {"status": "sent", "id": QUOTE, "message_id": QUOTE, "global_message_id": QUOTE,
                  "provider_message_id": QUOTE, "provider": QUOTE, "warnings": [QUOTE]}),
    "scheduled": (200, {"status": "scheduled", "message_id": QUOTE, "send_at": QUOTE}),
    "duplicate": (200, {"status": "duplicate", "original_global_message_id": QUOTE,
                        "message": QUOTE}),
    "duplicate that was refused": (200, {"status": "duplicate", "message_id": QUOTE,
                                         "email_status": "failed"}),
    "blocked": (200, {"status": "blocked", "reason": QUOTE, "code": QUOTE,
                      "suppressed_addresses": [ADDRESS]}),
    "rejected": (200, {"status": "rejected", "reason": QUOTE, "message_id": QUOTE}),
    "rejected by an address": (200, {"status": "rejected", "reason": ADDRESS}),
    "failed": (200, {"status": "failed", "error": QUOTE}),
}  # fmt: skip


@pytest.fixture(params=ANSWERS)
def quoting(request: pytest.FixtureRequest, truncus: FakeTruncus, naps: list[float]) -> FakeTruncus:
    """A Truncus that puts what it knows of an email into every part of its answers."""
    status, body = ANSWERS[request.param]

    def answer(seen: Any) -> tuple[int, dict[str, str], bytes]:
        told = body
        if status == 200 and isinstance(body, dict) and "emails" in (seen.body or {}):
            told = {"results": [{**body, "index": place} for place in range(len(seen.emails))]}
        raw = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        return status, {"X-Request-Id": ADDRESS}, raw

    truncus._always = answer
    return truncus


@pytest.fixture(autouse=True)
def no_limits(recording: None, settings: Any) -> None:
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged, and what commands say: in the end nothing of an email is in it."""
    said: list[str] = []
    caplog.set_level(logging.DEBUG, logger="truncus_django")
    yield said
    lines = [record.getMessage() for record in caplog.get_records("call")]
    lines += said
    assert lines
    assert [line for line in lines for private in PRIVATE if private in line] == []


def message(**options: Any) -> EmailMessage:
    return TruncusMessage(SUBJECT, SUBJECT, "shop@example.com", [ADDRESS], **options)


# Sending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_a_direct_send_logs_nothing_of_an_email(quoting, logged, count):
    try:
        TruncusBackend(fail_silently=True).send_messages([message() for _ in range(count)])
    except TruncusError as error:  # what is the settings' fault is raised, and not logged
        logged.append(type(error).__name__)
    assert Email.objects.filter(subject=SUBJECT).exists()


def test_what_truncus_told_is_recorded_and_raised(truncus, logged, naps):
    truncus.always_answers(400, {"error": QUOTE, "code": "INVALID_REQUEST"})
    TruncusBackend(fail_silently=True).send_messages([message()])
    with pytest.raises(TruncusError, match="fristlos"):
        message().send()
    assert all("fristlos" in email.error for email in Email.objects.all())


def test_a_message_that_cannot_be_sent_is_logged_by_the_kind_of_its_error(truncus, logged, caplog):
    odd = message(headers={f"X-{ADDRESS}": object()})
    assert TruncusBackend(fail_silently=True).send_messages([odd]) == 0
    assert "An email was not sent: InvalidHeader" in caplog.text


def test_what_is_dropped_of_a_message_is_logged_without_its_words(truncus, logged):
    odd = message(html="<p>Hello</p>")
    odd.content_subtype = QUOTE
    assert TruncusBackend(unsupported="warn").send_messages([odd]) == 1


def test_the_outbox_logs_nothing_of_an_email(quoting, logged, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    TruncusBackend().send_messages([message() for _ in range(3)])
    dispatcher = Dispatcher(sleep=lambda seconds: None, jitter=lambda: 0.5)

    stats = dispatcher.drain()
    Email.objects.update(created_at=timezone.now() - timedelta(days=1))

    assert stats.requests
    # What truncus_worker says besides counts.
    logged += [*stats.reasons, *stats.idle.paused.values()]
    logged += [text for finding in examine_outbox() for text in told(finding)]


def told(finding: Finding) -> list[str]:
    return [finding.what, finding.found, finding.advice]


# Hearing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message_id", ["m-1", QUOTE])
def test_sync_logs_and_says_nothing_of_an_email(quoting, logged, message_id):
    due = timezone.now() - timedelta(minutes=1)
    for number in range(12):
        name = message_id if not number else f"{message_id}{number}"
        Email.objects.create(
            message_id=name, state=State.SENT, sent_at=due, created_at=due, next_sync_at=due
        )
    out = StringIO()
    try:
        call_command("truncus_sync", stdout=out, stderr=out)
    except CommandError as error:
        logged.append(str(error))
    logged.append(out.getvalue())
    assert quoting.seen


@pytest.mark.parametrize("body", [
    {"event": QUOTE, "message_id": QUOTE, "status": QUOTE, "reason": QUOTE},
    {"event": "email.delivery", "message_id": "m-1", "status": "bounced", "reason": QUOTE},
    [QUOTE], QUOTE,
])  # fmt: skip
@pytest.mark.parametrize("secret", ["a secret", "another"])
def test_a_webhook_logs_nothing_of_an_email(truncus, logged, body, secret):
    Email.objects.create(message_id="m-1", state=State.SENT)
    now = int(time.time())
    raw = json.dumps({**body, "timestamp": now} if isinstance(body, dict) else body).encode()
    headers = {
        "Truncus-Timestamp": str(now),
        "Truncus-Signature": sign(raw, secret=secret, timestamp=now),
    }
    answer = Client().post(
        "/truncus/webhook/", raw, content_type="application/json", headers=headers
    )
    logged.append(f"{answer.status_code}")
