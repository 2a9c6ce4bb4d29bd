"""What an assertion asks of an email, and how an email differs from that."""

import difflib
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.utils.functional import Promise

from truncus_django.api.errors import InvalidAddress
from truncus_django.sending.addresses import address, mailbox
from truncus_django.testing.links import links_in
from truncus_django.testing.sent_email import SentEmail

_SHORT = 60
"""Texts up to this length are shown one beneath the other, longer ones as a diff."""
_MAX_LINES = 12
_MAX_WINDOWS = 3000
_MAX_WIDTH = 100


class Criterion(Protocol):
    """One thing that is asked of an email."""

    name: str

    def is_met_by(self, email: SentEmail) -> bool:
        """Return whether an email is as expected in this."""

    def closeness(self, email: SentEmail) -> float:
        """Return how close an email comes that does not meet it, from 0 to 1."""

    def difference(self, email: SentEmail) -> Iterator[str]:
        """Yield lines that show what was expected and what was found."""


def criteria_of(**given: Any) -> list[Criterion]:
    """Return what the arguments of an assertion ask for; ``None`` asks for nothing.

    Raises:
        TypeError: an argument is of a wrong type.
        InvalidAddress: an address is malformed.
    """
    return [
        _MAKERS[name](name, expected) for name, expected in given.items() if expected is not None
    ]


# Addresses ----------------------------------------------------------------------------------------


class _Recipients:
    """A string that is among ``to``, or a list that is all of it; names do not count."""

    def __init__(self, name: str, expected: Any) -> None:
        self.name = name
        self._is_whole = isinstance(expected, list | tuple)
        self._given = list(expected) if self._is_whole else [expected]
        self._expected = {mailbox(item, name) for item in self._given}

    def is_met_by(self, email: SentEmail) -> bool:
        found = set(map(_bare, email.to))
        return found == self._expected if self._is_whole else found >= self._expected

    def closeness(self, email: SentEmail) -> float:
        return _likeness(" ".join(sorted(self._expected)), " ".join(sorted(map(_bare, email.to))))

    def difference(self, email: SentEmail) -> Iterator[str]:
        yield from _shown("exactly" if self._is_whole else "expected", self._given)
        yield from _shown("found", email.to)


class _Sender:
    """The sender's address; where it is given with a name, the name counts, too."""

    def __init__(self, name: str, expected: Any) -> None:
        self.name = name
        self._given = address(expected, name)
        self._bare = mailbox(expected, name)
        self._has_name = self._given.endswith(">")

    def is_met_by(self, email: SentEmail) -> bool:
        if _bare(email.from_email) != self._bare:
            return False
        return not self._has_name or _name(email.from_email) == _name(self._given)

    def closeness(self, email: SentEmail) -> float:
        return _likeness(self._given, email.from_email)

    def difference(self, email: SentEmail) -> Iterator[str]:
        yield from _shown("expected", [self._given])
        yield from _shown("found", [email.from_email])


def _bare(formatted: str) -> str:
    try:
        return mailbox(formatted, "the email")
    except InvalidAddress:  # in memory anything can be sent
        return formatted.strip().lower()


def _name(formatted: str) -> str:
    return formatted.rpartition("<")[0].strip()


# Texts --------------------------------------------------------------------------------------------

_Expected = str | re.Pattern[str]


def _string_or_pattern(name: str, expected: Any) -> _Expected:
    if isinstance(expected, Promise):
        return str(expected)
    if isinstance(expected, str):
        return expected
    if isinstance(expected, re.Pattern) and isinstance(expected.pattern, str):
        return expected
    raise TypeError(
        f"{name} must be a string or a compiled regular expression, not {type(expected).__name__}."
    )


def _is_pattern(expected: _Expected) -> bool:
    return isinstance(expected, re.Pattern)


def _searches(expected: _Expected, text: str) -> bool:
    return isinstance(expected, re.Pattern) and expected.search(text) is not None


def _written(expected: _Expected) -> str:
    return f"/{expected.pattern}/" if isinstance(expected, re.Pattern) else repr(expected)


class _Subject:
    """The whole subject, or a pattern to be found in it."""

    def __init__(self, name: str, expected: Any) -> None:
        self.name = name
        self._expected = _string_or_pattern(name, expected)

    def is_met_by(self, email: SentEmail) -> bool:
        return email.subject == self._expected or _searches(self._expected, email.subject)

    def closeness(self, email: SentEmail) -> float:
        return _likeness(_written(self._expected), email.subject)

    def difference(self, email: SentEmail) -> Iterator[str]:
        expected, found = self._expected, email.subject
        if isinstance(expected, re.Pattern) or max(len(expected), len(found)) <= _SHORT:
            yield f"expected  {_written(expected)}"
            yield f"found     {found!r}"
        else:
            yield from _diff(expected, found)


