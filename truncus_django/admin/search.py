"""Finding emails by an id, an address, words of the subject, or a value of the metadata."""

import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce
from itertools import islice
from operator import and_, or_

from django.db.models import Q, QuerySet

from truncus_django.api.errors import InvalidAddress
from truncus_django.models import Email
from truncus_django.sending.addresses import mailbox

_LONGEST_TERM = 1000
_MAX_PARTS = 20
_MAX_WITH_ONE_ID = 200
"""The up to 100 emails of a batch share an idempotency key."""
_MAX_TO_ONE_MAILBOX = 200
_SHORTEST_MAILBOX = 4
"""With its "@". The search index of PostgreSQL knows sequences of three characters."""
_IN_BRACKETS = re.compile(r"<([^\s<>]+@[^\s<>]+)>")
_PHRASE_OR_WORD = re.compile(r'"([^"]*)"|[“„]([^“”]*)[“”]|\S+')
_OPENING_QUOTES = '"“„'
_QUOTED_AT_END = re.compile(r'(?:"[^"]*"|[“„][^“”]*[“”])$')
_AROUND_ADDRESS = "()[]<>,;:.'‘’"
_BETWEEN = frozenset(',;"“”„')
_MAILTO = re.compile(r"mailto:([^?]*@[^?]*)", re.IGNORECASE)


def search(queryset: QuerySet[Email], term: str) -> QuerySet[Email]:
    """Return the emails with ``term`` as an id, or with all its parts in what is searched.

    Ids are looked up on their own first, so that each lookup uses an index. So are addresses by
    what they have up to their "@": many emails share a domain, and an index that has to look for
    it takes many times as long.
    """
    term = term[:_LONGEST_TERM].strip()
    if not term:
        return queryset
    ids = _with_id(term)
    parts = list(islice(search_terms(term), _MAX_PARTS))
    to_mailbox = _to_mailbox(parts)
    if to_mailbox is not None:
        ids += to_mailbox
    found = Q(pk__in=ids)
    if parts and to_mailbox is None:
        found |= reduce(and_, (_contains_one_of(spellings) for spellings in parts))
    return queryset.filter(found)


def _to_mailbox(parts: Sequence[set[str]]) -> list[uuid.UUID] | None:
    """Return the emails with all parts, the longest address among them looked up first.

    ``None`` if there is no address, or if too many emails have its part up to the "@".
    """
    beginnings = [{each[: each.find("@") + 1] for each in spellings} for spellings in parts]
    sure = [beginning for each in beginnings if len(each) == 1 for beginning in each]
    beginning = max(sure, key=len, default="")
    if len(beginning) < _SHORTEST_MAILBOX:
        return None
    found = Email.objects.filter(search_text__contains=beginning).order_by()
    rows = list(found.values_list("pk", "search_text")[: _MAX_TO_ONE_MAILBOX + 1])
    if len(rows) > _MAX_TO_ONE_MAILBOX:
        return None
    return [
        pk
        for pk, text in rows
        if all(any(each in text for each in spellings) for spellings in parts)
    ]


def _contains_one_of(spellings: set[str]) -> Q:
    return reduce(or_, (Q(search_text__contains=each) for each in sorted(spellings)))


def search_terms(term: str) -> Iterator[set[str]]:
    """Yield what must be found, each in one of its spellings: words, phrases in quotes, addresses.

    Of ``Ann <ann@example.org>`` the address counts: the email may have been sent without the name,
    or with another one.
    """
    *named, rest = _IN_BRACKETS.split(term)
    for text, address in zip(named[::2], named[1::2], strict=True):
        yield from _phrases_and_words(_without_name(text))
        yield from _addresses_in(address)
    yield from _phrases_and_words(rest)


def _phrases_and_words(text: str) -> Iterator[set[str]]:
    for found in _PHRASE_OR_WORD.finditer(text):
        phrase, word = found[1] or found[2] or "", found[0]
        if _says_something(phrase):
            yield _spellings(phrase)
        elif "@" in word:
            yield from _addresses_in(word)
        elif _says_something(word):
            yield {word.lower()}


def _says_something(text: str) -> bool:
    """Return whether there is more than spaces, quotes, and what stands between addresses."""
    return any(not char.isspace() and char not in _BETWEEN for char in text)


def _without_name(text: str) -> str:
    """Return what stands before an address without the name, which may be in quotes."""
    text = text.rstrip()
    if quoted := _QUOTED_AT_END.search(text):
        return text[: quoted.start()]
    words = (found[0] for found in _PHRASE_OR_WORD.finditer(text))
    return " ".join(word for word in words if "@" in word or word[0] in _OPENING_QUOTES)


def _addresses_in(word: str) -> Iterator[set[str]]:
    """Yield addresses without the punctuation of the sentence, list or link they come from."""
    bare = word.strip(_AROUND_ADDRESS)
    link = _MAILTO.match(bare)
    for part in re.split("[,;]", link[1] if link else bare):
        if address := part.strip(_AROUND_ADDRESS):
            yield _spellings(address)


def _spellings(address: str) -> set[str]:
    """Return a text in small letters; an address also as it is recorded: its domain in ASCII."""
    spellings = {address.lower()}
    with suppress(InvalidAddress):  # a part of one, such as @example.org
        spellings.add(mailbox(address, "address"))
    return spellings


def _with_id(term: str) -> list[uuid.UUID]:
    condition = (
        Q(message_id=term)
        | Q(global_message_id=term)
        | Q(provider_message_id=term)
        | Q(idempotency_key=term)
    )
    with suppress(ValueError):
        condition |= Q(pk=uuid.UUID(term))
    found = Email.objects.filter(condition).order_by()
    return list(found.values_list("pk", flat=True)[:_MAX_WITH_ONE_ID])
