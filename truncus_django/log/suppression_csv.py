"""Suppressed addresses as CSV, out and in, line by line and in constant memory."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from truncus_django.api.errors import MessageError
from truncus_django.csv_cells import Line, cell, text_in
from truncus_django.db.text import storable_text
from truncus_django.db.timestamps import storable_moment
from truncus_django.log.suppression import suppress
from truncus_django.models import SuppressedAddress
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.forgotten import is_digest

COLUMNS: Final = ("address", "tenant", "list", "reason", "note", "since", "until")
_FIELDS: Final = (
    "address", "tenant_id", "list_name", "reason", "note", "created_at", "expires_at"
)  # fmt: skip
ROWS_AT_ONCE = 1000


def csv_lines(entries: QuerySet[SuppressedAddress]) -> Iterator[str]:
    """Yield the lines of a file with all ``entries``, the oldest first."""
    write = csv.writer(Line()).writerow
    yield write(COLUMNS)
    last: Any = None
    in_order = entries.order_by("pk")
    while True:
        # Not iterator(): the drivers of MariaDB read a whole answer into memory.
        following = in_order if last is None else in_order.filter(pk__gt=last)
        rows = list(following.values_list("pk", *_FIELDS)[:ROWS_AT_ONCE])
        for _, *values in rows:
            yield write([cell(value) for value in values])
        if len(rows) < ROWS_AT_ONCE:
            return
        last = rows[-1][0]


class _Lines:
    """The lines of a file, numbered; those that a missing quote took along can be given back.

    Attributes:
        first: the number of the line that the record began with.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._record: list[str] = []
        self._given_back: deque[str] = deque()
        self.first = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._lines)
        self._record.append(line)
        return line

    def begin_record(self) -> None:
        """Note that the lines up to here are done with."""
        self.first += len(self._record)
        self._record.clear()

    def give_back(self) -> bool:
        """Have all lines of the record but its first read again; return whether there are any."""
        self._given_back.extendleft(reversed(self._record[1:]))
        taken_along = len(self._record) > 1
        del self._record[1:]
        return taken_along


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out.

    Attributes:
        number: of the line, from 1.
        problem: what is wrong with it; a sentence without its content.
    """

    number: int
    problem: str


@dataclass(slots=True)
class Import:
    """Reads addresses from CSV and suppresses them, a thousand in each transaction.

    Attributes:
        defaults: values of columns that the file does not have.
        is_dry_run: whether the lines are checked alone.
        read, written, bad: of how many lines; what was there before is read and not written.
    """

    defaults: Mapping[str, str] = field(default_factory=dict)
    is_dry_run: bool = False
    read: int = 0
    written: int = 0
    bad: int = 0

    def run(self, lines: Iterable[str]) -> Iterator[BadLine]:
        """Import the lines, the first of which names the columns; yield those that are bad.

        Raises:
            ValueError: the first line is not that.
            django.db.DatabaseError: what was written before stays, and can be read again.
        """
        numbered = _Lines(lines)
        # Else a note that is not closed takes the lines up to the next quote, or to the end of the
        # file, for a part of itself.
        reader = csv.reader(numbered, strict=True)
        try:
            columns = _columns(next(reader, []))
        except csv.Error:
            raise ValueError(_NO_COLUMNS) from None
        waiting: list[SuppressedAddress] = []
        while True:
            numbered.begin_record()
            try:
                values = next(reader)
                if not values:
                    continue
                self.read += 1
                waiting.append(self._entry(columns, values))
            except StopIteration:
                break
            except (ValueError, csv.Error, MessageError) as error:
                self.bad += 1
                self.read += isinstance(error, csv.Error)  # which is raised before it is counted
                yield BadLine(numbered.first, _problem(error, is_long=numbered.give_back()))
            if len(waiting) >= ROWS_AT_ONCE:
                self._write(waiting)
        self._write(waiting)

    def _write(self, waiting: list[SuppressedAddress]) -> None:
        if not self.is_dry_run:
            self.written += len(suppress(waiting))
        waiting.clear()

    def _entry(self, columns: tuple[str, ...], values: list[str]) -> SuppressedAddress:
        if len(values) != len(columns):
            raise ValueError(f"It has {len(values)} columns, and the first line {len(columns)}.")
        given = dict(zip(columns, (text_in(value).strip() for value in values), strict=True))
        texts = {**self.defaults, **{name: text for name, text in given.items() if text}}
        reason = texts.get("reason", SuppressedAddress.Reason.BY_HAND)
        if reason not in SuppressedAddress.Reason:
            raise ValueError("The reason is none of " + ", ".join(SuppressedAddress.Reason) + ".")
        for name, longest in (("tenant", 255), ("list", 100)):
            if len(texts.get(name, "")) > longest:
                raise ValueError(f"The {name} has more than {longest} characters.")
        address = texts.get("address", "")
        return SuppressedAddress(
            # Of somebody forgotten, a file has the digest.
            address=address if is_digest(address) else mailbox(address, "address"),
            tenant_id=storable_text(texts.get("tenant")),
            list_name=storable_text(texts.get("list")),
            reason=reason,
            source=SuppressedAddress.Source.IMPORT,
            note=storable_text(texts.get("note"))[:300],
            created_at=_moment(texts.get("since"), "since") or timezone.now(),
            expires_at=_moment(texts.get("until"), "until"),
        )


def _columns(names: list[str]) -> tuple[str, ...]:
    found = tuple(name.strip().lower() for name in names)
    if "address" not in found or not set(found) <= set(COLUMNS) or len(set(found)) < len(found):
        raise ValueError(_NO_COLUMNS)
    return found


_NO_COLUMNS = (
    f"The first line must name the columns: address, and any of {', '.join(COLUMNS[1:])}; each "
    "once."
)


def _problem(error: Exception, *, is_long: bool) -> str:
    if is_long or isinstance(error, csv.Error):
        return "It cannot be read as CSV; is a quote missing?"
    return "Its address is malformed." if isinstance(error, MessageError) else str(error)


_ONE_DAY = timedelta(days=1)


def _moment(text: str | None, name: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = parse_datetime(text) or parse_datetime(f"{text}T00:00")
        if moment is not None:
            if timezone.is_naive(moment):
                moment = timezone.make_aware(moment)
            for away in (-_ONE_DAY, _ONE_DAY):  # in some time zone it has no date
                _ = moment.astimezone(UTC) + away
            return storable_moment(moment)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} must be a moment like 2026-01-31T12:00:00+00:00, or empty.")
