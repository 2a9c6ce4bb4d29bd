"""The two dialects of the API, and what a first refusal tells.

The published sources disagree on two points of an email to send (contract, "Where the sources
disagree"): whether plain text may go alone, and whether ``to`` may be a list. What is sent
follows the manual; a refusal that says otherwise is remembered for that base URL and
key as long as the process lives.
"""

import html
import logging
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from truncus_django.api.capabilities import (
    NOTHING,
    AccountCapabilities,
    Capabilities,
    WireFormat,
)
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import InvalidRequest

logger = logging.getLogger("truncus_django")


class Dialect(StrEnum):
    """Which form an email is sent in: found out, or pinned."""

    AUTO = "auto"
    MANUAL = "manual"
    SDK = "sdk"


SDK = Capabilities(html_required=True, single_recipient=True)

_HTML_REQUIRED = re.compile(r"\bhtml\b.*\brequired\b|\brequired\b.*\bhtml\b", re.I | re.S)
_ONE_RECIPIENT = re.compile(
    r"\bto\b.{0,80}\bstring\b|\bstring\b.{0,80}\bto\b|expected string, received array", re.I | re.S
)

_ONLY_IN_THE_MANUAL = ("reply_to", "headers")
_ADVICE = "Set the dialect to 'sdk' to do so from the first email on."


