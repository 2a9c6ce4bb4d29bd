"""The control API below ``/_emulator/``, for tests and tools in other processes. JSON both ways.

=======  ===========================  ==============================================================
method   path                         what it does
=======  ===========================  ==============================================================
GET      ``/_emulator/state``         counts: accepted, connections, requests, faults; the options
GET      ``/_emulator/emails``        ``?limit=&offset=&q=``: emails, newest first
GET      ``/_emulator/requests``      ``?limit=``: the newest requests to the API, newest first
POST     ``/_emulator/reset``         ``{options}``: forget everything; options as in Python
POST     ``/_emulator/faults``        ``{fault, times?, path?, seconds?, retry_after?}`` or
                                      ``{fault, rate, path?}``
DELETE   ``/_emulator/faults``        no more faults
POST     ``/_emulator/suppressions``  ``{address, tenant?}``
DELETE   ``/_emulator/suppressions``  ``{address, tenant?}``
=======  ===========================  ==============================================================

What changes something needs ``Content-Type: application/json`` and comes from no other site, so
that no web page can do it behind the user's back.
"""

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from truncus_django.emulator.options import Options

if TYPE_CHECKING:
    from truncus_django.emulator.emulator import Emulator

_DEFAULT_LIMIT = 100


class Control:
    """Answers the control API for one emulator."""

    def __init__(self, emulator: "Emulator") -> None:
        """Control ``emulator``."""
        self._emulator = emulator
        self._actions = {
            ("GET", "state"): self._state,
            ("GET", "emails"): self._emails,
            ("GET", "requests"): self._requests,
            ("POST", "reset"): self._reset,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("POST", "suppressions"): self._suppress,
            ("DELETE", "suppressions"): self._unsuppress,
        }

    def respond(self, request: Request) -> Response:
        """Return the answer to ``request``."""
        name = request.path.removeprefix("/_emulator/").strip("/")
        action = self._actions.get((request.method, name))
        if action is None:
            return _json({"error": "No such control"}, status=404)
        if request.method != "GET" and not _may_change(request):
            return _json({"error": "Content-Type: application/json is required"}, status=403)
        try:
            return _json(action(request))
        except (KeyError, TypeError, ValueError) as exc:
            return _json({"error": str(exc)}, status=400)

    def _state(self, _request: Request) -> dict[str, Any]:
        emulator = self._emulator
        return {
            "accepted": emulator.accepted,
            "refused": len(emulator.refused_emails),
            "connections": emulator.connections,
            "requests": [
                {"method": method, "endpoint": endpoint, "status": status, "count": count}
                for (method, endpoint, status), count in sorted(emulator.request_counts.items())
            ],
            "faults": {"pending": emulator.faults.pending, "struck": dict(emulator.faults.struck)},
            "webhooks": {
                "attempts": len(emulator.webhook_attempts),
                "idle": emulator.webhooks_are_idle(),
            },
            "options": _shown(emulator.options),
        }

    def _emails(self, request: Request) -> dict[str, Any]:
        emails = self._emulator.newest_emails(request.args.get("q", ""))
        offset = _number(request, "offset", 0)
        limit = _number(request, "limit", _DEFAULT_LIMIT)
        page = emails[offset : offset + limit]
        return {"total": len(emails), "emails": [asdict(email) for email in page]}

    def _requests(self, request: Request) -> dict[str, Any]:
        records = self._emulator.requests[::-1]
        limit = _number(request, "limit", _DEFAULT_LIMIT)
        return {"total": len(records), "requests": [asdict(record) for record in records[:limit]]}

    def _reset(self, request: Request) -> dict[str, Any]:
        self._emulator.reset(**_body(request))
        return {"reset": True}

    def _add_fault(self, request: Request) -> dict[str, Any]:
        wanted = _body(request)
        if "rate" in wanted:
            self._emulator.faults.rate(**wanted)
        else:
            self._emulator.faults.next(**wanted)
        return {"pending": self._emulator.faults.pending}

    def _clear_faults(self, _request: Request) -> dict[str, Any]:
        self._emulator.faults.clear()
        return {"pending": 0}

    def _suppress(self, request: Request) -> dict[str, Any]:
        wanted = _body(request)
        self._emulator.suppress(wanted["address"], wanted.get("tenant"))
        return {"suppressed": wanted["address"]}

    def _unsuppress(self, request: Request) -> dict[str, Any]:
        wanted = _body(request)
        self._emulator.unsuppress(wanted["address"], wanted.get("tenant"))
        return {"unsuppressed": wanted["address"]}


def _shown(options: Options) -> dict[str, Any]:
    """Return the options that are one value each and no secret."""
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.repr}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _body(request: Request) -> dict[str, Any]:
    body = json.loads(request.get_data() or b"{}")
    if not isinstance(body, dict):
        raise TypeError("The body must be a JSON object")
    return body


def _number(request: Request, name: str, default: int) -> int:
    number = int(request.args.get(name, default))
    if number < 0:
        raise ValueError(f"{name} is not negative")
    return number


def _may_change(request: Request) -> bool:
    """Return whether a request that changes something comes from a tool and no other site."""
    origin = request.headers.get("Origin")
    is_own = origin is None or origin == request.host_url.rstrip("/")
    return is_own and request.mimetype == "application/json"


def _json(body: dict[str, Any], status: int = 200) -> Response:
    response = Response(json.dumps(body), status=status, mimetype="application/json")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response
