"""What a client goes by. Each setting is declared once: type, default, reader, scope.

Its variable in the environment is its name in upper case, after ``TRUNCUS_``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, TypeVar

from truncus_django.api import contract, readers
from truncus_django.api.errors import ConfigurationError

_Value = TypeVar("_Value")

Scope = Literal["send", "account", "project"]
"""For what a setting may have a value of its own: each backend, each mailer, or nothing less than
the project."""


def setting(
    default: _Value,
    read: Callable[[Any], _Value],
    *,
    scope: Scope = "send",
    repr: bool = True,  # noqa: A002  as in dataclasses.field()
) -> _Value:
    """Declare a setting as a field of a dataclass.

    Args:
        default: the value where none is given.
        read: returns a given value as one of the setting's type, or raises ``ValueError``.
        scope: for what it may have a value of its own.
        repr: whether the value may be shown.
    """
    declared: Any = field(
        default_factory=lambda: default,  # dataclasses refuse a mapping as a plain default
        repr=repr,
        metadata={"read": read, "scope": scope},
    )
    return declared  # type: ignore[no-any-return]


def variable_of(name: str) -> str:
    """Return the name of a setting's variable in the environment."""
    return f"TRUNCUS_{name.upper()}"


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """What :class:`~truncus_django.api.client.TruncusClient` goes by."""

    api_key: str | None = setting(None, readers.optional_api_key, scope="account", repr=False)
    """``tr_live_…``; needed to send."""
    base_url: str = setting(contract.DEFAULT_BASE_URL, readers.text, scope="account")
    timeout: float = setting(30.0, readers.positive_number)
    """Seconds to wait for an answer."""
    max_retries: int = setting(3, readers.count)
    """Tries after the first, where repeating a request is safe."""
    retry_budget: float = setting(30.0, readers.number)
    """Seconds that one call may wait between its tries, all together."""
    sandbox: bool = setting(False, readers.boolean)
    """Check and store emails, deliver none."""
    dialect: str = setting("auto", readers.one_of("auto", "manual", "sdk"), scope="account")
    """``"auto"``, ``"manual"`` or ``"sdk"``: the form of emails that the account takes."""
    plain_http_hosts: tuple[str, ...] = setting((), readers.names, scope="account")
    """Hosts besides this machine that may be spoken to without TLS."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Return the settings that the environment holds.

        Raises:
            ConfigurationError: a value is of the wrong kind.
        """
        given = {}
        for declared in fields(cls):
            variable = variable_of(declared.name)
            if environ.get(variable):
                value = readers.FromEnvironment(environ[variable])
                try:
                    given[declared.name] = declared.metadata["read"](value)
                except ValueError as exc:
                    raise ConfigurationError(f"{variable} {exc}") from None
        return cls(**given)
