"""The emulator as a Python object: start it, look into it, make things go wrong, stop it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from truncus_django.api import contract
from truncus_django.emulator.delivery import DeliveryThread
from truncus_django.emulator.faults import Faults
from truncus_django.emulator.mailbox import EmailRecord
from truncus_django.emulator.options import Options
from truncus_django.emulator.request_log import RequestLog, RequestRecord
from truncus_django.emulator.service import Service
from truncus_django.emulator.webhook_sender import WebhookAttempt

if TYPE_CHECKING:
    from truncus_django.emulator.server import EmulatorServer
    from truncus_django.emulator.site import Site

_POLL_S = 0.01


class EmulatorMissesWerkzeug(ImportError):
    """The HTTP server of the emulator needs werkzeug, which is not installed."""


class Emulator:
    """A local Truncus that runs in threads of this process.

    ::

        with Emulator(dialect="sdk", requests_per_minute=60) as emulator:
            client = TruncusClient(api_key="tr_test", base_url=emulator.url)

    The keyword arguments are the fields of `Options`. In Python there are no request limits
    unless they are given; the command line begins with those of a real account.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        """Prepare a server on ``host`` and ``port`` (0: any free one); nothing runs yet.

        ``clock`` returns unix seconds; a test that passes its own can jump over 24 hours.

        Raises:
            ValueError: an option has a wrong value.
            TypeError: there is no such option.
        """
        self._host = host
        self._port = port
        self._clock = clock
        self._first_options = Options(**options)
        self._service = Service(self._first_options, clock=clock)
        self._log = RequestLog(keep=self._first_options.keep)
        self._stopping = threading.Event()
        self._server: EmulatorServer | None = None
        self._threads: list[threading.Thread] = []
        self._delivery: DeliveryThread | None = None
        self._site: Site | None = None
        self._connections_before = 0

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> Self:
        """Listen and answer from threads. After `stop`, start again on the same port.

        Raises:
            EmulatorMissesWerkzeug: werkzeug is not installed.
            OSError: the address cannot be used.
        """
        if self._server is not None:
            return self
        try:  # they need werkzeug, which is optional
            from truncus_django.emulator.server import EmulatorServer
            from truncus_django.emulator.site import Site
        except ModuleNotFoundError as exc:
            if (exc.name or "").partition(".")[0] != "werkzeug":
                raise
            raise EmulatorMissesWerkzeug(
                'The emulator needs werkzeug: pip install "truncus-django[emulator]"'
            ) from exc
        self._stopping.clear()
        self._site = Site(self._service, self._log, host=self._host, stopping=self._stopping)
        self._server = EmulatorServer(self._host, self._port, self._site.respond)
        self._port = self._server.port
        thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="truncus-emulator-http",
            daemon=True,
        )
        thread.start()
        self._threads = [thread]
        self._start_delivery()
        return self

    def stop(self) -> None:
        """Close every connection and end the threads; state stays readable. Quiet if stopped."""
        server = self._server
        if server is None:
            return
        self._server = None
        self._stopping.set()
        server.shutdown()
        server.close_connections()
        for thread in self._threads:
            thread.join()
        self._connections_before += server.connections
        if self._delivery is not None:
            self._delivery.stop()
            self._delivery = None
        self._service.webhooks.stop()

    def reset(self, **options: Any) -> None:
        """Forget everything and go back to the first options, changed by ``options``.

        Connections stay open; host, port and clock stay the same.

        Raises:
            ValueError: an option has a wrong value.
            TypeError: there is no such option.
        """
        old = self._service
        if self._delivery is not None:
            self._delivery.stop()
        old.webhooks.stop()
        self._service = Service(replace(self._first_options, **options), clock=self._clock)
        self._log = RequestLog(keep=self._service.options.keep)
        self._connections_before = 0 if self._server is None else -self._server.connections
        if self._site is not None:
            self._site.set_state(self._service, self._log)
        if self._server is not None:
            self._start_delivery()

    @property
    def url(self) -> str:
        """The base URL, for ``TRUNCUS["BASE_URL"]``.

        Raises:
            RuntimeError: the emulator is not running.
        """
        if self._server is None:
            raise RuntimeError("The emulator is not running: use it in a with statement.")
        return self._server.url

    @property
    def inbox_url(self) -> str:
        """Where a browser shows what was sent."""
        return f"{self.url}/"

    @property
    def options(self) -> Options:
        """What it runs with now."""
        return self._service.options

    @property
    def faults(self) -> Faults:
        """The faults to come; see `Faults.next` and `Faults.rate`."""
        return self._service.faults

    @property
    def emails(self) -> list[EmailRecord]:
        """All emails that were accepted, in the order of acceptance; not the refused ones."""
        return [email for email in self._records() if email.status not in contract.REFUSED_STATUSES]

    @property
    def refused_emails(self) -> list[EmailRecord]:
        """All emails that were blocked or rejected because of suppressed recipients."""
        return [email for email in self._records() if email.status in contract.REFUSED_STATUSES]

    @property
    def accepted(self) -> int:
        """How many emails were accepted; cheaper than the length of `emails`."""
        with self._service.changed:
            return self._service.mailbox.accepted

    @property
    def requests(self) -> list[RequestRecord]:
        """The newest ``keep`` requests to the API, oldest first."""
        return self._log.records()

    @property
    def request_counts(self) -> dict[tuple[str, str, int], int]:
        """How many requests there were by method, endpoint and HTTP status (0: reset)."""
        return self._log.counts()

    @property
    def connections(self) -> int:
        """How many TCP connections were taken since the start or the last reset."""
        now = 0 if self._server is None else self._server.connections
        return self._connections_before + now

    @property
    def webhook_attempts(self) -> list[WebhookAttempt]:
        """The newest tries to deliver webhooks, oldest first."""
        return list(self._service.webhooks.attempts)

    def email(self, message_id: str) -> EmailRecord | None:
        """Return the email with this id, or None."""
        service = self._service
        service.run_due()
        with service.changed:
            email = service.mailbox.get(message_id)
            return None if email is None else email.record()

    def suppress(self, address: str, tenant: str | None = None) -> None:
        """Put an address on a tenant's suppression list, or on everybody's with None."""
        with self._service.changed:
            self._service.account.suppress(address, tenant)

    def unsuppress(self, address: str, tenant: str | None = None) -> None:
        """Take an address off a suppression list."""
        with self._service.changed:
            self._service.account.unsuppress(address, tenant)

    def webhooks_are_idle(self) -> bool:
        """Return whether no webhook waits to be sent or repeated."""
        return self._service.webhooks.is_idle()

    def wait_for(self, condition: "Callable[[Emulator], object]", timeout_s: float = 30.0) -> None:
        """Return as soon as ``condition`` of this emulator is true.

        Raises:
            TimeoutError: it was not within ``timeout_s`` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"The condition did not hold within {timeout_s} s.")
            with self._service.changed:
                self._service.changed.wait(_POLL_S)

    def _records(self) -> list[EmailRecord]:
        service = self._service
        service.run_due()
        with service.changed:
            return [email.record() for email in service.mailbox]

    def _start_delivery(self) -> None:
        service = self._service
        self._delivery = DeliveryThread(changed=service.changed, run_due=service.run_due)
        self._delivery.start()
