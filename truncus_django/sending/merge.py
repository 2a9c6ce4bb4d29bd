"""A message with merge data → one message for each address in its ``to``.

The options have Anymail's names and meaning: set, even to an empty dict, each of ``merge_data``,
``merge_metadata`` and ``merge_headers`` makes one email for each recipient, and none sees another.
"""

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from django.core.mail import EmailMessage
from django.template import Context, Engine, Template, TemplateSyntaxError
from django.utils.functional import Promise
from django.utils.html import conditional_escape
from django.views.decorators.debug import sensitive_variables

from truncus_django.api.errors import MessageError, TruncusError
from truncus_django.api.keys import MAX_KEY_LENGTH
from truncus_django.message import MERGE_NAMES, TruncusStatus, options_of
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.ambiguous import without_notes
from truncus_django.sending.outgoing import Sent
from truncus_django.unsubscribe import PLACEHOLDER

_MERGED_NAMES = frozenset({*MERGE_NAMES, "merge_global_data", "variables"})
"""Options that a message to one recipient has no more, or in another form."""


class Merge:
    """What the recipients of a message with merge data have in common, and what is their own.

    Args:
        message: one with merge data.

    Raises:
        MessageError: its merge data is of a wrong type or names somebody who is not in ``to``, or
            its texts are no templates.
    """

    def __init__(self, message: EmailMessage) -> None:
        self.message = message
        self._options = options_of(message)
        self._names = _MERGED_NAMES & self._options.keys()
        self.recipients = _recipients(message)
        self._data = self._by_recipient("merge_data")
        self._metadata = self._by_recipient("merge_metadata")
        self._headers = self._by_recipient("merge_headers")
        if (message.cc or message.bcc) and not self._options.get("merge_cc"):
            raise MessageError(
                "With merge data, cc and bcc would get a copy of each recipient's email. Set "
                "merge_cc=True if you want that."
            )
        self._global_data = _global_data(self._options)
        self._has_template = "template_id" in {
            **(self._options.get("esp_extra") or {}),
            **self._options,
        }
        has_data = bool(self._global_data or any(self._data.values()))
        has_link = "unsubscribe" in self._options
        fills_in = has_data or (has_link and _mentions_link(message))
        self._texts = _Texts(message) if fills_in and not self._has_template else None
        if has_link:
            self._global_data = {"unsubscribe_url": PLACEHOLDER, **self._global_data}
        if self._texts is not None and not self._texts.have_variables:
            raise MessageError(
                "The message has merge data, and neither a template_id nor a {{ variable }} in its "
                "subject or bodies: the data would change nothing."
            )

    def message_for(self, recipient: str) -> EmailMessage:
        """Return a message like the common one to one recipient, its texts not yet filled in.

        It shares no list or dict with the others, which a receiver of ``pre_send`` may change.
        """
        message = without_notes(copy.copy(self.message))
        message.to = [self.recipients[recipient]]
        message.cc, message.bcc = list(message.cc or ()), list(message.bcc or ())
        message.reply_to = list(message.reply_to or ())
        message.attachments = list(message.attachments or ())
        message.extra_headers = _with_headers(
            message.extra_headers or {}, self._headers.get(recipient, {})
        )
        own: dict[str, Any] = dict.fromkeys(self._names)
        if "metadata" in self._options or recipient in self._metadata:
            metadata = self._options.get("metadata") or {}
            own["metadata"] = {**metadata, **self._metadata.get(recipient, {})}
        if self._has_template:
            own["variables"] = self._values(recipient)
        key = self._options.get("idempotency_key")
        if key is not None:
            own["idempotency_key"] = _key_of(key, recipient)
        for name, value in own.items():
            setattr(message, name, value)
        return message

    @sensitive_variables()
    def fill_in(self, message: EmailMessage, recipient: str) -> None:
        """Fill the merge data into the texts of what :meth:`message_for` returned.

        Raises:
            MessageError: it lacks a variable.
        """
        if self._texts is not None:
            self._texts.fill_in(message, self._values(recipient))

    def _values(self, recipient: str) -> dict[str, Any]:
        return {**self._global_data, **self._data.get(recipient, {})}

    def _by_recipient(self, name: str) -> dict[str, Mapping[str, Any]]:
        """Return one of the merge options by recipient, as :attr:`recipients` names them."""
        given = self._options.get(name)
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise MessageError(f"{name} must be a dict of addresses to dicts.")
        found: dict[str, Mapping[str, Any]] = {}
        for index, (key, values) in enumerate(given.items()):
            recipient = recipient_of(key, name, index)
            if recipient not in self.recipients:
                raise MessageError(
                    f"{name} has an address that is not in 'to', its number {index + 1}."
                )
            if recipient in found:
                raise MessageError(f"{name} has an address twice, the second as {index + 1}.")
            if not isinstance(values, Mapping):
                raise MessageError(
                    f"{name} must map each address to a dict; number {index + 1} is a "
                    f"{type(values).__name__}."
                )
            found[recipient] = values
        return found


