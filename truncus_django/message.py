"""TruncusMessage, the options that any message may carry, and the status that a send leaves.

Every option below can be set as an attribute of any Django message. Where Anymail taught Django
users a name, it means the same here.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from functools import cache
from typing import Any, Self
from uuid import UUID

import django
from django.apps import apps
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.http import HttpRequest

from truncus_django.api.errors import TruncusError
from truncus_django.api.results import SendResult
from truncus_django.awaited_send import in_thread
from truncus_django.rendering import render_email
from truncus_django.unsubscribe import PLACEHOLDER
from truncus_django.validation import did_you_mean

__all__ = ["TruncusMessage", "TruncusStatus", "asend", "asend_messages"]

OPTION_NAMES = frozenset(
    {
        "tenant_id",
        "template_id",
        "variables",
        "merge_global_data",
        "metadata",
        "send_at",
        "track_opens",
        "track_clicks",
        "idempotency_key",
        "sandbox",
        "esp_extra",
        "priority",
        "expires_at",
        "inline_css",
        "merge_data",
        "merge_metadata",
        "merge_headers",
        "merge_cc",
        "in_reply_to",
        "importance",
        "unsubscribe",
    }
)

UNSUPPORTED_ANYMAIL_NAMES = ("tags", "envelope_sender")
"""Anymail's options that Truncus has nothing for; setting one is an error, not a silent loss."""

MERGE_NAMES = ("merge_data", "merge_metadata", "merge_headers")
"""The options that, even if empty, make one email for each recipient of a message."""


def option(message: EmailMessage, name: str) -> Any:
    """Return an option of a message, or ``None``; Anymail's ``UNSET`` counts as none."""
    value = getattr(message, name, None)
    return None if _is_unset(value) else value


def options_of(message: EmailMessage) -> dict[str, Any]:
    """Return all options of a message that are set."""
    # Few have any, and every email of a long list is asked.
    names = [name for name in vars(message) if name in _ALL_NAMES]
    kind: Any = type(message)
    return {
        name: value
        for name in (*names, *_options_of_class(kind))
        if (value := getattr(message, name, None)) is not None and not _is_unset(value)
    }


@cache
def _options_of_class(kind: Any) -> tuple[str, ...]:
    """Return the options that a class of messages gives all of its messages."""
    return tuple(name for name in sorted(_ALL_NAMES) if hasattr(kind, name))


def has_merge_data(message: EmailMessage) -> bool:
    """Whether the message is to be one email for each of its recipients."""
    for name in MERGE_NAMES:  # a loop, as every email of a long list is asked
        if getattr(message, name, None) is not None and option(message, name) is not None:
            return True
    return False


def _is_unset(value: Any) -> bool:
    return isinstance(value, type) and value.__name__ == "UNSET"


_ALL_NAMES = OPTION_NAMES.union(UNSUPPORTED_ANYMAIL_NAMES)


@dataclass(frozen=True, slots=True)
class TruncusStatus:
    """What became of a message, as ``message.truncus_status`` after a send.

    Attributes:
        status: Truncus's state; or ``"pending"`` in the outbox, ``"cancelled"`` by a receiver,
            ``"failed"`` where it was not sent, ``"unknown"`` where it may have been. With merge
            data that of all recipients, or ``"mixed"``.
        id: Truncus's ``message_id``; ``None`` where none was told.
        idempotency_key: of the request; the messages of a batch share one.
        answer: all that Truncus told, or ``None`` where there was no answer.
        error: why it was not sent, or ``None``.
        attempts: how many requests it took; for a batch, those of the whole batch.
        batch_size: how many messages shared the request.
        email_pk: primary key of its :class:`~truncus_django.models.Email`; ``None`` where it was
            not recorded.
        sent_by: the fallback mailer that sent it, or, with ``"unknown"``, may have; ``None`` where
            it was handed to none.
        recipients: of a message with merge data, the status of each address in its ``to``; all
            else but ``status`` and the first ``error`` is there. Empty for other messages.
    """

    status: str
    id: str | None = None
    idempotency_key: str | None = None
    answer: SendResult | None = None
    error: TruncusError | None = None
    attempts: int = 0
    batch_size: int = 1
    email_pk: UUID | None = None
    sent_by: str | None = None
    recipients: Mapping[str, "TruncusStatus"] = field(default_factory=dict, repr=False)

    @property
    def is_accepted(self) -> bool:
        """Whether Truncus or the fallback mailer took the message on; with merge data, those of
        all recipients."""
        if self.recipients:
            return all(status.is_accepted for status in self.recipients.values())
        if self.sent_by is not None:
            return self.error is None
        return self.answer is not None and self.answer.is_accepted


