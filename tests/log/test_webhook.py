"""The webhook: what is taken, what is refused, and the same over real HTTP from many threads."""

import json
import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from queue import Queue
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import requests
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIHandler
from django.db import OperationalError, connections
from django.test import Client
from django.urls import include, path, reverse

from tests.servers import serving
from tests.waiting import PATIENCE_S
from truncus_django import views
from truncus_django.api.webhooks import sign
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

SECRET = "whsec_one"
URL = "/truncus/webhook/"

urlpatterns = [path("truncus/", include("truncus_django.urls"))]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture(autouse=True)
def one_secret(recording: None, settings: Any) -> None:
    views._trouble.clear()
    settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": [SECRET]}


def delivered(**fields: Any) -> dict[str, Any]:
    now = int(time.time())
    told = {"event": "email.delivery", "message_id": "m-1", "status": "delivered", "timestamp": now}
    return {name: value for name, value in {**told, **fields}.items() if value is not None}


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    timestamp = int(time.time()) - age_s
    return {
        "Truncus-Timestamp": str(timestamp),
        "Truncus-Signature": sign(body, secret=secret, timestamp=timestamp),
    }


def post(told: Any, *, headers: dict[str, str] | None = None, **signing: Any) -> Any:
    """Post what is told, or a raw body, as Truncus would."""
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    return Client(enforce_csrf_checks=True).post(
        URL,
        body,
        content_type="application/json",
        headers=signed(body, **signing) if headers is None else headers,
    )


def is_short_refusal(answer: Any, status: int) -> bool:
    return (
        answer.status_code == status
        and len(answer.content) < 50
        and answer["Content-Type"].startswith("text/plain")
        and not EmailEvent.objects.exists()
    )


# Taken --------------------------------------------------------------------------------------------


def test_its_url_has_a_name():
    assert reverse("truncus_django:webhook") == URL


def test_a_good_webhook_moves_its_email_and_is_acknowledged_with_200():
    row = Email.objects.create(message_id="m-1", state=State.SENT)
    told = delivered(status="bounced", reason="mailbox_full", timestamp=1_790_000_000)

    assert post(told).status_code == 200
    row.refresh_from_db()
    assert (row.state, row.reason) == (State.BOUNCED, "mailbox_full")
    assert row.bounced_at == datetime.fromtimestamp(1_790_000_000, UTC)
    event = row.events.get()
    assert (event.type, event.source, event.payload) == ("bounced", "webhook", told)


def test_a_repeated_webhook_is_acknowledged_and_counted_once():
    row = Email.objects.create(message_id="m-1", state=State.DELIVERED)
    told = delivered(event="email.open", status="opened")
    assert [post(told).status_code for _ in range(3)] == [200] * 3

    row.refresh_from_db()
    assert (row.open_count, EmailEvent.objects.count()) == (1, 1)


def test_a_webhook_before_its_email_is_kept():
    assert post(delivered()).status_code == 200
    assert EmailEvent.objects.get().email is None


def test_any_of_the_secrets_verifies_so_that_they_can_be_rotated(settings):
    def answers() -> list[int]:
        return [post(delivered(), secret=secret).status_code for secret in ("old", "new")]

    for secrets, expected in [
        (["old"], [200, 403]),
        (["old", "new"], [200, 200]),
        (["new"], [403, 200]),
    ]:
        settings.TRUNCUS = {**settings.TRUNCUS, "WEBHOOK_SECRETS": secrets}
        assert answers() == expected


def test_the_published_prefix_of_signatures_is_accepted():
    body = json.dumps(delivered()).encode()
    headers = signed(body)
    headers["Truncus-Signature"] = "tcsig_" + headers["Truncus-Signature"]

    assert post(body, headers=headers).status_code == 200


@pytest.mark.parametrize("age_s", [-290, 290])
def test_300_seconds_are_near_enough(age_s):
    assert post(delivered(), age_s=age_s).status_code == 200


def test_foreign_events_are_kept_and_move_nothing():
    row = Email.objects.create(message_id="m-1", state=State.SENT)
    for told in (
        delivered(event="email.translated", status=None),
        delivered(event="domain.verified", status="whatever"),
        delivered(status="a-new-status"),
    ):
        assert post(told).status_code == 200

    row.refresh_from_db()
    assert row.state == State.SENT
    assert set(row.events.values_list("type", flat=True)) == {
        "translated",
        "domain.verified",
        "a-new-status",
    }