def recipient_of(given: Any, field: str, index: int | None = None) -> str:
    """Return an address as merge data knows it: bare, in small letters, its domain in ASCII.

    Raises:
        InvalidAddress: it is malformed.
    """
    return mailbox(given, field, index)


def _recipients(message: EmailMessage) -> dict[str, Any]:
    """Return the addresses in ``to`` by recipient; who is there twice gets one email."""
    given = message.to
    if isinstance(given, str | Promise) or not isinstance(given, Iterable):
        raise MessageError("'to' must be a list or tuple of addresses.")
    found: dict[str, Any] = {}
    for index, item in enumerate(given):
        if item:
            found.setdefault(recipient_of(item, "to", index), item)
    return found


def _mentions_link(message: EmailMessage) -> bool:
    bodies = [message.body, *(each[0] for each in getattr(message, "alternatives", None) or ())]
    return any("unsubscribe_url" in str(body) for body in bodies)


def _global_data(options: Mapping[str, Any]) -> Mapping[str, Any]:
    variables, merged = options.get("variables"), options.get("merge_global_data")
    if variables and merged:
        raise MessageError("variables and merge_global_data are two names of one thing; set one.")
    chosen = variables or merged or {}
    if not isinstance(chosen, Mapping):
        name = "variables" if variables else "merge_global_data"
        raise MessageError(f"{name} must be a dict.")
    return chosen


def _with_headers(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    replaced = {str(name).lower() for name in own}
    kept = {name: value for name, value in common.items() if str(name).lower() not in replaced}
    return {**kept, **own}


def _key_of(key: Any, recipient: str) -> str:
    """Return the idempotency key of one recipient's email, made of the message's own."""
    whole = f"{key}:{hashlib.sha256(recipient.encode()).hexdigest()[:32]}"
    if len(whole) > MAX_KEY_LENGTH:
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    return whole


# Texts with variables -----------------------------------------------------------------------------

_MARK = "\ufdd0"  # stands for no character, so that no text holds it
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z]\w*)\s*\}\}")


@cache
def _engine() -> Engine:
    return Engine(string_if_invalid=f"{_MARK}%s{_MARK}")


class _Text:
    """A text with variables in Django's template language.

    Variables without filters are filled in here: it takes a quarter of the time of a template
    (benchmarks, "merge data, CPU: as a list": 1.9 without this). What a value looks like and how
    it is escaped is Django's.

    Args:
        what: which text, for errors.
        is_html: whether values are escaped.

    Raises:
        MessageError: it cannot be read.
    """

    def __init__(self, source: str, what: str, *, is_html: bool) -> None:
        self._what = what
        self._is_html = is_html
        self._pieces = _VARIABLE.split(source)
        self._template: Template | None = None
        if any("{{" in piece or "{#" in piece for piece in self._pieces[::2]):
            self._template = _template(source, what)

    def filled(self, values: Mapping[str, Any]) -> str:
        """Return the text with ``values``.

        Raises:
            MessageError: a value is missing, or cannot be shown.
        """
        if self._template is not None:
            return self._checked(_rendered(self._template, values, self._is_html, self._what))
        pieces = self._pieces.copy()
        for place in range(1, len(pieces), 2):
            pieces[place] = self._value(pieces[place], values)
        return "".join(pieces)

    def _value(self, name: str, values: Mapping[str, Any]) -> str:
        value = values.get(name, _MARK)
        if value is _MARK:
            raise self._lacks(name)
        if isinstance(value, str):
            return conditional_escape(value) if self._is_html else value
        template = _engine().from_string("{{ value }}")
        return _rendered(template, {"value": value}, self._is_html, self._what)

    def _checked(self, text: str) -> str:
        if _MARK in text:
            raise self._lacks(text.split(_MARK)[1])
        return text

    def _lacks(self, name: str) -> MessageError:
        shown = f"{{{{ {name} }}}}" if name.replace(".", "").isidentifier() else "a variable"
        return MessageError(
            f"{self._what} has {shown}, which the merge data of a recipient lacks. Give every "
            "recipient a value, or all of them one in merge_global_data."
        )


