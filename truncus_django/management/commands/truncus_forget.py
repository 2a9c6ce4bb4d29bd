"""``manage.py truncus_forget``: forgets one person, or exports what is held about them."""

import os
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error

from truncus_django.api.errors import MessageError
from truncus_django.forget.exporting import export
from truncus_django.forget.forgetting import Forgetting, Found
from truncus_django.forget.person import Person
from truncus_django.forget.tables import number_of_rows
from truncus_django.management.base import CommandWithExamples
from truncus_django.progress import Progress

_EXAMPLES = """\
examples:
  manage.py truncus_forget ann@example.org            what names her, by table; changes nothing
  manage.py truncus_forget ann@example.org --yes      forget her
  manage.py truncus_forget ann@example.org --yes --cancel
  manage.py truncus_forget ann@example.org --export ann.json
  manage.py truncus_forget ann@example.org --export ann.json --yes

The address is found in any case, with any name and in both forms of its domain. Emails to her
alone lose subject, bodies, metadata and names of files; where others got them, too, the others
and the subject stay. All emails and their numbers stay. A suppressed address stays as a digest,
so that nobody mails her.

Emails that wait to be sent, are being sent or may have been sent are left as they are. They are
told, and the exit status is 1. As soon as they are finished, the next run forgets them, and so
does truncus_purge. After Ctrl-C (exit status 130) the next run does the rest."""


class Command(CommandWithExamples):
    """Forget one person."""

    help = (
        "Takes one person out of emails, events, the outbox, suppressed addresses and the admin's "
        "history. Without --yes it only counts."
    )
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take an address and what to do."""
        parser.add_argument("address", help="whose")
        parser.add_argument("--yes", action="store_true", help="do it; it cannot be undone")
        parser.add_argument(
            "--cancel",
            action="store_true",
            help="first cancel the emails to or from the address that wait, for all recipients",
        )
        parser.add_argument(
            "--export",
            metavar="FILE",
            help="first write all that is held about the person, as JSON; - for standard output",
        )

    def handle(self, **options: Any) -> None:
        """Export, then forget or count."""
        try:
            person = Person(options["address"])
        except MessageError as error:
            raise CommandError(str(error)) from None
        out = self.stderr if options["export"] == "-" else self.stdout
        try:
            if options["export"]:
                self._export(person, options["export"])
            self._forget(person, options, out)
        except Error as exc:
            raise CommandError(
                f"The database failed ({type(exc).__name__}). What was done stays done; run the "
                "command again for the rest."
            ) from exc

    def _export(self, person: Person, name: str) -> None:
        if name == "-":
            for part in export(person):
                self.stdout.write(part, ending="")
            return
        try:
            # Never over another file: after a run with --yes, this one would hold the rest alone.
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(export(person))
        except FileExistsError:
            raise CommandError("The file is there already; name another one.") from None
        except OSError as error:
            raise CommandError(f"The file cannot be written: {error.strerror}.") from None

    def _forget(self, person: Person, options: dict[str, Any], out: Any) -> None:
        progress = Progress(number_of_rows(), "rows", stream=sys.stderr, every=100_000)
        work = Forgetting(person=person, cancels=options["cancel"], on_progress=progress.advance)
        found, is_interrupted = Found(), False
        try:
            if options["yes"]:
                work.run(found)
            else:
                found = work.count()
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            progress.close()
        if is_interrupted and not options["yes"]:
            raise CommandError("Interrupted; nothing was changed.", returncode=130)
        out.write("Forgotten in:" if options["yes"] else "Would be forgotten in:")
        for count, what in _lines(found):
            out.write(f"{count:>10}  {what}")
        if is_interrupted:
            raise CommandError("Interrupted; the next run does the rest.", returncode=130)
        self._tell_left(found, options, out)

    def _tell_left(self, found: Found, options: dict[str, Any], out: Any) -> None:
        left = []
        if found.waiting:
            hint = "" if options["cancel"] else " (--cancel cancels them)"
            left.append(f"{found.waiting} emails wait to be sent{hint}")
        if found.ambiguous:
            left.append(f"{found.ambiguous} emails are being sent, or may have been")
        if not left:
            if not options["yes"]:
                out.write("Nothing was changed. Add --yes to forget.")
            return
        text = f"Left as they are: {'; '.join(left)}."
        if options["yes"]:
            raise CommandError(
                f"{text} When they are finished, truncus_purge forgets them, and so does running "
                "this again."
            )
        out.write(f"{text}\nNothing was changed. Add --yes to forget the others.")


def _lines(found: Found) -> list[tuple[int, str]]:
    return [
        (found.emails, "emails to or from the address"),
        (found.mentions, "other emails that mention it"),
        (found.events, "events"),
        (found.payloads, "stored payloads of the outbox"),
        (found.suppressed, "suppressed addresses, which stay as digests"),
        (found.others, "other notes, errors and lines of the admin's history"),
    ]
