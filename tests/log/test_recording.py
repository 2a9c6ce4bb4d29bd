"""Every email leaves one record, and recording never costs one."""

import logging
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from django.core.mail import send_mail
from django.db import (
    connection,
    transaction,
)
from django.utils import timezone

from truncus_django.api.errors import MessagesNotSent, SendCancelled, TruncusError
from truncus_django.backend import TruncusBackend
from truncus_django.log import recording
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.signals import post_send, pre_send
from truncus_django.states import State
from truncus_django.testing import BACKEND

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_trouble_yet() -> None:
    recording._trouble.clear()


def message(**fields: Any) -> TruncusMessage:
    return TruncusMessage(
        **{
            "subject": "Your order",
            "body": "It is on its way.",
            "from_email": "Shop <shop@example.com>",
            "to": ["ada@example.org"],
            **fields,
        }
    )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# What is recorded ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "state"), [("manual", "delivered"), ("sdk", "sent")])
def test_a_sent_email_is_recorded_with_all_its_fields(emulator, dialect, state):
    emulator.reset(dialect=dialect, delivery_delay_s=60)
    before = timezone.now()
    sent = message(
        to=["Ada <ada@example.org>", "bea@example.org"],
        cc=["cy@example.org"],
        bcc=["dan@example.org"],
        tenant_id="acme",
        metadata={"order": "42"},
        track_opens=False,
        track_clicks=True,
    )
    sent.send()

    row = Email.objects.get()
    status = sent.truncus_status
    assert (row.message_id, row.idempotency_key) == (status.id, status.idempotency_key)
    assert row.global_message_id == (status.answer.global_message_id or "")
    assert row.provider_message_id == (status.answer.provider_message_id or "")
    assert (row.state, row.reason, row.error_code, row.error) == (state, "", "", "")
    assert row.from_email == "Shop <shop@example.com>"
    assert row.to[0] in {"Ada <ada@example.org>", '"Ada" <ada@example.org>'}
    assert sorted(row.recipients[1:]) == ["bea@example.org", "cy@example.org", "dan@example.org"]
    assert row.bcc == ["dan@example.org"]
    assert (row.subject, row.tenant_id, row.metadata) == ("Your order", "acme", {"order": "42"})
    assert (row.track_opens, row.track_clicks, row.is_sandbox) == (False, True, False)
    assert (row.attempts, row.batch_index, row.resend_of) == (status.attempts, None, None)
    assert before <= row.created_at <= timezone.now()
    assert before <= row.sent_at <= row.next_sync_at
    assert (row.delivered_at is not None) == (state == "delivered")
    assert "bea@example.org" in row.search_text
    assert "your order" in row.search_text


if django.VERSION >= (6, 1):

    def test_the_mailer_is_recorded(emulator, settings):
        settings.MAILERS = {**settings.MAILERS, "incoming": {"BACKEND": BACKEND}}
        message().send(using="incoming")

        assert Email.objects.get().mailer == "incoming"


def test_the_status_of_each_message_names_its_record(emulator, backend, messages):
    told = {}

    def listen(message, status, **kwargs):
        told[message.subject] = status.email_pk

    post_send.connect(listen)
    try:
        mails = messages(3)
        mails[1].to = ["suppressed@example.org"]
        with pytest.raises(MessagesNotSent):
            backend().send_messages(mails)
    finally:
        post_send.disconnect(listen)

    records = dict(Email.objects.values_list("subject", "pk"))
    assert {sent.subject: sent.truncus_status.email_pk for sent in mails} == records
    assert told == {subject: records[subject] for subject in ("Order 0", "Order 2")}
    assert [sent.truncus_status.status == "pending" for sent in mails] == [False] * 3


def test_a_template_is_recorded(emulator):
    message(body="", template_id="welcome", variables={"name": "Ada"}).send()

    assert Email.objects.get().template_id == "welcome"


def test_attachments_are_recorded_by_name_and_size_and_not_kept(emulator):
    sent = message()
    sent.attach("invoice.pdf", b"x" * 1000, "application/pdf")
    sent.attach("räksmörgås.bin", b"y" * 20, "application/octet-stream")
    sent.send()

    row = Email.objects.get()
    assert row.attachments == [
        {"filename": "invoice.pdf", "content_type": "application/pdf", "size": 1000},
        {"filename": "räksmörgås.bin", "content_type": "application/octet-stream", "size": 20},
    ]
    assert (row.attachment_count, row.attachment_bytes) == (2, 1020)


@pytest.mark.parametrize("kept", [True, False])
def test_bodies_are_kept_only_when_asked_for(emulator, settings, kept):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": kept}
    send_mail("x", "the text", None, ["a@example.org"], html_message="<p>the HTML</p>")

    row = Email.objects.get()
    assert (row.text_body, row.html_body) == (
        ("the text", "<p>the HTML</p>") if kept else (None, None)
    )


