"""The context manager, Django pointed at the emulator and back, and the pytest fixture."""

import subprocess
import sys
from pathlib import Path

import django
import pytest
from django.conf import settings
from django.core import mail
from django.core.mail import send_mail
from django.test.utils import override_settings

from truncus_django import testing
from truncus_django.testing import API_KEY, BACKEND, run_emulator, use_emulator

from .conftest import Client

ROOT = Path(__file__).parents[2]
SMTP = "django.core.mail.backends.smtp.EmailBackend"
HAS_MAILERS = django.VERSION >= (6, 1)


def mail_settings():
    return settings.MAILERS if HAS_MAILERS else settings.EMAIL_BACKEND


def test_emulator_runs_for_the_block():
    with run_emulator(dialect="sdk") as emulator:
        assert Client(emulator).send().json()["status"] == "sent"
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.url
    assert emulator.accepted == 1


def test_django_is_pointed_at_the_emulator_and_back():
    before = mail_settings(), settings.TRUNCUS
    with run_emulator() as emulator, use_emulator(emulator):
        assert settings.TRUNCUS["BASE_URL"] == emulator.url
        assert settings.TRUNCUS["API_KEY"] == API_KEY
        expected = {"default": {"BACKEND": BACKEND}} if HAS_MAILERS else BACKEND
        assert mail_settings() == expected
    assert (mail_settings(), settings.TRUNCUS) == before


def test_other_settings_of_truncus_stay():
    with (
        override_settings(TRUNCUS={"TENANT_ID": "acme", "API_KEY": "tr_live_real"}),
        run_emulator() as emulator,
        use_emulator(emulator),
    ):
        assert settings.TRUNCUS["TENANT_ID"] == "acme"
        assert settings.TRUNCUS["API_KEY"] == API_KEY


def test_what_a_fallback_mailer_sends_stays_in_memory():
    own = {"TRUNCUS": {"FALLBACK_MAILER": "smtp" if HAS_MAILERS else SMTP, "RECORD": False}}
    if HAS_MAILERS:
        own["MAILERS"] = {"default": {"BACKEND": BACKEND}, "smtp": {"BACKEND": SMTP}}
    revoked = run_emulator(revoked_keys=[API_KEY])
    with override_settings(**own), revoked as emulator, use_emulator(emulator):
        send_mail("Order", "Text", "shop@example.com", ["ann@example.org"])
    assert [message.subject for message in mail.outbox] == ["Order"]


if HAS_MAILERS:

    def test_every_mailer_goes_to_the_emulator_and_keeps_its_truncus_options():
        mailers = {
            "default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend", "OPTIONS": {}},
            "bulk": {"BACKEND": BACKEND, "OPTIONS": {"sandbox": True, "api_key": "tr_live_real"}},
        }
        with override_settings(MAILERS=mailers), run_emulator() as emulator, use_emulator(emulator):
            assert settings.MAILERS == {
                "default": {"BACKEND": BACKEND},
                "bulk": {"BACKEND": BACKEND, "OPTIONS": {"sandbox": True}},
            }


def test_importing_costs_nothing():
    code = """
import sys, truncus_django.testing
heavy = {"django", "werkzeug", "requests", "truncus_django.emulator"} & set(sys.modules)
sys.exit(", ".join(heavy) or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_names_that_need_django_are_there_when_asked_for_and_others_are_not():
    assert [name for name in testing.__all__ if getattr(testing, name, None) is None] == []
    with pytest.raises(AttributeError, match="has no attribute 'assert_emial_sent'"):
        _ = testing.assert_emial_sent


USER_TESTS = """
import requests
import truncus_django.testing as t
from truncus_django.testing import _truncus_emulator_server, truncus_emulator
seen = []

def test_first(truncus_emulator):
    truncus_emulator.reset(dialect="sdk")
    truncus_emulator.faults.next("error_500")
    seen.append(truncus_emulator.url)

def test_second_finds_it_fresh(truncus_emulator):
    assert truncus_emulator.options.dialect == "manual"
    assert truncus_emulator.faults.pending == 0
    assert seen == [truncus_emulator.url]
{more}
"""
PLAIN_TESTS = """
import sys

def test_nothing_has_loaded_django():
    assert "django" not in sys.modules
"""
DJANGO_TESTS = """
def test_django(truncus_emulator, settings):
    assert settings.TRUNCUS["BASE_URL"] == truncus_emulator.url

def test_django_is_left_alone_without_the_fixture(settings):
    assert settings.TRUNCUS == {"API_KEY": "tr_test_unit", "RECORD": False}

def test_settings_that_are_changed_beside_it(settings, truncus_emulator):
    settings.TRUNCUS = {**settings.TRUNCUS, "TENANT_ID": "acme"}

def test_come_back_with_those_of_the_fixture():
    from django.conf import settings
    assert settings.TRUNCUS == {"API_KEY": "tr_test_unit", "RECORD": False}
"""


@pytest.mark.parametrize("with_django", [True, False], ids=["django", "no django"])
def test_fixture_in_a_users_suite(tmp_path, with_django):
    tests = tmp_path / "test_users.py"
    tests.write_text(USER_TESTS.replace("{more}", DJANGO_TESTS if with_django else PLAIN_TESTS))
    plugin = ["--ds", "tests.settings"] if with_django else ["-p", "no:django"]
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, "--rootdir", str(tmp_path), str(tests)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert ("6 passed" if with_django else "3 passed") in done.stdout
