"""The text of an email that the admin searches."""

from collections.abc import Iterable, Iterator, Mapping

LONGEST_VALUE = 100
"""Characters of a value of the metadata that is searched. Longer ones are texts or tokens, which
nobody types, and which would make the index large."""
LONGEST_VALUES = 500
"""Characters of all such values of an email, so that recording stays fast."""


def search_text(recipients: Iterable[str], subject: str, metadata: Mapping[str, str]) -> str:
    """Return recipients, subject and values of the metadata, in lower case.

    The names in the metadata are the same for many emails, and left out.
    """
    return " ".join([*recipients, subject, *_searched(metadata)]).lower()


def _searched(metadata: Mapping[str, str]) -> Iterator[str]:
    room = LONGEST_VALUES
    for value in metadata.values():
        if 0 < len(value) <= min(LONGEST_VALUE, room):
            room -= len(value)
            yield value
