"""What stands in the database for somebody who was forgotten.

In the log that is a text without meaning. Where an address must stay suppressed, it is a digest:
whoever has the address and the project's ``SECRET_KEY`` finds the entry, and nobody can read the
address from it.
"""

import re

from django.conf import settings as django_settings
from django.utils.crypto import salted_hmac

FORGOTTEN = "(forgotten)"
"""In place of an address, or of a text that was about its owner."""
DIGESTS_BEGIN = "forgotten:"
_SALT = "truncus_django.forgotten"
_KEY_ID_LENGTH = 8
_DIGEST_LENGTH = 40
_DIGEST = re.compile(rf"{DIGESTS_BEGIN}[0-9a-f]{{{_KEY_ID_LENGTH}}}:[0-9a-f]{{{_DIGEST_LENGTH}}}")
KEY_LENGTH = len(DIGESTS_BEGIN) + _KEY_ID_LENGTH + 1
"""So many characters of a digest name the key that it was made with."""


def digests_of(mailbox: str) -> list[str]:
    """Return what may stand for an address: by ``SECRET_KEY``, then by each former one.

    Args:
        mailbox: as :func:`truncus_django.sending.addresses.mailbox` returns it.
    """
    return [f"{_prefix(key)}{_mac('address', mailbox, key)[:_DIGEST_LENGTH]}" for key in _keys()]


def is_digest(text: str) -> bool:
    """Return whether a text stands for an address in this way."""
    return _DIGEST.fullmatch(text) is not None


def is_of_a_known_key(digest: str) -> bool:
    """Return whether the digest was made with a key that is still in the settings."""
    return any(digest.startswith(_prefix(key)) for key in _keys())


def number_of_keys() -> int:
    """Return how many digests an address has."""
    return len(_keys())


def _keys() -> list[str | bytes]:
    return [django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS]


def _prefix(key: str | bytes) -> str:
    """Return what begins the digests of a key; it names the key and tells nothing of it."""
    return f"{DIGESTS_BEGIN}{_mac('key', '', key)[:_KEY_ID_LENGTH]}:"


def _mac(purpose: str, value: str, key: str | bytes) -> str:
    mac = salted_hmac(f"{_SALT}.{purpose}", value, secret=key, algorithm="sha256")
    return mac.hexdigest()
