"""``manage.py truncus_sync``: asks Truncus what has become of emails."""

import sys
import time
from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils import timezone

from truncus_django.ages import EXPLANATION, moment_of, span
from truncus_django.log.sync import Selection, SyncJob, count_due
from truncus_django.management.base import CommandWithExamples
from truncus_django.progress import Progress
from truncus_django.states import FINAL_STATES, State

_EXAMPLES = """\
examples:
  manage.py truncus_sync                      everything that is due; for cron, every minute or so
  manage.py truncus_sync --limit 500          at most so many, the longest overdue first
  manage.py truncus_sync --since 2h           only what was recorded in the last two hours
  manage.py truncus_sync --since 2026-11-01 --tenant acme --state sent --state delivered
  manage.py truncus_sync --dry-run            what is due, by mailer and state; no request

It is safe to run twice at once, and after Ctrl-C: the answers so far are stored, the rest stays
due. The exit status is 1 if any email failed, and 130 after Ctrl-C."""


class Command(CommandWithExamples):
    """Ask about emails that are due, and write down what Truncus tells."""

    help = (
        "Asks Truncus about emails whose state or engagement can still change: soon after sending "
        "often, then ever more seldom, never after 90 days. Keeps within REQUESTS_PER_SECOND and "
        "REQUESTS_PER_MINUTE."
    )
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the selection."""
        parser.add_argument("--limit", type=int, metavar="N", help="ask about at most N emails")
        parser.add_argument(
            "--since", metavar="WHEN", help=f"only emails recorded since then: {EXPLANATION}"
        )
        parser.add_argument(
            "--tenant", action="append", default=[], help="only emails of this tenant; repeatable"
        )
        parser.add_argument(
            "--state",
            action="append",
            default=[],
            choices=[state.value for state in State if state not in FINAL_STATES],
            help="only emails in this state; repeatable",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="make no request, and tell what is due"
        )

    def handle(self, **options: Any) -> None:
        """Run the job; a failure becomes exit status 1."""
        selection, limit = self._selection(options), options["limit"]
        if limit is not None and limit < 1:
            raise CommandError("--limit must be 1 or more.")
        try:
            if options["dry_run"]:
                self._tell_due(selection, limit)
            else:
                self._sync(selection, limit)
        except Error as exc:
            raise CommandError(
                f"The database failed ({type(exc).__name__}); what it took is kept. See "
                "manage.py truncus_doctor."
            ) from exc

    def _selection(self, options: dict[str, Any]) -> Selection:
        since = None
        if options["since"]:
            try:
                since = moment_of(options["since"], now=timezone.now())
            except ValueError as error:
                raise CommandError(f"--since: {error}") from None
        return Selection(since=since, tenants=options["tenant"], states=options["state"])

    def _tell_due(self, selection: Selection, limit: int | None) -> None:
        due = count_due(selection)
        count = sum(group.count for group in due)
        if not due:
            self.stdout.write("No email is due.")
            return
        oldest = span((timezone.now() - min(group.oldest for group in due)).total_seconds())
        asked = f"; {limit} would be asked about" if limit is not None and limit < count else ""
        self.stdout.write(f"{count} emails are due, the longest overdue for {oldest}{asked}.")
        for group in due:
            self.stdout.write(f"{group.count:>10}  {group.state:<11} {group.mailer}".rstrip())

    def _sync(self, selection: Selection, limit: int | None) -> None:
        due = sum(group.count for group in count_due(selection))
        started = time.monotonic()
        progress = Progress(due if limit is None else min(due, limit), "emails", stream=sys.stderr)
        job = SyncJob(selection, limit=limit, on_progress=progress.advance)
        is_interrupted = False
        try:
            job.run()
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            progress.close()
        self._tell(job, time.monotonic() - started)
        if is_interrupted:
            raise CommandError(
                "Interrupted; the answers so far are stored, and the next run continues.",
                returncode=130,
            )
        if not job.result.is_clean:
            several = "" if job.result.failed == 1 else "s"
            raise CommandError(f"{job.result.failed} email{several} could not be asked about.")

    def _tell(self, job: SyncJob, seconds: float) -> None:
        result = job.result
        for mailer, why in result.stopped.items():
            name = f"Mailer {mailer!r}" if mailer else "The mailer"
            self.stderr.write(f"{name} was given up: {why}")
        for reason, count in Counter(result.reasons).most_common(10):
            self.stderr.write(f"{count} × {reason}")
        facts = [f"{result.changed} changed", f"{result.failed} failed"]
        if result.unknown:
            facts.append(f"{result.unknown} of these unknown to Truncus")
        if result.attached:
            facts.append(f"{result.attached} orphaned events found their email")
        left = job.count_left()
        rest = f" {left} are left." if left else ""
        self.stdout.write(
            f"Asked about {result.asked} emails in {span(seconds)}: {', '.join(facts)}.{rest}"
        )
