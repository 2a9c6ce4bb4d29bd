"""What was sent, in one form: Django messages, the emulator's records, payloads of the outbox."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage

from truncus_django.api.errors import InvalidAddress, MessageError
from truncus_django.api.readers import scalar_text
from truncus_django.api.results import read_moment
from truncus_django.emulator import EmailRecord
from truncus_django.message import option
from truncus_django.sending.addresses import address, address_list
from truncus_django.sending.attachments import read_attachment
from truncus_django.sending.payload import moment_in_utc


@dataclass(frozen=True, slots=True, kw_only=True)
class SentAttachment:
    """A file of an email that was sent."""

    filename: str = field(repr=False)
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEmail:
    """An email that was sent, wherever it went.

    Its ``repr()`` shows no content. What the settings add, such as a tenant, is there where it went
    through Truncus, and not where Django's test runner kept it in memory.

    Attributes:
        from_email: the sender, perhaps with a name.
        to, cc, bcc, reply_to: addresses, perhaps with names; their domains in ASCII.
        text, html: the bodies; empty where there is none.
        headers: those that the message sets itself.
        attachments: the files.
        metadata: what Truncus stores with it.
        tenant_id, template_id: empty where there is none.
        variables: what the template's ``{{name}}`` stand for.
        send_at: when it is to go out, in UTC; ``None`` for at once.
        sandbox: whether the message, or the request, said so.
        message_id: Truncus's id; ``None`` where Truncus has not got it.
        email_pk: primary key of the :class:`~truncus_django.models.Email` that waits in the
            outbox; ``None`` elsewhere.
    """

    from_email: str = field(repr=False)
    to: tuple[str, ...] = field(repr=False)
    cc: tuple[str, ...] = field(default=(), repr=False)
    bcc: tuple[str, ...] = field(default=(), repr=False)
    reply_to: tuple[str, ...] = field(default=(), repr=False)
    subject: str = field(default="", repr=False)
    text: str = field(default="", repr=False)
    html: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    attachments: tuple[SentAttachment, ...] = field(default=(), repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    tenant_id: str = field(default="", repr=False)
    template_id: str = field(default="", repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    send_at: datetime | None = None
    sandbox: bool = False
    message_id: str | None = None
    email_pk: UUID | None = None


# Of the API's fields ------------------------------------------------------------------------------


def of_payload(fields: Mapping[str, Any], **others: Any) -> SentEmail:
    """Return an email as it is in a request; ``others`` are attributes that are not there."""
    return SentEmail(
        from_email=_text(fields.get("from")),
        to=_listed(fields.get("to")),
        cc=_listed(fields.get("cc")),
        bcc=_listed(fields.get("bcc")),
        reply_to=_listed(fields.get("reply_to")),
        subject=_text(fields.get("subject")),
        text=_text(fields.get("text")),
        html=_text(fields.get("html")),
        headers=dict(fields.get("headers") or {}),
        attachments=tuple(
            SentAttachment(
                filename=_text(file.get("filename")),
                content_type=_text(file.get("content_type")),
                content=b64decode(file.get("content") or ""),
            )
            for file in fields.get("attachments") or ()
        ),
        metadata=dict(fields.get("metadata") or {}),
        tenant_id=_text(fields.get("tenant_id")),
        template_id=_text(fields.get("template_id")),
        variables=dict(fields.get("variables") or {}),
        send_at=read_moment(fields.get("send_at")),
        **others,
    )


def of_record(record: EmailRecord) -> SentEmail:
    """Return an email of the emulator; without bodies where it keeps its content no more."""
    fields = record.payload
    if fields is None:
        fields = {"from": record.sender, "to": record.to, "subject": record.subject}
    return of_payload(fields, sandbox=record.sandbox, message_id=record.id)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _listed(value: Any) -> tuple[str, ...]:
    """Return addresses that the API takes as a list, or as a text with commas."""
    if not value:
        return ()
    if not isinstance(value, str):
        return tuple(value)
    try:
        return tuple(address_list(value, "the email"))
    except InvalidAddress:
        return (value,)


# Of Django's messages -----------------------------------------------------------------------------

_OWN_FIELDS = {"from", "to", "cc", "reply-to"}
"""Headers that stand beside an attribute of the message, and win over it."""


def of_message(message: EmailMessage, **others: Any) -> SentEmail:
    """Return a message to one or more recipients, as it is, be it one that Truncus would refuse."""
    headers = {str(name): str(value) for name, value in (message.extra_headers or {}).items()}
    own = {name.lower(): value for name, value in headers.items()}
    text, html = bodies_of(message)
    return SentEmail(
        from_email=_address(own.get("from", message.from_email)),
        to=_addresses(message.to),
        cc=_addresses(message.cc),
        bcc=_addresses(message.bcc),
        reply_to=_listed(own.get("reply-to")) or _addresses(message.reply_to),
        subject=str(message.subject),
        text=text,
        html=html,
        headers={name: value for name, value in headers.items() if name.lower() not in _OWN_FIELDS},
        attachments=tuple(
            _attachment(given, index, message) for index, given in enumerate(message.attachments)
        ),
        metadata=_strings(option(message, "metadata")),
        tenant_id=str(option(message, "tenant_id") or ""),
        template_id=str(option(message, "template_id") or ""),
        variables=_strings(option(message, "variables") or option(message, "merge_global_data")),
        send_at=_moment(option(message, "send_at")),
        sandbox=option(message, "sandbox") is True,
        **others,
    )


def bodies_of(message: EmailMessage) -> tuple[str, str]:
    """Return text and HTML of a message; empty where it has none."""
    bodies = {f"text/{message.content_subtype}": message.body}
    for content, mimetype in getattr(message, "alternatives", None) or ():
        if not bodies.get(mimetype):
            bodies[mimetype] = content
    text, html = bodies.get("text/plain"), bodies.get("text/html")
    return _decoded(text, message), _decoded(html, message)


def _decoded(content: Any, message: EmailMessage) -> str:
    if isinstance(content, bytes):
        return content.decode(str(message.encoding or "utf-8"), "replace")
    return str(content or "")


def _addresses(given: Iterable[Any] | None) -> tuple[str, ...]:
    return tuple(_address(item) for item in given or () if item)


def _address(given: Any) -> str:
    try:
        return address(given, "the email")
    except InvalidAddress:
        return str(given)


def _attachment(given: Any, index: int, message: EmailMessage) -> SentAttachment:
    try:
        read = read_attachment(given, index=index, encoding=message.encoding)
    except MessageError:  # in memory anything can be sent
        return SentAttachment(filename="", content_type="", content=b"")
    return SentAttachment(
        filename=read.filename, content_type=read.content_type, content=read.content
    )


def _strings(given: Mapping[Any, Any] | None) -> dict[str, str]:
    """Return values as Truncus gets them."""
    return {str(name): scalar_text(value) or str(value) for name, value in (given or {}).items()}


def _moment(given: Any) -> datetime | None:
    if given is None:
        return None
    try:
        return moment_in_utc(given)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
