"""Attachments in every form that Django takes, as the API takes them."""

import mimetypes
import re
from base64 import b64encode
from dataclasses import dataclass
from email.charset import Charset
from email.message import Message
from typing import Any

from django.conf import settings as django_settings
from django.core.mail import EmailMessage
from django.utils.functional import Promise

from truncus_django.api.errors import MessageError, UnsupportedFeature
from truncus_django.texts import checked_line

DEFAULT_TYPE = "application/octet-stream"
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+")


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of an e-mail; ``content_id`` is set where the HTML refers to it."""

    filename: str
    content: bytes
    content_type: str
    content_id: str | None = None

    @property
    def size(self) -> int:
        """Bytes, before base64."""
        return len(self.content)

    def as_field(self) -> dict[str, str]:
        """Return the attachment as an item of the API's ``attachments``."""
        return {
            "filename": self.filename,
            "content": b64encode(self.content).decode("ascii"),
            "content_type": self.content_type,
        }


def read_attachment(given: Any, *, index: int, encoding: Any = None) -> Attachment:
    """Return ``given``, an item of ``message.attachments``, whatever form it has.

    Args:
        given: ``EmailAttachment``, a tuple (filename, content, mimetype), or a MIME part.
        index: its place, for errors and for the name of a file without one.
        encoding: the message's charset, for texts.

    Raises:
        MessageError: it is none of these, or its name or type is impossible.
    """
    if isinstance(given, Message):
        return _from_part(given, index)
    if isinstance(given, tuple | list) and len(given) in {2, 3}:
        filename, content, mimetype = (*given, None)[:3]
        return _from_content(filename, content, mimetype, index, encoding)
    raise MessageError(
        f"Attachment {index + 1} is a {type(given).__name__}; give a tuple (filename, content, "
        "mimetype) or a MIME part."
    )


def _from_content(
    filename: Any, content: Any, mimetype: Any, index: int, encoding: Any
) -> Attachment:
    name = "" if filename is None else str(filename)
    full_type = str(mimetype) if mimetype else (mimetypes.guess_type(name)[0] or DEFAULT_TYPE)
    base_type = _base_type(full_type, index)
    if isinstance(content, str | Promise):
        if base_type.startswith("text/"):
            octets, charset = _encoded(str(content), encoding)
            full_type = f'{base_type}; charset="{charset}"'
        else:
            octets = str(content).encode("utf-8", "surrogateescape")
    elif isinstance(content, bytes | bytearray | memoryview):
        octets = bytes(content)
    elif isinstance(content, EmailMessage):
        octets = content.message().as_bytes()
    elif isinstance(content, Message):
        octets = content.as_bytes()
    else:
        raise MessageError(
            f"Attachment {index + 1} has content of type {type(content).__name__}; give bytes or "
            "a string (read() a file first)."
        )
    return Attachment(
        filename=_filename(name, base_type, index),
        content=octets,
        content_type=checked_line(full_type, f"The type of attachment {index + 1}", MessageError),
    )


def _from_part(part: Message, index: int) -> Attachment:
    base_type = _base_type(part.get_content_type(), index)
    charset = part.get_content_charset()
    return Attachment(
        filename=_filename(part.get_filename() or "", base_type, index),
        content=_part_content(part, index),
        content_type=f'{base_type}; charset="{charset}"' if charset else base_type,
        content_id=part.get("Content-ID"),
    )


def _part_content(part: Message, index: int) -> bytes:
    payload = part.get_payload()
    if part.get_content_maintype() == "message" and isinstance(payload, list):
        return b"".join(inner.as_bytes() for inner in payload if isinstance(inner, Message))
    if part.is_multipart():
        raise UnsupportedFeature(
            f"Attachment {index + 1} is a multipart, which cannot be sent through Truncus: attach "
            "its parts, or the whole as message/rfc822."
        )
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _base_type(full_type: str, index: int) -> str:
    base_type = full_type.partition(";")[0].strip().lower()
    if not _TYPE.fullmatch(base_type):
        raise MessageError(f"Attachment {index + 1} has no type like application/pdf.")
    return base_type


def _filename(name: str, base_type: str, index: int) -> str:
    """Return ``name``, or one made from place and type: the API needs one."""
    if name:
        return checked_line(name, f"The filename of attachment {index + 1}", MessageError)
    extension = ".eml" if base_type == "message/rfc822" else mimetypes.guess_extension(base_type)
    return f"attachment-{index + 1}{extension or '.bin'}"


def _encoded(text: str, encoding: Any) -> tuple[bytes, str]:
    """Return ``text`` in the message's charset, or in UTF-8 where that lacks a character."""
    wanted = encoding or django_settings.DEFAULT_CHARSET
    charset = str(wanted.output_charset if isinstance(wanted, Charset) else wanted)
    try:
        return text.encode(charset), charset
    except (UnicodeEncodeError, LookupError):
        try:
            return text.encode(), "utf-8"
        except UnicodeEncodeError:
            raise MessageError(
                "A text attachment holds half a character (a lone surrogate); attach bytes."
            ) from None
