"""Spans and metrics of OpenTelemetry. Imported where ``opentelemetry-api`` is installed.

Without an SDK, which the project chooses, the API drops everything.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from truncus_django import __version__
from truncus_django.telemetry.instruments import IN_PROCESS, SYSTEM, Metric

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""Of the semantic conventions that the names are from."""
_HEADER, _LENGTH = "traceparent", 55

_tracer = trace.get_tracer("truncus_django", __version__, schema_url=SCHEMA_URL)
_meter = metrics.get_meter("truncus_django", __version__, schema_url=SCHEMA_URL)
_propagator = TraceContextTextMapPropagator()


class Span:
    """A span that is the current one until it ends.

    Args:
        kind: a member of ``SpanKind``.
        traceparents: of the spans that it is linked to; others are left out.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        attributes: Mapping[str, Any],
        traceparents: Iterable[str | None],
    ) -> None:
        self._span = _tracer.start_span(
            name,
            kind=trace.SpanKind[kind],
            attributes=attributes,
            # A list is enqueued by one span, which is linked once.
            links=[
                trace.Link(found)
                for traceparent in dict.fromkeys(filter(None, traceparents))
                if (found := _span_context(traceparent)).is_valid
            ],
        )
        self._token = context.attach(trace.set_span_in_context(self._span))

    def end(self, attributes: Mapping[str, Any], error: str | None) -> None:
        """End it, with further attributes and what it failed by.

        Exceptions are not recorded: their texts and frames may quote an email.
        """
        context.detach(self._token)
        try:
            self._span.set_attributes(attributes)
            if error is not None:
                self._span.set_status(trace.StatusCode.ERROR, error)
        finally:
            self._span.end()


def current_traceparent() -> str | None:
    """Return the current span as W3C's header names it; ``None`` if there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    traceparent = carrier.get(_HEADER, "")
    return traceparent if len(traceparent) == _LENGTH else None  # it must fit into its column


def _span_context(traceparent: str) -> trace.SpanContext:
    extracted = _propagator.extract({_HEADER: traceparent}, context.Context())
    return trace.get_current_span(extracted).get_span_context()


# Metrics ------------------------------------------------------------------------------------------


def _instrument(metric: Metric) -> Any:
    if metric.bounds:
        return _meter.create_histogram(
            metric.name,
            metric.unit,
            metric.description,
            explicit_bucket_boundaries_advisory=metric.bounds,
        )
    return _meter.create_counter(metric.name, metric.unit, metric.description)


_instruments = {metric: _instrument(metric) for metric in IN_PROCESS}


def measure(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Record a value, by Prometheus's labels."""
    attributes = attributes_of(metric, labels)
    instrument = _instruments[metric]
    if metric.bounds:
        instrument.record(value, attributes)
    else:
        instrument.add(value, attributes)


def attributes_of(metric: Metric, labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels as attributes; an error that did not happen is none."""
    attributes = {
        metric.labels[label]: value for label, value in labels.items() if value or label != "error"
    }
    if metric.name.startswith("messaging."):
        attributes["messaging.system"] = SYSTEM
    return attributes
