"""django-post_office and django-mailer deliver through this backend, as docs/moving.md says."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import pytest

from tests.test_docs import CODES

pytestmark = pytest.mark.projects

SCRIPT = """
import json
import sys
from datetime import timedelta

import django
from django.conf import settings

folder, code, commands, recipients = map(json.loads, sys.argv[1:])
names = {}
exec(code, names)
configured = {name: value for name, value in names.items() if name.isupper()}
if "POST_OFFICE" in configured:
    configured["POST_OFFICE"] |= {"MAX_RETRIES": 1, "RETRY_INTERVAL": timedelta(0)}
settings.configure(
    SECRET_KEY="queues",
    DEFAULT_FROM_EMAIL="Shop <shop@example.com>",
    INSTALLED_APPS=["django.contrib.contenttypes", "truncus_django", "mailer", "post_office"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder + "/site"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    MEDIA_ROOT=folder,
    MAILER_LOCK_PATH=folder + "/lock",
    **configured,
)
django.setup()

from django.core.mail import EmailMultiAlternatives
from django.core.management import call_command

call_command("migrate", verbosity=0)
for recipient in recipients:
    message = EmailMultiAlternatives("Order", "Text", to=[recipient], cc=["cy@example.org"])
    message.attach_alternative("<p>Text</p>", "text/html")
    message.attach("bill.txt", "42", "text/plain")
    message.metadata = {"order": "42"}
    message.idempotency_key = "order-42-" + recipient
    message.send()
for _ in range(2):
    for command in commands:
        call_command(command)

from truncus_django.models import Email

print(json.dumps([[email.to[0], email.state] for email in Email.objects.order_by("created_at")]))
"""


def settings_with(name: str) -> str:
    return next(code for code in CODES if code.startswith("# settings.py") and name in code)


OLD_POST_OFFICE = """
EMAIL_BACKEND = "post_office.EmailBackend"
POST_OFFICE = {"BACKENDS": {"default": "truncus_django.backend.TruncusBackend"}}
"""
POST_OFFICE = settings_with("POST_OFFICE") if django.VERSION >= (6, 1) else OLD_POST_OFFICE
DJANGO_MAILER = settings_with("MAILER_EMAIL_BACKEND")

QUEUES = {
    "post_office": (POST_OFFICE, ["send_queued_mail"]),
    "old settings of post_office": (OLD_POST_OFFICE, ["send_queued_mail"]),
    "django-mailer": (DJANGO_MAILER, ["retry_deferred", "send_mail"]),
}


@pytest.fixture
def deliver(truncus_emulator: Any, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Return a function that sends through a queue; it returns recipients and states of the log."""

    def run(queue: str, *recipients: str) -> list[list[str]]:
        arguments = [json.dumps(part) for part in (str(tmp_path), *QUEUES[queue], recipients)]
        environment = {
            "TRUNCUS_API_KEY": "tr_test_queues",
            "TRUNCUS_BASE_URL": truncus_emulator.url,
            "TRUNCUS_MAX_RETRIES": "0",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments],
            check=False,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        records: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
        return records

    return run


@pytest.mark.parametrize("queue", QUEUES)
def test_it_delivers_and_goes_on_after_a_refusal(deliver, truncus_emulator, queue):
    records = deliver(queue, "suppressed@example.org", "ann@example.org")

    assert {tuple(record) for record in records} == {
        ("suppressed@example.org", "rejected"),
        ("ann@example.org", "delivered"),
    }
    (email,) = [email.payload for email in truncus_emulator.emails]
    assert (email["subject"], email["text"], email["html"]) == ("Order", "Text", "<p>Text</p>")
    assert (email["to"], email["cc"]) == ("ann@example.org", ["cy@example.org"])
    assert [file["filename"] for file in email["attachments"]] == ["bill.txt"]


@pytest.mark.parametrize("queue", QUEUES)
def test_only_a_key_that_it_keeps_makes_its_retries_safe(deliver, truncus_emulator, queue):
    truncus_emulator.faults.next("reset_after")
    deliver(queue, "ann@example.org")

    keeps_options = queue == "django-mailer"
    assert truncus_emulator.accepted == (1 if keeps_options else 2)
    assert ("metadata" in truncus_emulator.emails[0].payload) is keeps_options
