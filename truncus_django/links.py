"""Which links of an email somebody may follow, and plain text in which they are links."""

import re
from collections.abc import Iterator
from html import escape

REL = "noopener noreferrer nofollow"
"""``rel`` of each link of an email: the page it leads to learns nothing of where it was."""

_WEB_URL = re.compile(
    r"https?://(?:[\w.-]++|\[[0-9a-f:.]++\])(?::[0-9]{1,5})?(?:[/?#][^\s<>\"\\]*+)?", re.IGNORECASE
)
# The length of a scheme is limited, so that the time grows with the text and no faster. A full stop
# or a dash in front of "https://" is no part of a scheme: the sentence before ends there.
_URL = re.compile(
    r"\b(?:[a-z](?:[a-z0-9+]|[.-](?!https?://)){0,40}+://|mailto:)"
    r"[^\s<>\"\\`“”„«»。，、；！？（）「」]++",
    re.IGNORECASE,
)
_PUNCTUATION = ".,;:!?'’…*"
_OPENING = {")": "(", "]": "[", "}": "{"}


def web_url(text: str) -> str | None:
    """Return ``text`` if it is an absolute URL of the web without any trick, else ``None``.

    A browser skips control characters, reads ``\\`` as ``/``, and takes what stands before ``@``
    for the name of a user. A URL that is returned has none of them, and all of it is seen.
    """
    url = text.strip(" \t\n\f\r")
    is_plain = url.isprintable() and "\ufffd" not in url  # which stands for what cannot be read
    return url if is_plain and _WEB_URL.fullmatch(url) else None


def urls_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield where each URL in plain text begins, and the URL, of whatever scheme.

    What ends the sentence, the quotation or the parenthesis around a URL is no part of it.
    """
    for found in _URL.finditer(text):
        url = _without_punctuation(found[0])
        if _URL.fullmatch(url):  # there is something left of it
            yield found.start(), url


def linked_text(text: str) -> str:
    """Return plain text as HTML in which each URL of the web is a link to itself."""
    parts: list[str] = []
    at = 0
    for start, url in urls_in(text):
        if web_url(url):
            parts += [escape(text[at:start]), link_to(url)]
            at = start + len(url)
    parts.append(escape(text[at:]))
    return "".join(parts)


def link_to(url: str) -> str:
    """Return a link that shows where it leads, for a URL that :func:`web_url` returned."""
    shown = escape(url)
    return f'<a href="{shown}" target="_blank" rel="{REL}">{shown}</a>'


def _without_punctuation(url: str) -> str:
    unopened = {end: url.count(end) - url.count(begin) for end, begin in _OPENING.items()}
    length = len(url)
    while url[length - 1] in _PUNCTUATION or unopened.get(url[length - 1], 0) > 0:
        length -= 1
        if url[length] in unopened:
            unopened[url[length]] -= 1
    return url[:length]