async def asend(message: EmailMessage, **options: Any) -> int:
    """Send a message from a coroutine, of any class and by any backend; return as ``send()``.

    If it is cancelled, it ends when the request that is being made is answered. To send the same
    message again is then no second email.

    Args:
        message: what to send.
        **options: those of the message's ``send()``.

    Raises:
        TypeError: it is no message.
        Exception: as ``send()``.
    """
    if not isinstance(message, EmailMessage):
        kind = type(message).__name__
        raise TypeError(f"asend() takes a message, not {kind}; asend_messages() takes several.")
    return await in_thread(lambda: message.send(**options), thread_sensitive=_uses_database())


async def asend_messages(messages: Iterable[EmailMessage], *, using: str | None = None) -> int:
    """Send messages from a coroutine, in batches; return as ``send_messages()`` of a backend.

    Args:
        messages: what to send.
        using: the alias of the mailer, on Django 6.1 and later; the default one if ``None``.

    Raises:
        Exception: as ``send_messages()``. Cancelled, as :func:`asend`.
    """
    if isinstance(messages, EmailMessage):
        raise TypeError("asend_messages() takes several messages; asend() takes one.")
    listed = list(messages)
    return await in_thread(
        lambda: _backend(using).send_messages(listed), thread_sensitive=_uses_database()
    )


def _backend(using: str | None) -> Any:
    if django.VERSION < (6, 1):
        if using is not None:
            raise TypeError("using needs Django 6.1 or later, which has several mailers.")
        return mail.get_connection()
    return mail.mailers.default if using is None else mail.mailers[using]


def _uses_database() -> bool:
    # Also for receivers of signals, which may use it.
    return apps.is_installed("truncus_django")