def test_a_lower_limit_for_forms_does_not_matter(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10

    assert post(delivered()).status_code == 200


def test_atomic_requests_change_nothing(settings, monkeypatch):
    from django.db import connection

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert post(delivered()).status_code == 200
    assert EmailEvent.objects.count() == 1


def test_where_every_page_asks_for_a_login_webhooks_still_arrive(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]

    assert post(delivered()).status_code == 200
    assert post(delivered(), secret="another").status_code == 403
    assert EmailEvent.objects.count() == 1


def test_a_project_without_users_takes_webhooks():
    program = """
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["truncus_django"],
    ROOT_URLCONF="truncus_django.urls",
    ALLOWED_HOSTS=["testserver"],
    TRUNCUS={"WEBHOOK_SECRETS": ["another"]},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.test import Client
print(Client().post("/webhook/", b"{}", content_type="application/json").status_code)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={}
    )
    assert ended.stdout == "403\n", ended.stderr


@pytest.mark.django_db(transaction=True)
def test_a_webhook_is_committed_before_it_is_acknowledged(settings, monkeypatch):
    """Not after the view, by ``ATOMIC_REQUESTS``: then a 200 could still be lost."""
    [alias] = connections
    monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    is_in_transaction = []
    real = views.ingest

    def ingest(incoming: Any) -> int:
        is_in_transaction.append(connections[alias].in_atomic_block)
        return real(incoming)

    monkeypatch.setattr(views, "ingest", ingest)

    assert post(delivered()).status_code == 200
    assert is_in_transaction == [False]


# Refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_only_post_is_allowed(method):
    assert getattr(Client(), method)(URL).status_code == 405


@pytest.mark.parametrize(
    "change",
    [
        {"Truncus-Signature": "0" * 64},
        {"Truncus-Signature": ""},
        {"Truncus-Signature": "é"},
        {"Truncus-Timestamp": ""},
        {"Truncus-Timestamp": "now"},
        {"Truncus-Timestamp": "-1"},
        {"Truncus-Timestamp": "9" * 5000},
        {"Truncus-Timestamp": str(int(time.time()) - 10)},
    ],
)
def test_whatever_is_wrong_with_a_signature_the_answer_is_the_same(change):
    body = json.dumps(delivered()).encode()
    answer = post(body, headers={**signed(body), **change})

    assert is_short_refusal(answer, 403)
    assert answer.content == post(body, secret="another").content
    assert answer.content == post(body, age_s=330).content == post(body, age_s=-330).content
    assert answer.content == post(body, headers={}).content


def test_a_changed_body_is_refused():
    body = json.dumps(delivered()).encode()

    assert is_short_refusal(post(body + b" ", headers=signed(body)), 403)


@pytest.mark.parametrize("secrets", [None, [], ()])
def test_without_a_secret_all_are_refused_and_the_operator_is_told_once(settings, caplog, secrets):
    settings.TRUNCUS = {"API_KEY": "tr_test", "WEBHOOK_SECRETS": secrets or []}
    for secret in ("", "None", SECRET):
        answer = post(delivered(), secret=secret)
        assert is_short_refusal(answer, 403)
        assert b"secret" not in answer.content.lower()

    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "WEBHOOK_SECRETS" in told[0].getMessage()


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"m-1"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"message_id": "m-1", "timestamp": ' + b"9" * 5000 + b"}",
        b"{}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_json_object_is_refused(body):
    assert is_short_refusal(post(body), 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"message_id": "m" * 10_000},
        {"message_id": "m" * 256},
        {"message_id": ""},
        {"message_id": None},
        {"message_id": 1},
        {"message_id": ["m-1"]},
        {"message_id": "m\x00"},
        {"message_id": "\ud800"},
        {"message_id": "a\nb"},
        {"event": 1},
        {"status": {"a": 1}},
        {"event": None, "status": None},
        {"event": "", "status": ""},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_news_that_does_not_say_what_it_is_about_is_refused(fields):
    assert is_short_refusal(post(delivered(**fields)), 400)


def test_a_signed_body_over_the_limit_is_refused():
    assert is_short_refusal(post(b" " * (256 * 1024 + 1)), 413)
    assert post(json.dumps(delivered()).encode().ljust(256 * 1024)).status_code == 200


def test_ten_megabytes_are_refused_unread(rf, monkeypatch):
    request = rf.post(URL, b"x", content_type="application/json")
    request.META["CONTENT_LENGTH"] = str(10 * 1024 * 1024)
    monkeypatch.setattr(request, "read", lambda *_: pytest.fail("it was read"))

    assert is_short_refusal(views.webhook(request), 413)


@pytest.mark.parametrize("length", [None, "", "many", "9" * 5000])
def test_a_request_without_a_length_is_refused_unread(rf, monkeypatch, length):
    request = rf.post(URL, b"x", content_type="application/json")
    request.META["CONTENT_LENGTH"] = length
    if length is None:
        del request.META["CONTENT_LENGTH"]
    monkeypatch.setattr(request, "read", lambda *_: pytest.fail("it was read"))

    assert is_short_refusal(views.webhook(request), 400)


def test_a_webhook_arrives_under_asgi():
    body = json.dumps(delivered()).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(body)), **signed(body)}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": URL,
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
    }

    assert views.webhook(ASGIRequest(scope, BytesIO(body))).status_code == 200


def test_a_sender_that_breaks_off_is_refused(rf, monkeypatch):
    def read(size: int) -> bytes:
        raise OSError

    request = rf.post(URL, b"x", content_type="application/json")
    monkeypatch.setattr(request, "read", read)

    assert is_short_refusal(views.webhook(request), 400)


def test_trouble_is_a_500_and_leaves_nothing_half_done(monkeypatch, caplog):
    row = Email.objects.create(message_id="m-1", state=State.SENT)

    def fail(*_: Any) -> None:
        raise OperationalError("ada@example.org is locked")

    with monkeypatch.context() as patch:
        patch.setattr("truncus_django.log.transitions.Changes.save", fail)
        assert is_short_refusal(post(delivered()), 500)
    assert "OperationalError" in caplog.text
    assert "ada@" not in caplog.text

    assert post(delivered()).status_code == 200
    row.refresh_from_db()
    assert row.state == State.DELIVERED


def test_trouble_is_logged_once_and_mailed_to_nobody(emulator, settings, monkeypatch, caplog):
    """Each mail to the admins would make a webhook that makes another mail."""

    def fail(incoming: Any) -> int:
        raise OperationalError

    settings.DEBUG = False  # Django mails what it logs as an error to the admins
    with monkeypatch.context() as patch:
        patch.setattr(views, "ingest", fail)
        assert {post(delivered(status=f"s-{n}")).status_code for n in range(5)} == {500}
        assert len([one for one in caplog.records if one.levelno >= logging.ERROR]) == 1
    assert emulator.emails == []

    post(delivered())
    monkeypatch.setattr(views, "ingest", fail)
    post(delivered())
    assert len([one for one in caplog.records if one.levelno >= logging.ERROR]) == 2


def test_wrong_settings_are_trouble_that_can_be_mended(settings, caplog):
    settings.TRUNCUS = {"WEBHOOK_SECRETS": [SECRET], "TIMEOUT": "soon"}

    assert post(delivered()).status_code == 500
    assert "ConfigurationError" in caplog.text


def test_nothing_of_a_webhook_is_logged(caplog):
    post(delivered(recipient="ada@example.org"))
    post(delivered(recipient="ada@example.org"), secret="another")
    post(delivered(recipient="ada@example.org", message_id=None))

    assert "ada@" not in caplog.text
    assert SECRET not in caplog.text


# Over real HTTP -----------------------------------------------------------------------------------


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Stay silent."""


class _Server(WSGIServer):
    """Four threads that answer requests, each with a connection to the database that it keeps."""

    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        super().__init__(address, handler)
        self._requests: Queue[tuple[Any, Any] | None] = Queue()
        self._threads = [Thread(target=self._work) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._requests.put((request, client_address))

    def _work(self) -> None:
        while (accepted := self._requests.get()) is not None:
            super().process_request(*accepted)
        connections.close_all()

    def server_close(self) -> None:
        super().server_close()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()


@pytest.fixture
def webhook_url(
    shared_database: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The webhook of this project, served over HTTP."""
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setitem(connections[shared_database].settings_dict, "CONN_MAX_AGE", None)
    with serving(make_server("127.0.0.1", 0, WSGIHandler(), _Server, _Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}{URL}"


def sent_to(emulator: Any, *scenarios: str) -> None:
    for number, scenario in enumerate(scenarios):
        TruncusMessage(
            f"Order {number}", "x", "shop@example.com", [f"{scenario}+{number}@example.org"]
        ).send()


@pytest.mark.django_db(transaction=True)
def test_the_emulators_webhooks_arrive_shuffled_twice_and_among_forged_ones(emulator, webhook_url):
    emulator.reset(
        dialect="sdk",
        delivery_delay_s=0.01,
        webhook_url=webhook_url,
        webhook_secret=SECRET,
        webhook_threads=4,
        webhook_duplicates=1,
        webhook_shuffle_s=0.2,
        webhook_bad_signatures=0.2,
        webhook_stale=0.2,
        webhook_backoff_s=(0.01,) * 20,
    )
    sent_to(emulator, *["deliver", "open", "click", "bounce", "complaint"] * 4)
    emulator.wait_for(
        lambda it: (
            it.webhooks_are_idle()
            and sum(a.flaw is None and a.status == 200 for a in it.webhook_attempts) == 2 * 36
        ),
        timeout_s=PATIENCE_S,
    )

    found = [
        (row.to[0].partition("+")[0], row.state, row.open_count, row.click_count)
        for row in Email.objects.all()
    ]
    expected = [
        ("bounce", State.BOUNCED, 0, 0),
        ("click", State.DELIVERED, 1, 1),
        ("complaint", State.COMPLAINED, 0, 0),
        ("deliver", State.DELIVERED, 0, 0),
        ("open", State.DELIVERED, 1, 0),
    ]
    assert sorted(found) == sorted(expected * 4)
    assert EmailEvent.objects.count() == 36
    bad = [attempt for attempt in emulator.webhook_attempts if attempt.flaw is not None]
    assert bad
    assert {attempt.status for attempt in bad} == {403}


@pytest.mark.django_db(transaction=True)
def test_truncus_repeats_what_met_trouble_until_it_is_stored(emulator, webhook_url, monkeypatch):
    failures = iter(range(2))
    ingest = views.ingest

    def fail_twice(incoming: Any) -> int:
        if next(failures, None) is not None:
            raise OperationalError
        return ingest(incoming)

    monkeypatch.setattr(views, "ingest", fail_twice)
    emulator.reset(webhook_url=webhook_url, webhook_secret=SECRET, webhook_backoff_s=(0.01,) * 5)
    sent_to(emulator, "bounce")
    emulator.wait_for(
        lambda it: any(a.status == 200 for a in it.webhook_attempts), timeout_s=PATIENCE_S
    )

    assert [attempt.status for attempt in emulator.webhook_attempts] == [500, 500, 200]
    assert EmailEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_thousand_events_from_four_threads_are_each_applied_once(webhook_url, in_threads):
    """Shuffled, each twice, and one in twenty forged or stale besides."""
    chance = random.Random(3)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    expected: dict[str, tuple[str, int, int]] = {}
    deliveries: list[tuple[bytes, dict[str, Any]]] = []

    def tell(message_id: str, event: str, status: str, second: int) -> bytes:
        at = int(start.timestamp()) + second
        return json.dumps(
            {"event": event, "message_id": message_id, "status": status, "timestamp": at}
        ).encode()

    for number in range(200):  # five events each
        message_id = f"m-{number}"
        end = ["bounced", "complained", "opened", "clicked", "sent"][number % 5]
        events = {
            "bounced": ["sent", "delivered", "bounced", "opened", "opened"],
            "complained": ["sent", "delivered", "opened", "clicked", "complained"],
            "opened": ["sent", "delivered", "opened", "opened", "opened"],
            "clicked": ["sent", "delivered", "opened", "clicked", "clicked"],
            "sent": ["sent", "opened", "opened", "clicked", "translated"],
        }[end]
        state = end if end in {"bounced", "complained", "sent"} else "delivered"
        expected[message_id] = (state, events.count("opened"), events.count("clicked"))
        for second, word in enumerate(events):
            name = {"opened": "email.open", "clicked": "email.click"}.get(word, "email.delivery")
            deliveries += [(tell(message_id, name, word, second), {})] * 2
    for number in range(100):
        flaw = {"secret": "another"} if number % 2 else {"age_s": 301 + number}
        deliveries.append((tell(f"m-{number}", "email.delivery", "complained", 999), flaw))
    chance.shuffle(deliveries)
    Email.objects.bulk_create(
        Email(message_id=message_id, state=State.PENDING) for message_id in expected
    )

    def post_some(mine: list[tuple[bytes, dict[str, Any]]]) -> list[int]:
        """Post each until it is acknowledged or refused, as Truncus does."""
        refused = []
        with requests.Session() as session:
            session.trust_env = False
            for body, flaw in mine:
                status = 500
                while status == 500:
                    answer = session.post(webhook_url, body, headers=signed(body, **flaw))
                    status = answer.status_code
                assert status == (403 if flaw else 200)
                refused += [status] if flaw else []
        return refused

    refused = in_threads(*[lambda i=i: post_some(deliveries[i::4]) for i in range(4)])

    assert sum(map(len, refused)) == 100
    found = Email.objects.values_list("message_id", "state", "open_count", "click_count")
    assert {message_id: tuple(rest) for message_id, *rest in found} == expected
    assert EmailEvent.objects.count() == 1000
    assert not EmailEvent.objects.filter(email=None).exists()
    assert not EmailEvent.objects.filter(occurred_at__gt=start + timedelta(seconds=10)).exists()