class _Content:
    """What a body contains: a string, or a match of a pattern."""

    def __init__(self, name: str, expected: Any, body: Callable[[SentEmail], str]) -> None:
        self.name = name
        self._expected = _string_or_pattern(name, expected)
        self._body = body

    def is_met_by(self, email: SentEmail) -> bool:
        body, expected = self._body(email), self._expected
        return expected in body if isinstance(expected, str) else _searches(expected, body)

    def closeness(self, email: SentEmail) -> float:
        return 0.5 if self._body(email) else 0.0

    def difference(self, email: SentEmail) -> Iterator[str]:
        body, expected = self._body(email), self._expected
        nearest = None if _is_pattern(expected) else _nearest_part(str(expected), body)
        if nearest is not None:
            yield from _diff(str(expected), nearest)
            return
        yield f"expected  {_cut(_written(expected))}"
        if not body:
            yield f"found     nothing: the email has no {self.name.partition('_')[0]}"
        elif len(body) > _MAX_WIDTH:
            yield f"found     {len(body):,} characters, which begin {body[:_MAX_WIDTH]!r}"
        else:
            yield f"found     {body!r}"


def _nearest_part(wanted: str, body: str) -> str | None:
    """Return as many lines of a body as are wanted that come closest to them."""
    lines = [
        piece.strip()
        for line in _LINE_END.split(body)
        for piece in textwrap.wrap(line, 2 * _MAX_WIDTH) or [""]
    ]
    count = len(wanted.splitlines())
    windows = [
        "\n".join(lines[start : start + count]) for start in range(min(len(lines), _MAX_WINDOWS))
    ]
    close = difflib.get_close_matches(wanted, windows, n=1, cutoff=0.4)
    return close[0] if close else None


_LINE_END = re.compile(r"\n|(?<=>)(?=<)")  # HTML may be one line


class _Link:
    """A URL, or its path alone, among the links."""

    def __init__(self, name: str, expected: Any) -> None:
        self.name = name
        self._expected = _string_or_pattern(name, expected)

    def is_met_by(self, email: SentEmail) -> bool:
        return any(self._is(url) for url in links_in(email, mailto=True))

    def _is(self, url: str) -> bool:
        expected = self._expected
        if isinstance(expected, re.Pattern):
            return expected.search(url) is not None
        if expected == url:
            return True
        return expected.startswith("/") and not expected.startswith("//") and _leads(url, expected)

    def closeness(self, email: SentEmail) -> float:
        wanted = _written(self._expected).strip("'")
        return max((_likeness(wanted, url) for url in links_in(email)), default=0.0)

    def difference(self, email: SentEmail) -> Iterator[str]:
        yield f"expected  {_written(self._expected)}"
        links = links_in(email)
        if links:
            yield from _shown("found", links)
        else:
            yield "found     no link at all"


def _leads(url: str, path: str) -> bool:
    """Whether a URL has this path; and this query and fragment, where there are some."""
    try:
        wanted, found = urlsplit(path), urlsplit(url)
    except ValueError:  # such as "https://["
        return False
    return (
        found.path == wanted.path
        and wanted.query in ("", found.query)
        and wanted.fragment in ("", found.fragment)
    )


_MAKERS: dict[str, Callable[[str, Any], Criterion]] = {
    "to": _Recipients,
    "subject": _Subject,
    "from_email": _Sender,
    "text_contains": lambda name, given: _Content(name, given, lambda email: email.text),
    "html_contains": lambda name, given: _Content(name, given, lambda email: email.html),
    "link": _Link,
}


# Showing it ---------------------------------------------------------------------------------------


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one[:500], other[:500]).ratio()


def _shown(label: str, items: Sequence[str]) -> Iterator[str]:
    """Yield items one beneath the other, the first beside the label."""
    for index, item in enumerate(items[:_MAX_LINES]):
        yield f"{'' if index else label:8}  {_cut(item)}"
    if len(items) > _MAX_LINES:
        yield f"{'':8}  and {len(items) - _MAX_LINES} more"


def _diff(expected: str, found: str) -> Iterator[str]:
    lines = [
        _cut(line.rstrip("\n"))
        for line in difflib.ndiff(expected.splitlines(), found.splitlines())
        if not line.startswith("  ")
    ]
    yield "- expected, + found"
    yield from lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        yield f"and {len(lines) - _MAX_LINES} more lines"


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _MAX_WIDTH else f"{text[: 2 * _MAX_WIDTH]}…"
