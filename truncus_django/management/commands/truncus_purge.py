"""``manage.py truncus_purge``: forgets old emails, or only their bodies.

Each run also drops stored payloads of failed emails, and forgets those whom ``truncus_forget`` has
left until their emails were finished.
"""

import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error
from django.utils import timezone

from truncus_django.ages import EXPLANATION, moment_of
from truncus_django.conf import get_settings
from truncus_django.forget.forgetting import forget_finished
from truncus_django.log.purge import PURGEABLE_STATES, FailedPayloads, Purge, PurgeResult
from truncus_django.management.base import CommandWithExamples
from truncus_django.progress import Progress

_EXAMPLES = """\
examples:
  manage.py truncus_purge                             what is older than RETENTION_DAYS
  manage.py truncus_purge --older-than 90d            the same with an age given here
  manage.py truncus_purge --older-than 30d --bodies   keep the log, forget texts and HTML
  manage.py truncus_purge --older-than 2026-01-01 --state failed --state rejected
  manage.py truncus_purge --older-than 90d --dry-run  what would go, by state

What is pending, scheduled or unknown is never purged. After Ctrl-C (exit status 130) the next
run goes on where this one stopped.

Each run also drops what the outbox has stored of emails that failed FAILED_PAYLOAD_DAYS ago, and
forgets those whom truncus_forget has left until their emails were finished."""


_NO_AGE = "Say how old: --older-than 90d, or set TRUNCUS['RETENTION_DAYS'] = 90."


class Command(CommandWithExamples):
    """Forget what is old enough."""

    help = "Deletes recorded emails and their events by age, or only the bodies of emails."
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take age, states and what to do."""
        parser.add_argument(
            "--older-than",
            metavar="WHEN",
            help=f"{EXPLANATION}; TRUNCUS['RETENTION_DAYS'] where it is not given",
        )
        parser.add_argument(
            "--state",
            action="append",
            default=[],
            choices=[state.value for state in PURGEABLE_STATES],
            help="only emails in this state; repeatable",
        )
        parser.add_argument(
            "--bodies",
            action="store_true",
            help="only forget texts, HTML and the stored payloads of finished emails in the outbox",
        )
        parser.add_argument(
            "--batch-size",
            type=int,
            default=500,
            metavar="N",
            help="emails in one transaction (500)",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="change nothing, and tell what would go"
        )

    def handle(self, **options: Any) -> None:
        """Purge, or tell what would go."""
        purge = self._purge(options)
        try:
            self._drop_failed_payloads(is_dry_run=options["dry_run"])
            if not options["dry_run"]:
                self._forget_finished()
            if purge is None:
                self.stdout.write(f"No emails were purged. {_NO_AGE}")
            elif options["dry_run"]:
                self._tell_old(purge)
            else:
                self._run(purge)
        except Error as exc:
            raise CommandError(
                f"The database failed ({type(exc).__name__}); finished batches are gone."
            ) from exc

    def _drop_failed_payloads(self, *, is_dry_run: bool) -> None:
        days = get_settings().failed_payload_days
        if days is None:
            return
        payloads = FailedPayloads(before=timezone.now() - timedelta(days=days))
        count = payloads.entries().count() if is_dry_run else payloads.run()
        if count:
            what = "stored payloads would go" if is_dry_run else "stored payloads went"
            self.stdout.write(f"{count} {what}, of emails that failed {days} days ago.")

    def _forget_finished(self) -> None:
        found = forget_finished()
        if found.changed:
            self.stdout.write(f"Forgot whom truncus_forget had left in {found.changed} emails.")

    def _purge(self, options: dict[str, Any]) -> Purge | None:
        """Return what to purge; ``None`` where nothing says how old."""
        age, days = options["older_than"], get_settings().retention_days
        if not age and days is None:
            if options["state"] or options["bodies"]:
                raise CommandError(_NO_AGE)
            return None
        try:
            return Purge(
                before=moment_of(age or f"{days}d", now=timezone.now()),
                states=options["state"],
                bodies_only=options["bodies"],
                batch_size=options["batch_size"],
            )
        except ValueError as error:
            raise CommandError(str(error)) from None

    def _tell_old(self, purge: Purge) -> None:
        old, orphans = purge.count(), purge.orphans().count()
        count = sum(group.count for group in old)
        what = "emails would lose their bodies" if purge.bodies_only else "emails would go"
        self.stdout.write(f"{count} {what}, recorded before {_shown(purge)}.")
        for group in old:
            self.stdout.write(f"{group.count:>10}  {group.state:<11} since {group.oldest:%Y-%m-%d}")
        if orphans:
            self.stdout.write(f"{orphans:>10}  events without an email")

    def _run(self, purge: Purge) -> None:
        progress = Progress(purge.emails().count(), "emails", stream=sys.stderr, every=10_000)
        purge.on_progress = progress.advance
        result = PurgeResult()
        is_interrupted = False
        try:
            purge.run(result)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            progress.close()
        if purge.bodies_only:
            done = f"Forgot the bodies of {result.emails} emails"
        else:
            done = (
                f"Deleted {result.emails} emails, their {result.events} events and "
                f"{result.orphans} events without an email"
            )
        self.stdout.write(f"{done}, recorded before {_shown(purge)}.")
        if is_interrupted:
            raise CommandError("Interrupted; the next run goes on.", returncode=130)


def _shown(purge: Purge) -> str:
    before = purge.before
    moment = timezone.localtime(before) if timezone.is_aware(before) else before
    return f"{moment:%Y-%m-%d %H:%M}"
