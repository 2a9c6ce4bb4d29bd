"""Unsubscribe links: which address, list and tenant a link stands for.

A link holds all that in itself, under the project's ``SECRET_KEY``: no row is written at the
send. Such a row would be part of the sender's transaction, and gone when that is rolled back
although the email is out; it would be an address more to keep and to forget; and a list of a
million would write a million of them.

``django.core.signing`` makes a link one of this site: nothing else decides which are accepted. What
it signs is masked first, with a keystream that follows from ``SECRET_KEY`` and a nonce: else each
log that the URL gets into would have the address.

The nonce is a MAC of the text (a synthetic one, as in RFC 5297), and not random. So the same
subscription has the same link each time: an email that is built again, to be sent again under its
idempotency key, is the same email. It also shows that two links are the same one, and how long the
text is; no more.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import shake_256

from django.conf import settings as django_settings
from django.core.signing import BadSignature, Signer
from django.urls import NoReverseMatch, reverse
from django.utils.crypto import salted_hmac

from truncus_django.conf import ConfigurationError, Settings

__all__ = ["PLACEHOLDER", "Subscription"]

PLACEHOLDER = "https://unsubscribe.invalid/link"
"""Stands for a recipient's link in bodies that are rendered before the email is sent."""

_SALT = "truncus_django.unsubscribe"
_NONCE_BYTES = 16


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
    """Return the subscription as a part of a URL, in which it cannot be read."""
    content = [subscription.list_name, subscription.address, subscription.tenant_id]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    key = django_settings.SECRET_KEY
    nonce = _mac("nonce", text, key)[:_NONCE_BYTES]
    masked = urlsafe_b64encode(nonce + _masked(text, nonce, key)).rstrip(b"=")
    return _signer(key).sign(masked.decode())


def read_token(token: str) -> Subscription | None:
    """Return what :func:`token_of` was given, on this site; ``None`` for all other tokens.

    One that was made before ``SECRET_KEY`` was rotated is read with ``SECRET_KEY_FALLBACKS``.
    """
    if not token.isascii():
        return None
    # One after the other, and not all in one signer: whose signature it is unmasks the text.
    for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS):
        try:
            signed = _signer(key).unsign(token)
        except BadSignature:
            continue
        sealed = urlsafe_b64decode(signed + "=" * (-len(signed) % 4))
        nonce, masked = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        list_name, address, tenant_id = json.loads(_masked(masked, nonce, key))
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


def _signer(key: str | bytes) -> Signer:
    return Signer(key=key, fallback_keys=[], sep=".", salt=_SALT)


def _masked(text: bytes, nonce: bytes, key: str | bytes) -> bytes:
    """Return ``text`` masked, or masked text as it was.

    SHAKE256 expands a key of this nonce alone (FIPS 202); no two texts share one.
    """
    stream = shake_256(_mac("mask", nonce, key)).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, stream, strict=True))


def _mac(purpose: str, value: bytes, key: str | bytes) -> bytes:
    """Return HMAC-SHA256 under a key for this purpose, which Django derives from ``key``."""
    return salted_hmac(f"{_SALT}.{purpose}", value, secret=key, algorithm="sha256").digest()
