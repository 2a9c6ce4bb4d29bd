"""Unsubscribe links: which address, list and tenant a link stands for.

A link holds all that in itself, sealed with the project's ``SECRET_KEY``: no row is written at the
send. Such a row would be part of the sender's transaction, and gone when that is rolled back
although the email is out; it would be an address more to keep and to forget; and a list of a
million would write a million of them.

The seal is a synthetic IV (RFC 5297 shows the construction) with HMAC-SHA256 in both of its parts:
the IV is a MAC of the text, the text is hidden by a keystream that follows from key and IV, and
whoever opens it computes the MAC again. ``django.core.signing`` would sign the address, and leave
it readable.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from hmac import compare_digest

from django.conf import settings as django_settings
from django.urls import NoReverseMatch, reverse
from django.utils.crypto import salted_hmac

from truncus_django.conf import ConfigurationError, Settings

__all__ = ["PLACEHOLDER", "Subscription"]

PLACEHOLDER = "https://unsubscribe.invalid/link"
"""Stands for a recipient's link in bodies that are rendered before the email is sent."""

_IV_BYTES = 16
_LONGEST_TOKEN = 2000


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an unsubscribe link ends.

    Attributes:
        address: bare, in small letters.
        list_name: of the list.
        tenant_id: of the emails; empty where they had none.
    """

    address: str = field(repr=False)
    list_name: str
    tenant_id: str = ""


def token_of(subscription: Subscription) -> str:
    """Return the subscription as a part of a URL, which shows nothing of it."""
    content = [subscription.list_name, subscription.address, subscription.tenant_id]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    key = django_settings.SECRET_KEY
    iv = _iv(text, key)
    return _in_url(iv + _hidden(text, iv, key))


def read_token(token: str) -> Subscription | None:
    """Return what :func:`token_of` was given, on this site; ``None`` for all other tokens.

    One that was made before ``SECRET_KEY`` was rotated is read with ``SECRET_KEY_FALLBACKS``.
    """
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        return None
    try:
        sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return None
    if _in_url(sealed) != token:  # there is one way to write each token
        return None
    iv, hidden = sealed[:_IV_BYTES], sealed[_IV_BYTES:]
    for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS):
        text = _hidden(hidden, iv, key)
        if compare_digest(iv, _iv(text, key)):
            list_name, address, tenant_id = json.loads(text)
            return Subscription(address, list_name, tenant_id)
    return None


def link_of(subscription: Subscription, settings: Settings) -> str:
    """Return the link that ends a subscription.

    Raises:
        ConfigurationError: the project lacks what links begin with, or the page that they lead to.
    """
    if settings.unsubscribe_base_url is None:
        raise ConfigurationError(
            "An email has the option unsubscribe, and TRUNCUS has no UNSUBSCRIBE_BASE_URL: set it "
            "to the site's https URL, like 'https://www.example.com'."
        )
    try:
        path = reverse("truncus_django:unsubscribe", args=[token_of(subscription)])
    except NoReverseMatch:
        raise ConfigurationError(
            "An email has the option unsubscribe, and the project's URLs have no page for it: add "
            "path('truncus/', include('truncus_django.urls'))."
        ) from None
    return settings.unsubscribe_base_url + path


def _in_url(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _iv(text: bytes, key: str | bytes) -> bytes:
    return _mac("iv", text, key)[:_IV_BYTES]


def _hidden(text: bytes, iv: bytes, key: str | bytes) -> bytes:
    """Return ``text`` hidden; hidden text becomes readable by the same."""
    stream = b"".join(_blocks(iv, key, len(text)))
    return bytes(one ^ other for one, other in zip(text, stream, strict=False))


def _blocks(iv: bytes, key: str | bytes, length: int) -> Iterator[bytes]:
    for number in range(-(-length // 32)):
        yield _mac("stream", iv + number.to_bytes(4), key)


def _mac(purpose: str, value: bytes, key: str | bytes) -> bytes:
    salt = f"truncus_django.unsubscribe.{purpose}"
    return salted_hmac(salt, value, secret=key, algorithm="sha256").digest()
