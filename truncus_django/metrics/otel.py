"""The log and the outbox in OpenTelemetry. Needs ``pip install "truncus-django[otel]"``."""

from collections.abc import Callable, Iterable
from datetime import timedelta

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from truncus_django import __version__
from truncus_django.metrics.readings import Reader
from truncus_django.telemetry.instruments import IN_DATABASE, Metric
from truncus_django.telemetry.otel import SCHEMA_URL, attributes_of

__all__ = ["observe_database"]


def observe_database(
    *,
    tenants: int = 20,
    window: timedelta = timedelta(days=1),
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Have the metrics of the log and the outbox read whenever the project's SDK collects.

    Call it once, in one process: all processes would read the same numbers.

    Args:
        tenants: how many of them have an attribute of their own, those with the most emails; the
            others are ``other``.
        window: how far back emails are counted.
        meter_provider: of the SDK; by default the global one.
    """
    reader = Reader(tenants=tenants, window=window)
    meter = metrics.get_meter("truncus_django", __version__, meter_provider, SCHEMA_URL)
    for metric in IN_DATABASE:
        meter.create_observable_gauge(
            metric.name,
            callbacks=[_callback(reader, metric)],
            unit=metric.unit,
            description=metric.description,
        )


def _callback(reader: Reader, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(reading.value, attributes_of(metric, reading.labels))
            for reading in reader.read()
            if reading.metric is metric
        ]

    return observe
