"""Checks of the strings in a message: one line where it must be one, and whole Unicode."""

import re

from truncus_django.api.errors import MessageError

HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 3.6.8
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def checked_line(text: str, what: str, error: type[MessageError]) -> str:
    """Return ``text``, or raise ``error`` if it has a line break or control character."""
    if _CONTROL.search(text):
        raise error(f"{what} has a line break or control character; remove it.")
    checked_text(text, what)
    return text


def checked_text(text: str, what: str) -> int:
    """Return how many bytes ``text`` has in UTF-8; raise :class:`MessageError` if it has none."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise MessageError(
            f"{what} holds half a character (a lone surrogate); decode its source correctly."
        ) from None
