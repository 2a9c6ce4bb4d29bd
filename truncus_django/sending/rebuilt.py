"""Email payload → Django message, for a mailer that is not Truncus.

What is sent is the payload and not the message that it was made of: a receiver of ``pre_send`` has
changed it, merge data is filled in, CSS is inlined, and the outbox stores nothing else.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from email.message import Message
from typing import Any

from django.core.mail import EmailMultiAlternatives

from truncus_django.api.errors import MessageError
from truncus_django.api.results import read_moment
from truncus_django.sending.addresses import address, address_list, listed
from truncus_django.sending.attachments import DEFAULT_TYPE
from truncus_django.sending.screening import OWN_FIELDS

_CARRIED = frozenset(
    {
        *("from", "to", "cc", "bcc", "reply_to", "subject", "headers"),
        *("text", "html", "attachments", "send_at"),
    }
)
_NOT_SENT = OWN_FIELDS | {"tenant_id", "metadata", "track_opens", "track_clicks", "variables"}
"""What tells Truncus or this site what to do with an email, and is no part of it."""


def why_only_truncus(email: Mapping[str, Any], *, now: datetime) -> str | None:
    """Return why no other mailer can send an email, or ``None``.

    Args:
        email: the API's fields.
        now: aware; a ``send_at`` that is over by then means to send it now.
    """
    given = {name for name, value in email.items() if value is not None}
    if "template_id" in given:
        return "its template is stored in Truncus"
    if "send_at" in given:
        send_at = read_moment(email["send_at"])
        if send_at is None or send_at > now:
            return "it is to be sent later"
    if not given <= _CARRIED | _NOT_SENT:
        return "it has a field that only Truncus knows"
    return None


def rebuilt(email: Mapping[str, Any]) -> EmailMultiAlternatives:
    """Return the message that a payload stands for.

    Raises:
        MessageError: a field is not what the API documents, or a recipient is no address.
    """
    try:
        return _message(email)
    except (ValueError, TypeError, AttributeError, KeyError, LookupError) as exc:
        raise MessageError(
            f"The email's payload cannot become a Django message ({type(exc).__name__})."
        ) from None


def _message(email: Mapping[str, Any]) -> EmailMultiAlternatives:
    text, html = email.get("text"), email.get("html")
    reply_to = email.get("reply_to")
    if isinstance(reply_to, str):
        reply_to = address_list(reply_to, "reply_to")
    message = EmailMultiAlternatives(
        email["subject"],
        text or html or "",
        email["from"],
        _recipients(email, "to"),
        cc=_recipients(email, "cc"),
        bcc=_recipients(email, "bcc"),
        reply_to=listed(reply_to),
        headers=dict(email.get("headers") or {}),
    )
    if html and text:
        message.attach_alternative(html, "text/html")
    elif html:
        message.content_subtype = "html"
    for attachment in email.get("attachments") or ():
        _attach(message, attachment)
    message.message()  # raises what is wrong with its headers
    return message


def _recipients(email: Mapping[str, Any], name: str) -> list[str]:
    """Return recipients that each reader takes for the same one.

    A receiver of ``pre_send`` or ``esp_extra`` may have written something else. Truncus refuses
    that; another mailer may read an address in it that nobody has looked up.
    """
    return [address(each, name, index) for index, each in enumerate(listed(email.get(name)))]


def _attach(message: EmailMultiAlternatives, attachment: Mapping[str, Any]) -> None:
    octets = b64decode(attachment["content"])
    content_type = attachment.get("content_type") or DEFAULT_TYPE
    is_text = content_type.startswith("text/")
    found_type, content = _as_text(content_type, octets) if is_text else (content_type, octets)
    message.attach(attachment.get("filename"), content, found_type)


def _as_text(content_type: str, content: bytes) -> tuple[str, bytes | str]:
    """Return a text and its type without a charset, which Django chooses; or bytes, as they are."""
    header = Message()
    header["Content-Type"] = content_type
    try:
        text = content.decode(header.get_content_charset("utf-8"))
    except (ValueError, LookupError):
        return DEFAULT_TYPE, content
    header.del_param("charset")
    return str(header["Content-Type"]), text
