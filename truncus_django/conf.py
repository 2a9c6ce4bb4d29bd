"""The settings: one place reads them all.

A value comes from the backend's keyword or ``MAILERS`` ``OPTIONS`` (lower case), else from the
``TRUNCUS`` dict, else from the environment (``TRUNCUS_API_KEY``, …), else it is the default.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError

ENVIRONMENT_PREFIX = "TRUNCUS_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a backend goes by. The names in ``TRUNCUS`` are these in upper case."""

    api_key: str | None = field(default=None, repr=False)
    """``tr_live_…``; needed to send."""
    base_url: str = contract.DEFAULT_BASE_URL
    timeout: float = 30.0
    """Seconds to wait for an answer."""
    max_retries: int = 3
    """Tries after the first, where repeating a request is safe."""
    retry_budget: float = 30.0
    """Seconds that one call may wait between its tries, all together."""
    sandbox: bool = False
    """Check and store e-mails, deliver none."""
    tenant_id: str | None = None
    track_opens: bool | None = None
    """``None`` leaves it to the API, which tracks."""
    track_clicks: bool | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Stored with every e-mail; a message's own values win."""
    dialect: str = "auto"
    """``"auto"``, ``"manual"`` or ``"sdk"``: the form of e-mails that the account takes."""
    unsupported: str = "error"
    """``"error"``, or ``"warn"``: drop what the API cannot carry, and log it."""
    plain_http_hosts: tuple[str, ...] = ()
    """Hosts besides this machine that may be spoken to without TLS."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the settings; ``kind`` names the system check."""

    kind: str
    name: str
    text: str


def get_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings in force, with ``options`` (lower-case names) before all others.

    Raises:
        ConfigurationError: something is unknown or of the wrong type.
    """
    key = _cache_key(options)
    found = _cache.get(key) if key is not None else None
    if found is None:
        found = _resolve(options or {})
        if key is not None:
            _cache[key] = found
    return found


def problems(options: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """Yield everything that is wrong with the settings, for the system checks."""
    own = getattr(django_settings, "TRUNCUS", {})
    if not isinstance(own, Mapping):
        yield Problem("type", "TRUNCUS", "TRUNCUS must be a dict.")
        own = {}
    for name in own:
        if name not in _READERS_BY_SETTING:
            yield Problem("unknown", str(name), f"TRUNCUS[{name!r}] is unknown{suggestion(name)}")
    for name, value in _raw_values(options or {}, own):
        try:
            _READERS[name](value)
        except ValueError as exc:
            yield Problem("type", name, f"{name.upper()} {exc}")


def suggestion(name: object, among: Iterator[str] | None = None) -> str:
    """Return ``"; did you mean 'X'?"`` or ``"."``."""
    candidates = list(among) if among is not None else list(_READERS_BY_SETTING)
    text = str(name)
    wanted = text.upper() if among is None else text
    close = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def _resolve(options: Mapping[str, Any]) -> Settings:
    found = next(problems(options), None)
    if found is not None:
        raise ConfigurationError(found.text)
    own = getattr(django_settings, "TRUNCUS", {})
    return Settings(**{name: _READERS[name](value) for name, value in _raw_values(options, own)})


def _raw_values(options: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each setting that is given anywhere, first come first."""
    for name in _READERS:
        variable = os.environ.get(ENVIRONMENT_PREFIX + name.upper())
        if name in options:
            yield name, options[name]
        elif name.upper() in own:
            yield name, own[name.upper()]
        elif variable:
            yield name, _FromEnvironment(variable)


# Reading values ---------------------------------------------------------------------------------


class _FromEnvironment(str):
    """Text that stands for a value of another type."""

    __slots__ = ()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a string that is not empty.")
    return str(value)


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, _FromEnvironment):
        if value.lower() in {"1", "true", "yes", "on"}:
            return True
        if value.lower() in {"0", "false", "no", "off"}:
            return False
    if not isinstance(value, bool):
        raise ValueError("must be True or False.")  # noqa: TRY004  one kind of error for readers
    return value


def _optional_boolean(value: Any) -> bool | None:
    return None if value is None else _boolean(value)


def _positive_number(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError("must be a number of seconds above 0.")
    return number


def _number(value: Any) -> float:
    if isinstance(value, _FromEnvironment):
        value = float(value) if _is_number(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("must be a number of seconds, 0 or more.")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, _FromEnvironment) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1000:
        raise ValueError("must be a whole number, 0 or more.")
    return int(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _strings_by_name(value: Any) -> Mapping[str, str]:
    if isinstance(value, _FromEnvironment):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, str) for key, item in value.items()
    ):
        raise ValueError("must be a dict of strings.")
    return MappingProxyType(dict(value))


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, _FromEnvironment):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(name, str) for name in value
    ):
        raise ValueError("must be a list of strings.")
    return tuple(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError("must be " + " or ".join(repr(choice) for choice in choices) + ".")
        return str(value)

    return read


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "api_key": _optional_text,
    "base_url": _text,
    "timeout": _positive_number,
    "max_retries": _count,
    "retry_budget": _number,
    "sandbox": _boolean,
    "tenant_id": _optional_text,
    "track_opens": _optional_boolean,
    "track_clicks": _optional_boolean,
    "metadata": _strings_by_name,
    "dialect": _one_of("auto", "manual", "sdk"),
    "unsupported": _one_of("error", "warn"),
    "plain_http_hosts": _names,
}
_READERS_BY_SETTING = {name.upper(): reader for name, reader in _READERS.items()}
OPTION_NAMES = frozenset(field.name for field in fields(Settings))

# Each send_mail() makes a backend, and each backend asks for its settings.
_cache: dict[frozenset[tuple[str, type, Any]], Settings] = {}


def _cache_key(options: Mapping[str, Any] | None) -> frozenset[tuple[str, type, Any]] | None:
    try:  # with the type, because 1 == True
        return frozenset((name, type(value), value) for name, value in (options or {}).items())
    except TypeError:  # an option that cannot be hashed, such as metadata
        return None


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TRUNCUS":
        forget_settings()


def forget_settings() -> None:
    """Read settings and environment anew at the next send; for tests that change the environment.

    ``override_settings(TRUNCUS=…)`` and pytest-django's ``settings`` need no such call.
    """
    _cache.clear()


setting_changed.connect(_forget, dispatch_uid="truncus_django.conf")
