"""``manage.py demo``: send every mail of the shop and show what came back."""

import argparse
import signal
import textwrap
import threading
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.test.utils import override_settings

from shop import demo, history
from shop.demo_database import use_fresh_demo_database
from truncus_django.emulator import Emulator, EmulatorMissesWerkzeug, SpokenDialect

_WIDTH = 100
_ROW = "{:<24}  {:>5}  {:<9}  {:<34}  {:>8}  {}"


class Command(BaseCommand):
    """Start a local Truncus, send, show, stop."""

    help = """\
Send every mail of the shop through a local Truncus, and show what came back.

It needs no account, no service and no set-up: the emulator of the Truncus API runs inside this
command on a free port. The log of what was sent stays in example_project/demo.sqlite3, which
"make admin" shows; each run begins it anew.

The mails are sent by the functions in shop/emails.py, with ordinary Django calls:
  a link to choose a password     PasswordResetForm
  an order with HTML and a PDF    EmailMultiAlternatives
  a delay notice to 250           send_mass_mail()
  letters, killed and run again   send_bulk()
  a digest for next Monday        TruncusMessage(send_at=...)
  the digest in the sandbox       a mailer with {"sandbox": True}
  an order that bounces, and one that is refused and raises
  an error mail about the latter  mail_admins()

The exit status is 0 if everything came out as it ought to, else 1 after a list of differences."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the line breaks of the help."""
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        """Two options."""
        parser.add_argument(
            "--dialect",
            choices=list(SpokenDialect),
            default=SpokenDialect.MANUAL.value,
            help="which published description of the API the emulator follows: the manual "
            "(default), or the one behind the vendor's Python SDK. The shop is the same for both",
        )
        parser.add_argument(
            "--keep-running",
            action="store_true",
            help="leave the emulator running until Ctrl-C, to look at the mails in its inbox",
        )

    def handle(self, *, dialect: str, keep_running: bool, **options: Any) -> None:
        """Run the demo."""
        try:
            emulator = Emulator(dialect=dialect).start()
        except EmulatorMissesWerkzeug as error:
            raise CommandError(str(error)) from error
        with emulator:
            use_fresh_demo_database()
            with override_settings(TRUNCUS=demo.settings_for(emulator)):
                report = demo.run(emulator)
            history.write(days=60)
            self._show(report, emulator)
            if keep_running:
                self._wait(emulator)
        if report.differences:
            raise CommandError("\n  ".join(["It came out differently.", *report.differences]))

    # The table --------------------------------------------------------------------------------

    def _show(self, report: demo.Report, emulator: Emulator) -> None:
        where = f"{emulator.url}, dialect: {emulator.options.dialect}"
        self.stdout.write(f"The shop sends its mail through a local Truncus at {where}\n\n")
        head = _ROW.format("what", "mails", "status", "Truncus id", "requests", "later")
        self.stdout.write(self.style.MIGRATE_HEADING(head))
        self.stdout.write("-" * _WIDTH)
        for row in report.rows:
            self._show_row(row)
        self.stdout.write("-" * _WIDTH)
        self._show_totals(report)
        for line in report.log_lines:
            self._show_paragraph(f"Logged meanwhile: {line}")
        self._show_where_to_look()

    def _show_row(self, row: demo.Row) -> None:
        ids = row.ids or ["none"]
        more = f" +{len(ids) - 1}" if len(ids) > 1 else ""
        cells = (len(row.statuses), _words(row.answers), ids[0] + more, row.requests)
        line = _ROW.format(row.title, *cells, _words(row.later))
        paint = self.style.WARNING if row.error or "bounced" in row.later else self.style.SUCCESS
        self.stdout.write(paint(line))
        if row.error is not None:
            self._show_paragraph(f"raised {type(row.error).__name__}: {row.error}", indent="    ")

    def _show_totals(self, report: demo.Report) -> None:
        mails = sum(len(row.statuses) for row in report.rows)
        connections = f"{report.connections} TCP connection{'s' * (report.connections != 1)}"
        self.stdout.write(
            f"{mails} mails ({report.accepted} accepted, {report.refused} refused) in "
            f"{report.sending_requests} requests; {report.reading_requests} more to ask what\n"
            f"happened later. All on {connections}, in {report.seconds:.1f} s.\n\n"
        )

    def _show_paragraph(self, text: str, indent: str = "") -> None:
        hanging = indent + "  "
        lines = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=hanging)
        self.stdout.write("\n".join(lines) + ("" if indent else "\n\n"))

    def _show_where_to_look(self) -> None:
        self.stdout.write(
            "Where to look next:\n"
            "  the log in the admin     make admin\n"
            "  the mails in a browser   make demo ARGS=--keep-running\n"
            "  how they are sent        example_project/shop/emails.py\n"
            "  the shop in a browser    make emulator  (or python -m truncus_django.emulator)\n"
            "                           .venv/bin/python example_project/manage.py migrate\n"
            "                           .venv/bin/python example_project/manage.py runserver\n"
            "                           shop: http://127.0.0.1:8000/  inbox: http://127.0.0.1:8025/"
        )

    def _wait(self, emulator: Emulator) -> None:
        self.stdout.write(f"\nThe inbox is at {emulator.inbox_url} until Ctrl-C.")
        self.stdout.flush()
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()


def _words(counts: Counter[str]) -> str:
    """Return ``delivered``, or ``249 delivered, 1 bounced`` where there are several."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing"
