"""Mailers: the settings and the client that an alias of ``MAILERS`` stands for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings

from truncus_django.api import errors
from truncus_django.api.errors import loggable_id
from truncus_django.api.keys import ApiKey
from truncus_django.api.settings import ClientSettings
from truncus_django.conf import SETTING_NAMES, ConfigurationError, Settings, get_settings, mailers

if TYPE_CHECKING:
    from truncus_django.api.client import TruncusClient


@dataclass(frozen=True, eq=False, slots=True)
class Mailer:
    """A mailer as it is configured.

    Attributes:
        name: its alias in ``MAILERS``, as ``Email.mailer`` names it; empty for the settings in
            ``TRUNCUS`` alone.
        settings: those in force.
        options: what it sets itself, in lower case.
        tenant: whose own account it sends by, as ``ACCOUNTS`` told; empty for the mailer's own.
    """

    name: str
    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tenant: str = ""

    @property
    def client(self) -> "TruncusClient":
        """The client for these settings, shared by all mailers that have the same.

        Raises:
            ConfigurationError: there is no API key, or a setting is impossible.
        """
        return _client(self.settings)

    @property
    def has_account(self) -> bool:
        """Whether there is a client: with ``ACCOUNTS``, a mailer may have no key of its own."""
        try:
            return bool(self.client)
        except ConfigurationError:
            return False

    @property
    def client_without_retries(self) -> "TruncusClient":
        """The client of workers, who write down when to try again instead of waiting for it."""
        return _client(replace(self.settings, max_retries=0))


def get_mailer(name: str) -> Mailer:
    """Return the mailer that ``Email.mailer`` names.

    Raises:
        ConfigurationError: its settings are wrong, or ``MAILERS`` has no such mailer any more, or
            is no dict of dicts.
    """
    options = own_options(_configured_options(name) if name else {})
    return Mailer(name, get_settings(options), options)


def mailers_by_account() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the mailers that send through each account; wrong ones are left out.

    The empty name, of the settings in ``TRUNCUS`` alone, comes last.
    """
    users: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys([alias or "" for alias, _ in mailers()] + [""]):
        try:
            account = get_mailer(name).client.account
        except ConfigurationError:
            continue
        users[account] = (*users.get(account, ()), name)
    return users


def name_of(names: Iterable[str], tenant: str = "") -> str:
    """Return the names of an account's mailers as one; ``TRUNCUS`` for its settings alone.

    Args:
        names: of the mailers.
        tenant: whose own account it is.
    """
    name = ", ".join(filter(None, names)) or "TRUNCUS"
    return f"{name}, tenant {tenant}" if tenant else name


def label_of(mailer: str, tenant: str) -> str:
    """Return the name of a mailer, or of a tenant of its, as logs may hold it.

    A tenant's id may be an address.
    """
    return name_of([mailer], loggable_id(tenant)) if tenant else mailer


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a backend that are settings of Truncus."""
    own = {name: value for name, value in options.items() if name in SETTING_NAMES}
    if isinstance(own.get("api_key"), str):
        own["api_key"] = ApiKey(own["api_key"])
    if own.get("timeout") is None:  # such as Django's EMAIL_TIMEOUT
        own.pop("timeout", None)
    return own


def _configured_options(name: str) -> Mapping[str, Any]:
    configured = getattr(django_settings, "MAILERS", None) or {}
    if not isinstance(configured, Mapping):
        raise ConfigurationError("MAILERS must be a dict.")
    if name not in configured:
        raise ConfigurationError(
            f"MAILERS has no mailer {name!r} any more. Put it back for as long as its emails "
            "are of interest."
        )
    config = configured[name]
    options = (config.get("OPTIONS") or {}) if isinstance(config, Mapping) else None
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"MAILERS[{name!r}] and its OPTIONS must be dicts.")
    return options


def _client(settings: Settings) -> "TruncusClient":
    if not settings.api_key:
        raise ConfigurationError(
            "There is no API key. Set TRUNCUS = {'API_KEY': …} or TRUNCUS_API_KEY."
        )
    try:
        return _shared_client(settings.of_client)
    except errors.ConfigurationError as error:
        raise ConfigurationError(error.message) from None


@lru_cache(maxsize=64)
def _shared_client(settings: ClientSettings) -> "TruncusClient":
    # Here and not above: the admin imports this module in every process, and the client brings
    # requests along.
    from truncus_django.api.client import TruncusClient

    return TruncusClient.from_settings(settings)
