"""The two dialects of the API, and what a first refusal teaches.

The published sources disagree on two points of an email to send (contract, "Where the sources
disagree"): whether plain text may go alone, and whether ``to`` may be a list. What is sent
follows the manual; a refusal that says otherwise is a lesson, and holds for that base URL and
key as long as the process lives.
"""

import hashlib
import html
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Any

from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import InvalidRequest

logger = logging.getLogger("truncus_django")


class Dialect(StrEnum):
    """Which form an email is sent in: found out, or pinned."""

    AUTO = "auto"
    MANUAL = "manual"
    SDK = "sdk"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is known of an account: does it want HTML always, and one recipient in ``to``?"""

    html_required: bool = False
    single_recipient: bool = False


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The form that an email was sent in, remembered with a key whose answer was lost.

    ``is_pinned`` tells that a setting said so, and no doubt is left.
    """

    capabilities: Capabilities
    is_pinned: bool


_MANUAL = Capabilities()
_SDK = Capabilities(html_required=True, single_recipient=True)

_HTML_REQUIRED = re.compile(r"\bhtml\b.*\brequired\b|\brequired\b.*\bhtml\b", re.I | re.S)
_ONE_RECIPIENT = re.compile(
    r"\bto\b.{0,80}\bstring\b|\bstring\b.{0,80}\bto\b|expected string, received array", re.I | re.S
)

_ONLY_IN_THE_MANUAL = ("reply_to", "headers")

_warned: set[tuple[str, str]] = set()
_known: dict[tuple[str, str], Capabilities] = {}
_confirmed: dict[tuple[str, str], Capabilities] = {}
"""What an account was seen to take without: HTML, one recipient in ``to``."""
_lock = Lock()


