"""The demo: every mail of the shop sent once, and what came of it found out.

The shop's own functions send, Django's signals from the package tell what was answered, and the
API is asked afterwards what happened to each mail. What ought to come out is written down beside
each scene, so that the demo can tell whether it did.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from typing import Any

from django.contrib.auth.models import User
from django.core.mail import EmailMessage
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
from truncus_django.signals import post_send, send_failed

WAITING_CUSTOMERS = 250
WEBHOOK_SECRET = "only-for-the-example-project"
_SENDING = frozenset({"send", "batch"})
_LONGEST_DELIVERY_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """What is answered to a mail, and what becomes of it later, in the words of one dialect."""

    status: str
    later: str
    requests: int = 1


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
    """What came of a scene."""

    title: str
    statuses: Sequence[TruncusStatus]
    requests: int
    error: TruncusError | None = None
    later: Counter[str] = field(default_factory=Counter)

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
class Report:
    """What came of all scenes, and what the emulator counted."""

    rows: list[Row]
    accepted: int
    refused: int
    sending_requests: int
    reading_requests: int
    connections: int
    seconds: float
    log_lines: list[str]
    differences: list[str]


def settings_for(emulator: Emulator) -> dict[str, Any]:
    """Return ``TRUNCUS`` for the demo: the emulator, whatever the environment says."""
    return {
        "API_KEY": "tr_test_demo",
        "BASE_URL": emulator.url,
        "TENANT_ID": "shop",
        "SUPPRESS": "learn",
        "DIALECT": "auto",
        "DELIVERY": "direct",
        "SANDBOX": False,
        "STORE_BODIES": True,
        "INLINE_CSS": True,
        "UNSUBSCRIBE_BASE_URL": "https://shop.example.com",
        "WEBHOOK_SECRETS": [WEBHOOK_SECRET],
    }


def run(emulator: Emulator) -> Report:
    """Send every mail through ``emulator``, to which the settings point, and report."""
    scenes = _scenes(emulator.options.dialect)
    started = time.perf_counter()
    with _log_lines() as log_lines:
        rows = [_play(scene, emulator) for scene in scenes]
        _ask_what_happened_later(rows, emulator)
    counts = emulator.request_counts
    sending = _sending_requests(emulator)
    report = Report(
        rows=rows,
        accepted=len(emulator.emails),
        refused=len(emulator.refused_emails),
        sending_requests=sending,
        reading_requests=sum(counts.values()) - sending,
        connections=emulator.connections,
        seconds=time.perf_counter() - started,
        log_lines=log_lines,
        differences=[],
    )
    report.differences += _differences(scenes, report)
    return report


# What is sent -----------------------------------------------------------------------------------


def _scenes(dialect: str) -> list[Scene]:
    """Return the scenes, with what the API answers in ``dialect``.

    The manual's API answers with how a mail ended; the SDK's says ``sent``, and the end comes
    later. The SDK's refuses text alone, which the package learns by one more request.
    """
    is_manual = dialect == "manual"
    delivered = Outcome("delivered" if is_manual else "sent", "delivered")
    bounced = Outcome("bounced" if is_manual else "sent", "bounced")
    refused = Outcome("rejected", "rejected") if is_manual else Outcome("blocked", "blocked")
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
    errors: list[Exception] = [RuntimeError("The confirmation did not fail.")]

    def send_to_suppressed() -> None:
        try:
            emails.send_order_confirmation(suppressed)
        except TruncusError as error:
            errors.append(error)
            raise

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
            "News, by merge data",
            lambda: emails.send_news(order.customer for order in waiting),
            replace(delivered, requests=3),
            mails=WAITING_CUSTOMERS,
        ),
        Scene(
            "Letters, killed midway",
            lambda: _send_letters_in_two_runs([order.customer for order in waiting]),
            Outcome(delivered.status, "delivered", requests=3),
            mails=WAITING_CUSTOMERS,
        ),
        Scene(
            "Weekly digest, scheduled",
            lambda: emails.schedule_weekly_digest(customer, emails.next_monday_morning(now)),
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
    ]


def _send_letters_in_two_runs(customers: Sequence[User]) -> None:
    """Send the letters of a week: by a run that dies half-way, and by another one."""

    def dying() -> Iterator[EmailMessage]:
        yield from islice(emails.tea_letters(customers), len(customers) // 2)
        raise SystemExit

    with suppress(SystemExit):
        send_bulk(dying(), key="letter")
    send_bulk(emails.tea_letters(customers), key="letter")


def _order_of(email: str) -> Order:
    customer = User.objects.create(username=email, email=email, first_name="Sam")
    return Order.place(customer, {"oolong": 1})


# What came back ---------------------------------------------------------------------------------


def _play(scene: Scene, emulator: Emulator) -> Row:
    """Send a scene's mails and note what was answered."""
    before = _sending_requests(emulator)
    error = None
    with _statuses() as statuses:
        try:
            scene.send()
        except TruncusError as caught:
            error = caught
    return Row(scene.title, statuses, _sending_requests(emulator) - before, error)


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
            lines.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("truncus_django")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


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


def _shown(status: str, is_sandbox: bool) -> str:
    return "sandbox" if is_sandbox else status


# Whether it was as expected ---------------------------------------------------------------------


def _differences(scenes: Sequence[Scene], report: Report) -> Iterator[str]:
    for scene, row in zip(scenes, report.rows, strict=True):
        expected, answers, later = scene.expected, dict(row.answers), dict(row.later)
        yield from _difference(f"{scene.title}: answers", {expected.status: scene.mails}, answers)
        yield from _difference(f"{scene.title}: later", {expected.later: scene.mails}, later)
        yield from _difference(f"{scene.title}: requests", expected.requests, row.requests)
        if (row.error is not None) != scene.is_refused:
            yield f"{scene.title}: raised {row.error!r}"
    refused = sum(scene.mails for scene in scenes if scene.is_refused)
    accepted = sum(scene.mails for scene in scenes) - refused
    yield from _difference("Mails that the emulator accepted", accepted, report.accepted)
    yield from _difference("Mails that the emulator refused", refused, report.refused)
    told = sum(row.requests for row in report.rows)
    yield from _difference("Requests that the emulator counted", told, report.sending_requests)
    yield from _difference("TCP connections", 1, report.connections)


def _difference(what: str, expected: object, found: object) -> Iterator[str]:
    if expected != found:
        yield f"{what}: expected {expected}, found {found}"
