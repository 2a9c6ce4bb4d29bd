"""The run of a bulk: reads a hundred messages, writes them into the outbox, has them sent."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import cast
from uuid import UUID

from django.core.mail import EmailMessage
from django.db import Error, reset_queries

from truncus_django.api.errors import TruncusError, log_text
from truncus_django.backend import TruncusBackend
from truncus_django.bulk.deduplication import NOT_SENT, enqueue_new, known_emails
from truncus_django.bulk.direct import (
    MAX_UNFINISHED,
    AccountPaused,
    DirectSender,
    refuse_open_transaction,
)
from truncus_django.bulk.reader import CHUNK, MessageReader, PreparedEmail
from truncus_django.bulk.result import BulkInterrupted, BulkResult
from truncus_django.bulk.statuses import counted_as, reason_of, status_of_record
from truncus_django.mailers import Mailer
from truncus_django.message import TruncusMessage, TruncusStatus
from truncus_django.models import BulkEmail, Email
from truncus_django.outbox.enqueue import Row, enqueue
from truncus_django.outbox.notify import while_sending
from truncus_django.sending.recipient_statuses import note_recipient
from truncus_django.signals import outermost, post_send, send_failed, send_safely
from truncus_django.states import OUTBOX_STATES

OnResult = Callable[[EmailMessage, TruncusStatus], object]

_RESET_EVERY = 1000
"""After so many messages; the tests of a project may count the queries of a few."""
_MAX_LEFT = 1000
"""So many emails that earlier runs have left are waited for at the end."""


class BulkJob:
    """One run.

    Args:
        messages: what to send.
        key: of the bulk; ``None`` where nobody is to be skipped.
        mailer: whose settings and account are used.
        on_result: called with each message and its status.
        on_progress: called with a number of messages that are done.
        is_dry_run: write and send nothing; what would be sent is counted as ``queued``.
    """

    def __init__(
        self,
        messages: Iterable[EmailMessage],
        *,
        key: str | None,
        mailer: Mailer,
        on_result: OnResult | None = None,
        on_progress: Callable[[int], object] | None = None,
        is_dry_run: bool = False,
    ) -> None:
        self._reader = MessageReader(messages, key, mailer, is_dry_run=is_dry_run)
        self._key = key
        self._mailer = mailer
        self._on_result = on_result
        self._on_progress = on_progress
        self._is_dry_run = is_dry_run
        self._unfinished: dict[UUID, PreparedEmail] = {}
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._first_at: dict[str, int] = {}

    @property
    def result(self) -> BulkResult:
        """What came of it so far; also after :meth:`run` has raised an exception."""
        counts = self._counts + Counter(queued=len(self._unfinished))
        return BulkResult(
            messages=self._reader.count,
            errors=Counter(self._errors),
            first_at=dict(self._first_at),
            **counts,
        )

    def run(self) -> BulkResult:
        """Send all messages.

        Raises:
            BulkInterrupted: it ended too soon.
            ConfigurationError: a transaction is open, and nothing was sent.
        """
        is_direct = self._mailer.settings.delivery == "direct" and not self._is_dry_run
        if is_direct:
            refuse_open_transaction()
        try:
            # No worker is to be notified of what this process sends itself.
            with while_sending() if is_direct else nullcontext():
                self._send_all(DirectSender(self._mailer) if is_direct else None)
        except Exception as exc:
            raise self._interrupted(exc) from exc
        except BaseException as exc:  # Ctrl-C, or the end of a task's time
            exc.add_note(f"Of a bulk, {self.result}. {self._advice}")
            raise
        return self.result

    # The steps --------------------------------------------------------------------------------

    def _send_all(self, sender: DirectSender | None) -> None:
        is_known = self._key is not None and BulkEmail.objects.filter(key=self._key).exists()
        if sender and is_known:
            sender.send_due()  # what an earlier run has left
        while not self._reader.is_exhausted:
            before = self._reader.count
            emails, without_recipients = self._reader.read()
            self._counts["skipped"] += without_recipients
            rows = [each for each in emails if each.row is not None]
            for start in range(0, len(rows), CHUNK):  # one message may be many emails
                self._write(rows[start : start + CHUNK])
            self._tell([each for each in emails if each.status is not None])
            self._finish(sender)
            if self._on_progress:
                self._on_progress(self._reader.count - before)
            if self._reader.count // _RESET_EVERY > before // _RESET_EVERY:
                reset_queries()  # with DEBUG Django keeps thousands, with all that they insert
        self._finish(sender, is_last=True)
        if sender and is_known:
            for _ in sender.finish(self._left_by_earlier_runs(), is_last=True):
                pass
        if self._reader.error is not None:
            raise self._reader.error

    def _write(self, emails: Sequence[PreparedEmail]) -> None:
        """Write emails into the outbox, but for those that were written under the key before."""
        if self._key is None:
            new = list(emails)
            if new and not self._is_dry_run:
                enqueue([each.row for each in new if each.row], self._mailer.settings)
        else:
            new = self._write_new(emails)
        for each in new:
            if each.row is not None:
                self._unfinished[each.row.email.pk] = each
        for each in emails:
            each.row = None  # its payload is in the database

    def _write_new(self, emails: Sequence[PreparedEmail]) -> list[PreparedEmail]:
        rows: dict[UUID, Row] = {}
        new: dict[UUID, PreparedEmail] = {}
        repeated = []
        for each in emails:
            if each.identity is None or each.row is None:
                raise TypeError("An email of a bulk with a key has an identity and a row.")
            if each.identity in rows:
                repeated.append(each)
            else:
                rows[each.identity], new[each.identity] = each.row, each
        known = self._known(rows) if rows else {}
        for identity, record in known.items():
            self._skip(new.pop(identity), record)
        for each in repeated:
            if each.identity is not None:
                self._skip(each, known.get(each.identity) or rows[each.identity].email)
        return list(new.values())

    def _known(self, rows: Mapping[UUID, Row]) -> Mapping[UUID, Email]:
        """Return the records of emails that are not to be sent; the others are written."""
        if self._key is not None and not self._is_dry_run:
            return enqueue_new(rows, self._key, self._mailer.settings)
        known = known_emails(list(rows))
        return {identity: email for identity, email in known.items() if email.state not in NOT_SENT}

    def _skip(self, email: PreparedEmail, record: Email) -> None:
        email.status = status_of_record(record)
        email.is_skipped = True

    def _finish(self, sender: DirectSender | None, *, is_last: bool = False) -> None:
        """Have written emails sent, and tell what became of them."""
        if sender:
            for finished in sender.finish(self._unfinished, is_last=is_last):
                for each, status in finished:
                    each.status = status
                self._tell([each for each, _ in finished])
            if not is_last and len(self._unfinished) <= MAX_UNFINISHED:
                return
        for pk, each in self._unfinished.items():
            each.status = TruncusStatus(status="pending", email_pk=pk)
        waiting, self._unfinished = list(self._unfinished.values()), {}
        self._tell(waiting)

    def _left_by_earlier_runs(self) -> dict[UUID, None]:
        left = BulkEmail.objects.filter(key=self._key, email__state__in=OUTBOX_STATES)
        return dict.fromkeys(left.values_list("email_id", flat=True)[:_MAX_LEFT])

    # What became of messages ------------------------------------------------------------------

    def _tell(self, emails: Sequence[PreparedEmail]) -> None:
        """Count emails whose fate is known, all of them before anybody is told."""
        for each in emails:
            if each.status is None:
                continue
            count = counted_as(each.status)
            if each.is_skipped and count != "unknown":
                count = "skipped"
            self._counts[count] += 1
            if count in {"failed", "unknown"}:
                reason = reason_of(each.status)
                self._errors[reason] += 1
                self._first_at[reason] = min(each.place, self._first_at.get(reason, each.place))
        for each in emails:
            if each.status is not None and not self._is_dry_run:
                self._tell_one(each, each.status)

    def _tell_one(self, email: PreparedEmail, status: TruncusStatus) -> None:
        message = email.message
        if isinstance(message, EmailMessage):
            cast("TruncusMessage", message).truncus_status = status
            if email.original is not None:
                note_recipient(email.original.message, email.recipient, status)
            if not email.is_skipped:
                self._send_signal(message, status)
        if self._on_result:
            self._on_result(message, status)

    def _send_signal(self, message: EmailMessage, status: TruncusStatus) -> None:
        """Send ``post_send`` or ``send_failed``, as the backend does."""
        signal = post_send if status.is_accepted else send_failed if status.error else None
        if signal is None or not signal.has_listeners(TruncusBackend):
            return
        fact = {"status": status} if signal is post_send else {"error": status.error}
        with outermost() as is_outermost:
            if is_outermost:
                alias = self._mailer.name or None
                send_safely(signal, sender=TruncusBackend, alias=alias, message=message, **fact)

    def _interrupted(self, cause: Exception) -> BulkInterrupted:
        return BulkInterrupted(
            f"The bulk was interrupted: {_loggable(cause).rstrip('.')}. Of its messages so far, "
            f"{self.result}. {self._advice}",
            result=self.result,
        )

    @property
    def _advice(self) -> str:
        if self._key is None:
            return "Give send_bulk() a key, so that it can be called again without sending twice."
        return "Call it again with the same key, and it goes on without sending twice."


def _loggable(exc: Exception) -> str:
    """Return what an exception is, and where it was raised; its text may hold addresses."""
    if isinstance(exc, AccountPaused):
        return exc.message
    if isinstance(exc, TruncusError):
        return log_text(exc)
    if isinstance(exc, Error):
        return (
            f"The database failed ({type(exc).__name__}); if it has no tables for this yet, run "
            "manage.py migrate"
        )
    frames = traceback.extract_tb(exc.__traceback__)
    if not frames:
        return type(exc).__name__
    last = frames[-1]
    file = Path(last.filename).name
    return f"{type(exc).__name__} in {last.name}() ({file}, line {last.lineno})"