def test_recording_can_be_turned_off(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    message().send()

    assert emulator.accepted == 1
    assert not Email.objects.exists()


def test_a_sandbox_email_is_recorded_as_such_and_never_asked_about(emulator):
    message(sandbox=True).send()

    row = Email.objects.get()
    assert (row.is_sandbox, row.next_sync_at) == (True, None)


def test_a_scheduled_email_is_asked_about_when_its_time_has_come(emulator):
    emulator.reset(dialect="sdk")
    at = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    message(send_at=at).send()

    row = Email.objects.get()
    assert (row.state, row.send_at, row.sent_at) == (State.SCHEDULED, at, None)
    assert row.next_sync_at > at


def test_a_deferred_email_is_not_sent_yet(emulator):
    emulator.reset(dialect="sdk", retry_delay_s=60)
    message(to=["deferred@example.org"]).send()

    row = Email.objects.get()
    assert (row.state, row.sent_at) == (State.DEFERRED, None)


def test_a_cancelled_send_is_not_recorded(emulator):
    def cancel(**_: Any) -> None:
        raise SendCancelled

    pre_send.connect(cancel)
    try:
        message().send()
    finally:
        pre_send.disconnect(cancel)

    assert not Email.objects.exists()


def test_a_message_without_recipients_is_not_recorded(emulator):
    assert TruncusBackend().send_messages([message(to=[])]) == 0

    assert not Email.objects.exists()


def test_a_bounce_is_recorded_with_its_reason(emulator):
    message(to=["bounce+mailbox_full@example.org"]).send()

    row = Email.objects.get()
    assert (row.state, row.reason) == (State.BOUNCED, "mailbox_full")
    assert row.bounced_at is not None
    assert row.next_sync_at is None


@pytest.mark.django_db(transaction=True)
def test_events_that_came_before_the_record_are_applied_to_it(emulator):
    first = message(idempotency_key="k-1")
    first.send()
    Email.objects.all().delete()
    at = datetime(2026, 11, 1, tzinfo=UTC)
    ingest([IncomingEvent(first.truncus_status.id, "complained", at, "e-1")])
    message(idempotency_key="k-1").send()

    assert Email.objects.get().state == State.COMPLAINED


# Failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_a_refused_email_is_recorded_with_its_reason(emulator, dialect):
    emulator.reset(dialect=dialect)
    with pytest.raises(TruncusError) as caught:
        message(to=["suppressed@example.org"]).send()

    row = Email.objects.get()
    assert row.state in {State.REJECTED, State.FAILED}
    assert row.to == ["suppressed@example.org"]
    assert row.reason
    assert row.error == str(caught.value)
    assert row.error_code == (caught.value.code or "")
    assert (row.sent_at, row.next_sync_at) == (None, None)


def test_a_failed_request_is_recorded_with_its_error(emulator):
    emulator.reset(domains={"example.com": "not_verified"})
    with pytest.raises(TruncusError):
        message().send()

    row = Email.objects.get()
    assert (row.state, row.error_code) == (State.FAILED, "domain_not_verified")
    assert (row.attempts, row.sent_at) == (1, None)
    assert row.reason


def test_a_message_that_cannot_be_sent_is_recorded_too(emulator):
    broken = message(to=["ada@example.org", "no address"], subject="Broken")
    with pytest.raises(TruncusError):
        broken.send()

    row = Email.objects.get()
    assert (row.state, row.subject, row.attempts) == (State.FAILED, "Broken", 0)
    assert row.to == ["ada@example.org", "no address"]
    assert "addr" in row.error


def test_of_a_batch_each_is_recorded_with_its_own_fate(emulator, backend, messages):
    mails = messages(3)
    mails[1].to = ["suppressed@example.org"]
    mails[2].to = ["no address"]
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)

    rows = {row.subject: row for row in Email.objects.all()}
    assert rows["Order 0"].state == State.DELIVERED
    assert rows["Order 1"].state in {State.REJECTED, State.FAILED}
    assert rows["Order 2"].state == State.FAILED
    assert {rows["Order 0"].batch_index, rows["Order 1"].batch_index} == {0, 1}


def test_what_esp_extra_makes_of_a_payload_costs_no_other_record(emulator, backend, messages):
    mails = messages(2)
    mails[0].esp_extra = {"attachments": "x", "track_opens": "yes", "send_at": "2026-13-99"}
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)

    assert Email.objects.count() == 2


# Ambiguous sends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "order-42"])
@pytest.mark.parametrize("pickled", [True, False])
def test_an_ambiguous_message_that_is_sent_again_updates_its_one_record(emulator, key, pickled):
    emulator.faults.next("reset_after", times=10)
    sent = message(**({"idempotency_key": key} if key else {}))
    with pytest.raises(TruncusError):
        sent.send()
    unconfirmed = Email.objects.get()
    assert (unconfirmed.state, unconfirmed.message_id) == (State.UNKNOWN, None)

    emulator.faults.clear()
    again = pickle.loads(pickle.dumps(sent)) if pickled else sent
    again.send()

    row = Email.objects.get()
    assert again.truncus_status.email_pk == row.pk
    assert (row.pk, row.state) == (unconfirmed.pk, State.DELIVERED)
    assert (row.error, row.reason) == ("", "")
    assert row.message_id
    assert emulator.accepted == 1


