"""A collector for Prometheus. Needs ``pip install "truncus-django[prometheus]"``."""

from collections.abc import Iterable
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from truncus_django.metrics.readings import Reader
from truncus_django.telemetry.instruments import IN_DATABASE

__all__ = ["TruncusCollector"]


class TruncusCollector(Collector):
    """Reads the log and the outbox whenever Prometheus asks; register one in one registry.

    Args:
        tenants: how many of them have a label of their own, those with the most emails; the others
            are ``other``.
        window: how far back emails are counted.
    """

    def __init__(self, *, tenants: int = 20, window: timedelta = timedelta(days=1)) -> None:
        self._reader = Reader(tenants=tenants, window=window)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics without values, so that to register asks the database nothing."""
        return list(_families().values())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics."""
        families = _families()
        for reading in self._reader.read():
            metric = reading.metric
            values = [reading.labels[label] for label in metric.labels]
            families[metric.prometheus_name].add_metric(values, reading.value)
        return [family for family in families.values() if family.samples]


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        metric.prometheus_name: GaugeMetricFamily(
            metric.prometheus_name, metric.description, labels=list(metric.labels)
        )
        for metric in IN_DATABASE
    }
