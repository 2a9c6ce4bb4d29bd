"""A local Truncus in a process of its own: takes its options, tells its URL, and at the end all."""

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from truncus_django.emulator import Emulator
from truncus_django.emulator.faults import Faults, Strike


def main() -> None:
    """Serve until a line comes; then tell what was accepted, and what was asked."""
    options = json.loads(sys.argv[1])
    _let_delays_last(options.pop("delay_s", 1.0))
    if revoked := options.pop("revoked", None):
        options["revoked_keys"] = keys = []
        threading.Thread(target=_revoke, args=(keys, *revoked), daemon=True).start()
    with Emulator(**options) as emulator:
        print(json.dumps(emulator.url), flush=True)
        sys.stdin.readline()
        print(json.dumps(_told(emulator)), flush=True)


def _let_delays_last(seconds: float) -> None:
    """Let random delays last for so long; the emulator's own are of a second."""
    draw = Faults._draw

    def draw_long(self: Faults, path: str, endpoint: str) -> Strike | None:
        strike = draw(self, path, endpoint)
        return strike and replace(strike, seconds=seconds)

    Faults._draw = draw_long  # type: ignore[method-assign]


def _revoke(keys: list[str], key: str, works_s: float, fails_s: float) -> None:
    """Let a key work for a while, then not, and so on."""
    pause = threading.Event()
    while not pause.wait(works_s):
        keys.append(key)
        pause.wait(fails_s)
        keys.clear()


def _told(emulator: Emulator) -> dict[str, Any]:
    """Return the emails by what they were sent as, and the requests without their content."""
    return {
        "emails": [
            {
                "subject": email.subject,
                "id": email.id,
                "status": email.status,
                "key": email.idempotency_key,
                "recipients": _recipients(email.payload or {}),
            }
            for email in [*emulator.emails, *emulator.refused_emails]
        ],
        "requests": [
            {
                "at": request.at,
                "status": request.status,
                "key": request.headers.get("idempotency-key", ""),
                "code": _code(request.answer),
                "fault": request.fault,
            }
            for request in emulator.requests
        ],
    }


def _recipients(payload: Mapping[str, Any]) -> list[str]:
    found = [payload.get(name) or [] for name in ("to", "cc", "bcc")]
    return [each for value in found for each in ([value] if isinstance(value, str) else value)]


def _code(answer: Any) -> str:
    return str(answer.get("code") or answer.get("error") or "") if isinstance(answer, dict) else ""


if __name__ == "__main__":
    main()
