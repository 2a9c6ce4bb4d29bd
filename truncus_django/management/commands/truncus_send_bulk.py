"""``manage.py truncus_send_bulk``: sends all messages that a function of the project yields."""

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Sized
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.utils.module_loading import import_string

from truncus_django.ages import span
from truncus_django.bulk import BulkInterrupted, BulkResult, bulk_mailer, check_arguments
from truncus_django.bulk.job import BulkJob
from truncus_django.management.base import CommandWithExamples
from truncus_django.progress import Progress

_EXAMPLES = """\
examples:
  manage.py truncus_send_bulk shop.emails.digests --key digest-2026-11
  manage.py truncus_send_bulk shop.emails.digests --key digest-2026-11 --dry-run
  manage.py truncus_send_bulk shop.emails.digests --key digest-2026-11 --using newsletters

The function takes no arguments and yields Django messages:
  def digests():
      for user in User.objects.filter(wants_digest=True).iterator():
          yield EmailMessage("Your week", ..., to=[user.email])

The key names this bulk. Run the same command again after Ctrl-C, a crash or an error: whoever was
sent an email under the key is skipped, and whoever was not is tried again. It is safe to run twice
at once. The next bulk needs another key, or it skips everybody.

With DELIVERY "direct" the command sends and keeps within REQUESTS_PER_SECOND and
REQUESTS_PER_MINUTE; with "outbox" it writes into the outbox, and the workers send.

--dry-run builds and checks every message, and tells how many would be sent, without writing or
sending anything. Receivers of pre_send are called. It does not see that the same recipients come
twice.

The exit status is 0 if nothing failed, 1 if an email failed or may have been sent (unknown) or
the run ended too soon, and 130 after Ctrl-C."""


class Command(CommandWithExamples):
    """Send a bulk."""

    help = (
        "Sends all messages that a function of your project yields, any number of them, each once: "
        "run it again with the same key, and it goes on where it ended."
    )
    examples = _EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to send, and how."""
        parser.add_argument(
            "messages",
            metavar="path.to.generator",
            help="a function that yields or returns messages, with the module's full path",
        )
        parser.add_argument(
            "--key", required=True, help="names the bulk; up to 200 characters, such as digest-48"
        )
        parser.add_argument("--using", metavar="ALIAS", help="a mailer of MAILERS; the default one")
        parser.add_argument(
            "--dry-run", action="store_true", help="write and send nothing; tell what would be sent"
        )
        parser.add_argument("--no-progress", action="store_true", help="do not show how far it is")

    def handle(self, **options: Any) -> None:
        """Send; what was not sent becomes exit status 1."""
        function = _function(options["messages"])
        progress = None
        try:
            mailer = bulk_mailer(options["using"])
            check_arguments((), options["key"])
        except (ImproperlyConfigured, ValueError) as error:
            raise CommandError(str(error)) from None
        messages = function()
        try:
            check_arguments(messages, options["key"])
        except TypeError as error:
            raise CommandError(f"{options['messages']}(): {error}") from None
        if not options["no_progress"]:
            total = len(messages) if isinstance(messages, Sized) else None
            progress = Progress(total, "emails", stream=sys.stderr)
        job = BulkJob(
            messages,
            key=options["key"],
            mailer=mailer,
            on_progress=progress.advance if progress else None,
            is_dry_run=options["dry_run"],
        )
        self._run(job, progress, is_dry_run=options["dry_run"])

    def _run(self, job: BulkJob, progress: Progress | None, *, is_dry_run: bool) -> None:
        began_at = time.monotonic()
        interrupted: CommandError | None = None
        try:
            job.run()
        except KeyboardInterrupt:
            interrupted = CommandError(
                "Interrupted; the next run with the same key goes on.", returncode=130
            )
        except BulkInterrupted as error:
            interrupted = CommandError(f"{error} --traceback shows more.")
            interrupted.__cause__ = error.__cause__
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        finally:
            if progress:
                progress.close()
        self._tell(job.result, time.monotonic() - began_at, is_dry_run=is_dry_run)
        if interrupted is not None:
            raise interrupted
        if job.result.failed or job.result.unknown:
            raise CommandError(_what_failed(job.result, is_dry_run=is_dry_run))

    def _tell(self, result: BulkResult, seconds: float, *, is_dry_run: bool) -> None:
        for reason, count in result.errors.most_common(10):
            self.stderr.write(f"{count} × {reason}, first in message {result.first_at[reason]}")
        told = str(result).replace("queued", "would be sent") if is_dry_run else str(result)
        self.stdout.write(f"{told}, in {span(seconds)}.")


def _function(path: str) -> Callable[[], Iterable[Any]]:
    """Return the function that a path names.

    Raises:
        CommandError: there is none, or it needs arguments.
    """
    try:
        found: Callable[[], Iterable[Any]] = import_string(path)
    except ImportError as error:
        raise CommandError(
            f"{path!r} cannot be imported: {error}. Give the full path of a function, such as "
            "shop.emails.digests."
        ) from error
    if not callable(found):
        raise CommandError(
            f"{path} is a {type(found).__name__}. Give a function that yields messages."
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise CommandError(
            f"{path}() cannot be called without arguments: {error}. Give a function that takes "
            "none, such as functools.partial() makes it."
        ) from None
    except ValueError:  # a built-in one does not tell what it takes
        pass
    if inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found):
        raise CommandError(f"{path}() is asynchronous. Give a plain function or generator.")
    return found


def _what_failed(result: BulkResult, *, is_dry_run: bool) -> str:
    parts = []
    if result.failed:
        emails = "1 email" if result.failed == 1 else f"{result.failed} emails"
        parts.append(f"{emails} {'would fail' if is_dry_run else 'failed'}.")
        if not is_dry_run:
            parts.append("The next run with the same key tries again.")
    if result.unknown:
        emails = "1 email" if result.unknown == 1 else f"{result.unknown} emails"
        parts.append(f"{emails} may have been sent: find out in Truncus, then decide in the admin.")
    return " ".join(parts)
