"""Django message → email payload: one function, and what it is made of.

It does no I/O, unless it is given an :class:`ImageHost`, which stores the images of the HTML.

Whatever a message holds is carried whole, or refused with an error that says what to do. With
``UNSUPPORTED = "warn"``, what the API cannot carry is dropped instead, and named in
:attr:`Payload.dropped`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Any

from django.core.mail import EmailMessage
from django.utils.functional import Promise
from django.utils.timezone import get_current_timezone

from truncus_django.api import contract
from truncus_django.api.encoding import EmailFields, encode
from truncus_django.api.errors import (
    InvalidAddress,
    InvalidHeader,
    MessageError,
    MessageTooLarge,
    UnsupportedFeature,
    redacted,
)
from truncus_django.api.keys import check_idempotency_key
from truncus_django.api.readers import scalar_text
from truncus_django.conf import Settings
from truncus_django.message import MERGE_NAMES, UNSUPPORTED_ANYMAIL_NAMES, options_of
from truncus_django.sending.addresses import RECIPIENT_FIELDS, address, address_list
from truncus_django.sending.attachments import read_attachment
from truncus_django.sending.inline_css import inlined
from truncus_django.sending.inline_images import ImageHost, with_hosted_images
from truncus_django.validation import (
    HEADER_NAME,
    MIME_TYPE,
    checked_line,
    checked_text,
    did_you_mean,
)


@dataclass(frozen=True, slots=True)
class Payload:
    """An email ready to send.

    Attributes:
        email: the API's fields.
        idempotency_key: the message's own, or ``None``.
        is_sandbox: whether it is only to be checked and stored.
        size: about how many bytes it is on the wire.
        dropped: what was left out because the API cannot carry it, or filled in because the API
            demands it.
    """

    email: EmailFields
    idempotency_key: str | None
    is_sandbox: bool
    size: int
    dropped: tuple[str, ...] = ()


def build_payload(
    message: EmailMessage, settings: Settings, *, now: datetime, images: ImageHost | None = None
) -> Payload:
    """Return the payload of ``message``, with the defaults in ``settings``.

    Args:
        now: the moment that ``send_at`` must lie after; aware.
        images: where the images inside the HTML are put; ``None`` refuses them.

    Raises:
        MessageError: the message cannot be sent as it is; the error says what to do.
        ConfigurationError: it cannot be because of a setting, or of a package that is missing.
    """
    return _Builder(message, settings, now, images).build()


def measured(payload: Payload) -> Payload:
    """Return the payload with its size, after a check of what extra fields or receivers made of it.

    Raises:
        MessageError: it has no body, is too large, or holds what JSON cannot carry.
    """
    email = payload.email
    size = len(encode(email))
    for kind, limit in _BODY_LIMITS.items():
        body = email.get(kind)
        if isinstance(body, str) and checked_text(body, f"The {kind} body") > limit:
            raise MessageTooLarge(f"The {kind} body is over {limit:,} bytes. Shorten it.")
    _check_there_is_a_body(email)
    if not email.get("to") and any(email.get(name) for name in RECIPIENT_FIELDS):
        raise InvalidAddress("The email's payload has no 'to', and the API needs one.")
    return replace(payload, size=size)


def merge_receiver_changes(
    rebuilt: dict[str, Any], *, built: Mapping[str, Any], changed: Mapping[str, Any]
) -> None:
    """Change ``rebuilt`` as ``built`` was changed into ``changed``; dicts key by key.

    Raises:
        MessageError: receivers set a field to different values in the payload and in the message.
            Neither is taken: a recipient that one removed must not come back with the other.
    """
    for name in built.keys() | changed.keys():
        old, new, present = built.get(name), changed.get(name), rebuilt.get(name)
        if new in (old, present):
            continue
        if isinstance(new, dict) and isinstance(present, dict):
            merge_receiver_changes(present, built=old if isinstance(old, dict) else {}, changed=new)
        elif present != old:
            raise MessageError(
                f"Receivers of pre_send changed {redacted(repr(name))} of the message and of the "
                "payload, and not alike; change it in one of them."
            )
        elif name in changed:
            rebuilt[name] = new
        else:
            del rebuilt[name]


def _has_body(email: Mapping[str, Any]) -> bool:
    return any((email.get("html"), email.get("text"), email.get("template_id"), email.get("react")))


def _check_there_is_a_body(email: Mapping[str, Any]) -> None:
    if not _has_body(email):
        raise MessageError(
            "The message has no body, and the API needs a text, an HTML body or a template_id. "
            "Set TRUNCUS['UNSUPPORTED'] = 'warn' to have a line in its place beside attachments."
        )


class _Builder:
    """One message on its way to a payload: each step reads one part of it."""

    def __init__(
        self, message: EmailMessage, settings: Settings, now: datetime, images: ImageHost | None
    ) -> None:
        self.message = message
        self.options = options_of(message)
        self.settings = settings
        self.now = now
        self.images = images
        self.hosted: frozenset[int] = frozenset()
        self.email = EmailFields()
        self.size = 0
        self.dropped: list[str] = []

    def build(self) -> Payload:
        self._add_addresses_and_headers()
        self.email["subject"] = self._subject()
        self._add_bodies()
        if self.message.attachments:
            self._add_attachments()
        self._add_options()
        has_extra = self._add_extra()
        if self.email.get("attachments") and self.settings.unsupported == "warn":
            self._fill_in_body()
        _check_there_is_a_body(self.email)
        key = self.options.get("idempotency_key")
        sandbox = self.options.get("sandbox")
        if sandbox is not None and not isinstance(sandbox, bool):
            raise MessageError("sandbox must be True, False or None.")
        payload = Payload(
            email=self.email,
            idempotency_key=None
            if key is None
            else check_idempotency_key(_line_of(key, "idempotency_key")),
            is_sandbox=self.settings.sandbox if sandbox is None else sandbox,
            size=self.size,
            dropped=tuple(self.dropped),
        )
        return measured(payload) if has_extra else payload

    # Addresses and headers --------------------------------------------------------------------

    def _add_addresses_and_headers(self) -> None:
        message, email = self.message, self.email
        headers = self._headers() if message.extra_headers else {}
        sender = headers.pop("from", (None, message.from_email))[1]
        email["from"] = _checked_sender(address(sender, "from"))
        to = self._recipients("to")
        if not to:
            raise InvalidAddress(
                "The message has no 'to' recipient, and the API needs one. For a mail with bcc "
                "alone, put your own address into 'to'."
            )
        email["to"] = to if len(to) > 1 else to[0]
        for name in ("cc", "bcc"):
            recipients = self._recipients(name)
            if recipients:
                email[name] = recipients
        self._remove_recipient_headers(headers)
        self._add_conversation(headers)
        replies = self._reply_addresses(headers)
        if replies:
            email["reply_to"] = ", ".join(replies)
        if headers:
            email["headers"] = dict(headers.values())

    def _recipients(self, name: str) -> list[str]:
        given = getattr(self.message, name)
        if not isinstance(given, list | tuple):
            given = _as_list(given, name)
        return [address(item, name, index) for index, item in enumerate(given) if item]

    def _headers(self) -> dict[str, tuple[str, str]]:
        """Return the extra headers by lower-case name, as pairs of name and text."""
        headers: dict[str, tuple[str, str]] = {}
        for name, value in self.message.extra_headers.items():
            if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
                raise InvalidHeader("A header's name must be printable ASCII without a colon.")
            lower = name.lower()
            if lower in headers:
                raise InvalidHeader(f"The header {name!r} is given twice.")
            if lower in _FORBIDDEN_HEADERS:
                raise InvalidHeader(
                    f"The header {name!r} cannot be set: {_FORBIDDEN_HEADERS[lower]}"
                )
            text = format_datetime(value) if isinstance(value, datetime) else _scalar_text(value)
            if text is None:
                raise InvalidHeader(
                    f"The header {name!r} has a value of type {type(value).__name__}; "
                    "give a string or a number."
                )
            headers[lower] = (name, checked_line(text, f"The header {name!r}", InvalidHeader))
        return headers

    def _add_conversation(self, headers: dict[str, tuple[str, str]]) -> None:
        """Add the headers of ``in_reply_to`` and ``importance``; the message's own win."""
        answered = self.options.get("in_reply_to")
        if answered is not None:
            message_id = _message_id(answered, self.settings.message_id_domain)
            name, earlier = headers.get("references", ("References", ""))
            if message_id not in earlier.split():
                headers["references"] = (name, f"{earlier} {message_id}".strip())
            headers.setdefault("in-reply-to", ("In-Reply-To", message_id))
        importance = self.options.get("importance")
        if importance is not None:
            if not isinstance(importance, str) or importance not in _IMPORTANCE_HEADERS:
                hint = did_you_mean(str(importance), _IMPORTANCE_HEADERS)
                raise MessageError(f"importance must be 'high' or 'low'{hint or '.'}")
            for name, text in _IMPORTANCE_HEADERS[importance].items():
                headers.setdefault(name.lower(), (name, text))

    def _remove_recipient_headers(self, headers: dict[str, tuple[str, str]]) -> None:
        """Remove ``To`` and ``Cc`` from the headers: the API shows the recipients itself."""
        for lower in ("to", "cc"):
            if lower not in headers:
                continue
            name, text = headers.pop(lower)
            if not self._are_recipients(text, lower):
                self._unsupported(
                    f"A {name} header that differs from the message's {lower!r}",
                    "leave the header out: the API shows the recipients it sends to",
                )

    def _are_recipients(self, text: str, name: str) -> bool:
        try:
            return address_list(text, name) == self._recipients(name)
        except InvalidAddress:  # such as "undisclosed-recipients:;"
            return False

    def _reply_addresses(self, headers: dict[str, tuple[str, str]]) -> list[str]:
        if "reply-to" in headers:
            name, text = headers.pop("reply-to")
            return address_list(text, name)
        return self._recipients("reply_to") if self.message.reply_to else []

    # Subject and bodies -----------------------------------------------------------------------

    def _subject(self) -> str:
        given: Any = self.message.subject
        subject = "" if given is None else _scalar_text(given)
        if subject is not None and not subject.strip() and self.settings.unsupported == "warn":
            self.dropped.append(f"An empty subject, in whose place {NO_SUBJECT!r} is sent")
            return NO_SUBJECT
        if not subject or not subject.strip():
            raise MessageError(
                "The subject is empty or no string, and the API needs one. Set TRUNCUS"
                f"['UNSUPPORTED'] = 'warn' to have {NO_SUBJECT!r} in place of an empty one."
            )
        return checked_line(subject, "The subject", InvalidHeader)

    def _add_bodies(self) -> None:
        too_long: dict[str, int] = {}
        bodies = self._bodies()
        if "html" in bodies:
            bodies["html"] = self._finished_html(bodies["html"])
        for kind, body in bodies.items():
            size = checked_text(body, f"The {kind} body")
            if size > _BODY_LIMITS[kind]:
                too_long[kind] = size
            elif body:
                self.email[kind] = body
                self.size += size
        for kind, size in too_long.items():
            self._too_large(
                f"The {kind} body has {size:,} bytes; the API takes {_BODY_LIMITS[kind]:,}.",
                "Shorten it, or link to the rest.",
                remains=not self.email.keys().isdisjoint(_BODY_LIMITS)
                or self.options.get("template_id") is not None,
            )

    def _bodies(self) -> dict[str, str]:
        """Return the bodies by kind, ``text`` and ``html``."""
        message = self.message
        bodies: dict[str, str] = {}
        body = self._decoded(message.body)
        if body:
            base_type = f"text/{message.content_subtype}"
            kind = _BODY_KINDS.get(base_type.lower())
            if kind:
                bodies[kind] = body
            else:
                # What is no type is not shown: it may be anything, and this is logged.
                shown = base_type if MIME_TYPE.fullmatch(base_type) else "text/…"
                self._unsupported(
                    f"A body of type {shown}",
                    "set content_subtype to 'plain' or 'html'",
                )
        for alternative in getattr(message, "alternatives", None) or ():
            content, base_type = _content_and_type(alternative)
            kind = _BODY_KINDS.get(base_type)
            if kind is None:
                self._unsupported(
                    f"An alternative of type {base_type}",
                    "attach it as a file instead; the API has one text and one HTML body",
                )
            elif kind in bodies:
                self._unsupported(
                    f"A second {kind} body",
                    "keep one text and one HTML body",
                )
            else:
                bodies[kind] = self._decoded(content)
        return bodies

    def _finished_html(self, html: str) -> str:
        """Return the HTML as it is sent, which the API's limit is about."""
        inlines_css = self._flag("inline_css")
        if self.options.get("template_id") is not None:  # the HTML beside it is refused or dropped
            return html
        if self.images is not None:
            html, self.hosted = with_hosted_images(html, self.message, self.images)
        return inlined(html) if inlines_css else html

    def _decoded(self, content: Any) -> str:
        if isinstance(content, str):
            return str(content) if type(content) is not str else content
        if content is None:
            return ""
        if isinstance(content, Promise):
            return str(content)
        if isinstance(content, bytes | bytearray | memoryview):
            encoding = str(self.message.encoding or "utf-8")
            try:
                return bytes(content).decode(encoding)
            except (ValueError, LookupError):  # UnicodeError is a ValueError
                raise MessageError(
                    f"A body is bytes that are not {encoding}; give a string."
                ) from None
        raise MessageError(f"A body is a {type(content).__name__}; give a string.")

    # Attachments ------------------------------------------------------------------------------

    def _add_attachments(self) -> None:
        found: list[dict[str, str]] = []
        total = 0
        for index, given in enumerate(self.message.attachments):
            if index in self.hosted:
                continue
            attachment = read_attachment(given, index=index, encoding=self.message.encoding)
            if attachment.content_id is not None and self.images is None:
                self._unsupported(
                    f"The Content-ID of attachment {index + 1} (an image inside the HTML)",
                    "set TRUNCUS['INLINE_IMAGES'] = 'hosted' to have such images put into a "
                    "storage, link to the image by its URL, or attach it without a Content-ID",
                )
            if len(found) == contract.MAX_ATTACHMENTS:
                self._too_large(
                    f"The message has {len(self.message.attachments) - len(self.hosted)} "
                    f"attachments; the API takes {contract.MAX_ATTACHMENTS}.",
                    "Send a link, or one archive with all files.",
                )
                break
            total += attachment.size
            if total > contract.MAX_ATTACHMENT_BYTES:
                self._too_large(
                    f"The attachments have over {contract.MAX_ATTACHMENT_BYTES:,} bytes together, "
                    "which is the most that the API takes.",
                    "Send a link to the file instead.",
                )
                total -= attachment.size
                continue
            found.append(attachment.as_field())
        if found:
            self.email["attachments"] = found
            self.size += total * 4 // 3

    def _fill_in_body(self) -> None:
        if _has_body(self.email):
            return
        is_one = len(self.email["attachments"]) == 1
        self.email["text"] = "See the attached file." if is_one else "See the attached files."
        self.size += len(self.email["text"])
        self.dropped.append("An empty body, in whose place a line about the attachments is sent")

    # Options ----------------------------------------------------------------------------------

    def _flag(self, name: str) -> bool | None:
        """Return an option that is True or False, or what the settings say of it."""
        value: bool | None = self.options.get(name)
        if value is None:
            value = getattr(self.settings, name)
        elif not isinstance(value, bool):
            raise MessageError(f"{name} must be True, False or None.")
        return value

    def _add_options(self) -> None:
        settings, email = self.settings, self.email
        tenant = self.options.get("tenant_id")
        tenant = settings.tenant_id if tenant is None else tenant
        if tenant is not None:
            email["tenant_id"] = _line_of(tenant, "tenant_id")
        metadata = self.options.get("metadata")
        if metadata or settings.metadata:
            email["metadata"] = {**settings.metadata, **_strings(metadata or {}, "metadata")}
        for name in ("track_opens", "track_clicks"):
            value = self._flag(name)
            if value is not None:
                email[name] = value
        if self.options:  # few messages have any
            self._add_own_options()

    def _add_own_options(self) -> None:
        """Add the options that have no default in the settings."""
        email = self.email
        template = self.options.get("template_id")
        if template is not None:
            email["template_id"] = _line_of(template, "template_id")
            if email.get("html"):
                self._unsupported("An HTML body beside template_id", "leave one of them out")
                del email["html"]
        self._add_variables()
        send_at = self.options.get("send_at")
        if send_at is not None:
            email["send_at"] = _future_moment(send_at, self.now)
        for name in UNSUPPORTED_ANYMAIL_NAMES:
            if self.options.get(name):
                self._unsupported(f"The option {name!r}", _ANYMAIL_ADVICE[name])
        for name in MERGE_NAMES:
            if name in self.options:
                # Here it is one recipient's email, or a receiver set the option.
                raise MessageError(
                    f"{name} makes one email for each recipient; a receiver of pre_send, which is "
                    "called for each of them, cannot set it."
                )

    def _add_variables(self) -> None:
        variables, merged = self.options.get("variables"), self.options.get("merge_global_data")
        if variables and merged:
            raise MessageError(
                "variables and merge_global_data are two names of one thing; set one."
            )
        chosen = variables or merged
        if not chosen:
            return
        if "template_id" not in {**self.email, **(self.options.get("esp_extra") or {})}:
            raise MessageError(
                "The message has variables and no template_id: they would change nothing."
            )
        self.email["variables"] = _strings(chosen, "variables")

    def _add_extra(self) -> bool:
        extra = self.options.get("esp_extra")
        if not extra:
            return False
        if not isinstance(extra, Mapping) or not all(isinstance(key, str) for key in extra):
            raise MessageError("esp_extra must be a dict of the API's fields.")
        headers, own = self.email.get("headers"), extra.get("headers")
        self.email.update(extra)
        if headers and isinstance(own, Mapping):
            given = {str(name).lower() for name in own}
            kept = {name: text for name, text in headers.items() if name.lower() not in given}
            self.email["headers"] = {**kept, **own}
        return True

    # What cannot be carried -------------------------------------------------------------------

    def _unsupported(self, what: str, advice: str) -> None:
        if self.settings.unsupported != "warn":
            raise UnsupportedFeature(f"{what} cannot be sent through Truncus: {advice}.")
        self.dropped.append(what)

    def _too_large(self, what: str, advice: str, *, remains: bool = True) -> None:
        if self.settings.unsupported != "warn" or not remains:
            raise MessageTooLarge(f"{what} {advice}")
        self.dropped.append(what.rstrip("."))


