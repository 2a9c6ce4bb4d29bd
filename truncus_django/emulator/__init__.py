"""A local Truncus: real HTTP, both dialects, simulated delivery, signed webhooks, an inbox.

Run it with ``python -m truncus_django.emulator`` or ``manage.py truncus_emulator``, or from
Python with `Emulator`. Its HTTP server needs werkzeug: ``pip install "truncus-django[emulator]"``.
"""

from truncus_django.emulator.emulator import Emulator, EmulatorMissesWerkzeug
from truncus_django.emulator.faults import Fault, Faults
from truncus_django.emulator.mailbox import EmailRecord, Event
from truncus_django.emulator.options import (
    BatchRefusal,
    BatchReplay,
    DomainState,
    Options,
    SpokenDialect,
)
from truncus_django.emulator.request_log import RequestRecord
from truncus_django.emulator.webhook_sender import WebhookAttempt, WebhookFlaw

__all__ = [
    "BatchRefusal",
    "BatchReplay",
    "DomainState",
    "EmailRecord",
    "Emulator",
    "EmulatorMissesWerkzeug",
    "Event",
    "Fault",
    "Faults",
    "Options",
    "RequestRecord",
    "SpokenDialect",
    "WebhookAttempt",
    "WebhookFlaw",
]
