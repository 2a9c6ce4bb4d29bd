"""From an HTTP request to the service and back: routes, keys, limits, faults."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.http import http_date
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from truncus_django.api import contract
from truncus_django.emulator.faults import Fault, Strike
from truncus_django.emulator.limits import too_many_requests
from truncus_django.emulator.mailbox import Submission
from truncus_django.emulator.refusals import Refusal, invalid
from truncus_django.emulator.request_log import RequestLog, RequestRecord, harmless_headers
from truncus_django.emulator.service import Answer, Service
from truncus_django.emulator.wire import ResetConnection, TruncatedResponse

_TRANSIENT = (contract.TRANSIENT_CODE, contract.TRANSIENT_CODE.upper())
_PROXY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


def _rule(path: str, method: str, endpoint: str) -> Rule:
    return Rule(path.replace("{id}", "<id>"), methods=[method], endpoint=endpoint)


_ROUTES = Map(
    [
        _rule(contract.SEND_PATH, "POST", "send"),
        _rule(contract.BATCH_PATH, "POST", "batch"),
        _rule(contract.VALIDATE_PATH, "POST", "validate"),
        _rule(contract.EMAIL_PATH, "GET", "email"),
        _rule(contract.EMAIL_PATH, "DELETE", "cancel"),
        _rule(contract.EVENTS_PATH, "GET", "events"),
        _rule(contract.REPLAY_EVENT_PATH, "POST", "replay_event"),
        _rule(contract.REPLAY_MESSAGE_PATH, "POST", "replay_message"),
    ],
    strict_slashes=False,
    merge_slashes=False,
)
_SENDING = frozenset({"send", "batch", "validate", "cancel"})
_FAULT_NAMES = {"replay_event": "replay", "replay_message": "replay"}


class Api:
    """The paths below ``/api``, answered from one service and kept in one log."""

    def __init__(self, service: Service, log: RequestLog, *, stopping: threading.Event) -> None:
        """Answer from ``service``; ``stopping`` cuts every artificial delay short."""
        self._service = service
        self._log = log
        self._stopping = stopping

    def respond(self, request: Request) -> Response:
        """Return the answer to ``request``.

        Raises:
            ResetConnection: a fault says that there is none.
        """
        service, log = self._service, self._log
        try:
            endpoint, arguments = _ROUTES.bind_to_environ(request.environ).match()
        except HTTPException as error:
            answer = _refused(_no_such_path(error), service)
            payload = _payload(request)
            log.add(_record(request, "", payload, answer, None, service.clock()), payload.size)
            return _response(answer)
        name = _FAULT_NAMES.get(endpoint, endpoint)
        strike = service.faults.take(request.path, name)
        if strike is not None and strike.fault is Fault.REFUSE:
            unread = Answer(0, None)
            log.add(_record(request, name, _UNREAD, unread, strike, service.clock()), 0)
            raise ResetConnection
        payload = _payload(request)
        self._sleep(service.options.latency_s)
        answer = self._answer(_Call(request, endpoint, arguments, payload), service, strike)
        log.add(_record(request, name, payload, answer, strike, service.clock()), payload.size)
        response = _delivered(answer, strike)
        response.headers["Date"] = http_date(service.clock())
        return response

    def _answer(self, call: "_Call", service: Service, strike: Strike | None) -> Answer:
        """Return the answer, with what a fault does before, to or after it."""
        try:
            if strike is not None:
                self._strike_before(strike, service)
            answer = _carry_out(call, service)
            if strike is not None and strike.fault is Fault.ERROR_500_AFTER:
                raise _transient(500)
        except Refusal as refusal:
            answer = _refused(refusal, service)
        except _Instead as instead:
            answer = instead.answer
        if strike is not None and strike.fault is Fault.DELAY_AFTER:
            self._sleep(strike.seconds)
        return answer

    def _strike_before(self, strike: Strike, service: Service) -> None:
        """Refuse the request, answer in its place, or hold it up, as the fault says."""
        match strike.fault:
            case Fault.RESET_BEFORE | Fault.TRUNCATED_BEFORE:
                raise _Instead(Answer(200, {"status": contract.SENT, "message_id": "never"}))
            case Fault.DELAY:
                self._sleep(strike.seconds)
            case Fault.RATE_LIMIT:
                raise _too_many(strike, service)
            case Fault.ERROR_500:
                raise _transient(500)
            case Fault.ERROR_503:
                raise _transient(503, retry_after=strike.retry_after)
            case Fault.PROVIDER_502:
                raise _Instead(
                    Answer(
                        502,
                        {
                            "status": contract.FAILED,
                            "message_id": "failed",
                            "error": "The mail provider returned an error",
                            "code": contract.PROVIDER_ERROR_CODE,
                        },
                    )
                )
            case Fault.HTML_502:
                raise _Instead(Answer(502, _PROXY_PAGE))
            case _:
                pass

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._stopping.wait(seconds)


@dataclass(frozen=True)
class _Payload:
    """A request's body as JSON, parsed once."""

    json: Any
    size: int
    """Bytes on the wire."""
    is_valid: bool = True

    def valid(self) -> Any:
        """Return the JSON.

        Raises:
            Refusal: 400, it was none.
        """
        if not self.is_valid:
            raise invalid("The body is not valid JSON")
        return self.json


