"""System checks of the outbox: each thing that breaks its promise has an id of its own."""

import importlib.util

import django
import pytest
from django.test.utils import CaptureQueriesContext, override_settings

from truncus_django import checks
from truncus_django.checks import check_settings
from truncus_django.conf import BACKEND
from truncus_django.models import Email

OUTBOX = {"API_KEY": "tr_test_unit", "DELIVERY": "outbox"}


pytestmark = pytest.mark.usefixtures("truncus_mailer")


def ids(**truncus):
    with override_settings(TRUNCUS={**OUTBOX, **truncus}):
        return [found.id for found in check_settings()]


def test_an_outbox_in_order_passes():
    assert ids() == []


@pytest.mark.parametrize("dispatcher", ["celery", "tasks"])
def test_it_needs_whoever_is_to_be_notified(monkeypatch, dispatcher):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)

    assert ids(DISPATCHER=dispatcher) == ["truncus.E006"]
    assert ids(DISPATCHER=dispatcher, DELIVERY="direct") == []


def test_a_stand_in_for_django_tasks_will_do(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        checks,
        "find_spec",
        lambda name: real("json") if name == "django_tasks" else None,
    )
    assert ids(DISPATCHER="tasks") == []


@pytest.mark.parametrize("truncus", [{"DELIVERY": "outbx"}, {"DISPATCHER": "cron"}])
def test_a_way_that_does_not_exist_is_a_wrong_value(truncus):
    assert ids(**truncus) == ["truncus.E002"]


def test_another_database_is_no_part_of_transactions(settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES, "log", settings.DATABASES["default"])
    assert "truncus.W004" in ids(DATABASE="log")
    assert "truncus.W004" not in ids(DATABASE="log", DELIVERY="direct")


class LogRouter:
    """Keeps the log in a database of its own."""

    def db_for_write(self, model, **hints):
        return "log" if model._meta.app_label == "truncus_django" else None


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({}, {"truncus.W004"}),
        ({"OPTIONS": {}}, {"truncus.W004", "truncus.W006"}),
        ({"AUTOCOMMIT": False}, {"truncus.W004", "truncus.E009"}),
    ],
)
def test_the_database_that_a_router_names_is_looked_at(settings, monkeypatch, database, expected):
    log = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": "log",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        **database,
    }
    monkeypatch.setitem(settings.DATABASES, "log", log)
    settings.DATABASE_ROUTERS = [LogRouter()]
    assert set(ids()) == expected


def test_records_are_written_anyway():
    assert ids(RECORD=False) == ["truncus.W005"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["truncus.W006"]),
        ({"transaction_mode": "DEFERRED"}, ["truncus.W006"]),
        ({"transaction_mode": "immediate"}, []),
    ],
)
def test_sqlite_is_to_lock_before_it_reads(settings, monkeypatch, options, expected):
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db", "OPTIONS": options}
    monkeypatch.setitem(settings.DATABASES, "default", sqlite)

    assert ids() == expected


def test_a_database_that_commits_nothing_by_itself_is_refused(settings, monkeypatch):
    manual = {**settings.DATABASES["default"], "AUTOCOMMIT": False}
    monkeypatch.setitem(settings.DATABASES, "default", manual)

    assert ids() == ids(DELIVERY="direct") == ["truncus.E009"]


@pytest.mark.django_db
def test_the_database_is_not_asked():
    from django.db import connection

    with CaptureQueriesContext(connection) as captured:
        ids(DISPATCHER="tasks", RECORD=False)
    assert len(captured) == 0


if django.VERSION >= (6, 1):

    def test_onemailer_with_an_outbox_is_enough(settings, monkeypatch):
        monkeypatch.setattr(checks, "find_spec", lambda name: None)
        settings.MAILERS = {
            "default": {"BACKEND": BACKEND, "OPTIONS": {"delivery": "direct"}},
            "bulk": {"BACKEND": BACKEND, "OPTIONS": {"dispatcher": "celery"}},
        }
        assert ids() == ["truncus.E006"]

    @pytest.mark.parametrize("delivery", ["direct", "outbox"])
    def test_an_alias_has_to_fit_into_its_column(settings, delivery):
        longest = Email._meta.get_field("mailer").max_length
        settings.MAILERS = {"m" * longest: {"BACKEND": BACKEND}}
        assert ids(DELIVERY=delivery) == []

        settings.MAILERS["m" * (longest + 1)] = {"BACKEND": BACKEND}
        assert ids(DELIVERY=delivery) == ["truncus.E007"]
