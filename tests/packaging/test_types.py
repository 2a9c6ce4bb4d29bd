"""A project that installs the package sees its types, under mypy --strict with django-stubs."""

import fcntl
import subprocess
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT
from tests.test_docs import FENCE

SETTINGS = """
SECRET_KEY = "types"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "truncus_django",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

MYPY = """
[mypy]
strict = true
plugins = mypy_django_plugin.main
[mypy.plugins.django-stubs]
django_settings_module = shop.settings
"""

LOG = """
from datetime import datetime
from typing import Any, assert_type
from uuid import UUID

from truncus_django.models import Email, EmailEvent, EmailQuerySet, OutboxBatch, OutboxEntry

assert_type(Email.objects.filter(state="bounced"), EmailQuerySet)
assert_type(Email.objects.filter(state="bounced").finished().exclude(mailer=""), EmailQuerySet)
assert_type(Email.objects.using("log").due_for_sync(), EmailQuerySet)

email = Email.objects.get()
assert_type(email, Email)
assert_type(email.id, UUID)
assert_type(email.message_id, str | None)
assert_type(email.idempotency_key, str)
assert_type(email.state, str)
assert_type(email.to, list[str])
assert_type(email.metadata, dict[str, str])
assert_type(email.attachments, list[dict[str, Any]])
assert_type(email.delivered_at, datetime | None)
assert_type(email.open_count, int)
assert_type(email.resend_of, Email | None)
assert_type(email.resends.get(), Email)
assert_type(email.recipients, list[str])
assert_type(email.outbox_entry, OutboxEntry)

event = email.events.get()
assert_type(event, EmailEvent)
assert_type(event.event_id, str)
assert_type(event.email, Email | None)
assert_type(event.payload, dict[str, Any])

assert_type(OutboxEntry.objects.get(), OutboxEntry)
assert_type(OutboxEntry.objects.get().mailer, str)
assert_type(OutboxBatch.objects.get().account, str)
"""

MESSAGES = """
from typing import assert_type
from uuid import UUID

from truncus_django.message import TruncusMessage, TruncusStatus

message = TruncusMessage("Hello", "Text", to=["ann@example.org"])
assert_type(message.send(), int)
assert_type(message.truncus_status, TruncusStatus | None)
if message.truncus_status:
    assert_type(message.truncus_status.status, str)
    assert_type(message.truncus_status.id, str | None)
    assert_type(message.truncus_status.email_pk, UUID | None)
"""


def problems(python: Path, folder: Path, modules: dict[str, str], *options: str) -> str:
    """Return what mypy finds in a project of these modules; ``""`` for nothing."""
    shop = folder / "shop"
    shop.mkdir()
    for name, code in {"__init__": "", "settings": SETTINGS, **modules}.items():
        (shop / f"{name}.py").write_text(code)
    (folder / "mypy.ini").write_text(MYPY)
    cache = python.parent.parent / "mypy"
    cached = f"--cache-dir={cache}"
    command = [str(python), "-m", "mypy", cached, *options, "--no-error-summary", "shop"]
    # One after the other: the first reads Django's stubs for all of them.
    with cache.with_name("mypy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("code", [LOG, MESSAGES], ids=["log", "messages"])
def test_users_see_the_types_of(code, python_with_wheel, tmp_path):
    assert problems(python_with_wheel, tmp_path, {"mails": code}) == ""


def test_a_misspelt_field_is_found(python_with_wheel, tmp_path):
    code = "from truncus_django.models import Email\n\nprint(Email.objects.get().sate)\n"

    assert '"Email" has no attribute "sate"' in problems(
        python_with_wheel, tmp_path, {"mails": code}
    )


def test_the_snippets_about_messages_and_the_log_pass(python_with_wheel, tmp_path):
    """As they are written; only the receivers of signals in them have no annotations."""
    snippets = {
        f"{page.stem}_{number}".lower(): code
        for page in (ROOT / "README.md", ROOT / "docs" / "sending.md", ROOT / "docs" / "log.md")
        for number, (kind, code) in enumerate(FENCE.findall(page.read_text()), start=1)
        if kind == "python" and "truncus_django.m" in code
    }
    assert {name.split("_")[0] for name in snippets} == {"readme", "sending", "log"}

    assert problems(python_with_wheel, tmp_path, snippets, "--allow-untyped-defs") == ""
