"""Metrics that each process counts for Prometheus. Imported where ``prometheus_client`` is.

They are in the client's default registry, and with ``PROMETHEUS_MULTIPROC_DIR`` in its files.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Histogram

from truncus_django.telemetry.instruments import IN_PROCESS, Metric


def _collector(metric: Metric) -> Any:
    name, text, labels = metric.prometheus_name, metric.description, list(metric.labels)
    if metric.bounds:
        return Histogram(name, text, labels, buckets=metric.bounds)
    return Counter(name, text, labels)


_collectors = {metric: _collector(metric) for metric in IN_PROCESS}


def measure(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Record a value."""
    child = _collectors[metric].labels(**{name: labels.get(name, "") for name in metric.labels})
    if metric.bounds:
        child.observe(value)
    else:
        child.inc(value)
