"""A preview is run: its email as the page shows it, and nothing sent or stored by that."""

import inspect
import json
from asyncio import CancelledError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings as django_settings
from django.core.mail import EmailMessage
from django.db import DatabaseError, transaction
from django.utils import timezone, translation
from django.utils.functional import Promise

from truncus_django import conf
from truncus_django.api.errors import MessageError, TruncusError
from truncus_django.conf import Settings, get_settings
from truncus_django.mailers import own_options
from truncus_django.message import has_merge_data
from truncus_django.previews.advice import advice
from truncus_django.previews.discovery import Preview
from truncus_django.previews.tracebacks import failed
from truncus_django.sending.attachments import read_attachment
from truncus_django.sending.capture import CapturedMessage, capturing
from truncus_django.sending.inline_images import host_without_storage
from truncus_django.sending.merge import Merge
from truncus_django.sending.payload import Payload, build_payload
from truncus_django.sending.unsubscribe import add_unsubscribe

_SHOWN_ELSEWHERE = {"html", "text", "attachments", "headers", "subject"}


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """An attachment as the page lists it; ``size`` is in bytes, ``problem`` why it cannot go."""

    filename: str = ""
    content_type: str = ""
    size: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RenderedEmail:
    """An email as the page shows it.

    Attributes:
        message: as the preview returned or sent it; of one with merge data, that to the first
            recipient.
        subject, text, html: as they would be sent; empty where there is none.
        fields: the other fields of the API, each with its values.
        headers: those that the message sets itself.
        attachments: the files.
        problem: why it cannot be sent as it is, or empty.
        warnings: what else is wrong with it.
    """

    message: EmailMessage = field(repr=False)
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    fields: Sequence[tuple[str, Sequence[str]]] = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    attachments: Sequence[AttachedFile]
    problem: str
    warnings: Sequence[str]


def render(preview: Preview, language: str) -> RenderedEmail:
    """Run a preview in a language and return its email.

    What it sends through Truncus is captured, and what it writes into databases is rolled back.

    Raises:
        PreviewFailed: it raised an error, or there is no email.
    """
    try:
        with translation.override(language), _rolled_back(), capturing() as sent:
            returned = getattr(preview.group(), preview.name)()
            message, settings = _message_of(returned, sent, preview)
            return _as_shown(message, settings, preview, sent)
    except (Exception, SystemExit, GeneratorExit, CancelledError) as exc:  # noqa: BLE001
        # Whatever a project's code raises, its page shows it.
        raise failed(exc, __file__) from None


@contextmanager
def _rolled_back() -> Iterator[None]:
    """Undo what is written into any database of the project, and run none of its callbacks."""
    with ExitStack() as stack:
        for alias, database in django_settings.DATABASES.items():
            # What Django takes where a project has no database.
            if database["ENGINE"] == "django.db.backends.dummy":
                continue
            with suppress(DatabaseError):  # it is not there, and nobody writes to it
                stack.enter_context(transaction.atomic(using=alias))
                stack.callback(transaction.set_rollback, True, using=alias)
        yield


def _message_of(
    returned: object, sent: Sequence[CapturedMessage], preview: Preview
) -> tuple[EmailMessage, Settings]:
    """Return the message that a preview returned, or else the first that it sent."""
    if isinstance(returned, EmailMessage):
        return returned, _default_settings()
    if returned is None and sent:
        return sent[0].message, sent[0].settings
    if inspect.iscoroutine(returned):
        returned.close()
        raise TypeError(f"{preview.path}() is asynchronous; write it with def.")
    found = "None, and sent nothing" if returned is None else f"a {type(returned).__name__}"
    raise TypeError(
        f"{preview.path}() returned {found}. Return an EmailMessage, or call code that sends one "
        "through Truncus."
    )


def _default_settings() -> Settings:
    """Return the settings of the default mailer; those in ``TRUNCUS`` if it is not Truncus."""
    by_alias = dict(conf.mailers())
    return get_settings(own_options(by_alias.get("default", by_alias.get(None, {}))))


