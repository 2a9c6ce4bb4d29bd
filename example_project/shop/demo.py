"""The demo: every mail of the shop sent once, and what came of it found out.

The shop's own functions send, Django's signals from the package tell what was answered, and the
API is asked afterwards what happened to each mail. In the end the site is asked how it is: its
quota, its health, its metrics. What ought to come out is written down beside each scene, so that
the demo can tell whether it did.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from config.logs import FieldsFormatter
from django.conf import settings
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMessage
from django.test import Client
from django.test.utils import override_settings
from django.urls import reverse
from django.utils import timezone

from shop import emails
from shop.forms import SignUpForm
from shop.models import Order
from truncus_django.api import TruncusClient, TruncusError
from truncus_django.api.results import EmailDetails
from truncus_django.bulk import send_bulk
from truncus_django.emulator import Emulator
from truncus_django.log import ingest
from truncus_django.message import TruncusStatus
from truncus_django.models import Email
from truncus_django.quota.overview import Quota, quotas
from truncus_django.signals import post_send, send_failed
from truncus_django.testing import send_outbox, use_emulator

WAITING_CUSTOMERS = 250
HELD_BACK = 5
MONTHLY_LIMIT = 758
"""Just what the scenes use, but for the sandbox: with one more, an order would be refused."""
REVOKED_KEY = "tr_test_revoked"
ACCOUNT: Mapping[str, Any] = {"monthly_limit": MONTHLY_LIMIT, "revoked_keys": [REVOKED_KEY]}
"""Options of the emulator."""
WEBHOOK_SECRET = "only-for-the-example-project"
HEALTH_TOKEN = "only-for-the-example-project"
_SENT_EMAILS = "truncus_sent_emails_total"
_SENDING = frozenset({"send", "batch"})
_LONGEST_DELIVERY_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """What is answered to a mail, and what becomes of it later, in the words of one dialect.

    Attributes:
        later: empty where nothing may happen.
        went_to: who got it, where that is not who it was for.
        is_by_fallback: whether the fallback mailer sent it.
    """

    status: str
    later: str
    requests: int = 1
    went_to: str = ""
    is_by_fallback: bool = False


@dataclass(frozen=True)
class Scene:
    """One of the shop's mails, or one mail to many."""

    title: str
    send: Callable[[], object]
    expected: Outcome
    mails: int = 1
    is_refused: bool = False


@dataclass
class Row:
    """What came of a scene.

    Attributes:
        by_fallback: what the fallback mailer sent meanwhile.
        record: of a scene with one mail, what the log holds of it.
        went_to: of the same, who got it.
    """

    title: str
    statuses: Sequence[TruncusStatus]
    requests: int
    error: TruncusError | None = None
    later: Counter[str] = field(default_factory=Counter)
    by_fallback: Sequence[EmailMessage] = ()
    record: Email | None = None
    went_to: Sequence[str] = ()

    @property
    def answers(self) -> Counter[str]:
        """How many mails were answered with each status."""
        return Counter(
            _shown(s.status, bool(s.answer and s.answer.is_sandbox)) for s in self.statuses
        )

    @property
    def ids(self) -> list[str]:
        """Truncus's ids, in the order of sending."""
        return [status.id for status in self.statuses if status.id]


@dataclass
class Condition:
    """What the site says of itself after all scenes.

    Attributes:
        quotas: of its accounts.
        warnings: subjects of what the owner got by the fallback mailer.
        health_status: HTTP status of the health endpoint.
        health: its answer.
        metrics: some of the page for Prometheus; ``None`` without the extra.
        spans: OpenTelemetry's, how many by name; ``None`` without its SDK.
        measured, traced: emails that Truncus accepted, as metrics and spans count them.
    """

    quotas: Sequence[Quota]
    warnings: Sequence[str]
    health_status: int
    health: Mapping[str, Any]
    metrics: Sequence[str] | None
    spans: Counter[str] | None
    measured: int | None
    traced: int | None


@dataclass
class Report:
    """What came of all scenes, what the emulator counted, and what the site says."""

    rows: list[Row]
    condition: Condition
    accepted: int
    refused: int
    sending_requests: int
    reading_requests: int
    connections: int
    seconds: float
    log_lines: list[str]
    differences: list[str]