def _checked_sender(sender: str) -> str:
    if sender.removesuffix(">").endswith("@localhost"):
        raise InvalidAddress(
            "The sender is at localhost, as Django's own DEFAULT_FROM_EMAIL and SERVER_EMAIL are. "
            "Set both to an address at a domain that is verified in Truncus."
        )
    return sender


NO_SUBJECT = "(no subject)"
"""What is sent in place of an empty subject with ``UNSUPPORTED = "warn"``."""

_BODY_KINDS = {"text/plain": "text", "text/html": "html"}

_BODY_LIMITS = {"text": contract.MAX_TEXT_BYTES, "html": contract.MAX_HTML_BYTES}

_IMPORTANCE_HEADERS: Mapping[str, Mapping[str, str]] = {
    "high": {"Importance": "high", "X-Priority": "1", "X-MSMail-Priority": "High"},
    "low": {"Importance": "low", "X-Priority": "5", "X-MSMail-Priority": "Low"},
}
"""``Importance`` is RFC 2156's; Outlook and others read the two that have no standard."""

_MESSAGE_ID = re.compile(r"<[^<>@\s\x00-\x1f\x7f]{1,250}@[^<>@\s\x00-\x1f\x7f]{1,250}>")

_FORBIDDEN_HEADERS = {
    "bcc": "it would show the recipients; use the message's 'bcc'.",
    "subject": "use the message's 'subject'.",
    "content-type": "Truncus builds the message's parts itself.",
    "content-transfer-encoding": "Truncus builds the message's parts itself.",
    "mime-version": "Truncus builds the message's parts itself.",
}

