"""Spans of sends, of the outbox and of webhooks, as OpenTelemetry's SDK exports them."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import opentelemetry.semconv._incubating.attributes.messaging_attributes as messaging
import opentelemetry.semconv._incubating.metrics.messaging_metrics as messaging_metrics
import pytest
from django.test import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode

from tests.sdk import PROVIDER
from truncus_django.api.errors import TruncusError
from truncus_django.api.webhooks import sign
from truncus_django.backend import TruncusBackend
from truncus_django.bulk import send_bulk
from truncus_django.message import asend
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.telemetry import instruments
from truncus_django.telemetry.otel import SCHEMA_URL

pytestmark = pytest.mark.django_db


def test_the_names_are_those_of_the_conventions():
    ours, theirs = instruments, messaging
    assert ours.MESSAGING_SYSTEM == theirs.MESSAGING_SYSTEM
    assert ours.OPERATION_NAME == theirs.MESSAGING_OPERATION_NAME
    assert ours.OPERATION_TYPE == theirs.MESSAGING_OPERATION_TYPE
    assert ours.DESTINATION == theirs.MESSAGING_DESTINATION_NAME
    assert ours.MESSAGE_ID == theirs.MESSAGING_MESSAGE_ID
    assert ours.MESSAGE_COUNT == theirs.MESSAGING_BATCH_MESSAGE_COUNT
    assert ours.SERVER_ADDRESS == server_attributes.SERVER_ADDRESS
    assert ours.SERVER_PORT == server_attributes.SERVER_PORT
    assert ours.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert ours.HTTP_STATUS == http_attributes.HTTP_RESPONSE_STATUS_CODE
    metrics = messaging_metrics
    assert ours.REQUEST_DURATION.name == metrics.MESSAGING_CLIENT_OPERATION_DURATION
    assert ours.SENT_EMAILS.name == metrics.MESSAGING_CLIENT_SENT_MESSAGES
    assert ours.WEBHOOK_DURATION.name == metrics.MESSAGING_PROCESS_DURATION
    types = {kind.value for kind in theirs.MessagingOperationTypeValues}
    assert {kind.type for kind in (ours.ENQUEUE, ours.REQUEST, ours.WEBHOOK)} <= types
    assert SCHEMA_URL in {schema.value for schema in Schemas}


def test_each_attribute_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    names = [name for name in vars(instruments).values() if isinstance(name, str) and "." in name]
    attributes = [name for name in names if re.fullmatch(r"[a-z_.]+", name)]

    assert len(attributes) > 15
    assert [
        name for name in attributes if f"`{name}`" not in page and "telemetry" not in name
    ] == []


# Direct sends -------------------------------------------------------------------------------------


def test_a_send_is_a_span_around_its_request(emulator, message, spans):
    sent = message()
    sent.send()

    request, send = spans()
    assert (send.name, send.kind, send.parent) == ("send_messages", SpanKind.INTERNAL, None)
    assert (request.name, request.kind) == ("send 127.0.0.1", SpanKind.CLIENT)
    assert request.parent == send.context
    assert send.attributes["messaging.truncus.delivery"] == "direct"
    assert send.attributes["messaging.truncus.accepted_count"] == 1
    assert dict(request.attributes) == {
        "messaging.system": "truncus",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "127.0.0.1",
        "messaging.message.id": sent.truncus_status.id,
        "messaging.truncus.accepted_count": 1,
        "messaging.truncus.attempts": request.attributes["messaging.truncus.attempts"],
        "server.address": "127.0.0.1",
        "server.port": int(emulator.url.rpartition(":")[2]),
    }
    assert {span.status.status_code for span in (send, request)} == {StatusCode.UNSET}
    assert request.instrumentation_scope.schema_url == SCHEMA_URL


def test_a_send_is_a_child_of_the_span_that_it_is_made_in(emulator, message, spans):
    with trace.get_tracer("shop").start_as_current_span("order"):
        message().send()

    request, send, order = spans()
    assert (send.parent, request.parent) == (order.context, send.context)


def test_a_list_is_one_span_with_one_for_each_request(emulator, message, spans):
    TruncusBackend().send_messages([message(number) for number in range(150)])

    *requests, send = spans()
    assert send.attributes["messaging.batch.message_count"] == 150
    counts = [request.attributes["messaging.batch.message_count"] for request in requests]
    assert counts == [100, 50]
    assert all("messaging.message.id" not in request.attributes for request in requests)


def test_what_was_tried_again_is_told(emulator, message, spans):
    emulator.reset(dialect="manual", requests_per_second=0, requests_per_minute=0)
    for _ in range(2):
        emulator.faults.next("provider_502")
    message().send()

    request, _ = spans()
    assert request.attributes["messaging.truncus.attempts"] == 3


def test_a_send_that_fails_says_by_what_and_not_of_whom(emulator, message, spans):
    emulator.reset(domains={"example.com": "paused"})
    with pytest.raises(TruncusError):
        message().send()

    for span in spans():
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == "DomainError"
        assert span.attributes["http.response.status_code"] == 403
        assert "DomainError" in span.status.description
        assert span.events == ()  # an exception would bring its text along


def test_a_failure_that_is_silent_is_an_error_of_the_span(emulator, message, spans):
    bad = message(to=["no address"])
    assert TruncusBackend().send_messages([]) == 0  # nothing to tell
    assert TruncusBackend(fail_silently=True).send_messages([bad, message()]) == 1

    _, send = spans()
    assert send.attributes["error.type"] == "InvalidAddress"
    assert send.attributes["messaging.truncus.accepted_count"] == 1


@pytest.mark.django_db(transaction=True)
def test_an_awaited_send_stays_in_its_trace(emulator, message, spans, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}

    async def order() -> None:
        with trace.get_tracer("shop").start_as_current_span("order"):
            await asend(message())

    asyncio.run(order())
    request, send, order_span = spans()
    assert (send.parent, request.parent) == (order_span.context, send.context)


# The outbox ---------------------------------------------------------------------------------------


def test_a_request_of_the_outbox_is_linked_to_the_span_that_enqueued_it(
    in_outbox, emulator, message, spans
):
    with trace.get_tracer("shop").start_as_current_span("order"):
        TruncusBackend().send_messages([message(1), message(2)])
    TruncusBackend().send_messages([message(3)])
    enqueued = [span for span in spans() if span.name == "enqueue outbox"]
    stored = set(OutboxEntry.objects.values_list("traceparent", flat=True))
    assert stored == {
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"
        f"{span.context.trace_flags:02x}"
        for span in enqueued
    }
    assert [span.kind for span in enqueued] == [SpanKind.PRODUCER] * 2

    Dispatcher().drain()

    (request,) = (span for span in spans() if span.name.startswith("send 127"))
    assert request.parent is None
    # The two of a list were enqueued by one span.
    assert [link.context.span_id for link in request.links] == [
        span.context.span_id for span in enqueued
    ]
    assert [link.context.trace_id for link in request.links] == [
        span.context.trace_id for span in enqueued
    ]
    assert UUID(request.attributes["messaging.truncus.batch.id"]).version == 7
    assert request.attributes["messaging.batch.message_count"] == 3


def test_each_try_of_a_request_is_a_span_with_the_same_links(
    in_outbox, emulator, message, spans, travel
):
    message().send()
    emulator.faults.next("provider_502")
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    dispatcher.step()
    travel(60)
    dispatcher.drain()

    failed, sent = (span for span in spans() if span.name.startswith("send 127"))
    assert failed.attributes["error.type"] == "ServerError"
    assert failed.attributes["http.response.status_code"] == 502
    assert "error.type" not in sent.attributes
    assert [link.context for link in failed.links] == [link.context for link in sent.links] != []
    assert sent.attributes["messaging.message.id"] == Email.objects.get().message_id


@pytest.mark.parametrize("stored", [None, "", "no traceparent", "00-" + "0" * 32 + "-" + "0" * 16])
def test_what_is_no_traceparent_is_no_link(in_outbox, emulator, message, spans, stored):
    message().send()
    OutboxEntry.objects.update(traceparent=stored)

    assert Dispatcher().drain().accepted == 1
    assert spans()[-1].links == ()


@pytest.mark.django_db(transaction=True)
def test_a_bulk_is_enqueued_and_sent_by_spans(emulator, message, spans):
    send_bulk((message(number) for number in range(3)), key="a bulk")

    enqueued, request = spans()
    assert (enqueued.name, request.name) == ("enqueue outbox", "send 127.0.0.1")
    assert [link.context for link in request.links] == [
        trace.SpanContext(
            enqueued.context.trace_id,
            enqueued.context.span_id,
            is_remote=True,
            trace_flags=enqueued.context.trace_flags,
        )
    ]


# Webhooks -----------------------------------------------------------------------------------------


def post(told: dict[str, Any], secret: str = "a secret") -> int:
    now = int(time.time())
    raw = json.dumps({"timestamp": now, **told}).encode()
    headers = {
        "Truncus-Timestamp": str(now),
        "Truncus-Signature": sign(raw, secret=secret, timestamp=now),
    }
    answer = Client().post(
        "/truncus/webhook/", raw, content_type="application/json", headers=headers
    )
    return answer.status_code


DELIVERED = {"event": "email.delivery", "message_id": "m-1", "status": "delivered"}


def test_a_webhook_is_a_span_with_the_id_of_its_email(spans):
    assert post(DELIVERED) == 200

    (span,) = spans()
    assert (span.name, span.kind) == ("process webhook", SpanKind.CONSUMER)
    assert dict(span.attributes) == {
        "messaging.system": "truncus",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "webhook",
        "messaging.message.id": "m-1",
        "messaging.truncus.event": "delivered",
    }


def test_words_that_nobody_knows_are_others(spans):
    assert post({**DELIVERED, "status": "ada@example.org", "message_id": "ada@example.org"}) == 200

    (span,) = spans()
    assert span.attributes["messaging.truncus.event"] == "other"
    assert span.attributes["messaging.message.id"] == "…"


def test_a_webhook_that_is_refused_is_a_span_with_an_error(spans):
    assert post(DELIVERED, secret="another") == 403

    (span,) = spans()
    assert span.attributes["error.type"] == "WebhookVerificationError"
    assert span.status.status_code is StatusCode.ERROR


# Trouble ------------------------------------------------------------------------------------------


class _Broken(SpanProcessor):
    is_on = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.is_on == "start":
            raise OSError("The collector is gone")

    def on_end(self, span: Any) -> None:
        if self.is_on == "end":
            raise OSError("The collector is gone")


_broken = _Broken()
PROVIDER.add_span_processor(_broken)


@pytest.mark.parametrize("where", ["start", "end"])
def test_telemetry_that_fails_harms_no_email_and_is_logged_once(
    emulator, message, monkeypatch, caplog, where
):
    monkeypatch.setattr(_broken, "is_on", where)
    messages = [message(number) for number in range(2)]
    for each in messages:
        each.send()

    assert emulator.accepted == 2
    assert all(each.truncus_status.id for each in messages)
    assert post(DELIVERED) == 200
    records = [record for record in caplog.records if record.name == "truncus_django"]
    assert [record.truncus_event for record in records] == ["telemetry_failed"]
    # Whoever sends is left in the context that they were in.
    assert not trace.get_current_span().get_span_context().is_valid
