"""What a process measures as it goes, by OpenTelemetry and by Prometheus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from tests.telemetry.test_spans import DELIVERED, post
from truncus_django import telemetry
from truncus_django.api.errors import TruncusError
from truncus_django.backend import TruncusBackend
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.telemetry.instruments import IN_DATABASE, IN_PROCESS

pytestmark = pytest.mark.django_db

REQUEST = {
    "messaging.system": "truncus",
    "messaging.operation.name": "send",
    "messaging.destination.name": "127.0.0.1",
}


def counted(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def of_request(name, error=""):
    return counted(name, operation="send", destination="127.0.0.1", error=error)


def test_each_metric_has_names_of_its_own():
    for metrics in (IN_PROCESS, IN_DATABASE):
        assert len({metric.name for metric in metrics}) == len(metrics)
        assert len({metric.prometheus_name for metric in metrics}) == len(metrics)


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_requests_are_timed_and_emails_counted(emulator, message, settings, measured, delivery):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}
    requests = of_request("truncus_request_duration_seconds_count")
    emails = of_request("truncus_sent_emails_total")

    TruncusBackend().send_messages([message(number) for number in range(3)])
    Dispatcher().drain()

    assert of_request("truncus_request_duration_seconds_count") - requests == 1
    assert of_request("truncus_sent_emails_total") - emails == 3
    found = measured()
    assert found["messaging.client.operation.duration"] == [(REQUEST, 1)]
    assert found["messaging.client.sent.messages"] == [(REQUEST, 3)]


def test_failures_are_counted_by_their_class(emulator, message, measured):
    before = of_request("truncus_sent_emails_total", "DomainError")
    emulator.reset(domains={"example.com": "paused"})
    with pytest.raises(TruncusError):
        message().send()

    assert of_request("truncus_sent_emails_total", "DomainError") - before == 1
    assert measured()["messaging.client.sent.messages"] == [
        ({**REQUEST, "error.type": "DomainError"}, 1)
    ]


def test_an_email_that_truncus_does_not_take_is_no_success(emulator, message, measured):
    TruncusBackend(fail_silently=True).send_messages(
        [message(1, to=["suppressed@example.org"]), message(2)]
    )

    assert sorted(measured()["messaging.client.sent.messages"], key=str) == sorted(
        [(REQUEST, 1), ({**REQUEST, "error.type": "EmailRefused"}, 1)], key=str
    )


def test_the_lag_of_a_webhook_is_measured_once_for_each_event(measured):
    before = counted("truncus_webhook_lag_seconds_count", event="delivered")
    told = {**DELIVERED, "event_id": "e-1"}
    assert [post(told) for _ in range(3)] == [200] * 3

    assert counted("truncus_webhook_lag_seconds_count", event="delivered") - before == 1
    found = measured()
    assert found["truncus.webhook.lag"] == [({"messaging.truncus.event": "delivered"}, 1)]
    (durations,) = found["messaging.process.duration"]
    assert durations[1] == 3


def test_prometheus_sees_each_metric_under_its_documented_name(emulator, message):
    message().send()
    post(DELIVERED)

    text = generate_latest(REGISTRY).decode()
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    for metric in (*IN_PROCESS, *IN_DATABASE):
        assert f"`{metric.prometheus_name}" in page
        assert f"`{metric.name}`" in page
    assert [metric.name for metric in IN_PROCESS if metric.prometheus_name not in text] == []


def test_processes_share_what_they_measured_by_files(tmp_path):
    """As gunicorn's workers do: each writes, and one of them answers for all."""
    send = (
        "import django; django.setup()\n"
        "from truncus_django import telemetry\n"
        "with telemetry.requesting('https://truncus.co', 2): pass\n"
    )
    told = (
        "from prometheus_client import CollectorRegistry, generate_latest, multiprocess\n"
        "registry = CollectorRegistry(); multiprocess.MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    env = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    for _ in range(2):
        subprocess.run([sys.executable, "-c", send], check=True, env=env, cwd=Path.cwd())
    out = subprocess.run(
        [sys.executable, "-c", told], check=True, env=env, capture_output=True, text=True
    ).stdout
    name = 'truncus_request_duration_seconds_count{destination="truncus.co",error="",'
    assert f'{name}operation="send"}} 2.0' in out


def test_without_either_extra_nobody_is_told_anything(emulator, message, monkeypatch, spans):
    monkeypatch.setattr(telemetry, "_otel", None)
    monkeypatch.setattr(telemetry, "_prometheus", None)
    emails = of_request("truncus_sent_emails_total")
    message().send()

    assert telemetry.current_traceparent() is None
    assert (spans(), of_request("truncus_sent_emails_total")) == ([], emails)


@pytest.mark.parametrize(
    ("installed", "span", "counter"),
    [("otel", 1, 0), ("prometheus", 0, 1)],
)
def test_one_extra_works_without_the_other(
    emulator, message, monkeypatch, spans, installed, span, counter
):
    other = {"otel": "_prometheus", "prometheus": "_otel"}[installed]
    monkeypatch.setattr(telemetry, other, None)
    emails = of_request("truncus_sent_emails_total")
    message().send()

    assert bool(spans()) == bool(span)
    assert of_request("truncus_sent_emails_total") - emails == counter
