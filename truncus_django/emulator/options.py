"""What can be set on the emulator: one frozen class for Python and the command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from truncus_django.api import contract
from truncus_django.emulator.faults import Fault

_Value = TypeVar("_Value")


class SpokenDialect(StrEnum):
    """Which of the two published descriptions of the API is spoken."""

    MANUAL = "manual"
    SDK = "sdk"


class DomainState(StrEnum):
    """What Truncus knows about a sending domain."""

    VERIFIED = "verified"
    NOT_FOUND = "not_found"
    NOT_VERIFIED = "not_verified"
    PAUSED = "paused"


class BatchReplay(StrEnum):
    """What a repeated batch key answers; it is not published, so both readings are offered."""

    FIRST = "first"
    DUPLICATE = "duplicate"


class BatchRefusal(StrEnum):
    """What one invalid item does to its batch: fails alone, or takes the whole with it."""

    ITEM = "item"
    WHOLE = "whole"


def _option(
    value: _Value,
    group: str,
    meaning: str,
    *,
    flag: str = "",
    read: Callable[[str], Any] | None = None,
    repr: bool = True,  # noqa: A002  as in dataclasses.field()
    **argument: Any,
) -> _Value:
    """Declare an option as a field of a dataclass, and its argument on the command line.

    Args:
        value: the default.
        group: of arguments, in which the help shows it.
        meaning: the help's text, without the default.
        flag: of the argument, where it is not the field's name.
        read: returns one text of the command line as name and value, for an option that is a
            mapping. Its ``ValueError`` says what is wrong.
        repr: whether the value may be shown.
        **argument: for ``ArgumentParser.add_argument()``, where the default does not tell.
    """
    declared: Any = field(
        default_factory=lambda: value,  # dataclasses refuse a mapping as a plain default
        repr=repr,
        metadata={
            "default": value,
            "group": group,
            "meaning": meaning,
            "flag": flag,
            "read": read,
            "argument": argument,
        },
    )
    return declared  # type: ignore[no-any-return]


def _key_and_scopes(text: str) -> tuple[str, Sequence[str]]:
    key, colon, scopes = text.partition(":")
    return key, scopes.split("+") if colon else (contract.SEND_SCOPE, contract.READ_SCOPE)


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"{text!r} is not {form}")
    return name, value


def _domain_state(text: str) -> tuple[str, str]:
    return _pair(text, "--domain DOMAIN=STATE")


def _template(text: str) -> tuple[str, str]:
    name, path = _pair(text, "--template ID=FILE")
    try:
        return name, Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise ValueError(f"--template {name}: {path} cannot be read: {exc.strerror}") from exc


def _fault_rate(text: str) -> tuple[str, float]:
    name, rate = _pair(text, "--fault NAME[@PATH]=RATE")
    try:
        return name, float(rate)
    except ValueError:
        raise ValueError(f"{rate!r} is not a number") from None


def milliseconds(text: str) -> float:
    """Return milliseconds as seconds; argparse tells the name of this function with an error."""
    seconds = float(text) / 1000
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SERVER = "server"
_ACCOUNT = "account"
_LIMITS = "limits (0: none)"
_DELIVERY = "answers and delivery"
_WEBHOOKS = "webhooks"
_TROUBLE = "trouble"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be set on an emulator.

    The defaults are for test suites, without request limits; the command line defaults to the
    limits of a real account, 10 requests a second and 60 a minute.

    Raises:
        ValueError: a value is out of range or names something unknown.
    """

    dialect: str = _option(
        SpokenDialect.MANUAL,
        _SERVER,
        "speak as the Truncus manual says, or as the Python SDK expects",
    )
    keep: int = _option(
        10_000, _SERVER, "emails kept with their bodies; counts and states are kept for all"
    )

    api_keys: Mapping[str, Sequence[str]] = _option(
        _NOTHING,
        _ACCOUNT,
        "accept this key, with the scopes send and read_events unless others are named; repeatable "
        "(default: any key that begins with tr_)",
        flag="--api-key",
        metavar="KEY[:SCOPE+SCOPE]",
        read=_key_and_scopes,
        repr=False,
    )
    """API key to its scopes."""
    revoked_keys: Sequence[str] = _option(
        (), _ACCOUNT, "repeatable", flag="--revoked-key", metavar="KEY", repr=False
    )
    verified_domains: Sequence[str] = _option(
        (),
        _ACCOUNT,
        "send from this domain only; repeatable (default: any domain)",
        flag="--verified-domain",
        metavar="DOMAIN",
    )
    domains: Mapping[str, str] = _option(
        _NOTHING,
        _ACCOUNT,
        f"state of a domain: {', '.join(DomainState)}; repeatable",
        flag="--domain",
        metavar="DOMAIN=STATE",
        read=_domain_state,
    )
    """Domain to its `DomainState`."""
    templates: Mapping[str, str] = _option(
        _NOTHING,
        _ACCOUNT,
        "an HTML template with {{name}} places; repeatable (default: any id, a stub text)",
        flag="--template",
        metavar="ID=FILE",
        read=_template,
    )
    """Template id to its HTML."""
    suppressed: Sequence[str] = _option(
        (),
        _ACCOUNT,
        "an address on the suppression list of every tenant; repeatable",
        flag="--suppress",
        metavar="ADDRESS",
    )

    requests_per_second: int = _option(
        0, _LIMITS, "of each API key", default=contract.REQUESTS_PER_SECOND
    )
    requests_per_minute: int = _option(
        0, _LIMITS, "of each API key", default=contract.REQUESTS_PER_MINUTE
    )
    monthly_limit: int = _option(250_000, _LIMITS, "emails of an API key in a calendar month (UTC)")
    """The default is that of the largest plan."""
    daily_limit: int = _option(
        0, _LIMITS, "emails of a domain in a day (UTC), as while it warms up"
    )

    delivery_delay_s: float = _option(0.1, _DELIVERY, "between sent, delivered, opened and clicked")
    retry_delay_s: float = _option(0.3, _DELIVERY, "until a deferred email is retried")
    suppress_after_bounce: bool = _option(
        False, _DELIVERY, "suppress an address that bounced or complained"
    )
    batch_replay: str = _option(BatchReplay.FIRST, _DELIVERY, "what a repeated batch key answers")
    batch_refusal: str = _option(
        BatchRefusal.ITEM, _DELIVERY, "what an invalid item does to its batch"
    )
    dedup_window_s: float = _option(
        0.0, _DELIVERY, "equal content within it is not sent again, dialect sdk; 0 is off"
    )

    webhook_url: str = _option("", _WEBHOOKS, "where to post them", metavar="URL")
    webhook_secret: str = _option(
        "", _WEBHOOKS, "what to sign them with", metavar="SECRET", repr=False
    )
    webhook_threads: int = _option(1, _WEBHOOKS, "posted at the same time")
    webhook_delay_s: float = _option(0.0, _WEBHOOKS, "hold each back")
    webhook_duplicates: int = _option(0, _WEBHOOKS, "send each N more times")
    webhook_shuffle_s: float = _option(
        0.0,
        _WEBHOOKS,
        "make each late by a random time of up to this, so that they come out of order",
    )
    webhook_backoff_s: Sequence[float] = _option(
        (0.5, 2.0, 10.0, 30.0, 60.0),
        _WEBHOOKS,
        "before each repetition of one that was not acknowledged; nothing: never repeat",
    )
    webhook_event_ids: bool = _option(
        False, _WEBHOOKS, "add event_id to each body, which the published body has not"
    )
    webhook_bad_signatures: float = _option(
        0.0,
        _WEBHOOKS,
        "of webhooks, 0 to 1: send one with a wrong signature first",
        metavar="SHARE",
    )
    webhook_stale: float = _option(
        0.0, _WEBHOOKS, "of webhooks, 0 to 1: send one signed 10 minutes ago first", metavar="SHARE"
    )

    latency_s: float = _option(0.0, _TROUBLE, "each answer takes", metavar="MS", type=milliseconds)
    """Seconds, and milliseconds on the command line."""
    fault_rates: Mapping[str, float] = _option(
        _NOTHING,
        _TROUBLE,
        "strike this share of requests, 0 to 1; repeatable. Names: " + ", ".join(Fault),
        flag="--fault",
        metavar="NAME[@PATH]=RATE",
        read=_fault_rate,
    )
    """``"reset_after"`` or ``"reset_after@batch"`` to the share of requests it strikes."""
    seed: int = _option(0, _TROUBLE, "same seed, same faults and bad webhooks", flag="--fault-seed")

    def __post_init__(self) -> None:
        """Refuse values that make no sense, so that a misspelling never runs silently."""
        for declared in fields(self):
            choice = type(declared.metadata["default"])
            if issubclass(choice, StrEnum) and getattr(self, declared.name) not in list(choice):
                raise ValueError(f"{declared.name} is one of {', '.join(choice)}")
        for domain, state in self.domains.items():
            if state not in list(DomainState):
                raise ValueError(f"the state of {domain} is one of {', '.join(DomainState)}")
        for scopes in self.api_keys.values():
            if isinstance(scopes, str) or not set(scopes) <= {
                contract.SEND_SCOPE,
                contract.READ_SCOPE,
            }:
                raise ValueError(f"scopes are {contract.SEND_SCOPE} and {contract.READ_SCOPE}")
        for key in (*self.api_keys, *self.revoked_keys):
            if not key.startswith(contract.API_KEY_PREFIX):
                raise ValueError(f"API keys begin with {contract.API_KEY_PREFIX}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and name != "seed" and value < 0:
                raise ValueError(f"{name} is not negative")
        if any(backoff_s < 0 for backoff_s in self.webhook_backoff_s):
            raise ValueError("webhook_backoff_s is not negative")
        for name in ("keep", "webhook_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("webhook_bad_signatures", "webhook_stale"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is between 0 and 1")
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("webhook_url needs a webhook_secret to sign with")
