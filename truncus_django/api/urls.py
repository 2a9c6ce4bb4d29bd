"""Base URLs: what can be one, and where TLS may be left out."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)


def is_host(host: str) -> bool:
    """Return whether ``host``, as ``urlsplit()`` returns it, can be one that is looked up."""
    return bool(_HOST.fullmatch(host)) or ":" in host  # with colons, it is an IPv6 address


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine, by name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_base_url(base_url: str, plain_http_hosts: tuple[str, ...] = ()) -> str:
    """Return ``base_url`` without a slash at its end.

    Raises:
        ConfigurationError: it is no http(s) URL, it has the API's own path at its end, or it is
            plain http to a host that is neither this machine nor named in ``plain_http_hosts``.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname
        parts.port  # noqa: B018  raises ValueError where it is no number
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"}:
        raise ConfigurationError(f"BASE_URL must be a URL like {contract.DEFAULT_BASE_URL}.")
    if not is_host(host):
        raise ConfigurationError("BASE_URL has no host that can be looked up.")
    if any(character.isspace() for character in base_url):
        raise ConfigurationError("BASE_URL holds a space or a line break.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("BASE_URL must hold a scheme, a host and perhaps a path only.")
    if parts.path.rstrip("/").endswith(("/api", "/api/v1")):
        raise ConfigurationError(
            f"BASE_URL ends in /api or /api/v1, which the client adds itself: leave it out, as in "
            f"{contract.DEFAULT_BASE_URL}."
        )
    if parts.scheme == "http" and not is_loopback(host) and host not in plain_http_hosts:
        raise ConfigurationError(
            f"BASE_URL is plain http to {host!r}: API key and emails would travel in the clear. "
            f"Use https, or name the host in PLAIN_HTTP_HOSTS if its network is yours alone."
        )
    return base_url.rstrip("/")
