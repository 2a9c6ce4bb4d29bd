"""OpenTelemetry's SDK as a project sets it up, with exporters that keep all in memory.

There is one for the process: OpenTelemetry lets nobody replace it.
"""

from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SPANS = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(SPANS))
trace.set_tracer_provider(PROVIDER)

_DELTA = AggregationTemporality.DELTA
METRICS = InMemoryMetricReader(preferred_temporality={Counter: _DELTA, Histogram: _DELTA})
metrics.set_meter_provider(MeterProvider([METRICS]))


def forget_telemetry() -> None:
    """Drop what was told before."""
    SPANS.clear()
    METRICS.get_metrics_data()


def metrics_collected() -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Return what was measured since the last call, by name: of histograms how often."""
    data = METRICS.get_metrics_data()
    return {
        metric.name: [
            (dict(point.attributes), getattr(point, "count", getattr(point, "value", None)))
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