def test_an_ambiguous_batch_that_is_sent_again_updates_its_records(emulator, backend, messages):
    emulator.faults.next("reset_after", times=10)
    mails = messages(3)
    with pytest.raises(MessagesNotSent):
        backend().send_messages(mails)
    emulator.faults.clear()
    backend().send_messages(mails)

    assert set(Email.objects.values_list("state", "batch_index")) == {
        (State.DELIVERED, index) for index in range(3)
    }


def test_an_ambiguous_message_whose_record_was_rolled_back_gets_a_new_one(emulator):
    emulator.faults.next("reset_after", times=10)
    sent = message()
    with pytest.raises(TruncusError), transaction.atomic():
        sent.send()
    assert not Email.objects.exists()
    emulator.faults.clear()
    sent.send()

    row = Email.objects.get()
    assert (row.state, row.subject) == (State.DELIVERED, "Your order")


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_a_repeated_idempotency_key_leaves_one_record(emulator, dialect):
    emulator.reset(dialect=dialect)
    repeated = [message(idempotency_key="order-42") for _ in range(2)]
    for sent in repeated:
        sent.send()

    assert Email.objects.count() == emulator.accepted == 1
    record = Email.objects.get().pk
    assert [sent.truncus_status.email_pk for sent in repeated] == [record, record]


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_new_message_with_the_key_of_an_ambiguous_one_completes_its_record(
    emulator, dialect, fault
):
    """A task that is tried again makes its message anew."""
    emulator.reset(dialect=dialect)
    emulator.faults.next(fault, times=20)
    for subject in ("First", "Second"):
        with pytest.raises(TruncusError):
            message(subject=subject, idempotency_key="order-42").send()
    unconfirmed = Email.objects.get()
    assert (unconfirmed.state, unconfirmed.subject) == (State.UNKNOWN, "First")

    emulator.faults.clear()
    again = message(subject="Third", idempotency_key="order-42")
    again.send()

    row = Email.objects.get()
    assert (row.pk, row.created_at) == (unconfirmed.pk, unconfirmed.created_at)
    assert (row.message_id, row.error) == (again.truncus_status.id, "")
    assert row.state in {State.SENT, State.DELIVERED}
    assert emulator.accepted == 1


def ambiguous(**fields: Any) -> Email:
    return Email.objects.create(
        **{"idempotency_key": "order-42", "state": State.UNKNOWN, "mailer": MAILER, **fields}
    )


MAILER = "default" if django.VERSION >= (6, 1) else ""


@pytest.mark.parametrize(
    "fields",
    [
        {"mailer": "other"},
        {"is_sandbox": True},
        {"idempotency_key": "order-43"},
        {"created_at": timezone.now() - timedelta(days=2)},  # the key means nothing any more
        {"message_id": "m-1"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_key_settles_no_other_record(emulator, fields):
    other = ambiguous(**fields)
    message(idempotency_key="order-42").send()

    other.refresh_from_db()
    assert other.state == State.UNKNOWN
    assert Email.objects.count() == 2


def test_a_refusal_of_the_request_leaves_it_ambiguous(emulator):
    unconfirmed = ambiguous()
    emulator.reset(domains={"example.com": "paused"})
    with pytest.raises(TruncusError):
        message(idempotency_key="order-42").send()

    unconfirmed.refresh_from_db()
    assert unconfirmed.state == State.UNKNOWN


def test_an_ambiguous_record_is_completed_beside_a_record_of_the_same_email(emulator):
    for _ in range(2):
        message(idempotency_key="order-42").send()
        unconfirmed = ambiguous()
    message(idempotency_key="order-42").send()

    unconfirmed.refresh_from_db()
    assert unconfirmed.state == State.DELIVERED
    assert Email.objects.exclude(message_id=None).count() == 1


def test_the_same_message_sent_twice_is_two_emails(emulator):
    sent = message()
    sent.send()
    sent.send()

    assert Email.objects.count() == 2


# What it costs ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_one_email_costs_at_most_two_queries(emulator, count_queries):
    message().send()  # also writes the account's quota, as one does each minute

    with count_queries() as queries:
        message().send()

    assert len(queries) <= 2


@pytest.mark.django_db(transaction=True)
def test_a_batch_costs_a_constant_number_of_queries_per_hundred(
    emulator, backend, messages, count_queries
):
    def cost(count: int) -> int:
        with count_queries() as queries:
            backend().send_messages(messages(count))
        return len(queries)

    message().send()  # also writes the account's quota, as one does each minute
    per_hundred = cost(100)
    assert cost(250) <= 3 * per_hundred
    # SQLite takes a bounded number of values in one statement.
    limited = connection.features.max_query_params is not None
    assert per_hundred <= (6 if limited else 2)
    assert Email.objects.count() == 351
