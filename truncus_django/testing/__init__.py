"""For test suites: assertions about what was sent, events of emails, and a local Truncus.

pytest loads this module in every run of a project that has the package installed. So it imports
nothing but the standard library: what needs Django is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from truncus_django.testing.emulator import (
    API_KEY,
    BACKEND,
    _truncus_emulator_server,  # noqa: F401  pytest finds fixtures here
    run_emulator,
    send_outbox,
    truncus_emulator,  # noqa: F401
    use_emulator,
)

__all__ = [
    "API_KEY",
    "BACKEND",
    "SentAttachment",
    "SentEmail",
    "assert_email_sent",
    "assert_no_email_sent",
    "deliver_event",
    "links_in",
    "run_emulator",
    "send_outbox",
    "use_emulator",
]

_MODULES = {
    "SentAttachment": "sent_email",
    "SentEmail": "sent_email",
    "assert_email_sent": "assertions",
    "assert_no_email_sent": "assertions",
    "deliver_event": "webhooks",
    "links_in": "links",
}
"""Where the names are that need Django."""

if TYPE_CHECKING:
    from truncus_django.testing.assertions import assert_email_sent, assert_no_email_sent
    from truncus_django.testing.links import links_in
    from truncus_django.testing.sent_email import SentAttachment, SentEmail
    from truncus_django.testing.webhooks import deliver_event
else:  # a type checker would believe every name to exist

    def __getattr__(name: str) -> Any:
        """Import what needs Django. ``dir()`` does not list it: pytest loads all that it lists."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