def _settings_for(emulator: Emulator) -> dict[str, Any]:
    """Return ``TRUNCUS`` for the demo: the shop's own, whatever the environment says."""
    return {
        **settings.TRUNCUS,
        "API_KEY": "tr_test_demo",
        "BASE_URL": emulator.url,
        "DIALECT": "auto",
        "DELIVERY": "direct",
        "DISPATCHER": "worker",
        "SANDBOX": False,
        "UNSUBSCRIBE_BASE_URL": "https://shop.example.com",
        "WEBHOOK_SECRETS": [WEBHOOK_SECRET],
        "HEALTH_TOKEN": HEALTH_TOKEN,
        "REDIRECT_TO": [],
        "ALLOW_RECIPIENTS": [],
    }


@contextmanager
def site_of(emulator: Emulator) -> Iterator[None]:
    """Let the shop send through ``emulator``, and its fallback mailer into Django's memory."""
    with override_settings(TRUNCUS=_settings_for(emulator)), use_emulator(emulator):
        yield


def run(emulator: Emulator) -> Report:
    """Send every mail through ``emulator``, whose options are :data:`ACCOUNT`, and report.

    To be called in :func:`site_of`, and outside of transactions, which quotas are not written in.
    """
    scenes = _scenes(emulator)
    started = time.perf_counter()
    spans, measured_before = _span_exporter(), _measured(_samples_before())
    if spans is not None:
        spans.clear()
    with _log_lines() as log_lines:
        rows = [_play(scene, emulator) for scene in scenes]
        _ask_what_happened_later(rows, emulator)
        _look_into_records(rows, emulator)
        counts = emulator.request_counts
        sending = _sending_requests(emulator)
        seconds = time.perf_counter() - started
        _hold_letters_back()
        condition = _ask_the_site(rows, spans, measured_before)
    report = Report(
        rows=rows,
        condition=condition,
        accepted=len(emulator.emails),
        refused=len(emulator.refused_emails),
        sending_requests=sending,
        reading_requests=sum(counts.values()) - sending,
        connections=emulator.connections,
        seconds=seconds,
        log_lines=log_lines,
        differences=[],
    )
    report.differences += _differences(scenes, report)
    return report


# What is sent -----------------------------------------------------------------------------------


def _scenes(emulator: Emulator) -> list[Scene]:
    """Return the scenes, with what the API answers in the emulator's dialect.

    The manual's API answers with how a mail ended; the SDK's says ``sent``, and the end comes
    later. The SDK's refuses text alone, which the package learns by one more request.
    """
    is_manual = emulator.options.dialect == "manual"
    delivered = Outcome("delivered" if is_manual else "sent", "delivered")
    bounced = Outcome("bounced" if is_manual else "sent", "bounced")
    refused = Outcome("rejected", "rejected") if is_manual else Outcome("blocked", "blocked")
    refused_here = Outcome("failed", "", requests=0)
    in_batches = Outcome(delivered.status, "delivered", requests=3 if is_manual else 4)

    rose = SignUpForm({"name": "Rose <3 Tea", "email": "rose@example.com"})
    rose.full_clean()
    customer = rose.save()
    order = Order.place(customer, {"assam": 2, "sencha": 1, "kettle": 1})
    german = Order.place(customer, {"rooibos": 1, "cups": 2}, language="de")
    waiting = [_order_of(f"customer{number}@example.org") for number in range(WAITING_CUSTOMERS)]
    full = _order_of("bounce+mailbox_full@example.com")
    suppressed = _order_of("suppressed@example.com")
    now = timezone.localtime()
    monday = emails.next_monday_morning(now)
    errors: list[Exception] = [RuntimeError("The confirmation did not fail.")]

    def send_to_suppressed() -> None:
        try:
            emails.send_order_confirmation(suppressed)
        except TruncusError as error:
            errors.append(error)
            raise

    def send_to_unsubscribed() -> None:
        _unsubscribe_from_digest(emulator)
        emails.schedule_weekly_digest(customer, monday + timedelta(weeks=1))

    def send_on_staging_site() -> None:
        with _changed(**settings.STAGING_GUARD):
            emails.send_order_confirmation(waiting[0])

    def send_with_revoked_key() -> None:
        with _changed(API_KEY=REVOKED_KEY):
            emails.send_order_confirmation(order)

    return [
        Scene("Sign-up, password link", lambda: emails.welcome_message(customer).send(), delivered),
        Scene("Order, HTML and PDF", lambda: emails.send_order_confirmation(order), delivered),
        Scene("Order, in German", lambda: emails.send_order_confirmation(german), delivered),
        Scene(
            "Delay notice to many",
            lambda: emails.send_delay_notices(waiting, now.date() + timedelta(weeks=1)),
            in_batches,
            mails=WAITING_CUSTOMERS,
        ),
        Scene(
            "Letters, killed midway",
            lambda: _send_letters_in_two_runs([order.customer for order in waiting]),
            Outcome(delivered.status, "delivered", requests=3),
            mails=WAITING_CUSTOMERS,
        ),
        Scene(
            "News, by merge data",
            lambda: emails.send_news(order.customer for order in waiting),
            replace(delivered, requests=3),
            mails=WAITING_CUSTOMERS,
        ),
        Scene(
            "Weekly digest, scheduled",
            lambda: emails.schedule_weekly_digest(customer, monday),
            Outcome("scheduled", "scheduled"),
        ),
        Scene(
            "Digest in the sandbox", emails.rehearse_weekly_digest, Outcome("sandbox", "sandbox")
        ),
        Scene(
            "Answer to a question",
            lambda: emails.answer_question(
                customer.email, "<question-1@mail.example.com>", "Yes, we wrap gifts."
            ),
            delivered,
        ),
        Scene("Order, mailbox full", lambda: emails.send_order_confirmation(full), bounced),
        Scene("Order, suppressed", send_to_suppressed, refused, is_refused=True),
        Scene(
            "Error mail to the admins",
            lambda: emails.report_unsent_confirmation(suppressed, errors[-1]),
            delivered,
        ),
        Scene(
            "Order, suppressed again",
            lambda: emails.send_order_confirmation(suppressed),
            refused_here,
            is_refused=True,
        ),
        Scene("Digest, unsubscribed", send_to_unsubscribed, refused_here, is_refused=True),
        Scene(
            "Order on a staging site",
            send_on_staging_site,
            replace(delivered, went_to=settings.STAGING_GUARD["REDIRECT_TO"][0]),
        ),
        Scene(
            "Order, key revoked",
            send_with_revoked_key,
            Outcome("sent", "sent", went_to=customer.email, is_by_fallback=True),
        ),
    ]


