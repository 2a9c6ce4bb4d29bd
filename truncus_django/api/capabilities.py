"""What each account has shown of the form of emails that it takes, as this process knows it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is known of an account: does it want HTML always, and one recipient in ``to``?"""

    html_required: bool = False
    single_recipient: bool = False

    def __or__(self, other: "Capabilities") -> "Capabilities":
        return Capabilities(
            html_required=self.html_required or other.html_required,
            single_recipient=self.single_recipient or other.single_recipient,
        )


@dataclass(frozen=True, slots=True)
class WireFormat:
    """The form that an email was sent in, remembered with a key whose answer was lost.

    ``is_pinned`` tells that the dialect was chosen, so that nothing is left to find out.
    """

    capabilities: Capabilities
    is_pinned: bool


NOTHING = Capabilities()

_required: dict[tuple[str, str], Capabilities] = {}
_confirmed: dict[tuple[str, str], Capabilities] = {}
_warned: set[tuple[str, str]] = set()
_lock = Lock()


class AccountCapabilities:
    """What one account has shown, shared by all clients of the process.

    Args:
        base_url, api_key: the account; only a digest of the key is kept.
    """

    def __init__(self, *, base_url: str, api_key: str) -> None:
        self._account = (base_url, hashlib.sha256(api_key.encode()).hexdigest())

    @property
    def account(self) -> str:
        """A digest of base URL and key: the same for the same account."""
        return hashlib.sha256("\n".join(self._account).encode()).hexdigest()

    @property
    def required(self) -> Capabilities:
        """What the account has refused emails without."""
        return _required.get(self._account, NOTHING)

    @property
    def confirmed(self) -> Capabilities:
        """What the account was seen to take emails without."""
        return _confirmed.get(self._account, NOTHING)

    def require(self, wanted: Capabilities) -> Capabilities:
        """Note what emails were refused without; return what of it was not known before."""
        with _lock:
            # Another thread may have noted it while an email was on its way.
            known = self.required
            _required[self._account] = known | wanted
        return Capabilities(
            html_required=wanted.html_required and not known.html_required,
            single_recipient=wanted.single_recipient and not known.single_recipient,
        )

    def confirm(self, spared: Capabilities) -> None:
        """Note what an email was accepted without."""
        with _lock:
            _confirmed[self._account] = self.confirmed | spared

    def is_first_warning(self) -> bool:
        """Return ``True`` once for each account."""
        if self._account in _warned:
            return False
        _warned.add(self._account)
        return True

    def export(self) -> dict[str, bool]:
        """Return what the account has shown, for another process."""
        return {
            "html_required": self.required.html_required,
            "single_recipient": self.required.single_recipient,
            "takes_text_alone": self.confirmed.html_required,
            "takes_a_list": self.confirmed.single_recipient,
        }

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Note what another process exported; what is known here stays known."""
        self.require(_read(exported, "html_required", "single_recipient"))
        self.confirm(_read(exported, "takes_text_alone", "takes_a_list"))


def _read(exported: Mapping[str, Any], html: str, single: str) -> Capabilities:
    return Capabilities(
        html_required=exported.get(html) is True, single_recipient=exported.get(single) is True
    )


def forget_capabilities() -> None:
    """Forget what all accounts have shown; for tests."""
    _required.clear()
    _confirmed.clear()
    _warned.clear()