_UNREAD = _Payload(None, 0, is_valid=False)


@dataclass(frozen=True)
class _Call:
    request: Request
    endpoint: str
    arguments: Any
    payload: _Payload


class _Instead(Exception):
    """An answer that takes the place of the service's."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _carry_out(call: _Call, service: Service) -> Answer:
    """Check key and limits, then let the service answer."""
    request, endpoint = call.request, call.endpoint
    scope = contract.SEND_SCOPE if endpoint in _SENDING else contract.READ_SCOPE
    authorization = request.headers.get("Authorization", "")
    api_key = service.account.authenticate(authorization, scope=scope)
    service.count_request(api_key)
    match endpoint:
        case "send":
            return service.send(call.payload.valid(), _submission(request, api_key))
        case "batch":
            batch = call.payload.valid()
            return service.batch(batch, _submission(request, api_key, batch))
        case "validate":
            return service.validate(call.payload.valid())
        case "events":
            return service.events(request.args.get("message_id", ""))
        case "email":
            return service.email(call.arguments["id"], api_key)
    calls: dict[str, Callable[[str], Answer]] = {
        "cancel": service.cancel,
        "replay_event": service.replay_event,
        "replay_message": service.replay_message,
    }
    return calls[endpoint](call.arguments["id"])


def _submission(request: Request, api_key: str, batch: object = None) -> Submission:
    emails = batch.get("emails") if isinstance(batch, dict) else None
    return Submission(
        api_key=api_key,
        idempotency_key=request.headers.get(contract.IDEMPOTENCY_KEY_HEADER, "").strip(),
        sandbox=request.headers.get(contract.SANDBOX_HEADER, "").strip().lower() == "true",
        batch_size=len(emails) if isinstance(emails, list) else None,
    )


def _payload(request: Request) -> _Payload:
    raw = request.get_data(cache=False)
    try:
        return _Payload(json.loads(raw), len(raw))
    except (ValueError, RecursionError):
        return _Payload(None, len(raw), is_valid=False)


def _refused(refusal: Refusal, service: Service) -> Answer:
    body = refusal.body(service.options.dialect)
    return Answer(refusal.status, body, refusal.all_headers())


def _no_such_path(error: HTTPException) -> Refusal:
    if isinstance(error, MethodNotAllowed):
        return Refusal(405, ("method_not_allowed", "METHOD_NOT_ALLOWED"), "Method not allowed")
    return Refusal(404, ("not_found", "NOT_FOUND"), "No such path")


def _transient(status: int, retry_after: int | None = None) -> Refusal:
    message = "Transient infrastructure error. Safe to retry."
    return Refusal(status, _TRANSIENT, message, retry_after=retry_after)


def _too_many(strike: Strike, service: Service) -> Refusal:
    now = service.clock()
    return too_many_requests(
        "RATE_LIMIT_MINUTE",
        "minute",
        limit=service.options.requests_per_minute or contract.REQUESTS_PER_MINUTE,
        ends_at=now + strike.retry_after,
        now=now,
        retry_after=strike.retry_after,
    )


def _delivered(answer: Answer, strike: Strike | None) -> Response:
    """Return the answer as it leaves, cut short or not at all if a fault says so."""
    fault = None if strike is None else strike.fault
    if fault in {Fault.RESET_BEFORE, Fault.RESET_AFTER}:
        raise ResetConnection
    if fault in {Fault.TRUNCATED, Fault.TRUNCATED_BEFORE}:
        return _response(answer, TruncatedResponse)
    return _response(answer)


def _response(answer: Answer, kind: type[Response] = Response) -> Response:
    if isinstance(answer.body, str):
        return kind(answer.body, status=answer.status, mimetype="text/html")
    response = kind(json.dumps(answer.body), status=answer.status, mimetype="application/json")
    response.headers.extend(answer.headers)
    return response


def _record(
    request: Request,
    endpoint: str,
    payload: _Payload,
    answer: Answer,
    strike: Strike | None,
    now: float,
) -> RequestRecord:
    fault = None if strike is None else strike.fault
    return RequestRecord(
        method=request.method,
        path=request.path,
        endpoint=endpoint,
        status=0 if fault in {Fault.RESET_BEFORE, Fault.RESET_AFTER} else answer.status,
        headers=harmless_headers(dict(request.headers)),
        body=payload.json,
        answer=answer.body,
        fault="" if fault is None else fault.value,
        at=now,
    )
