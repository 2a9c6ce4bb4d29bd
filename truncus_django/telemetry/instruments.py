"""What is measured: each metric is defined once, whoever reads it.

Names and attributes of OpenTelemetry are those of its semantic conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/) where these have one. What they do not
know is in the namespace that they reserve for a system: ``messaging.truncus``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SYSTEM = "truncus"
"""The value of ``messaging.system``."""

MESSAGING_SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
MESSAGE_COUNT = "messaging.batch.message_count"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"
ERROR_TYPE = "error.type"
HTTP_STATUS = "http.response.status_code"

ACCEPTED_COUNT = "messaging.truncus.accepted_count"
ATTEMPTS = "messaging.truncus.attempts"
BATCH_ID = "messaging.truncus.batch.id"
DELIVERY = "messaging.truncus.delivery"
EVENT = "messaging.truncus.event"
MAILER = "messaging.truncus.mailer"
STATE = "messaging.truncus.state"
TENANT = "messaging.truncus.tenant"

_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The bounds that the semantic conventions want."""
_LAGS_S = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Metric:
    """Something that is measured.

    Attributes:
        name: OpenTelemetry's.
        prometheus_name: Prometheus's, without ``_total``.
        unit: in UCUM, as OpenTelemetry writes units.
        labels: by Prometheus's label, OpenTelemetry's attribute.
        bounds: of the buckets of a histogram.
    """

    name: str
    prometheus_name: str
    unit: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)
    bounds: tuple[float, ...] = ()


# Measured by each process as it goes --------------------------------------------------------------

_OPERATION_LABELS = {
    "operation": OPERATION_NAME,
    "destination": DESTINATION,
    "error": ERROR_TYPE,
}

REQUEST_DURATION = Metric(
    name="messaging.client.operation.duration",
    prometheus_name="truncus_request_duration_seconds",
    unit="s",
    description="Duration of requests that send emails, with their retries.",
    labels=_OPERATION_LABELS,
    bounds=_DURATIONS_S,
)
SENT_EMAILS = Metric(
    name="messaging.client.sent.messages",
    prometheus_name="truncus_sent_emails",
    unit="{message}",
    description="Emails that requests held; with an error if they were not accepted.",
    labels=_OPERATION_LABELS,
)
WEBHOOK_DURATION = Metric(
    name="messaging.process.duration",
    prometheus_name="truncus_webhook_duration_seconds",
    unit="s",
    description="Duration of verifying, storing and applying a webhook.",
    labels=_OPERATION_LABELS,
    bounds=_DURATIONS_S,
)
WEBHOOK_LAG = Metric(
    name="truncus.webhook.lag",
    prometheus_name="truncus_webhook_lag_seconds",
    unit="s",
    description="Time from an event to when its webhook was stored, once for each event.",
    labels={"event": EVENT},
    bounds=_LAGS_S,
)

# Read from the database ---------------------------------------------------------------------------

DATABASE_UP = Metric(
    name="truncus.database.up",
    prometheus_name="truncus_database_up",
    unit="1",
    description="Whether the database of the log and the outbox answered: 1 or 0.",
)
EMAILS = Metric(
    name="truncus.emails",
    prometheus_name="truncus_emails",
    unit="{email}",
    description="Emails recorded within the window, by their present state; without the sandbox.",
    labels={"state": STATE, "mailer": MAILER, "tenant": TENANT},
)
QUEUE_DEPTH = Metric(
    name="truncus.outbox.emails",
    prometheus_name="truncus_outbox_emails",
    unit="{email}",
    description="Emails in the outbox by state; counting ends at 10,000 of each.",
    labels={"state": STATE},
)
QUEUE_AGE = Metric(
    name="truncus.outbox.oldest_age",
    prometheus_name="truncus_outbox_oldest_age_seconds",
    unit="s",
    description="For how long the oldest email of the outbox has waited; 0 if none waits.",
)
OVERDUE_LEASES = Metric(
    name="truncus.outbox.overdue_leases",
    prometheus_name="truncus_outbox_overdue_leases",
    unit="{request}",
    description="Requests whose worker died and that no other worker took over.",
)
PAUSED_ACCOUNTS = Metric(
    name="truncus.outbox.paused_accounts",
    prometheus_name="truncus_outbox_paused_accounts",
    unit="{account}",
    description="Accounts that are paused.",
)

IN_PROCESS = (REQUEST_DURATION, SENT_EMAILS, WEBHOOK_DURATION, WEBHOOK_LAG)
IN_DATABASE = (DATABASE_UP, EMAILS, QUEUE_DEPTH, QUEUE_AGE, OVERDUE_LEASES, PAUSED_ACCOUNTS)


# Operations ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OperationKind:
    """An operation that is a span.

    Attributes:
        name: of the operation, which the span's name begins with.
        type: the conventions' word for it; empty where none fits.
        span_kind: a member of OpenTelemetry's ``SpanKind``.
        destination: where its messages go; empty where each operation says so itself.
        duration: what is measured of it, too.
    """

    name: str
    span_kind: str
    type: str = ""
    destination: str = ""
    duration: Metric | None = None


SEND_MESSAGES = OperationKind(name="send_messages", span_kind="INTERNAL")
ENQUEUE = OperationKind(name="enqueue", span_kind="PRODUCER", type="send", destination="outbox")
"""A producer's: what is sent later is linked to it."""
REQUEST = OperationKind(name="send", span_kind="CLIENT", type="send", duration=REQUEST_DURATION)
WEBHOOK = OperationKind(
    name="process",
    span_kind="CONSUMER",
    type="process",
    destination="webhook",
    duration=WEBHOOK_DURATION,
)
