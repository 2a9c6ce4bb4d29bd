"""Attachments in every form that Django takes, as the API takes them."""

import email.errors
import mimetypes
import re
from base64 import b64encode
from dataclasses import dataclass
from email.charset import Charset
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any

from django.conf import settings as django_settings
from django.core.mail import EmailMessage
from django.utils.functional import Promise

from truncus_django.api.errors import MessageError, UnsupportedFeature
from truncus_django.validation import MIME_TYPE, checked_line, checked_text

DEFAULT_TYPE = "application/octet-stream"
_QUOTE = re.compile(r'["\\]')
_CHARSET = re.compile(r";\s*charset\s*=\s*(\"[^\"]*\"|[^;]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of an email; ``content_id`` is set where the HTML refers to it."""

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
    full_type = str(mimetype) if mimetype else _guessed_type(name)
    base_type = _base_type(full_type, index)
    if isinstance(content, str | Promise):
        if base_type.startswith("text/"):
            octets, charset = _encoded(str(content), encoding, index)
            # Other parameters stay: an invitation is text/calendar; method=REQUEST.
            full_type = f'{_CHARSET.sub("", full_type)}; charset="{charset}"'
        else:
            octets = _whole(str(content), index).encode()
    elif isinstance(content, bytes | bytearray | memoryview):
        octets = bytes(content)
    elif isinstance(content, EmailMessage | Message):
        octets = _message_bytes(content, index)
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
    return Attachment(
        filename=_filename(part.get_filename() or "", base_type, index),
        content=_part_content(part, index),
        content_type=checked_line(
            base_type + _type_parameters(part), f"The type of attachment {index + 1}", MessageError
        ),
        content_id=part.get("Content-ID"),
    )


def _type_parameters(part: Message) -> str:
    """Return what follows the type, such as a charset; the name is told as the filename."""
    parameters = ""
    for name, value in (part.get_params() or [])[1:]:
        text = collapse_rfc2231_value(value)
        if name.lower() not in {"name", "boundary"} and text.isascii() and not _QUOTE.search(text):
            parameters += f'; {name.lower()}="{text}"'
    return parameters


def _part_content(part: Message, index: int) -> bytes:
    payload = part.get_payload()
    if part.get_content_maintype() == "message" and isinstance(payload, list):
        return b"".join(
            _message_bytes(inner, index) for inner in payload if isinstance(inner, Message)
        )
    if part.is_multipart():
        raise UnsupportedFeature(
            f"Attachment {index + 1} is a multipart, which cannot be sent through Truncus: attach "
            "its parts, or the whole as message/rfc822."
        )
    content = part.get_payload(decode=True)
    octets = content if isinstance(content, bytes) else b""
    if isinstance(payload, str) and not payload.isascii():
        _check_was_encoded(payload, octets, part.get_content_charset("ascii"), index)
    return octets


def _check_was_encoded(text: str, octets: bytes, charset: str, index: int) -> None:
    """Refuse a part whose text got no charset: the standard library makes other bytes of it."""
    try:
        read_back = octets.decode(charset, "replace")
    except LookupError:
        read_back = octets.decode("ascii", "replace")
    if read_back != text:
        raise MessageError(
            f"Attachment {index + 1} is a MIME part with text that was never encoded; build it "
            "with set_content()."
        )


def _message_bytes(message: EmailMessage | Message, index: int) -> bytes:
    try:
        mime = message.message() if isinstance(message, EmailMessage) else message
        return mime.as_bytes()
    except (ValueError, LookupError, TypeError, AttributeError, email.errors.MessageError):
        # The standard library's own text may quote the header that is wrong.
        raise MessageError(
            f"Attachment {index + 1} is a message that cannot be written out; check its headers."
        ) from None


def _guessed_type(name: str) -> str:
    try:
        return mimetypes.guess_type(name)[0] or DEFAULT_TYPE
    except ValueError:  # it reads names as URLs, and "//[" is none
        return DEFAULT_TYPE


def _base_type(full_type: str, index: int) -> str:
    base_type = full_type.partition(";")[0].strip().lower()
    if not MIME_TYPE.fullmatch(base_type):
        raise MessageError(f"Attachment {index + 1} has no type like application/pdf.")
    return base_type


def _filename(name: str, base_type: str, index: int) -> str:
    """Return ``name``, or one made from place and type: the API needs one."""
    if name:
        return checked_line(name, f"The filename of attachment {index + 1}", MessageError)
    extension = ".eml" if base_type == "message/rfc822" else mimetypes.guess_extension(base_type)
    return f"attachment-{index + 1}{extension or '.bin'}"


def _encoded(text: str, encoding: Any, index: int) -> tuple[bytes, str]:
    """Return ``text`` in the message's charset, or in UTF-8 where that lacks a character."""
    wanted = encoding or django_settings.DEFAULT_CHARSET
    charset = str(wanted.output_charset if isinstance(wanted, Charset) else wanted)
    try:
        return text.encode(charset), charset
    except (ValueError, LookupError):  # UnicodeError is a ValueError
        return _whole(text, index).encode(), "utf-8"


def _whole(text: str, index: int) -> str:
    checked_text(text, f"The text of attachment {index + 1}")
    return text
