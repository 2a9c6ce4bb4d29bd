"""A request that Truncus refuses: one exception that knows its form in both dialects."""

from dataclasses import dataclass, field
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator.options import SpokenDialect

INVALID_PAYLOAD = ("invalid_payload", "INVALID_REQUEST")
INVALID_ADDRESS = ("invalid_address", "INVALID_REQUEST")


@dataclass
class Refusal(Exception):
    """An answer with a 4xx or 5xx status.

    ``codes`` are the manual's and the SDK's code. With ``blocked`` the SDK's body says
    ``status: "blocked"`` and gives its text as ``reason``, as the real one does for domains.
    """

    status: int
    codes: tuple[str, str]
    message: str
    retry_after: int | None = None
    blocked: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, dialect: str) -> dict[str, Any]:
        """Return the JSON of this refusal in ``dialect``."""
        if dialect == SpokenDialect.MANUAL:
            body: dict[str, Any] = {"error": self.codes[0], "message": self.message}
            if self.retry_after is not None:
                body["retry_after"] = self.retry_after
            return body
        if self.blocked:
            return {"status": contract.BLOCKED, "reason": self.message, "code": self.codes[1]}
        return {"error": self.message, "code": self.codes[1]}

    def batch_item(self, index: int, dialect: str) -> dict[str, Any]:
        """Return this refusal as the result of one item of a batch in ``dialect``."""
        manual = dialect == SpokenDialect.MANUAL
        code = self.codes[0] if manual else self.codes[1]
        if self.blocked and not manual:
            return {
                "index": index,
                "status": contract.BLOCKED,
                "reason": self.message,
                "code": code,
            }
        return {"index": index, "status": contract.FAILED, "error": self.message, "code": code}

    def all_headers(self) -> dict[str, str]:
        """Return the headers of the answer, ``Retry-After`` among them where it is known."""
        if self.retry_after is None:
            return dict(self.headers)
        return {**self.headers, contract.RETRY_AFTER_HEADER: str(self.retry_after)}


def invalid(message: str) -> Refusal:
    """Return the refusal of a payload with a wrong or missing field."""
    return Refusal(400, INVALID_PAYLOAD, message)


def not_found(what: str) -> Refusal:
    """Return the refusal of an unknown id."""
    return Refusal(404, ("not_found", "NOT_FOUND"), f"{what} not found")
