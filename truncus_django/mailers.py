"""Which account a recorded email belongs to: its mailer's settings and client."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django.conf import settings as django_settings

from truncus_django.conf import SETTING_NAMES, ConfigurationError

if TYPE_CHECKING:
    from truncus_django.backend import TruncusBackend


def backend_of(mailer: str) -> "TruncusBackend":
    """Return a backend with the settings of a mailer, as ``Email.mailer`` names it.

    The empty name is that of the settings in ``TRUNCUS`` alone.

    Raises:
        ConfigurationError: ``MAILERS`` has no such mailer any more, or is no dict of dicts.
    """
    # Here and not above: the admin imports this module in every process, and the backend brings
    # requests along.
    from truncus_django.backend import TruncusBackend

    if not mailer:
        return TruncusBackend()
    configured = getattr(django_settings, "MAILERS", None) or {}
    if not isinstance(configured, Mapping):
        raise ConfigurationError("MAILERS must be a dict.")
    if mailer not in configured:
        raise ConfigurationError(
            f"MAILERS has no mailer {mailer!r} any more. Put it back for as long as its emails "
            "are of interest."
        )
    config = configured[mailer]
    options = (config.get("OPTIONS") or {}) if isinstance(config, Mapping) else None
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"MAILERS[{mailer!r}] and its OPTIONS must be dicts.")
    return TruncusBackend(
        **{name: value for name, value in options.items() if name in SETTING_NAMES}
    )
