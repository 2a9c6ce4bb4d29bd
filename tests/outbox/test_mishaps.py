"""What must neither cost emails nor send them twice: faults that are not theirs, and ambiguity."""

from datetime import UTC, datetime, timedelta

import pytest
import requests
from django.core.mail import EmailMessage

from tests.outbox.conftest import keys_of, put_all, reload
from truncus_django.api.errors import AnswerLost
from truncus_django.api.results import SendResult
from truncus_django.api.transport import Transport
from truncus_django.db.clock import moment_of
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.models import (
    Email,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.outbox import dispatcher as dispatcher_module
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import claim, lease_s
from truncus_django.outbox.stored_payload import stored_emails

pytestmark = pytest.mark.django_db


def test_without_one_that_was_deleted_an_ambiguous_request_is_another_one(
    emulator, put, dispatcher, travel, states
):
    emulator.faults.next("reset_after")
    _, deleted = put(2)
    dispatcher.step()
    Email.objects.filter(pk=deleted.pk).delete()
    travel(60)
    dispatcher.drain()

    assert states() == ["unknown"]
    assert "deleted" in Email.objects.get().error
    assert len(keys_of(emulator)) == 1


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_a_quota_that_is_used_up_within_a_batch_stops_the_account_and_no_emails(
    emulator, put, dispatcher, travel, states, dialect
):
    emulator.reset(monthly_limit=50, dialect=dialect)
    put(120)
    stats = dispatcher.drain()

    assert stats.failed == 0
    assert len(emulator.emails) == 50
    assert set(states()) == {"delivered" if dialect == "manual" else "sent", "sending", "pending"}
    assert list(stats.idle.paused) == [""]
    emulator.reset(monthly_limit=0, dialect=dialect)
    travel(2 * 60 * 60)
    dispatcher.drain()
    assert len(emulator.emails) == 70


@pytest.mark.parametrize(
    ("status", "body"), [(404, "<html>"), (302, ""), (405, "<html>"), (407, "<html>"), (200, "{}")]
)
def test_what_is_no_truncus_costs_no_emails(
    emulator, put, dispatcher, travel, states, settings, status, body, monkeypatch
):
    answer = requests.Response()
    answer.status_code = status
    put(150)
    with monkeypatch.context() as patched:
        read = (answer, body.encode())
        patched.setattr(Transport, "_respond", lambda transport, request: read)
        stats = dispatcher.drain()

    assert stats.requests == 1
    assert sorted(set(states())) == ["pending", "sending"]
    assert list(stats.idle.paused) == [""]
    travel(60)
    dispatcher.drain()
    assert set(states()) == {"delivered"}
    assert len(emulator.emails) == 150


def test_one_of_a_batch_that_truncus_does_not_schedule_awaits_its_send_at(
    emulator, message, dispatcher, travel, states, monkeypatch
):
    later = datetime.now(UTC) + timedelta(hours=1)
    put_all([message(1), message(2, send_at=later)])
    real = dispatcher_module.request_results

    def refuse(client, emails, **options):
        results = list(real(client, emails, **options))
        return [
            SendResult("failed", error="send_at is not for you") if "send_at" in email else result
            for email, result in zip(emails, results, strict=True)
        ]

    monkeypatch.setattr(dispatcher_module, "request_results", refuse)
    dispatcher.drain()
    assert states() == ["delivered", "sending"]
    assert OutboxBatch.objects.get().error_code == "awaits_send_at"
    travel(61 * 60)
    dispatcher.drain()
    assert states() == ["delivered", "delivered"]


def test_a_request_that_is_not_made_is_no_success_of_its_emails(
    emulator, put, dispatcher, travel, settings
):
    """One is suppressed, one cannot be read: the other goes on failing since when it did."""
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "manual"}
    _, unreadable, _ = put(3)
    emulator.faults.next("provider_502")
    dispatcher.step()
    before = OutboxBatch.objects.get()
    assert (before.failures, before.failing_since is None) == (1, False)
    SuppressedAddress.objects.create(address="customer-0@example.org")
    travel(60)
    assert dispatcher.step().requests == 0
    assert _failing() == (1, before.failing_since, before.error_code, before.error)
    OutboxEntry.objects.filter(pk=unreadable.pk).update(payload="{")
    assert dispatcher.step().requests == 0
    assert _failing() == (1, before.failing_since, before.error_code, before.error)


def _failing():
    return OutboxBatch.objects.values_list("failures", "failing_since", "error_code", "error").get()


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_send_at_at_the_end_of_time_is_not_awaited(
    truncus, message, dispatcher, states, settings, use_tz
):
    """There is no such moment to go on at."""
    settings.USE_TZ = use_tz
    put_all([message(1, send_at=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))])
    truncus.answers(400, {"error": "send_at is not for you", "code": "INVALID_REQUEST"})
    dispatcher.drain()

    assert states() == ["failed"]


