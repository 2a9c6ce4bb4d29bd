"""Webhooks, each with an event of an email of its own: ``python -m benchmarks.webhook``.

A process for each view and database, which calls the view with requests as WSGI makes them; so no
server and no middleware. This package's view verifies, stores and applies the event. Those of
Anymail (Postmark's) and django-ses read it and send a signal, and store nothing; django-ses does
not check its signature here, for which it would fetch a certificate. CPU is the process's own,
medians of rounds.
"""

import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import scratch
from benchmarks.processes import WrongWork, without_extras
from benchmarks.tables import table
from benchmarks.workers import Worker

EVENTS = 500
ROUNDS = 5
SECRET = "whsec_benchmarks"
_KINDS = ("delivered", "opened")


@dataclass(frozen=True, slots=True)
class Received:
    """What one kind of event took a view, on one database.

    Attributes:
        queries: of the database for one event, with those that begin and end its transaction.
    """

    view: str
    database: str
    kind: str
    cpu_us: float
    queries: float


def run(progress: Callable[[str], None] = lambda text: None) -> list[Received]:
    """Call the views, and check that each event was applied or signalled.

    Raises:
        WrongWork: one was not.
    """
    found = []
    databases = ["SQLite", *(["PostgreSQL"] if scratch.answers() else [])]
    for view, name in [
        *(("this package", each) for each in databases),
        ("Anymail, Postmark", "–"),
        ("django-ses, unverified", "–"),
    ]:
        progress(f"webhook: {view}, {name}")
        with ExitStack() as stack:
            if name == "PostgreSQL":
                database = stack.enter_context(scratch.scratch_database("webhook"))
            else:
                directory = stack.enter_context(TemporaryDirectory(prefix="truncus_bench_"))
                path = Path(directory) / "log.sqlite3"
                database = {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
            worker = stack.enter_context(Worker(view, serve, view, database))
            found += [Received(view, name, *worker.ask(kind)) for kind in _KINDS]
    return found


def as_table(found: Sequence[Received]) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        ["webhooks", "database", "event", "CPU µs", "queries"],
        [
            [each.view, each.database, each.kind, f"{each.cpu_us:.0f}", f"{each.queries:g}"]
            for each in found
        ],
    )


# The process of a view ----------------------------------------------------------------------------


def serve(view: str, database: Mapping[str, Any]) -> Callable[[str], tuple[str, float, float]]:
    """Be the process of a view: return what answers the kind of event to measure."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    without_extras()
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["truncus_django", "anymail", "django_ses"],
        DATABASES={"default": dict(database)},
        TRUNCUS={"API_KEY": "tr_test_benchmarks", "WEBHOOKSECRETS": [SECRET]},
        ANYMAIL={"WEBHOOKSECRET": "name:secret"},
        AWS_SES_VERIFY_EVENT_SIGNATURES=False,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    chosen = {
        "this package": _ThisPackage,
        "Anymail, Postmark": _Anymail,
        "django-ses, unverified": _DjangoSes,
    }[view]()

    def respond(kind: str) -> tuple[str, float, float]:
        rounds = [_round(chosen, kind, number) for number in range(ROUNDS)]
        return kind, statistics.median(cpu for cpu, _ in rounds), rounds[-1][1]

    return respond


def _round(view: Any, kind: str, number: int) -> tuple[float, float]:
    from django.core.handlers.wsgi import WSGIRequest
    from django.db import connection

    ids = [f"m-{kind}-{number}-{place}" for place in range(EVENTS)]
    view.prepare(ids)
    requests = [WSGIRequest(environ_of(*view.request(kind, message_id))) for message_id in ids]

    started = time.process_time()
    for request in requests:
        answer = view.view(request)
        if answer.status_code != 200:
            raise WrongWork(f"a webhook was answered with {answer.status_code}")
    cpu = time.process_time() - started
    view.check(kind, ids)

    # Once more with a count, which takes time itself. Django logs what begins and ends, too.
    more = [f"{message_id}-counted" for message_id in ids[:20]]
    view.prepare(more)
    connection.force_debug_cursor = True
    connection.queries_log.clear()
    for message_id in more:
        view.view(WSGIRequest(environ_of(*view.request(kind, message_id))))
    queries = len(connection.queries_log)
    connection.force_debug_cursor = False
    return cpu / EVENTS * 1e6, queries / len(more)


def environ_of(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a webhook as WSGI hands it over."""
    names = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/webhook/",
        "SERVER_NAME": "shop.example.com",
        "SERVER_PORT": "443",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        **names,
    }


