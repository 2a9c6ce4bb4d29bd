"""The values of the metrics of the database; whoever exports them asks here."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Lock

from django.db import connections
from django.db.models import Case, CharField, Count, F, Value, When
from django.utils import timezone

from truncus_django.db.retry import is_in_transaction
from truncus_django.models import Email, database
from truncus_django.outbox.health import health
from truncus_django.states import State
from truncus_django.telemetry import instruments
from truncus_django.telemetry.instruments import Metric
from truncus_django.trouble_log import TroubleLog

OTHER = "other"
"""The label of all tenants that have none of their own."""
FRESH_S = 5.0

_trouble = TroubleLog()


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a metric.

    Attributes:
        labels: a value for each of the metric's labels.
    """

    metric: Metric
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Reads all metrics of the database, at most every few seconds.

    Args:
        tenants: how many have a label of their own; those with the most emails do.
        window: how far back emails are counted.
        fresh_s: seconds for which what was read is returned again.
    """

    def __init__(
        self,
        *,
        tenants: int = 20,
        window: timedelta = timedelta(days=1),
        fresh_s: float = FRESH_S,
    ) -> None:
        self._tenants = tenants
        self._window = window
        self._fresh_s = fresh_s
        self._read: Sequence[Reading] = ()
        self._read_at: float | None = None
        self._lock = Lock()

    def read(self) -> Sequence[Reading]:
        """Return the values.

        Where the database does not answer, that alone is returned, and is logged once.
        """
        with self._lock:
            now = time.monotonic()
            if self._read_at is None or now - self._read_at >= self._fresh_s:
                self._read, self._read_at = self._read_anew(), now
            return self._read

    def _read_anew(self) -> Sequence[Reading]:
        try:
            with _live_connection(database()):
                readings = [*_outbox(), *_emails(self._window, self._tenants)]
        except Exception as exc:  # noqa: BLE001  the other metrics are exported all the same
            _trouble.failed(
                exc,
                "The metrics of the log could not be read: %s. Further ones are not logged.",
                event="metrics_not_read",
            )
            return [Reading(instruments.DATABASE_UP, 0)]
        _trouble.clear()
        return [Reading(instruments.DATABASE_UP, 1), *readings]


@contextmanager
def _live_connection(using: str) -> Iterator[None]:
    """Close a connection that is dead or old, before and after.

    The thread of an exporter is no request, around which Django would do so. Inside a transaction
    of the caller's it is left alone.
    """
    connection = connections[using]
    if is_in_transaction(connection):
        yield
        return
    connection.close_if_unusable_or_obsolete()
    try:
        yield
    finally:
        connection.close_if_unusable_or_obsolete()


def _outbox() -> Iterator[Reading]:
    found = health()
    for state, count in (
        (State.PENDING, found.pending),
        (State.SENDING, found.sending),
        (State.UNKNOWN, found.unknown),
        (State.FAILED, found.failed),
    ):
        yield Reading(instruments.QUEUE_DEPTH, count, {"state": str(state)})
    yield Reading(instruments.QUEUE_AGE, found.oldest_age_s or 0.0)
    yield Reading(instruments.OVERDUE_LEASES, found.overdue_leases)
    yield Reading(instruments.PAUSED_ACCOUNTS, len(found.paused))


def _emails(window: timedelta, tenants: int) -> Iterator[Reading]:
    """Count the emails of the window. Two queries, whose cost grows with these emails alone."""
    since = timezone.now() - window
    recent = Email.objects.filter(created_at__gte=since, is_sandbox=False).order_by()
    # Nobody should name tenants after addresses; who does has them counted without names.
    nameable = recent.exclude(tenant_id__contains="@").exclude(tenant_id="")
    by_tenant = nameable.values("tenant_id").annotate(count=Count("pk"))
    busiest = by_tenant.order_by("-count", "tenant_id").values_list("tenant_id", flat=True)
    named = ["", *busiest[:tenants]]
    tenant = Case(
        When(tenant_id__in=named, then=F("tenant_id")),
        default=Value(OTHER),
        output_field=CharField(),
    )
    counted = recent.values_list("state", "mailer", tenant).annotate(Count("pk"))
    counts: Counter[tuple[str, str, str]] = Counter()
    for state, mailer, name, count in counted:
        counts[state, mailer, name] += count
    for (state, mailer, name), count in sorted(counts.items()):
        yield Reading(instruments.EMAILS, count, {"state": state, "mailer": mailer, "tenant": name})