class DialectMemory:
    """What one account has taught this process.

    Args:
        dialect: :attr:`Dialect.AUTO` learns; the others are pinned and never try twice.
        base_url, api_key: the account; only a digest of the key is kept.
    """

    def __init__(self, dialect: Dialect, *, base_url: str, api_key: str) -> None:
        self.dialect = dialect
        self._account = (base_url, hashlib.sha256(api_key.encode()).hexdigest())

    @property
    def capabilities(self) -> Capabilities:
        """What emails are adapted to."""
        if self.dialect is Dialect.MANUAL:
            return _MANUAL
        if self.dialect is Dialect.SDK:
            return _SDK
        return _known.get(self._account, _MANUAL)

    @property
    def account(self) -> str:
        """A digest of base URL and key: the same for the same account."""
        return hashlib.sha256("\n".join(self._account).encode()).hexdigest()

    @property
    def wire_format(self) -> WireFormat:
        """The form that emails are sent in now."""
        return WireFormat(self.capabilities, is_pinned=self.dialect is not Dialect.AUTO)

    def export(self) -> dict[str, bool]:
        """Return what the account has taught, for another process; empty where a setting says."""
        if self.dialect is not Dialect.AUTO:
            return {}
        learned = _known.get(self._account, _MANUAL)
        confirmed = _confirmed.get(self._account, _MANUAL)
        return {
            "html_required": learned.html_required,
            "single_recipient": learned.single_recipient,
            "takes_text_alone": confirmed.html_required,
            "takes_a_list": confirmed.single_recipient,
        }

    def restore(self, told: Mapping[str, Any]) -> None:
        """Learn what another process :meth:`export` ed; what is known here stays known."""
        if self.dialect is not Dialect.AUTO or not any(told.values()):
            return
        with _lock:
            for memory, html, single in (
                (_known, "html_required", "single_recipient"),
                (_confirmed, "takes_text_alone", "takes_a_list"),
            ):
                known = memory.get(self._account, _MANUAL)
                memory[self._account] = Capabilities(
                    html_required=known.html_required or told.get(html) is True,
                    single_recipient=known.single_recipient or told.get(single) is True,
                )

    def adapt(self, email: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``email`` in the form that the account is known to take.

        Where that is the SDK's, a field that only the manual knows is sent all the same, and a
        warning says once that Truncus may leave it out.
        """
        capabilities = self.capabilities
        if capabilities is _MANUAL:
            return email
        at_risk = [name for name in _ONLY_IN_THE_MANUAL if email.get(name)]
        if at_risk and self._account not in _warned:
            _warned.add(self._account)
            logger.warning(
                "The account takes the SDK's form of emails, which does not know %s; Truncus may "
                "leave that out.",
                " and ".join(at_risk),
            )
        return adapt(email, capabilities)

    def confirm(self, email: Mapping[str, Any]) -> None:
        """Note that an email was accepted in its form."""
        if self.dialect is Dialect.AUTO and self.is_unconfirmed(email):
            with _lock:
                confirmed = _confirmed.get(self._account, _MANUAL)
                _confirmed[self._account] = Capabilities(
                    html_required=confirmed.html_required or _lacks_html(email),
                    single_recipient=confirmed.single_recipient or _has_a_list_in_to(email),
                )

    def is_unconfirmed(self, email: Mapping[str, Any]) -> bool:
        """Return whether the account has yet to show that it takes emails of this form."""
        confirmed = _confirmed.get(self._account, _MANUAL)
        return (_lacks_html(email) and not confirmed.html_required) or (
            _has_a_list_in_to(email) and not confirmed.single_recipient
        )

    def learn(self, refused: str | None, email: Mapping[str, Any]) -> bool:
        """Return whether the text of a refusal says that ``email`` wants another form.

        Logged once as a warning that names the setting which spares the first refusal.
        """
        if self.dialect is not Dialect.AUTO or not refused:
            return False
        wanted = capabilities_in(refused, email)
        if wanted == _MANUAL:
            return False
        with _lock:
            # Another thread may have learned it while this email was on its way.
            known = _known.get(self._account, _MANUAL)
            learned = _known[self._account] = Capabilities(
                html_required=known.html_required or wanted.html_required,
                single_recipient=known.single_recipient or wanted.single_recipient,
            )
        if learned.html_required and not known.html_required:
            logger.warning(
                "Truncus refused an email without HTML. From now on a rendering of the text goes "
                "beside it. Set TRUNCUS['DIALECT'] = 'sdk' to do so from the first email on."
            )
        if learned.single_recipient and not known.single_recipient:
            logger.warning(
                "Truncus refused a list of recipients in 'to'. From now on the first stays there "
                "and the others go first in 'cc'. Set TRUNCUS['DIALECT'] = 'sdk' to do so from "
                "the first email on."
            )
        return True

    def learn_from(self, error: InvalidRequest, email: Mapping[str, Any]) -> bool:
        """Return whether a refused request wants another form; only HTTP 400 says so."""
        return error.status == 400 and self.learn(error.message, email)


def capabilities_in(refused: str, email: Mapping[str, Any]) -> Capabilities:
    """Return what the text of a refusal says about the form of ``email``."""
    return Capabilities(
        html_required=_lacks_html(email) and bool(_HTML_REQUIRED.search(refused)),
        single_recipient=_has_a_list_in_to(email) and bool(_ONE_RECIPIENT.search(refused)),
    )


def forget_capabilities() -> None:
    """Forget what all accounts have taught; for tests."""
    _known.clear()
    _confirmed.clear()
    _warned.clear()


def adapt(email: Mapping[str, Any], capabilities: Capabilities) -> Mapping[str, Any]:
    """Return ``email`` in the form that ``lessons`` ask for; ``email`` itself if it fits."""
    if capabilities.html_required and _lacks_html(email):
        email = EmailFields(email, html=text_as_html(email["text"]))
    if capabilities.single_recipient and _has_a_list_in_to(email):
        first, *others = email["to"]
        cc = email.get("cc") or []
        cc = [cc] if isinstance(cc, str) else cc
        copies = {"cc": [*others, *cc]} if others else {}
        email = EmailFields(email, to=first, **copies)
    return email


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