def test_an_answer_is_true_whoever_has_the_lease_now(emulator, put, dispatcher, travel, states):
    put(2)
    slow = claim(dispatcher.clock)
    emails = stored_emails(slow.batch, now=dispatcher.clock.now())
    results = dispatcher._send(slow, emails)
    travel(lease_s(slow.settings) + 1)
    other = claim(dispatcher.clock)
    assert other.batch.pk == slow.batch.pk

    assert dispatcher._record(slow, emails, results).accepted == 2
    assert states() == ["delivered"] * 2
    assert OutboxBatch.objects.count() == 0
    again = dispatcher._send(other, emails)
    assert dispatcher._record(other, emails, again) == DispatchResult()


def test_an_answer_to_a_request_that_is_no_more_is_not_written_down(
    emulator, put, dispatcher, states
):
    """Its emails go by another key now."""
    put(2)
    slow = claim(dispatcher.clock)
    emails = stored_emails(slow.batch, now=dispatcher.clock.now())
    results = dispatcher._send(slow, emails)
    OutboxBatch.objects.update(idempotency_key="another", lease=None)

    assert dispatcher._record(slow, emails, results) == DispatchResult()
    assert states() == ["sending"] * 2


def test_an_ambiguous_request_is_repeated_in_its_wire_format(
    emulator, put, dispatcher, travel, monkeypatch
):
    wire_formats, real = [], dispatcher_module.request_results

    def request(*arguments, wire_format, **options):
        wire_formats.append(wire_format)
        return real(*arguments, wire_format=wire_format, **options)

    monkeypatch.setattr(dispatcher_module, "request_results", request)
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    OutboxAccount.objects.update(capabilities={"html_required": True})
    travel(60)
    dispatcher.drain()

    first, repeated = wire_formats
    assert first is None
    assert not repeated.capabilities.html_required


def test_what_truncus_says_of_an_email_ends_the_ambiguity_of_its_request(
    emulator, put, dispatcher, travel, states, monkeypatch
):
    """It failed for a day, so that it is given up; while ambiguous it would be tried again."""
    emulator.faults.next("reset_after")
    put(2)
    dispatcher.step()
    OutboxBatch.objects.update(failing_since=moment_of(dispatcher.clock.now() - 25 * 60 * 60))
    answer = [
        SendResult("sent", message_id="m-1"),
        SendResult("failed", error="SES", code="PROVIDER_ERROR"),
    ]
    monkeypatch.setattr(dispatcher_module, "request_results", lambda *_, **__: answer)
    travel(60)
    dispatcher.drain()

    assert states() == ["sent", "failed"]


@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_comes_before_the_answer_is_written_is_not_lost(
    emulator, put, dispatcher, states, settings, monkeypatch
):
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": ["a secret"]}
    real = dispatcher_module.request_results

    def bounce_at_once(*arguments, **options):
        results = real(*arguments, **options)
        at = datetime.now(UTC)
        ingest(
            [
                IncomingEvent(
                    str(result.message_id), "bounced", at, f"e-{number}", reason="mailbox_full"
                )
                for number, result in enumerate(results)
            ]
        )
        return results

    monkeypatch.setattr(dispatcher_module, "request_results", bounce_at_once)
    put(2)
    dispatcher.drain()

    assert states() == ["bounced"] * 2
    assert set(Email.objects.values_list("reason", flat=True)) == {"mailbox_full"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recent_requests", "x"),
        ("recent_requests", ["a", None]),
        ("capabilities", []),
        ("capabilities", 7),
    ],
)
def test_odd_values_in_an_accounts_row_stop_nobody(emulator, put, dispatcher, field, value):
    put(1)
    dispatcher.step()
    OutboxAccount.objects.update(**{field: value})
    put(1)

    assert dispatcher.step().accepted == 1


def test_texts_on_rows_speak_of_no_message_object(emulator, put, dispatcher, travel):
    emulator.faults.next("reset_after")
    [email] = put(1)
    dispatcher.step()
    assert "same request is made again" in reload(email).error
    assert "message object" not in email.error
    travel(24 * 60 * 60)
    dispatcher.drain()

    assert "decide in the admin" in reload(email).error
    assert "message object" not in email.error


def test_the_wire_format_that_was_learned_on_the_way_is_the_one_that_was_sent(
    emulator, message, dispatcher, travel, states
):
    """Refused, repeated in another wire format, the answer lost; then one ``duplicate``."""
    emulator.reset(dialect="sdk", batch_replay="duplicate", batch_refusal="whole")
    mails = [
        EmailMessage(f"Order {number}", "Text alone.", "shop@example.com", ["ann@example.org"])
        for number in range(5)
    ]
    put_all(mails)
    real, asked = Transport._respond, []

    def lose_the_second_answer(transport, request):
        asked.append(request)
        answer = real(transport, request)
        if len(asked) == 2:
            raise AnswerLost("lost", retryable=True, ambiguous=True)
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Transport, "_respond", lose_the_second_answer)
        dispatcher.step()
    assert len(emulator.emails) == 5
    travel(60)
    dispatcher.drain()

    assert set(states()) == {"sent"}
    assert len(emulator.emails) == 5
