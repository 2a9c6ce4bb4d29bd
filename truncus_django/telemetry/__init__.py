"""What the package tells OpenTelemetry and Prometheus while it works.

All of it goes through this module. What is installed is found out once, when it is imported; if it
is neither of the two, there is nothing to enter and nothing to do.

Nothing here raises: telemetry that fails harms no email, and is logged once. No attribute holds an
address, a subject, a key or the text of an error.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from truncus_django.api.errors import TruncusError, log_summary, loggable_id
from truncus_django.api.results import SendResult
from truncus_django.telemetry import instruments as names
from truncus_django.telemetry.instruments import Metric, OperationKind
from truncus_django.trouble_log import TroubleLog

_trouble = TroubleLog()


def _report(exc: Exception) -> None:
    _trouble.failed(
        exc,
        "Telemetry fails: %s. Emails are sent. Further ones are not logged.",
        event="telemetry_failed",
    )


def _if_installed(name: str) -> ModuleType | None:
    try:
        return import_module(f"truncus_django.telemetry.{name}")
    except ImportError:
        return None
    except Exception as exc:  # noqa: BLE001  too old a version, or a name that the project uses
        _report(exc)
        return None


_otel, _prometheus = _if_installed("otel"), _if_installed("prometheus")
_NOTHING: AbstractContextManager[None] = nullcontext()
_REFUSED = "EmailRefused"

_Result = TypeVar("_Result")


def is_observed() -> bool:
    """Return whether anybody is told anything."""
    return not (_otel is None and _prometheus is None)


class Operation:
    """Something that is being done: a span, and how long it takes.

    Args:
        destination: where its messages go; by default where its kind says.
        count: of its messages, where there are several.
        traceparents: of the spans that it is linked to.
        attributes: of the span, further ones.
    """

    def __init__(
        self,
        kind: OperationKind,
        *,
        destination: str = "",
        count: int = 1,
        traceparents: Iterable[str | None] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._kind = kind
        self._destination = destination or kind.destination
        self._traceparents = traceparents
        self._attributes: dict[str, Any] = {
            names.MESSAGING_SYSTEM: names.SYSTEM,
            names.OPERATION_NAME: kind.name,
            **(attributes or {}),
        }
        if kind.type:
            self._attributes[names.OPERATION_TYPE] = kind.type
        if self._destination:
            self._attributes[names.DESTINATION] = self._destination
        if count > 1:
            self._attributes[names.MESSAGE_COUNT] = count
        self._error: BaseException | str | None = None
        self._span: Any = None

    def __enter__(self) -> Self:
        self._span = _safely(self._begin_span)
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        took_s = time.perf_counter() - self._began
        if exc is not None:
            self._error = exc
        if self._kind.duration is not None:
            self._measure(self._kind.duration, took_s, self.error_type)
        if self._span is not None:
            _safely(self._end_span)

    @property
    def error_type(self) -> str:
        """The class of what it failed by; empty where it did not."""
        if self._error is None:
            return ""
        return self._error if isinstance(self._error, str) else type(self._error).__name__

    def set(self, name: str, value: Any) -> None:
        """Set an attribute of the span."""
        self._attributes[name] = value

    def fail(self, error: BaseException | str) -> None:
        """Note that it failed, where nothing is raised."""
        self._error = error

    def _begin_span(self) -> Any:
        if _otel is None:
            return None
        name = f"{self._kind.name} {self._destination}".rstrip()
        return _otel.Span(name, self._kind.span_kind, self._attributes, self._traceparents)

    def _end_span(self) -> None:
        error = self._error
        text = self.error_type
        if error is not None:
            self.set(names.ERROR_TYPE, text)
        if isinstance(error, TruncusError):
            text = log_summary(error)
            if error.status:
                self.set(names.HTTP_STATUS, error.status)
        self._span.end(self._attributes, text or None)

    def _measure(self, metric: Metric, value: float, error: str = "") -> None:
        labels = {"operation": self._kind.name, "destination": self._destination, "error": error}
        _measure(metric, value, labels)


class Send(Operation):
    """A call of ``send_messages()``."""

    def __init__(self, count: int, mailer: str | None, delivery: str) -> None:
        attributes = {names.DELIVERY: delivery}
        if mailer:
            attributes[names.MAILER] = mailer
        super().__init__(names.SEND_MESSAGES, count=count, attributes=attributes)

    def note(self, accepted: int, errors: Sequence[TruncusError]) -> None:
        """Note how many emails went, and why others did not."""
        self.set(names.ACCEPTED_COUNT, accepted)
        if errors:
            self.fail(errors[0])


class Request(Operation):
    """A request that sends emails.

    Args:
        base_url: of the API.
        batch_id: of the outbox; ``None`` where it is sent directly.
    """

    def __init__(
        self,
        base_url: str,
        count: int,
        *,
        batch_id: UUID | None = None,
        traceparents: Iterable[str | None] = (),
    ) -> None:
        server = urlsplit(base_url)
        host = server.hostname or ""
        attributes: dict[str, Any] = {
            names.SERVER_ADDRESS: host,
            names.SERVER_PORT: server.port or (80 if server.scheme == "http" else 443),
        }
        if batch_id is not None:
            attributes[names.BATCH_ID] = str(batch_id)
        super().__init__(
            names.REQUEST,
            destination=host,
            count=count,
            traceparents=traceparents,
            attributes=attributes,
        )
        self._count = count
        self._accepted = 0

    def note(self, results: Sequence[SendResult]) -> None:
        """Note what Truncus answered about each email."""
        self._accepted = sum(result.is_accepted for result in results)
        if not self._accepted:
            self.fail(_REFUSED)
        self.set(names.ACCEPTED_COUNT, self._accepted)
        self.set(names.ATTEMPTS, max((result.attempts for result in results), default=1))
        if self._count == 1:
            self.set(names.MESSAGE_ID, loggable_id(results[0].message_id))

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, TruncusError):
            self.set(names.ATTEMPTS, exc.attempts)
        super().__exit__(kind, exc, traceback)
        if self._accepted:
            self._measure(names.SENT_EMAILS, self._accepted)
        if self._accepted < self._count:
            error = self.error_type or _REFUSED
            self._measure(names.SENT_EMAILS, self._count - self._accepted, error)


class Webhook(Operation):
    """A webhook that is verified, stored and applied."""

    def __init__(self) -> None:
        super().__init__(names.WEBHOOK)

    def about(self, message_id: str, event: str) -> None:
        """Note what it reports of which email; ``event`` is Truncus's word."""
        self.set(names.MESSAGE_ID, loggable_id(message_id))
        self.set(names.EVENT, event)

    def lagged(self, event: str, lag_s: float) -> None:
        """Note how long after an event that was new it has been stored."""
        _measure(names.WEBHOOK_LAG, max(0.0, lag_s), {"event": event})


