"""The metrics of the database, as Prometheus scrapes them and OpenTelemetry collects them."""

from datetime import timedelta
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from truncus_django.metrics import readings
from truncus_django.metrics.otel import observe_database
from truncus_django.metrics.prometheus import TruncusCollector
from truncus_django.metrics.readings import Reader
from truncus_django.models import Email, OutboxEntry
from truncus_django.states import State
from truncus_django.telemetry import instruments
from truncus_django.telemetry.instruments import IN_DATABASE

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_trouble_yet() -> None:
    readings._trouble.clear()


def of(metric, reader=None, **options: Any):
    """Return a metric's values by the values of its labels."""
    found = (reader or Reader(fresh_s=0, **options)).read()
    return {tuple(one.labels.values()): one.value for one in found if one.metric is metric}


def emails(count=1, **fields: Any):
    for _ in range(count):
        Email.objects.create(**{"state": State.SENT, **fields})


# Emails -------------------------------------------------------------------------------------------


def test_emails_are_counted_by_state_mailer_and_tenant():
    emails(2, state=State.SENT, mailer="shop", tenant_id="acme")
    emails(1, state=State.BOUNCED, mailer="shop", tenant_id="acme")
    emails(1, state=State.SENT)
    emails(4, is_sandbox=True)

    assert of(instruments.EMAILS) == {
        ("sent", "shop", "acme"): 2,
        ("bounced", "shop", "acme"): 1,
        ("sent", "", ""): 1,
    }


def test_only_the_busiest_tenants_have_a_name():
    for number in range(6):
        emails(number + 1, tenant_id=f"tenant-{number}")
    emails(1, tenant_id="other")
    emails(3)

    assert of(instruments.EMAILS, tenants=2) == {
        ("sent", "", "tenant-5"): 6,
        ("sent", "", "tenant-4"): 5,
        ("sent", "", "other"): 1 + 2 + 3 + 4 + 1,
        ("sent", "", ""): 3,
    }
    assert set(of(instruments.EMAILS, tenants=0)) == {("sent", "", ""), ("sent", "", "other")}


def test_a_tenant_named_after_an_address_has_no_name_here():
    emails(9, tenant_id="ada@example.org")

    assert of(instruments.EMAILS) == {("sent", "", "other"): 9}


def test_emails_are_counted_as_far_back_as_the_window_goes():
    emails(1, created_at=timezone.now() - timedelta(days=2))
    emails(1)

    assert of(instruments.EMAILS) == {("sent", "", ""): 1}
    assert of(instruments.EMAILS, window=timedelta(days=3)) == {("sent", "", ""): 2}


# The outbox ---------------------------------------------------------------------------------------


def test_the_outbox_is_measured_by_its_depth_and_age(put, emulator, dispatcher):
    assert of(instruments.QUEUE_AGE) == {(): 0.0}
    put(3)
    OutboxEntry.objects.update(created_at=timezone.now() - timedelta(minutes=5))

    assert of(instruments.QUEUE_DEPTH)[("pending",)] == 3
    assert 299 < of(instruments.QUEUE_AGE)[()] < 330
    assert of(instruments.PAUSED_ACCOUNTS) == of(instruments.OVERDUE_LEASES) == {(): 0}

    dispatcher.drain()
    assert of(instruments.QUEUE_DEPTH)[("pending",)] == 0


# Reading ------------------------------------------------------------------------------------------


def test_several_exporters_in_a_few_seconds_read_once():
    reader = Reader()
    reader.read()
    with CaptureQueriesContext(connection) as captured:
        assert reader.read() is reader.read()
    assert len(captured) == 0


def test_the_number_of_queries_does_not_depend_on_the_number_of_emails():
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            Reader(fresh_s=0).read()
        return len(captured)

    emails(1)
    few = queries()
    for number in range(30):
        emails(1, tenant_id=f"tenant-{number}")
    assert queries() == few


def test_a_database_that_does_not_answer_is_told_and_logged_once(monkeypatch, caplog):
    def fail() -> None:
        raise DatabaseError("geheim")

    monkeypatch.setattr(readings, "health", fail)
    reader = Reader(fresh_s=0)
    assert [of(instruments.DATABASE_UP, reader) for _ in range(3)] == [{(): 0}] * 3
    assert of(instruments.EMAILS, reader) == {}
    (record,) = caplog.records
    assert (record.truncus_event, record.truncus_error) == ("metrics_not_read", "DatabaseError")

    monkeypatch.undo()
    assert of(instruments.DATABASE_UP, reader) == {(): 1}


@pytest.mark.django_db(transaction=True)
def test_a_transaction_of_the_caller_s_goes_on(put):
    with transaction.atomic():
        put()
        assert of(instruments.QUEUE_DEPTH)[("pending",)] == 1
        put()
    assert OutboxEntry.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_the_thread_of_an_exporter_keeps_no_connection_that_is_dead(shared_database, settings):
    """One whose server ended it while nobody used it."""
    reader = Reader(fresh_s=0)
    found = []

    def export() -> None:
        try:
            for _ in range(2):
                found.append(of(instruments.DATABASE_UP, reader))
                connections[shared_database].close_at = 0
        finally:
            connections.close_all()

    thread = Thread(target=export)
    thread.start()
    thread.join()
    assert found == [{(): 1}] * 2


# Exporters ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_prometheus_scrapes_it_over_http():
    emails(2, mailer="shop", tenant_id="acme")
    registry = CollectorRegistry(auto_describe=True)
    with CaptureQueriesContext(connection) as captured:
        collector = TruncusCollector()
        registry.register(collector)
    assert len(captured) == 0  # an import must not query
    collector._reader.read()  # here: the thread of the server has a database of its own on SQLite
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    samples = {
        sample.name: sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert set(samples) == {metric.prometheus_name for metric in IN_DATABASE}
    assert samples["truncus_emails"].labels == {
        "state": "sent",
        "mailer": "shop",
        "tenant": "acme",
    }
    assert samples["truncus_emails"].value == 2


def test_both_exporters_tell_the_same():
    emails(2, mailer="shop", tenant_id="acme")
    emails(1, state=State.FAILED)
    reader = InMemoryMetricReader()
    observe_database(meter_provider=MeterProvider([reader]))
    told: dict[str, list[Any]] = {
        metric.name: [(dict(point.attributes), point.value) for point in metric.data.data_points]
        for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    }
    scraped = {family.name: family.samples for family in TruncusCollector().collect()}

    assert set(told) == {metric.name for metric in IN_DATABASE}
    for metric in IN_DATABASE:
        assert told[metric.name] == [
            (
                {metric.labels[label]: value for label, value in sample.labels.items()},
                sample.value,
            )
            for sample in scraped[metric.prometheus_name]
        ]
