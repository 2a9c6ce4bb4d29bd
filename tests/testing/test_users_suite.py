"""A project's own suite, as pytest runs it: in one process, and in two at once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SETTINGS = """
import django
SECRET_KEY = "users"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "truncus_django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ROOT_URLCONF = "users_urls"
DEFAULT_FROM_EMAIL = "shop@example.com"
TRUNCUS = {"API_KEY": "tr_test_users", "WEBHOOK_SECRETS": ["a secret"]}
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "truncus_django.backend.TruncusBackend"}}
else:
    EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"
"""
URLS = """
from django.urls import include, path
urlpatterns = [path("truncus/", include("truncus_django.urls"))]
"""
TESTS = """
import pytest
from django.core.mail import send_mail
from django.test import TestCase
from truncus_django.testing import (
    assert_email_sent, assert_no_email_sent, deliver_event, send_outbox
)

@pytest.mark.parametrize("number", range(6))
def test_memory(number):
    assert_no_email_sent()
    send_mail(f"Order {number}", "Text", None, ["ann@example.org"])
    assert assert_email_sent(count=1).subject == f"Order {number}"

@pytest.mark.django_db
@pytest.mark.parametrize("number", range(6))
def test_emulator(number, truncus_emulator):
    assert_no_email_sent()
    send_mail(f"Order {number}", "Text", None, ["ann@example.org"])
    email = assert_email_sent(subject=f"Order {number}", count=1)
    assert deliver_event(email, "bounced").state == "bounced"

@pytest.mark.django_db
@pytest.mark.parametrize("number", range(6))
def test_outbox(number, truncus_emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    assert_no_email_sent()
    send_mail(f"Order {number}", "Text", None, ["ann@example.org"])
    assert_email_sent(subject=f"Order {number}", count=1)
    assert send_outbox() == 1
    assert deliver_event(assert_email_sent(count=1), "opened").open_count == 1

class ShopTests(TestCase):
    def test_memory(self):
        assert_no_email_sent()
        send_mail("Order", "Text", None, ["ann@example.org"])
        assert_email_sent(to="ann@example.org")

def test_failure():
    send_mail("Order", "Text", None, ["ann@example.org"])
    assert_email_sent(to="bob@example.org")
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_users_suite(processes, tmp_path):
    for name, code in {"settings": SETTINGS, "urls": URLS}.items():
        (tmp_path / f"users_{name}.py").write_text(code)
    (tmp_path / "test_users.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    options = ["-q", "-n", processes, "--ds", "users_settings", "--rootdir", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed, 19 passed" in done.stdout, done.stdout + done.stderr
    # The failure is at the user's own line.
    failed = done.stdout.partition("test_failure")[2]
    assert "No email is as expected; 1 email was sent." in failed
    assert "expected  bob@example.org" in failed
    assert "assertions.py" not in failed
