"""A project without the extras imports nothing of them, and does nothing for them."""

import subprocess
import sys

CODE = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # as if they were not installed
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["truncus_django"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    TRUNCUS={{"API_KEY": "tr_test_x", "DELIVERY": "outbox"}},
    ROOT_URLCONF="truncus_django.urls",
)
django.setup()
from django.core.mail import EmailMessage
from django.core.management import call_command
call_command("migrate", verbosity=0)
from truncus_django import telemetry, views
from truncus_django.backend import TruncusBackend
from truncus_django.models import OutboxEntry
TruncusBackend().send_messages([EmailMessage("x", "x", "a@example.com", ["b@example.org"])])
print(telemetry.is_observed(), OutboxEntry.objects.get().traceparent)
print(telemetry.sending(1, None, "direct") is telemetry.enqueuing(1))
print([name for name in sys.modules if "telemetry.otel" in name or "telemetry.prom" in name])
"""


def run(*blocked: str) -> list[str]:
    code = CODE.format(blocked=blocked)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()


def test_without_both_nothing_is_observed_and_no_traceparent_stored():
    assert run("opentelemetry", "prometheus_client") == ["False None", "True", "[]"]


def test_without_an_sdk_there_is_no_span_and_no_traceparent():
    observed, *_ = run("prometheus_client")
    assert observed == "True None"
