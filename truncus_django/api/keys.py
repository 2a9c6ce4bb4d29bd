"""API keys and idempotency keys: what can be one."""

import uuid

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, MessageError

MAX_KEY_LENGTH = 255
"""Of an idempotency key; no figure is published, and more fits no common database column."""


class Secret(str):
    """A text that shows itself in no error report; as text it is what it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


class ApiKey(Secret):
    """An API key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<API key>"


def is_placeholder(secret: str) -> bool:
    """Return whether a key or secret was copied from an example, as ``tr_live_...`` is."""
    return "..." in secret or "…" in secret


def check_api_key(api_key: str) -> str:
    """Return ``api_key``, or raise :class:`ConfigurationError` if it cannot be one."""
    if not api_key:
        raise ConfigurationError("There is no API key. Pass one, or set TRUNCUS_API_KEY.")
    if not api_key.startswith(contract.API_KEY_PREFIX):
        raise ConfigurationError(
            f"The API key does not begin with {contract.API_KEY_PREFIX!r}: is it Truncus's, "
            "without quotation marks or spaces around it?"
        )
    if is_placeholder(api_key):
        raise ConfigurationError("The API key is a placeholder. Set the one that Truncus shows.")
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ConfigurationError("The API key holds a space, a line break or a foreign character.")
    return api_key


def new_idempotency_key() -> str:
    """Return a key that nobody has used."""
    return str(uuid.uuid4())


def check_idempotency_key(key: str) -> str:
    """Return ``key``, or raise :class:`MessageError` if it cannot be a header's value."""
    if (
        not key
        or len(key) > MAX_KEY_LENGTH
        or not key.isascii()
        or not key.isprintable()
        or key != key.strip()
    ):
        raise MessageError(
            f"An idempotency key is 1 to {MAX_KEY_LENGTH} printable ASCII characters."
        )
    return key