# What is observed ---------------------------------------------------------------------------------


def sending(count: int, mailer: str | None, delivery: str) -> AbstractContextManager[Send | None]:
    """Observe a call of ``send_messages()``; ``None`` where nobody does."""
    return Send(count, mailer, delivery) if is_observed() else _NOTHING


def enqueuing(count: int) -> AbstractContextManager[Operation | None]:
    """Observe emails being written into the outbox."""
    return Operation(names.ENQUEUE, count=count) if is_observed() else _NOTHING


def requesting(
    base_url: str,
    count: int,
    *,
    batch_id: UUID | None = None,
    traceparents: Iterable[str | None] = (),
) -> AbstractContextManager[Request | None]:
    """Observe a request that sends emails.

    Args:
        count: of its emails.
        batch_id, traceparents: of the outbox: the batch, and who enqueued its emails.
    """
    if not is_observed():
        return _NOTHING
    return (
        _safely(partial(Request, base_url, count, batch_id=batch_id, traceparents=traceparents))
        or _NOTHING
    )


def receiving_webhook() -> AbstractContextManager[Webhook | None]:
    """Observe a webhook."""
    return Webhook() if is_observed() else _NOTHING


def current_traceparent() -> str | None:
    """Return the current span as the W3C names it; ``None`` where there is none."""
    return None if _otel is None else _safely(_otel.current_traceparent)


# Inside -------------------------------------------------------------------------------------------


def _measure(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    for recorder in (_otel, _prometheus):
        if recorder is not None:
            _safely(partial(recorder.measure, metric, value, labels))


def _safely(work: Callable[[], _Result]) -> _Result | None:
    """Return what ``work`` returns; ``None`` if it fails, which is not the email's fault."""
    try:
        return work()
    except Exception as exc:  # noqa: BLE001  an exporter or a sampler of the project's
        _report(exc)
        return None
