"""From the JSON of one email to a checked draft, or a refusal that says what is wrong."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import getaddresses
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator.options import SpokenDialect
from truncus_django.emulator.refusals import INVALID_ADDRESS, Refusal, invalid

_ADDRESS = re.compile(
    r"""
    (?: (?: "(?:[^"\\\x00-\x1f]|\\.)*" | [^"<>,;:@\\\x00-\x1f]* ) \s* < (?P<bracketed>[^<>]+) >
      | (?P<bare>[^<>]+) )
    """,
    re.VERBOSE,
)
_ATOM = r"""[^\s@<>()\[\],;:\\"\x00-\x1f\x7f]"""
_LABEL = r"""[^\s@.<>()\[\],;:\\"/\x00-\x1f\x7f]"""
_MAILBOX = re.compile(rf"{_ATOM}{{1,64}}@(?:{_LABEL}{{1,63}}\.)+(?!\d+$){_LABEL}{{2,63}}")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_BREAK = re.compile(r"[\r\n\x00]")


@dataclass(frozen=True, slots=True)
class Draft:
    """One email that passed every check of its fields. Addresses are bare, without names."""

    payload: Mapping[str, Any]
    """The JSON that was posted; empty once the content was left out."""
    sender: str
    domain: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    subject: str
    html: str
    text: str
    template_id: str
    variables: Mapping[str, str]
    metadata: Mapping[str, str]
    tenant_id: str
    send_at: float | None
    """Unix seconds."""
    track_opens: bool
    track_clicks: bool

    def size_bytes(self) -> int:
        """Return about how much memory the content takes, attachments as base64."""
        attachments = self.payload.get("attachments") or []
        return len(self.html) + len(self.text) + sum(len(a["content"]) for a in attachments)

    def without_content(self) -> "Draft":
        """Return what is remembered of an email when its content takes too much memory."""
        return replace(self, payload={}, html="", text="", variables={})

    def content_digest(self) -> str:
        """Return what is equal for two emails with the same content to the same recipients."""
        content = [
            self.sender,
            *(sorted(addresses) for addresses in (self.to, self.cc, self.bcc)),
            self.subject,
            self.html,
            self.text,
            self.template_id,
            dict(self.variables),
            self.tenant_id,
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def bare_address(value: str) -> str | None:
    """Return the address in ``Name <address>`` or ``address``; None if malformed."""
    match = _ADDRESS.fullmatch(value.strip(" "))
    if match is None:
        return None
    address = (match["bracketed"] or match["bare"]).strip(" ")
    return address if _MAILBOX.fullmatch(address) else None


def check_email(payload: object, *, dialect: str, now: float) -> Draft:
    """Return the draft in ``payload``, checked against the published rules of ``dialect``.

    Raises:
        Refusal: with HTTP 400, naming the first field that is wrong.
    """
    if not isinstance(payload, dict):
        raise invalid("The email must be a JSON object")
    to = _recipients(payload, dialect)
    sender = _address("from", _required_text(payload, "from"))
    subject = _required_text(payload, "subject")
    if _LINE_BREAK.search(subject):
        raise invalid("subject must not contain line breaks")
    html, text, template_id = _content(payload, dialect)
    _check_manual_fields(payload, dialect)
    _check_attachments(payload.get("attachments"))
    metadata = _text_map(payload, "metadata")
    return Draft(
        payload=payload,
        sender=sender,
        domain=sender.rpartition("@")[2].lower(),
        to=to,
        cc=_address_list(payload, "cc"),
        bcc=_address_list(payload, "bcc"),
        subject=subject,
        html=html,
        text=text,
        template_id=template_id,
        variables=_text_map(payload, "variables"),
        metadata=metadata,
        tenant_id=_optional_text(payload, "tenant_id"),
        send_at=_future_time(payload, now),
        track_opens=_flag(payload, "track_opens"),
        track_clicks=_flag(payload, "track_clicks"),
    )


def _recipients(payload: Mapping[str, Any], dialect: str) -> tuple[str, ...]:
    value = payload.get("to")
    if dialect == SpokenDialect.SDK and value is not None and not isinstance(value, str):
        raise invalid("to must be a string")
    if not value:
        raise invalid("to is required")
    if isinstance(value, list):
        return tuple(_address("to", item) for item in value)
    return (_address("to", value),)


def _address(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise invalid(f"{name} must hold email addresses as strings")
    address = bare_address(value)
    if address is None:
        raise Refusal(400, INVALID_ADDRESS, f"{name} is not a valid email address")
    return address


def _address_list(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = payload.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise invalid(f"{name} must be an array of strings")
    return tuple(_address(name, item) for item in value)


def _required_text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if value is None:
        raise invalid(f"{name} is required")
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    if not value.strip():
        raise invalid(f"{name} must not be empty")
    return value


def _optional_text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    return value


def _content(payload: Mapping[str, Any], dialect: str) -> tuple[str, str, str]:
    html, text = _optional_text(payload, "html"), _optional_text(payload, "text")
    template_id = _optional_text(payload, "template_id")
    if _size_bytes(html) > contract.MAX_HTML_BYTES:
        raise invalid(f"html must be at most {contract.MAX_HTML_BYTES // 1024} KB")
    if _size_bytes(text) > contract.MAX_TEXT_BYTES:
        raise invalid(f"text must be at most {contract.MAX_TEXT_BYTES // 1024} KB")
    if dialect == SpokenDialect.SDK:
        if not (html or payload.get("react") or template_id):
            raise invalid("Either html, react, or template_id is required")
    elif not (html or text or template_id):
        raise invalid("Either html or text is required")
    return html, text, template_id


def _size_bytes(value: str) -> int:
    return len(value.encode("utf-8", "surrogatepass"))


def _text_map(payload: Mapping[str, Any], name: str) -> Mapping[str, str]:
    value = payload.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise invalid(f"{name} must be an object of strings")
    return value


def _flag(payload: Mapping[str, Any], name: str) -> bool:
    value = payload.get(name)
    if value is None:
        return True
    if not isinstance(value, bool):
        raise invalid(f"{name} must be a boolean")
    return value


def _future_time(payload: Mapping[str, Any], now: float) -> float | None:
    value = payload.get("send_at")
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # the last: beyond the year 9999 in UTC
        raise invalid("send_at must be an ISO 8601 datetime") from None
    if moment.timestamp() <= now:
        raise invalid("send_at must be in the future")
    return moment.timestamp()


def _check_manual_fields(payload: Mapping[str, Any], dialect: str) -> None:
    """Check ``reply_to`` and ``headers``, which only the manual has; the SDK's API ignores them."""
    if dialect == SpokenDialect.SDK:
        return
    reply_to = _optional_text(payload, "reply_to")
    # One string, as published; like the header that it becomes, it may hold several addresses.
    for _, address in getaddresses([reply_to]) if reply_to else ():
        _address("reply_to", address)
    for name, value in _text_map(payload, "headers").items():
        if not _HEADER_NAME.fullmatch(name) or _LINE_BREAK.search(value):
            raise invalid("headers must have valid names and values without line breaks")


def _check_attachments(attachments: object) -> None:
    if attachments is None:
        return
    if not isinstance(attachments, list):
        raise invalid("attachments must be an array")
    if len(attachments) > contract.MAX_ATTACHMENTS:
        raise invalid(f"attachments must be at most {contract.MAX_ATTACHMENTS}")
    total_bytes = sum(_attachment_bytes(item) for item in attachments)
    if total_bytes > contract.MAX_ATTACHMENT_BYTES:
        limit_mb = contract.MAX_ATTACHMENT_BYTES // 1024 // 1024
        raise invalid(f"attachments must be at most {limit_mb} MB in total")


def _attachment_bytes(attachment: object) -> int:
    """Return the size of one attachment after decoding."""
    if not isinstance(attachment, dict):
        raise invalid("attachments must be objects with filename and content")
    filename, content = attachment.get("filename"), attachment.get("content")
    if not isinstance(filename, str) or not filename:
        raise invalid("attachments need a filename")
    if not isinstance(attachment.get("content_type", ""), str):
        raise invalid("attachments have a content_type that is a string")
    if not isinstance(content, str):
        raise invalid("attachments need base64 content")
    try:
        return len(base64.b64decode(content, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("attachments need valid base64 content") from None