def _as_shown(
    message: EmailMessage, settings: Settings, preview: Preview, sent: Sequence[CapturedMessage]
) -> RenderedEmail:
    others = len(sent) - (sent[0].message is message if sent else 0)
    payload: Payload | None = None
    problem = ""
    recipients = 1
    images = host_without_storage(settings)
    try:
        if has_merge_data(message):
            message, recipients = _first_of_merged(message)
        payload = build_payload(message, settings, now=timezone.now(), images=images)
        add_unsubscribe(message, payload.email, settings)
    except TruncusError as error:
        problem = error.message
    email = _as_written(message) if payload is None else payload.email
    headers = {_text(name): _text(value) for name, value in (email.get("headers") or {}).items()}
    text, html = _text(email.get("text") or ""), _text(email.get("html") or "")
    warnings = [f"Dropped or replaced: {part}." for part in (payload.dropped if payload else ())]
    warnings += advice(
        text=text,
        html=html,
        headers=headers,
        is_bulk=preview.group.is_bulk,
        has_template="template_id" in email,
    )
    if recipients > 1:
        warnings.append(f"It is {recipients} emails by merge data; the first one is shown.")
    if others:
        emails = "1 more email, which is" if others == 1 else f"{others} more emails, which are"
        warnings.append(f"The preview sent {emails} not shown.")
    return RenderedEmail(
        message=message,
        subject=_text(email.get("subject") or ""),
        text=text,
        html=html if images is None else images.put_into(html),
        fields=list(_fields(email, payload)),
        headers=list(headers.items()),
        attachments=[_attached(message, index) for index in range(len(message.attachments))],
        problem=problem,
        warnings=warnings,
    )


def _first_of_merged(message: EmailMessage) -> tuple[EmailMessage, int]:
    """Return the email to the first recipient of a message with merge data, and how many get one.

    Raises:
        MessageError: the merge data is wrong.
    """
    merge = Merge(message)
    recipient = next(iter(merge.recipients), None)
    if recipient is None:  # which the payload refuses
        return message, 0
    return merge.filled(recipient), len(merge.recipients)


def _as_written(message: EmailMessage) -> dict[str, Any]:
    """Return a message that cannot be sent in the API's fields, unchecked."""
    bodies: dict[str, str] = {}
    for content, mimetype in (
        (message.body, f"text/{message.content_subtype}"),
        *(getattr(message, "alternatives", None) or ()),
    ):
        text = bytes(content).decode(errors="replace") if isinstance(content, bytes) else content
        bodies.setdefault(str(mimetype).lower(), str(text))
    return {
        "from": message.from_email,
        "to": message.to,
        "cc": message.cc,
        "bcc": message.bcc,
        "reply_to": message.reply_to,
        "subject": message.subject,
        "headers": message.extra_headers,
        "text": bodies.get("text/plain"),
        "html": bodies.get("text/html"),
    }


def _fields(
    email: Mapping[str, Any], payload: Payload | None
) -> Iterator[tuple[str, Sequence[str]]]:
    for name, value in email.items():
        if name not in _SHOWN_ELSEWHERE and value not in (None, [], ()):
            yield _text(name), _values(value)
    if payload is not None and payload.idempotency_key is not None:
        yield "idempotency_key", [_text(payload.idempotency_key)]
    if payload is not None and payload.is_sandbox:
        yield "sandbox", ["true"]


def _values(value: Any) -> Sequence[str]:
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    if isinstance(value, Mapping):
        return [f"{_text(name)}: {_text(one)}" for name, one in value.items()]
    return [_text(value)]


def _text(value: Any) -> str:
    """Return a value as text that the page escapes."""
    if isinstance(value, str | Promise):
        # Rendered templates are marked as safe, which is for the page they were written for.
        # A part of a character is in no page.
        return str.__str__(str(value)).encode("utf-8", "replace").decode()
    return json.dumps(value, ensure_ascii=False, default=str)


def _attached(message: EmailMessage, index: int) -> AttachedFile:
    try:
        found = read_attachment(message.attachments[index], index=index, encoding=message.encoding)
    except MessageError as error:
        return AttachedFile(problem=error.message)
    return AttachedFile(_text(found.filename), _text(found.content_type), found.size)