def _send_letters_in_two_runs(customers: Sequence[User]) -> None:
    """Send the letters of a week: by a run that dies half-way, and by another one."""

    def dying() -> Iterator[EmailMessage]:
        yield from islice(emails.tea_letters(customers), len(customers) // 2)
        raise SystemExit

    with suppress(SystemExit):
        send_bulk(dying(), key="letter")
    send_bulk(emails.tea_letters(customers), key="letter")


def _unsubscribe_from_digest(emulator: Emulator) -> None:
    """Do what a mail program does at a click: post to the address in the digest's header."""
    for digest in [each for each in emulator.emails if each.status == "scheduled"]:
        link = urlsplit((digest.payload or {})["headers"]["List-Unsubscribe"].strip("<>"))
        Client().post(link.path, {"List-Unsubscribe": "One-Click"}, headers={"host": "localhost"})


def _hold_letters_back() -> None:
    """Put letters into the outbox when the quota is used up, and let a worker look at them."""
    customers = User.objects.filter(username__endswith="@example.org").order_by("pk")[:HELD_BACK]
    with _changed(DELIVERY="outbox"):
        send_bulk(emails.tea_letters(customers), key="letter-of-next-week")
        send_outbox()


@contextmanager
def _changed(**changes: Any) -> Iterator[None]:
    """Change ``TRUNCUS`` as a site with other settings would have it."""
    with override_settings(TRUNCUS={**settings.TRUNCUS, **changes}):
        yield


def _order_of(email: str) -> Order:
    customer = User.objects.create(username=email, email=email, first_name="Sam")
    return Order.place(customer, {"oolong": 1})


# What came back ---------------------------------------------------------------------------------


def _play(scene: Scene, emulator: Emulator) -> Row:
    """Send a scene's mails and note what was answered."""
    before, by_fallback_before = _sending_requests(emulator), len(_by_fallback())
    error = None
    with _statuses() as statuses:
        try:
            scene.send()
        except TruncusError as caught:
            error = caught
    requests = _sending_requests(emulator) - before
    by_fallback = _by_fallback()[by_fallback_before:]
    return Row(scene.title, statuses, requests, error, by_fallback=by_fallback)


def _by_fallback() -> list[EmailMessage]:
    """Return what Django's backend in memory has sent; it makes the list with its first mail."""
    return list(getattr(mail, "outbox", ()))


@contextmanager
def _statuses() -> Iterator[list[TruncusStatus]]:
    """Yield a list that grows by the status of each message that Django sends meanwhile.

    Most of Django's mail functions make their messages themselves and return a number; the
    package's signals tell more.
    """
    statuses: list[TruncusStatus] = []

    def note(message: Any, **kwargs: Any) -> None:
        statuses.append(message.truncus_status)

    post_send.connect(note)
    send_failed.connect(note)
    try:
        yield statuses
    finally:
        post_send.disconnect(note)
        send_failed.disconnect(note)


@contextmanager
def _log_lines() -> Iterator[list[str]]:
    """Yield a list that grows by what the package logs as a warning or worse meanwhile."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Handler(logging.WARNING), logging.getLogger("truncus_django")
    handler.setFormatter(FieldsFormatter("{levelname} {message}", style="{"))
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield lines
    finally:
        logger.handlers, logger.propagate = handlers, propagates


def _sending_requests(emulator: Emulator) -> int:
    counts: Mapping[tuple[str, str, int], int] = emulator.request_counts
    return sum(count for (_, endpoint, _), count in counts.items() if endpoint in _SENDING)


# What happened later ----------------------------------------------------------------------------


def _ask_what_happened_later(rows: Sequence[Row], emulator: Emulator) -> None:
    """Ask the API about each mail until nothing more will happen to it soon."""
    client = TruncusClient("tr_test_demo", base_url=emulator.url)
    open_questions = deque((row, message_id) for row in rows for message_id in row.ids)
    answers: dict[str, EmailDetails] = {}

    def all_are_finished(_: Emulator) -> bool:
        while open_questions:
            row, message_id = open_questions[0]
            email = client.get_email(message_id)
            state = _shown(email.status, email.is_sandbox)
            if state in {"queued", "sent"}:
                return False
            row.later[state] += 1
            answers[message_id] = email
            open_questions.popleft()
        return True

    try:
        emulator.wait_for(all_are_finished, timeout_s=_LONGEST_DELIVERY_S)
    except TimeoutError:
        for row, _ in open_questions:
            row.later["on its way"] += 1
    ingest.apply_details(answers)  # as truncus_sync does when its time has come


def _look_into_records(rows: Sequence[Row], emulator: Emulator) -> None:
    """Find out what the log holds of the mails that a scene sent alone, and who got them."""
    for row in rows:
        status = row.statuses[0] if len(row.statuses) == 1 else None
        if status is None or status.email_pk is None:
            continue
        row.record = Email.objects.get(pk=status.email_pk)
        if status.sent_by:
            row.went_to = row.by_fallback[-1].to
            row.later[row.record.state] += 1
        elif status.id:
            found = emulator.email(status.id)
            row.went_to = found.to if found else ()


def _shown(status: str, is_sandbox: bool) -> str:
    return "sandbox" if is_sandbox else status


# What the site says -----------------------------------------------------------------------------


def _ask_the_site(rows: Sequence[Row], spans: Any, measured_before: int) -> Condition:
    """Ask what the owner, a monitor and Prometheus would ask."""
    health = _get("truncus_django:health")
    samples = _samples_of(_get("metrics")) if find_spec("prometheus_client") else None
    finished = None if spans is None else spans.get_finished_spans()
    return Condition(
        quotas=quotas(),
        warnings=[
            str(message.subject)
            for row in rows
            for message in row.by_fallback
            if message.to == ["owner@example.com"]
        ],
        health_status=health.status_code,
        health=health.json(),
        metrics=None if samples is None else _shown_samples(samples),
        spans=None if finished is None else Counter(span.name for span in finished),
        measured=None if samples is None else _measured(samples) - measured_before,
        traced=None if finished is None else _traced(finished),
    )


def _get(name: str) -> Any:
    """Return the site's answer to a machine that has the token."""
    headers = {"authorization": f"Bearer {HEALTH_TOKEN}", "host": "localhost"}
    return Client().get(reverse(name), headers=headers)


def _samples_of(page: Any) -> list[Any]:
    """Return what the page for Prometheus says."""
    from prometheus_client.parser import text_string_to_metric_families  # an extra

    text = page.content.decode() if page.status_code == 200 else ""
    return [each for family in text_string_to_metric_families(text) for each in family.samples]


def _samples_before() -> list[Any]:
    """Return what this process has measured, and leave the database's metrics alone."""
    if not find_spec("prometheus_client"):
        return []
    from prometheus_client import REGISTRY  # an extra

    counted = REGISTRY.restricted_registry([_SENT_EMAILS]).collect()
    return [sample for metric in counted for sample in metric.samples]


def _measured(samples: Sequence[Any]) -> int:
    """Return how many emails were accepted."""
    sent = [sample for sample in samples if sample.name == _SENT_EMAILS]
    return int(sum(sample.value for sample in sent if not sample.labels["error"]))


def _shown_samples(samples: Sequence[Any]) -> list[str]:
    """Return some that are not zero, without labels that are always the same."""
    return [
        f"{sample.name}{_shown_labels(sample.labels)} {sample.value:g}"
        for sample in samples
        if sample.value and sample.name in {_SENT_EMAILS, "truncus_outbox_emails"}
    ]


def _shown_labels(labels: Mapping[str, str]) -> str:
    shown = [f'{name}="{labels[name]}"' for name in ("error", "state") if name in labels]
    return f"{{{','.join(shown)}}}"


@cache
def _span_exporter() -> Any:
    """Return what keeps OpenTelemetry's spans in memory; ``None`` without its SDK."""
    if not (find_spec("opentelemetry") and find_spec("opentelemetry.sdk")):
        return None
    from opentelemetry import trace  # a project that has traces has these already
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def _traced(spans: Sequence[Any]) -> int:
    """Return how many accepted emails the spans of requests tell of."""
    requests = [span for span in spans if span.name.startswith("send ")]
    return sum(span.attributes.get("messaging.truncus.accepted_count", 0) for span in requests)


# Whether it was as expected ---------------------------------------------------------------------


def _differences(scenes: Sequence[Scene], report: Report) -> Iterator[str]:
    for scene, row in zip(scenes, report.rows, strict=True):
        expected, answers, later = scene.expected, dict(row.answers), dict(row.later)
        becomes = {expected.later: scene.mails} if expected.later else {}
        yield from _difference(f"{scene.title}: answers", {expected.status: scene.mails}, answers)
        yield from _difference(f"{scene.title}: later", becomes, later)
        yield from _difference(f"{scene.title}: requests", expected.requests, row.requests)
        if expected.went_to:
            yield from _difference(f"{scene.title}: went to", [expected.went_to], [*row.went_to])
        sent_by = settings.TRUNCUS["FALLBACK_MAILER"] if expected.is_by_fallback else ""
        found = row.record.sent_by if row.record else ""
        yield from _difference(f"{scene.title}: sent by", sent_by, found)
        if (row.error is not None) != scene.is_refused:
            yield f"{scene.title}: raised {row.error!r}"
    asked = [each for each in scenes if each.expected.requests and not each.expected.is_by_fallback]
    refused = sum(scene.mails for scene in asked if scene.is_refused)
    accepted = sum(scene.mails for scene in asked) - refused
    yield from _difference("Mails that the emulator accepted", accepted, report.accepted)
    yield from _difference("Mails that the emulator refused", refused, report.refused)
    told = sum(row.requests for row in report.rows)
    yield from _difference("Requests that the emulator counted", told, report.sending_requests)
    yield from _difference("TCP connections", 1, report.connections)
    yield from _differences_of_condition(report.condition, accepted)


def _differences_of_condition(condition: Condition, accepted: int) -> Iterator[str]:
    left = [(quota.used, quota.left) for quota in condition.quotas]
    yield from _difference("Quotas: used, left", [(MONTHLY_LIMIT, 0)], left)
    warnings = [
        f"{settings.EMAIL_SUBJECT_PREFIX}{percent}% of this month's emails are used"
        for percent in (80, 95, 100)
    ]
    yield from _difference("Warnings of the quota", warnings, [*condition.warnings])
    told = condition.health_status, condition.health.get("status")
    yield from _difference("Health endpoint", (200, "healthy"), told)
    held_back = condition.health.get("truncus_outbox_held_back")
    yield from _difference("Letters held back", HELD_BACK, held_back)
    for what, found in ("metrics", condition.measured), ("traces", condition.traced):
        if found is not None:
            yield from _difference(f"Accepted mails in the {what}", accepted, found)


def _difference(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected}, found {found}"
