"""The subject and the bodies of a message with merge data, and how values are filled in."""

import re
import secrets
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

from django.core.mail import EmailMessage
from django.template import Context, Engine, Template, TemplateSyntaxError
from django.utils.functional import Promise

from truncus_django.api.errors import MessageError

_MARK = f"\ufdd0{secrets.token_hex(8)}"  # no text holds it
_FILTERS = (
    "capfirst",
    "date",
    "floatformat",
    "linebreaks",
    "linebreaksbr",
    "lower",
    "pluralize",
    "time",
    "title",
    "truncatechars",
    "truncatewords",
    "upper",
    "urlencode",
)
"""A text may hold what a visitor wrote: these reach no other object and make no long texts."""
_ALLOWED = re.compile(
    rf"\s*[A-Za-z]\w*\s*(?:\|\s*(?:{'|'.join(_FILTERS)})(?::(?:\"[^\"{{}}]*\"|'[^'{{}}]*'|-?\d+))?\s*)*"
)
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
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
            if not self._is_html:
                return value
            # As conditional_escape() does, whose lazy texts cannot be here.
            return value.__html__() if hasattr(value, "__html__") else escape(value)
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


class MergeTexts:
    """The subject and the bodies of a message that have variables, which are read once."""

    def __init__(self, message: EmailMessage) -> None:
        is_html = message.content_subtype.lower() == "html"
        self._subject = _text_of(message.subject, "The subject", is_html=False)
        self._body = _text_of(message.body, "The body", is_html=is_html)
        alternatives = getattr(message, "alternatives", None) or ()
        self._alternatives = {
            index: text
            for index, (content, mimetype) in enumerate(alternatives)
            if (text := _text_of(content, "An alternative", is_html=_is_html(mimetype)))
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
    if isinstance(source, bytes | bytearray | memoryview) and b"{{" in bytes(source):
        raise MessageError(f"{what} is bytes with a {{{{ variable }}}}; give a string.")
    if not isinstance(source, str | Promise):
        return None
    source = str(source)
    if "{%" in source:
        raise MessageError(
            f"{what} has a template tag. Merge data fills {{{{ variables }}}} alone; render the "
            "rest before."
        )
    if "{{" not in source:
        return None
    found = _BRACES.findall(source)
    if len(found) < source.count("{{") or not all(map(_ALLOWED.fullmatch, found)):
        raise MessageError(
            f"{what} has a {{{{ variable }}}} that is no plain name, or has a filter other than "
            f"{', '.join(_FILTERS)}. Give the value as it is to be shown."
        )
    return _Text(source, what, is_html=is_html)


def _is_html(mimetype: Any) -> bool:
    return str(mimetype).partition(";")[0].strip().lower() == "text/html"


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
