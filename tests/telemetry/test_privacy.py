"""No span, metric or log record holds anything of an email, whatever way it takes."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.test import Client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from tests.conftest import FakeTruncus
from tests.sdk import METRICS, SPANS
from truncus_django.api.errors import TruncusError
from truncus_django.api.webhooks import sign
from truncus_django.backend import TruncusBackend
from truncus_django.bulk import send_bulk
from truncus_django.message import TruncusMessage
from truncus_django.metrics.otel import observe_database
from truncus_django.metrics.prometheus import TruncusCollector
from truncus_django.models import Email
from truncus_django.outbox.dispatcher import Dispatcher

pytestmark = pytest.mark.django_db

ADDRESS = "ada.lovelace@geheim.example"
SUBJECT = "Kündigung fristlos"
QUOTE = f'"{SUBJECT}" to {ADDRESS}'
PRIVATE = ("lovelace", "geheim", "ndigung", "fristlos", "tr_test_telemetry", "a secret")


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Look through all that was told, in the end."""
    caplog.set_level(logging.DEBUG, logger="truncus_django")
    yield
    told = [span.to_json() for span in SPANS.get_finished_spans()]
    assert told
    registry = CollectorRegistry()
    registry.register(TruncusCollector())
    reader = InMemoryMetricReader()
    observe_database(meter_provider=MeterProvider([reader]))
    told += [
        data.to_json() for data in (METRICS.get_metrics_data(), reader.get_metrics_data()) if data
    ]
    told += [generate_latest(registry).decode(), generate_latest().decode()]
    assert any("truncus.outbox.oldest_age" in text for text in told)
    assert any("truncus_outbox_oldest_age" in text for text in told)
    told += [
        repr({name: value for name, value in vars(record).items() if name != "request"})
        + record.getMessage()
        for record in caplog.get_records("call")
        if record.name.startswith("truncus_django")
    ]
    assert [text for text in told for private in PRIVATE if private in text] == []


def message(**options: Any) -> TruncusMessage:
    options = {
        "from_email": f"{SUBJECT} <{ADDRESS}>",
        "html": f"<p>{QUOTE}</p>",
        "cc": [ADDRESS],
        "tenant_id": ADDRESS,
        "metadata": {"who": ADDRESS},
        "headers": {"X-Who": SUBJECT},
        **options,
    }
    return TruncusMessage(SUBJECT, QUOTE, to=options.pop("to", [ADDRESS]), **options)


def all_kinds() -> list[TruncusMessage]:
    return [
        message(),
        message(idempotency_key=ADDRESS),
        message(template_id=ADDRESS, variables={"who": ADDRESS}),
        message(to=[f"no address {QUOTE}"]),
        message(headers={f"X-{ADDRESS}": SUBJECT}),
        message(esp_extra={"metadata": QUOTE}),
    ]


@pytest.fixture(params=["accepts", "refuses", "quotes", "quotes in ids"])
def answering(request: pytest.FixtureRequest, recording: None, naps: list[float]) -> Any:
    """A real local Truncus that takes and one that refuses, and one that quotes all it knows."""
    if request.param in {"accepts", "refuses"}:
        emulator = request.getfixturevalue("emulator")
        state = "verified" if request.param == "accepts" else "paused"
        emulator.reset(
            domains={"geheim.example": state}, requests_per_second=0, requests_per_minute=0
        )
        return emulator
    truncus: FakeTruncus = request.getfixturevalue("truncus")
    if request.param == "quotes":
        truncus.always_answers(400, {"error": QUOTE, "code": QUOTE}, **{"X-Request-Id": QUOTE})
    else:
        truncus.always_answers(
            200, {"status": "sent", "id": QUOTE, "message_id": QUOTE, "warnings": [QUOTE]}
        )
    return truncus


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_of_a_send(answering, settings, delivery):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}
    for one in all_kinds():
        with suppress(TruncusError):
            one.send()
    Dispatcher(jitter=lambda: 0.5).drain()
    assert Email.objects.exists()


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
@pytest.mark.parametrize("is_silent", [False, True])
def test_of_a_list(answering, settings, delivery, is_silent):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery, "UNSUPPORTED": "warn"}
    with suppress(TruncusError):
        TruncusBackend(fail_silently=is_silent).send_messages(all_kinds())
    Dispatcher(jitter=lambda: 0.5).drain()
    assert Email.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_a_bulk(emulator):
    send_bulk([message(to=[f"{number}-{ADDRESS}"]) for number in range(3)], key=ADDRESS)
    assert Email.objects.count() == 3


@pytest.mark.parametrize("secret", ["a secret", "another"])
@pytest.mark.parametrize(
    "told",
    [
        {"event": "email.delivery", "message_id": "m-1", "status": "bounced", "reason": QUOTE},
        {"event": QUOTE, "message_id": ADDRESS, "status": QUOTE, "recipient": ADDRESS},
        {"event": QUOTE, "message_id": 5, "reason": QUOTE},
    ],
)
def test_of_a_webhook(told, secret):
    now = int(time.time())
    raw = json.dumps({"timestamp": now, **told}).encode()
    headers = {
        "Truncus-Timestamp": str(now),
        "Truncus-Signature": sign(raw, secret=secret, timestamp=now),
    }
    client = Client()
    client.post("/truncus/webhook/", raw, content_type="application/json", headers=headers)


def test_of_the_health_endpoint(settings, caplog, answering):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "HEALTH_TOKEN": "geheim" * 3}
    message().send()
    Dispatcher(jitter=lambda: 0.5).drain()
    for token in ("geheim" * 3, "another"):
        answer = Client().get("/truncus/health/", headers={"Authorization": f"Bearer {token}"})
        assert not any(private in answer.content.decode() for private in PRIVATE)
