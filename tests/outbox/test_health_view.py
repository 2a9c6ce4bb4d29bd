"""The health endpoint: who may ask, what is told, and the same over real HTTP."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.servers import serving
from truncus_django import views
from truncus_django.models import OutboxEntry

pytestmark = pytest.mark.django_db

TOKEN = "probe-of-the-load-balancer"
URL = "/truncus/health/"


@pytest.fixture(autouse=True)
def with_token(outbox: None, settings: Any) -> None:
    views._trouble_with_health.clear()
    settings.TRUNCUS = {**settings.TRUNCUS, "HEALTH_TOKEN": TOKEN}


def get(token: str | None = TOKEN, *, scheme: str = "Bearer", client: Client | None = None) -> Any:
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    return (client or Client()).get(URL, headers=headers)


def make_late(seconds: float) -> None:
    OutboxEntry.objects.update(created_at=timezone.now() - timedelta(seconds=seconds))


# What is told -------------------------------------------------------------------------------------


def test_its_url_has_a_name():
    assert reverse("truncus_django:health") == URL


def test_an_outbox_that_is_well_is_200(put):
    put(2)
    answer = get()

    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["truncus_outbox_pending"]) == ("healthy", 2)
    assert all(isinstance(value, float) for name, value in told.items() if name != "status")
    assert "example.org" not in answer.content.decode()


def test_an_outbox_that_is_late_is_503(put, settings):
    put()
    make_late(1000)
    answer = get()
    assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
    assert answer.json()["truncus_outbox_oldest_age_s"] > 999

    settings.TRUNCUS = {**settings.TRUNCUS, "HEALTH_MAX_AGE": 3600}
    assert get().status_code == 200


def test_head_tells_the_status_alone(put):
    put()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert Client().head(URL, headers=headers).status_code == 200
    make_late(1000)
    answer = Client().head(URL, headers=headers)
    assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_other_methods_are_405(method):
    answer = getattr(Client(), method)(URL, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 405


@pytest.mark.parametrize("token", [TOKEN, "another"])
def test_no_cache_keeps_it(token):
    assert "no-store" in get(token)["Cache-Control"]


# Who may ask --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer another", f"Basic {TOKEN}", TOKEN, "Bearer probe",
     f"Bearer {TOKEN} more", "Bearer None", "Bearer \u00e9"],
)  # fmt: skip
def test_others_are_refused(header):
    headers = {} if header is None else {"Authorization": header}
    answer = Client().get(URL, headers=headers)

    assert (answer.status_code, answer.json()) == (403, {"status": "forbidden"})


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_name_of_the_scheme_may_be_written_in_any_case(scheme):
    assert get(scheme=scheme).status_code == 200


@pytest.mark.parametrize("token", ["None", "", "probe-1"])
def test_without_a_token_in_the_settings_no_token_will_do(settings, token):
    settings.TRUNCUS = {
        name: value for name, value in settings.TRUNCUS.items() if name != "HEALTH_TOKEN"
    }
    assert get(token).status_code == 403


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(
        views, "constant_time_compare", lambda *both: bool(compared.append(both)) or True
    )
    assert get("another").status_code == 200
    assert compared == [("another", TOKEN)]


def test_staff_who_may_view_emails_may_ask(may):
    assert get(None, client=may("view_email")).status_code == 200


def test_staff_who_may_not_view_emails_may_not_ask(may):
    assert get(None, client=may("view_user")).status_code == 403


def test_a_user_who_is_no_staff_may_not_ask(may, django_user_model):
    client = may("view_email")
    django_user_model.objects.update(is_staff=False)
    assert get(None, client=client).status_code == 403


def test_login_required_middleware_lets_a_probe_through(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert get().status_code == 200
    assert get("another").status_code == 403  # and no redirect to a login


def test_it_needs_no_users(settings):
    settings.MIDDLEWARE = []
    assert get().status_code == 200
    assert get(None).status_code == 403


# Trouble ------------------------------------------------------------------------------------------


def test_a_database_that_is_gone_is_503_and_logged_once(monkeypatch, caplog, settings):
    def fail() -> None:
        raise OperationalError("host=geheim")

    settings.DEBUG = False
    monkeypatch.setattr(views, "outbox_health", fail)
    answers = [get() for _ in range(3)]

    assert {(a.status_code, a.content) for a in answers} == {(503, b'{"status": "unknown"}')}
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.truncus_event for record in records] == ["health_unknown"]
    assert "geheim" not in caplog.text


def test_an_outbox_that_is_late_mails_nobody_for_each_probe(put, emulator, settings, caplog):
    settings.DEBUG = False  # Django mails what it logs as an error to the admins
    put()
    make_late(1000)
    before = OutboxEntry.objects.count()

    assert {get().status_code for _ in range(3)} == {503}
    assert OutboxEntry.objects.count() == before
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_wrong_settings_are_503(settings):
    settings.TRUNCUS = {"HEALTH_TOKEN": TOKEN, "TIMEOUT": "soon"}
    assert (get().status_code, get().json()) == (503, {"status": "unknown"})


@pytest.mark.parametrize(
    "token",
    [
        "",
        5,
        "a token of sixteen",
        "a\ntoken-of-sixteen",
        "...",
        "tøken" * 4,
        "fifteen-letters",
        ["a"],
    ],
)
def test_what_is_no_token_is_refused_by_the_settings(settings, token):
    from truncus_django.conf import problems

    settings.TRUNCUS = {**settings.TRUNCUS, "HEALTH_TOKEN": token}
    assert [problem.name for problem in problems()] == ["health_token"]


def test_the_token_shows_in_no_repr():
    from truncus_django.conf import get_settings

    assert TOKEN not in repr(get_settings())
    assert TOKEN not in repr(get_settings().health_token)


# Over real HTTP -----------------------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def port(db: None, settings: Any) -> Iterator[int]:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    with serving(make_server("127.0.0.1", 0, WSGIHandler(), handler_class=_Quiet)) as server:
        yield server.server_port


@pytest.mark.parametrize(("method", "token", "status"), [
    ("GET", TOKEN, 200), ("HEAD", TOKEN, 200), ("GET", "another", 403), ("HEAD", "", 403),
])  # fmt: skip
def test_a_probe_asks_over_http(port, monkeypatch, method, token, status):
    from truncus_django.outbox.health import health

    found = health()  # here: the thread of the server has a database of its own on SQLite
    monkeypatch.setattr(views, "outbox_health", lambda: found)
    connection = HTTPConnection("127.0.0.1", port)
    connection.request(method, URL, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()

    assert answer.status == status
    assert bool(body) == (method == "GET")
    assert "no-store" in str(answer.headers["Cache-Control"])
