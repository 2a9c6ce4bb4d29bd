"""What the tests of ``truncus_sync`` ask and look at."""

from io import StringIO
from typing import Any

from django.core.management import call_command

DIALECTS = ("manual", "sdk")


def asked(emulator: Any) -> list[str]:
    """Return the ids that Truncus was asked about, in order."""
    return [
        request.path.rpartition("/")[2]
        for request in emulator.requests
        if request.endpoint == "email"
    ]


def sync(*arguments: str) -> str:
    """Run the command; return what it has printed."""
    out = StringIO()
    call_command("truncus_sync", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()