_ANYMAIL_ADVICE = {
    "tags": "use metadata",
    "envelope_sender": "Truncus sets the envelope's sender itself",
}


def _message_id(answered: Any, domain: str) -> str:
    """Return the ``Message-ID`` that ``in_reply_to`` stands for.

    Amazon SES makes it of the id that it answers with and a domain of its own (Amazon's
    documentation, "Email header fields": it replaces any other ``Message-ID``).
    """
    if isinstance(answered, str | Promise):
        text = str(answered).strip()
        text = text if text.startswith("<") else f"<{text}>"
        if not text.isascii() or not _MESSAGE_ID.fullmatch(text):
            raise MessageError("in_reply_to must be a Message-ID such as <1a2b@example.com>.")
        return text
    provider_id = getattr(answered, "provider_message_id", None)
    if not isinstance(provider_id, str):
        raise MessageError("in_reply_to must be a Message-ID or a recorded Email.")
    if not provider_id or answered.is_sandbox:
        raise MessageError(
            "in_reply_to is an Email whose Message-ID is not known: Truncus has told no provider "
            "id of it. Give the Message-ID itself, or leave in_reply_to out."
        )
    text = provider_id if "@" in provider_id else f"{provider_id}@{domain}"
    return _message_id(text, domain)


def _as_list(given: Any, name: str) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, str | Promise) or not isinstance(given, Iterable):
        raise InvalidAddress(f"{name!r} must be a list or tuple of addresses.")
    return list(given)