class DialectMemory:
    """The dialect of one account: chosen, or found out by what the account refused.

    Args:
        dialect: :attr:`Dialect.AUTO` finds out; the others are pinned and never try twice.
        base_url, api_key: the account.
    """

    def __init__(self, dialect: Dialect, *, base_url: str, api_key: str) -> None:
        self.dialect = dialect
        self._shown = AccountCapabilities(base_url=base_url, api_key=api_key)

    @property
    def capabilities(self) -> Capabilities:
        """What emails are adapted to."""
        if self.dialect is Dialect.AUTO:
            return self._shown.required
        return SDK if self.dialect is Dialect.SDK else NOTHING

    @property
    def account(self) -> str:
        """A digest of base URL and key: the same for the same account."""
        return self._shown.account

    @property
    def wire_format(self) -> WireFormat:
        """The form that emails are sent in now."""
        return WireFormat(self.capabilities, is_pinned=self.dialect is not Dialect.AUTO)

    def export(self) -> dict[str, bool]:
        """Return what the account has shown, for another process; empty where it is pinned."""
        return self._shown.export() if self.dialect is Dialect.AUTO else {}

    def restore(self, told: Mapping[str, Any]) -> None:
        """Take over what another process exported; what is known here stays known."""
        if self.dialect is Dialect.AUTO and any(told.values()):
            self._shown.restore(told)

    def adapt(self, email: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``email`` in the form that the account is known to take.

        Where that is the SDK's, a field that only the manual knows is sent all the same, and a
        warning says once that Truncus may leave it out.
        """
        capabilities = self.capabilities
        if capabilities == NOTHING:
            return email
        at_risk = [name for name in _ONLY_IN_THE_MANUAL if email.get(name)]
        if at_risk and self._shown.is_first_warning():
            logger.warning(
                "The account takes the SDK's form of emails, which does not know %s; Truncus may "
                "leave that out.",
                " and ".join(at_risk),
                extra={
                    "truncus_event": "fields_at_risk",
                    "truncus_reason": " and ".join(at_risk),
                },
            )
        return adapt(email, capabilities)

    def confirm(self, email: Mapping[str, Any]) -> None:
        """Note that an email was accepted in its form."""
        if self.dialect is Dialect.AUTO and self.is_unconfirmed(email):
            self._shown.confirm(_lacking(email))

    def is_unconfirmed(self, email: Mapping[str, Any]) -> bool:
        """Return whether the account has yet to show that it takes emails of this form."""
        confirmed = self._shown.confirmed
        return confirmed | _lacking(email) != confirmed

    def note_refusal(self, refused: str | None, email: Mapping[str, Any]) -> bool:
        """Return whether the text of a refusal says that ``email`` wants another form.

        Logged once as a warning that names the dialect which spares the first refusal.
        """
        if self.dialect is not Dialect.AUTO or not refused:
            return False
        wanted = capabilities_in(refused, email)
        if wanted == NOTHING:
            return False
        new = self._shown.require(wanted)
        if new.html_required:
            logger.warning(
                "Truncus refused an email without HTML. From now on a rendering of the text goes "
                "beside it. %s",
                _ADVICE,
                extra={"truncus_event": "dialect_found_out", "truncus_reason": "html_required"},
            )
        if new.single_recipient:
            logger.warning(
                "Truncus refused a list of recipients in 'to'. From now on the first stays there "
                "and the others go first in 'cc'. %s",
                _ADVICE,
                extra={"truncus_event": "dialect_found_out", "truncus_reason": "single_recipient"},
            )
        return True

    def note_error(self, error: InvalidRequest, email: Mapping[str, Any]) -> bool:
        """Return whether a refused request wants another form; only HTTP 400 says so."""
        return error.status == 400 and self.note_refusal(error.message, email)


def capabilities_in(refused: str, email: Mapping[str, Any]) -> Capabilities:
    """Return what the text of a refusal says about the form of ``email``."""
    return Capabilities(
        html_required=_lacks_html(email) and bool(_HTML_REQUIRED.search(refused)),
        single_recipient=_has_a_list_in_to(email) and bool(_ONE_RECIPIENT.search(refused)),
    )


def adapt(email: Mapping[str, Any], capabilities: Capabilities) -> Mapping[str, Any]:
    """Return ``email`` in the form that ``capabilities`` ask for; ``email`` itself if it fits."""
    if capabilities.html_required and _lacks_html(email):
        email = EmailFields(email, html=text_as_html(email["text"]))
    if capabilities.single_recipient and _has_a_list_in_to(email):
        first, *others = email["to"]
        cc = email.get("cc") or []
        cc = [cc] if isinstance(cc, str) else cc
        copies = {"cc": [*others, *cc]} if others else {}
        email = EmailFields(email, to=first, **copies)
    return email


def _lacking(email: Mapping[str, Any]) -> Capabilities:
    """Return what an account that takes ``email`` does not require."""
    return Capabilities(html_required=_lacks_html(email), single_recipient=_has_a_list_in_to(email))


def _has_a_list_in_to(email: Mapping[str, Any]) -> bool:
    return isinstance(email.get("to"), list | tuple) and bool(email["to"])


def _lacks_html(email: Mapping[str, Any]) -> bool:
    text = email.get("text")
    return (
        isinstance(text, str)
        and bool(text)
        and not any(email.get(key) for key in ("html", "template_id", "react"))
    )


_URL = re.compile(r"https?://[^\s<>\"]+")
_SPACES = re.compile(r"(?<=\n) | (?= )|\A ")


def text_as_html(text: str) -> str:
    """Return HTML that shows ``text`` as it is: its lines, its spaces, and links to follow.

    >>> print(text_as_html("Dear <you>,\\n  see https://example.com/?a=1&b=2."))
    <!DOCTYPE html><html><body>Dear &lt;you&gt;,<br>
    &nbsp; see <a href="https://example.com/?a=1&amp;b=2">https://example.com/?a=1&amp;b=2</a>.</body></html>
    """
    pieces, end = [], 0
    for match in _URL.finditer(text):
        url = _without_trailing_punctuation(match.group())
        quoted = html.escape(url)
        pieces += [_spaced(text[end : match.start()]), f'<a href="{quoted}">{quoted}</a>']
        end = match.start() + len(url)
    pieces.append(_spaced(text[end:]))
    return f"<!DOCTYPE html><html><body>{''.join(pieces)}</body></html>"


def _without_trailing_punctuation(url: str) -> str:
    shorter = url.rstrip(".,;:!?'*")
    while shorter.endswith(")") and shorter.count("(") < shorter.count(")"):
        shorter = shorter[:-1].rstrip(".,;:!?'*")
    return shorter


def _spaced(text: str) -> str:
    unix = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(8)
    return _SPACES.sub("&nbsp;", html.escape(unix, quote=False)).replace("\n", "<br>\n")