class _Texts:
    """The subject and the bodies of a message that have variables, which are read once."""

    def __init__(self, message: EmailMessage) -> None:
        is_html = message.content_subtype == "html"
        self._subject = _text_of(message.subject, "The subject", is_html=False)
        self._body = _text_of(message.body, "The body", is_html=is_html)
        alternatives = getattr(message, "alternatives", None) or ()
        self._alternatives = {
            index: text
            for index, (content, mimetype) in enumerate(alternatives)
            if (text := _text_of(content, "An alternative", is_html=mimetype == "text/html"))
        }

    @property
    def have_variables(self) -> bool:
        """Whether there is anything to fill in."""
        return bool(self._subject or self._body or self._alternatives)

    def fill_in(self, message: EmailMessage, values: Mapping[str, Any]) -> None:
        """Put the texts with ``values`` into a message."""
        if self._subject is not None:
            message.subject = self._subject.filled(values)
        if self._body is not None:
            message.body = self._body.filled(values)
        if self._alternatives:
            alternatives = list(message.alternatives)  # type: ignore[attr-defined]
            for index, text in self._alternatives.items():
                alternatives[index] = (text.filled(values), alternatives[index][1])
            message.alternatives = alternatives  # type: ignore[attr-defined]


def _text_of(source: Any, what: str, *, is_html: bool) -> _Text | None:
    """Return a text to fill in; ``None`` where it holds no variable.

    Raises:
        MessageError: it is no template, or has tags. A text may hold what a visitor wrote, and
            what tags can do is not for visitors.
    """
    if not isinstance(source, str | Promise):
        return None
    source = str(source)
    if "{%" in source:
        raise MessageError(
            f"{what} has a template tag. Merge data fills {{{{ variables }}}} alone; render the "
            "rest before."
        )
    return _Text(source, what, is_html=is_html) if "{{" in source else None


def _template(source: str, what: str) -> Template:
    try:
        return _engine().from_string(source)
    except TemplateSyntaxError:  # its text quotes the source
        raise MessageError(f"{what} has a {{{{ variable }}}} that cannot be read.") from None


def _rendered(template: Template, values: Mapping[str, Any], is_html: bool, what: str) -> str:
    try:
        return str(template.render(Context(dict(values), autoescape=is_html)))
    except Exception as exc:  # noqa: BLE001  values and filters may raise anything
        raise MessageError(
            f"{what} could not be filled in for a recipient: {type(exc).__name__}."
        ) from None


# What became of them ------------------------------------------------------------------------------


class RecipientStatuses(Mapping[str, TruncusStatus]):
    """The status of each recipient of a message with merge data.

    An address is found in any form that merge data may give it in, also with a name.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, TruncusStatus] = {}

    def __getitem__(self, given: str) -> TruncusStatus:
        try:
            return self._statuses[recipient_of(given, "recipients")]
        except TruncusError:
            raise KeyError(given) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statuses)

    def __len__(self) -> int:
        return len(self._statuses)

    def __repr__(self) -> str:
        return f"<{len(self)} recipients>"

    def add(self, recipient: str, status: TruncusStatus) -> None:
        """Add what became of one recipient's email."""
        self._statuses[recipient] = status


def note_recipients(sent: Iterable[Sent]) -> None:
    """Write what became of recipients' emails onto the messages that they were merged from."""
    for outgoing, _ in sent:
        if outgoing.merged_from is None:
            continue
        message: Any = outgoing.merged_from
        own: TruncusStatus = outgoing.message.truncus_status  # type: ignore[attr-defined]
        known: TruncusStatus | None = message.truncus_status
        if known is None:
            known = TruncusStatus(own.status, recipients=RecipientStatuses())
        known.recipients.add(outgoing.recipient, own)  # type: ignore[attr-defined]
        if known.status != own.status or (own.error and not known.error):
            known = TruncusStatus(
                own.status if known.status == own.status else "mixed",
                error=known.error or own.error,
                recipients=known.recipients,
            )
        message.truncus_status = known
