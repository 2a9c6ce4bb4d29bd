"""Strings: one line where it must be one, whole Unicode, and what a misspelt name meant."""

import difflib
import re
from collections.abc import Iterable

from truncus_django.api.errors import MessageError

MIME_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, 3.6.8
LONGEST_HEADER = 900
"""Characters; a line of a header has at most 998 (RFC 5322, 2.1.1)."""
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def checked_line(text: str, what: str, error: type[MessageError]) -> str:
    """Return ``text``, or raise ``error`` if it has a line break or is no whole Unicode."""
    if _CONTROL.search(text):
        raise error(f"{what} has a line break or control character; remove it.")
    checked_text(text, what, error)
    return text


def checked_text(text: str, what: str, error: type[MessageError] = MessageError) -> int:
    """Return how many bytes ``text`` has in UTF-8; raise ``error`` if it has none."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise error(
            f"{what} holds half a character (a lone surrogate); decode its source correctly."
        ) from None


def did_you_mean(name: str, among: Iterable[str]) -> str:
    """Return ``"; did you mean 'X'?"``, or ``"."`` where nothing comes close to ``name``."""
    close = difflib.get_close_matches(name, sorted(among), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
