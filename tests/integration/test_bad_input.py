"""What a new user gets wrong: each time a message that says what to do, and no secrets in it."""

import logging
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.mail import EmailMessage

from truncus_django.api.errors import TruncusError
from truncus_django.message import TruncusMessage

KEY = "tr_live_0123456789abcdef"
SECRETS = [KEY, "0123456789abcdef", "zelda@", "boss@", "secret-link", "Very private subject"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that any logger writes, debugging included."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


@pytest.fixture
def told(backend: Callable[..., Any], log: Any) -> Callable[..., str]:
    """Return a function that sends, and returns the text of the error with its traceback."""

    def send(message: EmailMessage | None = None, **options: Any) -> str:
        mailer = backend(**{"api_key": KEY, "max_retries": 1, **options})
        with pytest.raises(TruncusError) as caught:
            mailer.send_messages([message or private_message()])
        shown = [
            str(caught.value),
            repr(caught.value),
            "".join(traceback.format_exception_only(caught.value)),
            repr(mailer.client),
            repr(mailer.settings),
            log.text,
        ]
        for secret in SECRETS:
            assert not [text for text in shown if secret in text]
        return str(caught.value)

    return send


def private_message(**options: Any) -> TruncusMessage:
    fields = {
        "subject": "Very private subject",
        "body": "https://example.com/secret-link",
        "from_email": "boss@example.com",
        "to": ["zelda@example.org"],
    }
    return TruncusMessage(**fields | options)


def test_an_unknown_key(truncus_emulator, told):
    truncus_emulator.reset(api_keys={"tr_live_other": ["send"]})

    assert "TRUNCUS['API_KEY']" in told()


def test_a_revoked_key_in_the_sdk_dialect(truncus_emulator, told):
    truncus_emulator.reset(dialect="sdk", revoked_keys=[KEY])

    assert "Create a new API key" in told()


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
def test_an_unverified_domain(truncus_emulator, told, dialect):
    truncus_emulator.reset(dialect=dialect, verified_domains=["elsewhere.example"])

    assert "DEFAULT_FROM_EMAIL" in told()


@pytest.mark.parametrize(
    "address", ["zelda@", "zelda@example.org, boss@example.com", "zelda at home"]
)
def test_a_malformed_address(truncus_emulator, told, address):
    text = told(private_message(to=["x@example.org", address]))

    assert "'to', number 2," in text
    assert not truncus_emulator.requests


@pytest.mark.parametrize(
    "message",
    [
        private_message(subject="Very private subject\nBcc: zelda@example.org"),
        private_message(headers={"X-Order": "42\r\nBcc: zelda@example.org"}),
        private_message(headers={"X-Order: 42\nBcc": "zelda@example.org"}),
        private_message(to=["Ann\n <zelda@example.org>"]),
        private_message(from_email="=?utf-8?q?Boss=0ABcc=3A_ann?= <boss@example.com>"),
        private_message(headers={"Bcc": "zelda@example.org"}),
    ],
    ids=["subject", "header value", "header name", "recipient", "encoded name", "bcc header"],
)
def test_a_header_injection(truncus_emulator, told, message):
    assert "header" in (text := told(message)) or "line break" in text
    assert not truncus_emulator.requests


def test_html_of_300_kb(truncus_emulator, told):
    assert "link to the rest" in told(private_message(html="<p>secret-link</p>" + "x" * 300_000))
    assert not truncus_emulator.requests


def test_eleven_attachments(truncus_emulator, told):
    files = [(f"{number}.txt", "secret-link", "text/plain") for number in range(11)]

    assert "the API takes 10" in told(private_message(attachments=files))
    assert not truncus_emulator.requests


def test_a_dead_host(truncus_emulator, told):
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        text = told(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}")

    assert "Check BASE_URL. Is the emulator running there?" in text
    assert "not known whether" not in text


def test_a_proxy_that_answers_with_html(truncus_emulator, told):
    truncus_emulator.faults.next("html_502", times=5)

    assert "a proxy in between, or a wrong BASE_URL" in told()


def test_a_web_site_that_is_not_truncus(truncus_emulator, told):
    # The emulator's inbox stands for any site: it has no API below this path.
    text = told(base_url=f"{truncus_emulator.url}/shop")

    assert "HTTP 404" in text


# Settings, as a new user meets them: a project of five lines -------------------------------------

PROJECT = """
import django
from django.conf import settings
mailer = {{"BACKEND": "truncus_django.backend.TruncusBackend"}}
mail = {{"MAILERS": {{"default": mailer}}}} if django.VERSION >= (6, 1) else {{
    "EMAIL_BACKEND": mailer["BACKEND"]}}
settings.configure(INSTALLED_APPS=["truncus_django"], TRUNCUS={truncus!r}, **mail)
django.setup()
from django.core.management import call_command
{action}
"""

SEND = 'call_command("sendtestemail", "zelda@example.org")'
CHECK = 'call_command("check", deploy=True)'


def run_project(truncus: dict[str, Any], action: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", PROJECT.format(**locals())],
        capture_output=True,
        text=True,
        check=False,
        env={},
    )
    assert done.returncode == 1
    return done.stderr.strip()


@pytest.mark.parametrize("action", [SEND, CHECK])
@pytest.mark.parametrize(
    ("truncus", "text"),
    [
        (
            {"API_KEY": KEY, "TENANT": "x"},
            "TRUNCUS['TENANT'] is unknown; did you mean 'TENANT_ID'?",
        ),
        ({}, "There is no API key"),
        ({"API_KEY": "sk_live_1"}, "does not begin with 'tr_'"),
        ({"API_KEY": KEY, "TIMEOUT": "long"}, "TIMEOUT must be a number of seconds"),
        ({"API_KEY": KEY, "DIALECT": "french"}, "DIALECT must be 'auto' or 'manual' or 'sdk'"),
        ({"API_KEY": KEY, "BASE_URL": "http://mail.example"}, "would travel in the clear"),
        ({"API_KEY": KEY, "BASE_URL": "mail.example"}, "BASE_URL must be a URL"),
    ],
)
def test_a_wrong_setting_is_told_by_check_and_by_the_first_send(truncus, text, action):
    shown = run_project(truncus, action)

    assert text in shown
    assert KEY not in shown.rpartition("\n")[2]
