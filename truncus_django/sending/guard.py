"""The guard of a staging site: emails go to the project's own addresses, whomever they are for.

With ``REDIRECT_TO``, each recipient who is not in ``ALLOW_RECIPIENTS`` is replaced. The guard
looks at what a request is about to send, so that no path leads around it: not a receiver of
``pre_send``, not ``esp_extra``, not an email that waited in a database copied from production.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import Any

from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import EmailRefused, InvalidAddress
from truncus_django.conf import get_settings
from truncus_django.sending.addresses import RECIPIENT_FIELDS, bare_address, listed
from truncus_django.sending.addresses import address as checked_address
from truncus_django.validation import LONGEST_HEADER

HEADER = "X-Original-Recipients"
"""The header of a redirected email that says for whom it was."""
NOT_ALLOWED_CODE = "recipient_not_allowed"

_ONE_ADDRESS = re.compile(r"[^\s@,;<>\"()]+@[^\s@,;<>\"()]+")


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may get emails, and who gets all others.

    Attributes:
        redirect_to: bare addresses; empty refuses an email to anybody who may not get it.
        allowed: matches the bare addresses, in small letters, of those who may.
    """

    redirect_to: tuple[str, ...] = field(repr=False)
    allowed: re.Pattern[str] = field(repr=False)

    def __call__(self, email: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the email as it may be sent: itself, or a copy with other recipients.

        Raises:
            EmailRefused: somebody may not get it, and nobody is to get it instead.
        """
        recipients = {name: listed(email.get(name)) for name in RECIPIENT_FIELDS}
        allowed = {
            name: [address for address in found if self._is_allowed(address)]
            for name, found in recipients.items()
        }
        email = _without_recipient_headers(email)
        if allowed == recipients:
            return email
        if not self.redirect_to:
            raise EmailRefused(
                "A recipient is not in ALLOW_RECIPIENTS, and REDIRECT_TO names nobody to get the "
                "email instead",
                code=NOT_ALLOWED_CODE,
            )
        to = allowed["to"] + [each for each in self.redirect_to if each not in allowed["to"]]
        guarded = EmailFields(email)
        guarded["to"] = to if len(to) > 1 else to[0]
        for name in ("cc", "bcc"):
            guarded.pop(name, None)
            if allowed[name]:
                guarded[name] = allowed[name]
        headers = guarded.get("headers")
        named = dict(headers) if isinstance(headers, Mapping) else {}
        guarded["headers"] = {**named, HEADER: _header_text(recipients)}
        return guarded

    def _is_allowed(self, given: Any) -> bool:
        try:
            bare = bare_address(checked_address(given, "to")).lower()
        except InvalidAddress:  # or more than one: "*" stands for a comma, too
            return False
        return bool(_ONE_ADDRESS.fullmatch(bare) and self.allowed.fullmatch(bare))


def current_guard() -> Guard | None:
    """Return the guard that the project's settings ask for, or ``None``."""
    settings = get_settings()
    if not settings.redirect_to and not settings.allow_recipients:
        return None
    return _guard(settings.redirect_to, settings.allow_recipients)


@lru_cache(maxsize=8)
def _guard(redirect_to: tuple[str, ...], allow_recipients: tuple[str, ...]) -> Guard:
    patterns = [f"*{each}" if each.startswith("@") else each for each in allow_recipients]
    # Those who get the emails of others may get their own.
    expressions = [translate(pattern) for pattern in (*patterns, *redirect_to)]
    return Guard(redirect_to, re.compile("|".join(expressions)))


def _without_recipient_headers(email: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the email without headers that name recipients, or that the guard writes itself.

    A receiver of ``pre_send`` or ``esp_extra`` wrote them. Whether Truncus mails those whom they
    name is not published.
    """
    headers = email.get("headers")
    if not isinstance(headers, Mapping):
        return email
    kept = {name: text for name, text in headers.items() if not _is_recipient_header(str(name))}
    return email if len(kept) == len(headers) else EmailFields({**email, "headers": kept})


_is_recipient_header = re.compile(
    rf"\s*(?:(?:resent-)?(?:to|cc|bcc)|{HEADER})\s*", re.IGNORECASE
).fullmatch


def _header_text(recipients: Mapping[str, list[Any]]) -> str:
    """Return the original recipients in one line, without their names."""
    parts = [
        f"{name}: {', '.join(bare_address(str(address)) for address in addresses)}"
        for name, addresses in recipients.items()
        if addresses
    ]
    text = "".join(char if " " <= char <= "~" else "?" for char in "; ".join(parts))
    return text if len(text) <= LONGEST_HEADER else f"{text[:LONGEST_HEADER]}..."
