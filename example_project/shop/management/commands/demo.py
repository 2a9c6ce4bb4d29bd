"""``manage.py demo``: send every mail of the shop and show what came back."""

import argparse
import signal
import textwrap
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

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

Then the settings of the shop show what they are for:
  mails to suppressed and unsubscribed customers, refused before any request
  an order on a staging site, which goes to the developer
  an order while the API key is revoked, which goes by the fallback mailer
  letters that wait in the outbox, as the month's quota is used up
  what the quota, the health endpoint, the metrics and the traces say of all that

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
            emulator = Emulator(dialect=dialect, **demo.ACCOUNT).start()
        except EmulatorMissesWerkzeug as error:
            raise CommandError(str(error)) from error
        with emulator:
            use_fresh_demo_database()
            with demo.site_of(emulator):
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
        self._show_condition(report.condition)
        self.stdout.write("What the package logged meanwhile:\n")
        for line in report.log_lines:
            self._show_paragraph(line, indent="  ")
        self.stdout.write("\n")
        self._show_where_to_look()

    def _show_row(self, row: demo.Row) -> None:
        is_by_fallback = any(status.sent_by for status in row.statuses)
        ids = row.ids or ["none: by fallback mailer" if is_by_fallback else "none: no request"]
        more = f" +{len(ids) - 1}" if len(ids) > 1 else ""
        cells = (len(row.statuses), _words(row.answers), ids[0] + more, row.requests)
        line = _ROW.format(row.title, *cells, _words(row.later))
        paint = self.style.WARNING if row.error or "bounced" in row.later else self.style.SUCCESS
        self.stdout.write(paint(line))
        if row.error is not None:
            self._show_paragraph(f"raised {type(row.error).__name__}: {row.error}", indent="    ")
        if row.record is not None and row.record.sent_by:
            self._show_paragraph(row.record.reason, indent="    ")
        if row.record is not None and row.record.redirected_to:
            to, went_to = ", ".join(row.record.to), ", ".join(row.went_to)
            told = f"It was for {to}, and went to {went_to} instead."
            self._show_paragraph(told, indent="    ")

    def _show_totals(self, report: demo.Report) -> None:
        statuses = [status for row in report.rows for status in row.statuses]
        by_fallback = sum(bool(status.sent_by) for status in statuses)
        refused_here = len(statuses) - report.accepted - report.refused - by_fallback
        connections = f"{report.connections} TCP connection{'s' * (report.connections != 1)}"
        self.stdout.write(
            f"{len(statuses)} mails: {report.accepted} accepted and {report.refused} refused by "
            f"Truncus, {refused_here} refused before a request, {by_fallback} by the fallback\n"
            f"mailer; in {report.sending_requests} requests, and {report.reading_requests} more to "
            f"ask what happened later. All on {connections}, in {report.seconds:.1f} s.\n\n"
        )

    def _show_condition(self, condition: demo.Condition) -> None:
        self.stdout.write("What the site says of itself then:\n")
        quota = [
            f"{quota.used} of this month's {quota.limit} emails are used, {quota.left} are left"
            for quota in condition.quotas
        ]
        held_back = condition.health.get("truncus_outbox_held_back", 0)
        spans = [f"{count} × {name}" for name, count in (condition.spans or {}).items()]
        metrics = condition.metrics or ['pip install "truncus-django[prometheus]" shows them']
        self._show_facts("quota", quota)
        self._show_facts(
            "told owner", [f'"{each}" by the fallback mailer' for each in condition.warnings]
        )
        self._show_facts("outbox", [f"{held_back:g} letters wait for next month: QUOTA_RESERVE"])
        self._show_facts("health", [f"HTTP {condition.health_status}: {_health_words(condition)}"])
        self._show_facts("metrics", metrics)
        self._show_facts("spans", [", ".join(spans) or "pip install opentelemetry-sdk shows them"])
        self.stdout.write("\n")

    def _show_facts(self, name: str, facts: Sequence[str]) -> None:
        for number, fact in enumerate(facts):
            self.stdout.write(f"  {name if number == 0 else '':<12}  {fact}")

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
            "  what sets all this up    example_project/config/settings.py\n"
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


def _health_words(condition: demo.Condition) -> str:
    """Return the answer of the health endpoint, without moments and what is zero."""
    words = [str(condition.health.get("status"))]
    for name, value in condition.health.items():
        if value and name != "status" and not name.endswith("_at"):
            words.append(f"{name.removeprefix('truncus_outbox_')} {value:.4g}")
    return ", ".join(words)


def _words(counts: Counter[str]) -> str:
    """Return ``delivered``, or ``249 delivered, 1 bounced`` where there are several."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing"