def _content_and_type(alternative: Any) -> tuple[Any, str]:
    try:
        content, mimetype = alternative
    except (TypeError, ValueError):
        raise MessageError("An alternative must be a pair of content and type.") from None
    if mimetype == "text/html":  # of nearly all
        return content, mimetype
    base_type = str(mimetype).partition(";")[0].strip().lower()
    if not MIME_TYPE.fullmatch(base_type):
        # Not shown: where the two were swapped, it is the body.
        raise MessageError(
            "An alternative has no type like text/html; attach_alternative() takes the content "
            "first, then the type."
        )
    return content, base_type


def _scalar_text(value: Any) -> str | None:
    """Return strings, lazy strings and numbers as a plain string, anything else as ``None``."""
    return str(value) if isinstance(value, Promise) else scalar_text(value)


def _line_of(value: Any, name: str) -> str:
    text = None if isinstance(value, bool) else _scalar_text(value)
    if not text:
        raise MessageError(f"{name} must be a string that is not empty, or None.")
    return checked_line(text, name, MessageError)


def _strings(values: Any, name: str) -> dict[str, str]:
    if not isinstance(values, Mapping):
        raise MessageError(f"{name} must be a dict.")
    strings = {}
    for key, value in values.items():
        text = _scalar_text(value)
        if not isinstance(key, str) or text is None:
            raise MessageError(
                f"{name} must map strings to strings or numbers, "
                f"not {type(key).__name__} to {type(value).__name__}."
            )
        checked_text(key, name)
        checked_text(text, name)
        strings[key] = text
    return strings


def _future_moment(value: Any, now: datetime) -> str:
    """Return ``value`` as ISO 8601 in UTC, to the millisecond.

    Like Anymail's: a datetime, a date (its first moment), unix seconds, or ISO 8601. What has no
    zone is in the current time zone.
    """
    try:
        moment = moment_in_utc(value)
    except (ValueError, OverflowError, OSError, TypeError):
        raise MessageError(
            "send_at must be a datetime, a date, unix seconds or an ISO 8601 string."
        ) from None
    if moment <= now:
        raise MessageError("send_at is in the past; leave it out to send now.")
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def moment_in_utc(value: Any) -> datetime:
    """Return what :func:`_as_datetime` knows, in UTC; what has no zone is in the current one.

    Raises:
        ValueError, OverflowError, OSError, TypeError: it is no moment.
    """
    moment = _as_datetime(value)
    if moment.tzinfo is None or moment.utcoffset() is None:
        moment = moment.replace(tzinfo=get_current_timezone())
    return moment.astimezone(UTC)


def _as_datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time.min)
    if isinstance(value, str | Promise):
        return datetime.fromisoformat(str(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    raise TypeError(value)