def signed_request(kind: str, message_id: str) -> tuple[bytes, Mapping[str, str]]:
    """Return body and headers of a webhook of Truncus, signed with :data:`SECRET`."""
    from truncus_django.api import contract
    from truncus_django.api.webhooks import sign

    now = int(time.time())
    fields = {
        "event": f"email.{kind}",
        "event_id": f"e-{message_id}",
        "message_id": message_id,
        "recipient": "ann@example.org",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }
    body = json.dumps(fields).encode()
    signature = sign(body, secret=SECRET, timestamp=now)
    return body, {
        contract.SIGNATURE_HEADER: signature,
        contract.TIMESTAMP_HEADER: str(now),
    }


class _ThisPackage:
    def __init__(self) -> None:
        from truncus_django.views import webhook

        self.view = webhook

    def prepare(self, ids: Sequence[str]) -> None:
        from django.utils import timezone

        from truncus_django.models import Email

        Email.objects.bulk_create(
            Email(
                message_id=message_id,
                state="sent",
                to=["ann@example.org"],
                subject="Order",
                search_text="ann@example.org order",
                sent_at=timezone.now(),
            )
            for message_id in ids
        )

    def request(self, kind: str, message_id: str) -> tuple[bytes, Mapping[str, str]]:
        return signed_request(kind, message_id)

    def check(self, kind: str, ids: Sequence[str]) -> None:
        from truncus_django.models import Email

        emails = Email.objects.filter(message_id__in=ids)
        applied = (
            emails.filter(state="delivered") if kind == "delivered" else emails.filter(open_count=1)
        )
        if applied.count() != len(ids):
            raise WrongWork(f"{applied.count()} of {len(ids)} events were applied")


class _Signals:
    """A view that sends a signal for each event, and stores nothing."""

    def __init__(self) -> None:
        self._received = 0

    def prepare(self, ids: Sequence[str]) -> None:
        self._received = 0

    def _receive(self, **facts: Any) -> None:
        self._received += 1

    def check(self, kind: str, ids: Sequence[str]) -> None:
        if self._received != len(ids):
            raise WrongWork(f"{self._received} of {len(ids)} events were signalled")


class _Anymail(_Signals):
    def __init__(self) -> None:
        super().__init__()
        from anymail.signals import tracking
        from anymail.webhooks.postmark import PostmarkTrackingWebhookView

        self.view = PostmarkTrackingWebhookView.as_view()
        tracking.connect(self._receive)

    def request(self, kind: str, message_id: str) -> tuple[bytes, Mapping[str, str]]:
        at = "DeliveredAt" if kind == "delivered" else "ReceivedAt"
        fields: dict[str, Any] = {
            "RecordType": "Delivery" if kind == "delivered" else "Open",
            "MessageID": message_id,
            "Recipient": "ann@example.org",
            at: "2026-11-29T12:00:00Z",
            "Metadata": {},
        }
        return json.dumps(fields).encode(), {"Authorization": "Basic bmFtZTpzZWNyZXQ="}


class _DjangoSes(_Signals):
    def __init__(self) -> None:
        super().__init__()
        from django_ses.signals import delivery_received, open_received
        from django_ses.views import SESEventWebhookView

        self.view = SESEventWebhookView.as_view()
        delivery_received.connect(self._receive)
        open_received.connect(self._receive)

    def request(self, kind: str, message_id: str) -> tuple[bytes, Mapping[str, str]]:
        word = "Delivery" if kind == "delivered" else "Open"
        mail = {"messageId": message_id, "destination": ["ann@example.org"]}
        told = {"eventType": word, "mail": mail, word.lower(): {"recipients": []}}
        return json.dumps({"Type": "Notification", "Message": json.dumps(told)}).encode(), {}


if __name__ == "__main__":
    print(as_table(run(lambda text: print(text, file=sys.stderr))))
