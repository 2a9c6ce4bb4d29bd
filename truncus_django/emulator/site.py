"""The whole site: which of API and inbox answers a path, and who may ask."""

import ipaddress
import threading

from werkzeug.wrappers import Request, Response

from truncus_django.emulator.app import Api
from truncus_django.emulator.inbox import Inbox
from truncus_django.emulator.request_log import RequestLog
from truncus_django.emulator.service import Service

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


class Site:
    """Gives each request to the part that answers it."""

    def __init__(
        self, service: Service, log: RequestLog, *, host: str, stopping: threading.Event
    ) -> None:
        """Answer for an emulator that listens on ``host``, from the state of its service."""
        self._host = host
        self._stopping = stopping
        self.set_state(service, log)

    def set_state(self, service: Service, log: RequestLog) -> None:
        """Answer from this state from now on."""
        self._api = Api(service, log, stopping=self._stopping)
        self._inbox = Inbox(service)

    def respond(self, request: Request) -> Response:
        """Return the answer to ``request``."""
        if request.path == "/api" or request.path.startswith("/api/"):
            return self._api.respond(request)
        if not is_trusted_host(request.host, bound_to=self._host):
            # A page of another site could otherwise read the inbox by DNS rebinding.
            return Response("Host not allowed", status=403, mimetype="text/plain")
        return self._inbox.respond(request)


def is_trusted_host(host_header: str, *, bound_to: str) -> bool:
    """Return whether a ``Host`` header names this machine itself.

    When the emulator was asked to listen beyond loopback, the address it listens on is trusted
    too, and any bare IP address when it listens on all of them: rebinding needs a name.
    """
    name = host_header.rpartition(":")[0] if _has_port(host_header) else host_header
    name = name.strip("[]").lower()
    if name in {"localhost", bound_to.lower()} or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or bound_to in _ANY_ADDRESS


def _has_port(host_header: str) -> bool:
    return not host_header.endswith("]") and host_header.rpartition(":")[2].isdigit()