class TruncusMessage(EmailMultiAlternatives):
    """An ``EmailMultiAlternatives`` with Truncus's options as keyword arguments.

    Args:
        subject, body, from_email, to: as Django's.
        **kwargs: Django's others: ``cc``, ``bcc``, ``reply_to``, ``headers``, ``attachments``,
            ``alternatives`` and ``connection``.
        html: the HTML beside the text in ``body``, or alone where there is no text.
        tenant_id: isolates suppression lists.
        template_id: a template saved in Truncus, instead of ``html``.
        variables: what the template's ``{{name}}`` stand for.
        metadata: strings that Truncus stores with the email and does not send.
        send_at: when to send; a naive datetime is in the current time zone.
        track_opens, track_clicks: ``None`` as the settings say.
        idempotency_key: within 24 hours, the same key sends once.
        sandbox: check and store only; ``None`` as the settings say.
        merge_global_data: Anymail's name of ``variables``.
        merge_data: what variables stand for in the email of each recipient, by address. As soon
            as one of the three is set, even to ``{}``, each address in ``to`` gets an email of its
            own. Without ``template_id``, it fills ``{{ variables }}`` in subject and bodies.
        merge_metadata, merge_headers: metadata and headers of each recipient, by address.
        merge_cc: send ``cc`` and ``bcc`` a copy of each recipient's email.
        in_reply_to: the ``Message-ID`` of the email that this one answers, or its
            :class:`~truncus_django.models.Email`: mail programs show both as one conversation.
        importance: ``"high"`` or ``"low"``, as mail programs show it. The outbox's order is
            ``priority``.
        priority: ``"high"``, ``"normal"`` or ``"low"``: which emails leave the outbox first.
        expires_at: when it is too late to send the email, a moment like ``send_at`` or a
            ``timedelta`` from now; the outbox does not send it after that.
        unsubscribe: the name of a list, such as ``"digest"``, from which the one recipient may
            unsubscribe with one click; who has done so gets no more of its emails.
        inline_css: write the CSS of the HTML into its ``style`` attributes; ``None`` as the
            settings say.

    Raises:
        TypeError: an option that does not exist, with the one that was probably meant.
    """

    truncus_status: TruncusStatus | None = None

    def __init__(
        self,
        subject: str = "",
        body: str = "",
        from_email: str | None = None,
        to: Sequence[str] | None = None,
        *,
        html: str | None = None,
        tenant_id: str | None = None,
        template_id: str | None = None,
        variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        send_at: datetime | date | float | str | None = None,
        track_opens: bool | None = None,
        track_clicks: bool | None = None,
        idempotency_key: str | None = None,
        sandbox: bool | None = None,
        merge_global_data: Mapping[str, Any] | None = None,
        esp_extra: Mapping[str, Any] | None = None,
        priority: str | None = None,
        expires_at: datetime | timedelta | float | str | None = None,
        inline_css: bool | None = None,
        merge_data: Mapping[str, Mapping[str, Any]] | None = None,
        merge_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        merge_headers: Mapping[str, Mapping[str, Any]] | None = None,
        merge_cc: bool | None = None,
        in_reply_to: Any = None,
        importance: str | None = None,
        unsubscribe: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() - _DJANGO_NAMES:
            raise TypeError(
                f"TruncusMessage has no option {name!r}{did_you_mean(name, _ARGUMENTS)}"
            )
        super().__init__(subject, body, from_email, to, **kwargs)
        self.tenant_id = tenant_id
        self.template_id = template_id
        self.variables = variables
        self.metadata = metadata
        self.send_at = send_at
        self.track_opens = track_opens
        self.track_clicks = track_clicks
        self.idempotency_key = idempotency_key
        self.sandbox = sandbox
        self.merge_global_data = merge_global_data
        self.esp_extra = esp_extra
        self.priority = priority
        self.expires_at = expires_at
        self.inline_css = inline_css
        self.merge_data = merge_data
        self.merge_metadata = merge_metadata
        self.merge_headers = merge_headers
        self.merge_cc = merge_cc
        self.in_reply_to = in_reply_to
        self.importance = importance
        self.unsubscribe = unsubscribe
        if html is not None:
            self.attach_alternative(html, "text/html")

    @classmethod
    def from_template(
        cls,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        language: str | None = None,
        time_zone: tzinfo | str | None = None,
        request: HttpRequest | None = None,
        using: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a message with subject, text and HTML from templates.

        ``orders/shipped`` stands for ``orders/shipped_subject.txt``, ``orders/shipped.html`` and
        ``orders/shipped.txt``. Only the HTML is escaped; the subject becomes one line. Where there
        is no text, inscriptis makes it from the HTML, with the extra ``text``.

        Args:
            name: of the templates, without what they end in.
            context: what the templates may show. With ``unsubscribe``, they may also show
                ``unsubscribe_url``, the recipient's link.
            language: of the recipient; ``None`` leaves the active one.
            time_zone: of the recipient, a name or a ``tzinfo``; ``None`` leaves the active one.
            request: for context processors.
            using: ``NAME`` of the template engine; ``None`` asks each one in turn.
            **options: all other arguments of :class:`TruncusMessage`, such as ``to``. No template
                is asked for what ``subject``, ``html`` or ``body`` give.

        Raises:
            TemplateDoesNotExist: there is no subject, or neither text nor HTML.
            ConfigurationError: there is no text, and inscriptis is not installed.
        """
        if options.get("unsubscribe") is not None:
            context = {"unsubscribe_url": PLACEHOLDER, **(context or {})}
        rendered: dict[str, Any] = render_email(
            name,
            context,
            given=options.keys(),
            language=language,
            time_zone=time_zone,
            request=request,
            using=using,
        )
        return cls(**rendered, **options)

    async def asend(self, **options: Any) -> int:
        """Send from a coroutine, as :func:`asend` does."""
        return await asend(self, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse attributes that look like a misspelt option, so that none is lost in silence."""
        if name not in _KNOWN_NAMES and not hasattr(type(self), name):
            meant = difflib.get_close_matches(name, OPTION_NAMES, n=1, cutoff=0.8)
            if meant and not name.startswith("_"):
                raise AttributeError(
                    f"TruncusMessage has no option {name!r}{did_you_mean(name, _ARGUMENTS)}"
                )
        super().__setattr__(name, value)


_DJANGO_NAMES = frozenset(
    {"bcc", "connection", "attachments", "headers", "alternatives", "cc", "reply_to"}
)
_ARGUMENTS = OPTION_NAMES | _DJANGO_NAMES | {"html"}
_KNOWN_NAMES = (
    OPTION_NAMES
    | _DJANGO_NAMES
    | {"to", "subject", "body", "from_email", "extra_headers", "truncus_status"}
)
