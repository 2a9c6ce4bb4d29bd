"""``manage.py truncus_doctor``: is everything in order, and what to do where it is not."""

import json
import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from truncus_django.doctor import Finding, Level, examine
from truncus_django.management.base import CommandWithExamples

_EXAMPLES = """\
examples:
  manage.py truncus_doctor                 everything, with a few requests to Truncus
  manage.py truncus_doctor --no-network    settings, webhook and log only
  manage.py truncus_doctor --json          for monitoring

No email is delivered. For each mailer, two are sent in Truncus's sandbox, which stores them, to
find out which form the account takes; --no-network leaves them out.
The exit status is 1 if anything failed."""

_MARK_WIDTH, _WHAT_WIDTH, _NARROWEST = 6, 22, 24


class Command(CommandWithExamples):
    """Show the findings as a table."""

    help = (
        "Looks at settings, API key, connection, clock, dialect, webhook, log and sync, and tells "
        "what to do where something is wrong."
    )
    examples = _EXAMPLES
    requires_system_checks: list[str] = []  # noqa: RUF012 - it shows them itself

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to look at and how to tell."""
        parser.add_argument("--no-network", action="store_true", help="make no request")
        parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")

    def handle(self, **options: Any) -> None:
        """Examine and show; a failure becomes exit status 1."""
        findings = examine(network=not options["no_network"])
        failed = self._dump(findings) if options["json"] else self._show(findings)
        if failed:
            raise CommandError("1 finding failed." if failed == 1 else f"{failed} findings failed.")

    def _dump(self, findings: Iterable[Finding]) -> int:
        """Write the findings as JSON; return how many failed."""
        found = list(findings)
        listed = [asdict(finding) for finding in found]
        self.stdout.write(json.dumps(listed, indent=2))
        return _count(found, Level.FAIL)

    def _show(self, findings: Iterable[Finding]) -> int:
        """Write the table, row by row as it is found; return how many failed."""
        columns = shutil.get_terminal_size((110, 24)).columns
        width = max(_NARROWEST, (columns - _MARK_WIDTH - _WHAT_WIDTH - 4) // 2)
        self._row("", "what", "found", "what to do", width)
        shown = []
        for finding in findings:
            shown.append(finding)
            self._row(finding.level, finding.what, finding.found, finding.advice, width)
        counts = [f"{_count(shown, level)} {level}" for level in Level]
        self.stdout.write(", ".join(counts))
        return _count(shown, Level.FAIL)

    def _row(self, mark: str, what: str, found: str, advice: str, width: int) -> None:
        styles: dict[str, Callable[[str], str]] = {
            Level.OK: self.style.SUCCESS,
            Level.WARN: self.style.WARNING,
            Level.FAIL: self.style.ERROR,
        }
        cells = [
            textwrap.wrap(what, _WHAT_WIDTH),
            textwrap.wrap(found, width),
            textwrap.wrap(advice, width),
        ]
        for number in range(max(map(len, cells))):
            texts = [cell[number] if number < len(cell) else "" for cell in cells]
            line = f"{texts[0]:{_WHAT_WIDTH}}  {texts[1]:{width}}  {texts[2]}".rstrip()
            shown = mark.upper() if mark == Level.FAIL else mark
            label = f"{shown:{_MARK_WIDTH}}" if number == 0 else " " * _MARK_WIDTH
            style = styles.get(mark) if number == 0 else None
            self.stdout.write((style(label) if style else label) + self._encodable(line))

    def _encodable(self, line: str) -> str:
        """Return a line with escapes in place of what the output cannot carry."""
        encoding = getattr(self.stdout, "encoding", None) or "utf-8"
        return line.encode(encoding, "backslashreplace").decode(encoding)


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)
