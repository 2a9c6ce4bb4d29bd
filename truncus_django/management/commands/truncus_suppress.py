"""``manage.py truncus_suppress``: the table of suppressed addresses from and to CSV files."""

import sys
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error

from truncus_django.log.suppression_csv import Import, csv_lines
from truncus_django.management.base import CommandWithExamples
from truncus_django.models import SuppressedAddress

_EXAMPLES = """\
examples:
  manage.py truncus_suppress --export suppressed.csv
  manage.py truncus_suppress --import suppressed.csv --dry-run   check each line
  manage.py truncus_suppress --import left.csv --list digest --reason unsubscribed
  manage.py truncus_suppress --export - | gzip > suppressed.csv.gz

The first line of a file names its columns: address, and any of tenant, list, reason, note, since
and until. Bad lines are told and left out; the others are imported, and the exit status is 1. What
is there already stays, so that a file can be imported again."""


class Command(CommandWithExamples):
    """Import or export suppressed addresses."""

    help = "Imports addresses that must not be mailed from a CSV file, or exports them."
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take a file, and values of columns that it does not have."""
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--import", dest="source", metavar="FILE", help="- for standard input")
        what.add_argument("--export", dest="target", metavar="FILE", help="- for standard output")
        parser.add_argument("--tenant", default="", help="where the file has none")
        parser.add_argument("--list", default="", help="an unsubscribe list, where it has none")
        parser.add_argument(
            "--reason",
            default="",
            choices=SuppressedAddress.Reason.values,
            help="where it has none (by_hand)",
        )
        parser.add_argument("--dry-run", action="store_true", help="check the lines alone")

    def handle(self, **options: Any) -> None:
        """Import or export."""
        try:
            if options["target"] is not None:
                self._export(options["target"])
            else:
                self._import(options)
        except OSError as error:
            raise CommandError(f"The file cannot be used: {error.strerror}.") from None
        except Error as exc:
            raise CommandError(
                f"The database failed ({type(exc).__name__}). Import the file again: what is there "
                "already stays."
            ) from exc

    def _export(self, name: str) -> None:
        count = -1
        with self._opened(name, "w") as file:
            for line in csv_lines(SuppressedAddress.objects.all()):
                file.write(line)
                count += 1
        self.stderr.write(f"Exported {count} addresses.")

    def _import(self, options: dict[str, Any]) -> None:
        names = ("tenant", "list", "reason")
        given = {name: options[name].strip() for name in names if options[name].strip()}
        work = Import(given, is_dry_run=options["dry_run"])
        with self._opened(options["source"], "r") as file:
            try:
                for bad in work.run(file):
                    self.stderr.write(f"Line {bad.number}: {bad.problem}")
            except ValueError as error:
                raise CommandError(str(error)) from None
        done = f"{work.read - work.bad} lines are good"
        if not work.is_dry_run:
            done = f"Suppressed {work.written} addresses of {work.read - work.bad} good lines"
        if work.bad:
            raise CommandError(f"{done}; {work.bad} are bad and were left out.")
        self.stdout.write(f"{done}.")

    def _opened(self, name: str, mode: str) -> Any:
        # A half character is a bad one, and not the end of the import.
        errors = "surrogateescape" if mode == "r" else "strict"
        encoding = "utf-8-sig" if mode == "r" else "utf-8"
        if name != "-":
            return Path(name).open(mode, encoding=encoding, errors=errors, newline="")
        stream = sys.stdin if mode == "r" else sys.stdout
        if isinstance(stream, TextIOWrapper):  # what a test puts there may be none
            stream.reconfigure(encoding=encoding, errors=errors, newline="")
        return nullcontext(stream)
