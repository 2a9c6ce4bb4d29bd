"""Signing and verifying webhooks, as the Truncus manual describes them.

The signature is the hexadecimal HMAC-SHA256 over ``timestamp + "." + raw body`` with the webhook
secret. The manual's example value carries the prefix ``tcsig_`` while its code compares the bare
digest, so both forms are accepted.
"""

import hashlib
import hmac
from collections.abc import Iterable

from truncus_django.api import contract
from truncus_django.api.errors import WebhookVerificationError


def sign(body: bytes, *, secret: str, timestamp: int) -> str:
    """Return the signature of a webhook's raw ``body`` sent at ``timestamp`` (unix seconds)."""
    message = str(timestamp).encode() + b"." + body
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def verify(
    body: bytes,
    *,
    signature: str,
    timestamp: str,
    secrets: Iterable[str],
    now: float,
    tolerance_s: float = contract.WEBHOOK_TOLERANCE_S,
) -> None:
    """Return if ``body`` was signed with one of ``secrets``, within ``tolerance_s`` of ``now``.

    ``signature`` and ``timestamp`` are the values of the headers ``Truncus-Signature`` and
    ``Truncus-Timestamp``; ``now`` is in unix seconds. Every secret is tried, in constant time,
    so that secrets can be rotated and the time taken tells nothing.

    Raises:
        WebhookVerificationError: the timestamp is unreadable or too far off, or no secret fits.
    """
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        raise WebhookVerificationError("The webhook's timestamp is not a number of seconds.")
    if abs(now - int(timestamp)) > tolerance_s:
        raise WebhookVerificationError("The webhook's timestamp is too far from the present.")
    given = signature.removeprefix(contract.WEBHOOK_SIGNATURE_PREFIX).encode()
    if isinstance(secrets, str):
        secrets = (secrets,)  # not each of its characters
    fits = False
    for secret in secrets:
        if not secret:
            continue
        expected = sign(body, secret=secret, timestamp=int(timestamp)).encode()
        fits |= hmac.compare_digest(given, expected)
    if not fits:
        raise WebhookVerificationError("The webhook's signature fits none of the secrets.")
