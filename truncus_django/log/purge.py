"""Forgets emails that are old enough, or only their bodies, in batches and constant memory.

Never what is pending: see :data:`truncus_django.states.UNSENT_STATES`. Nor what is still part of a
request of the outbox, whatever became of it: a request is repeated whole, or not at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet

from truncus_django.db.locks import take_write_lock
from truncus_django.db.retry import PASSING, in_tries
from truncus_django.models import Email, EmailEvent, EmailQuerySet, OutboxEntry
from truncus_django.states import NEVER_SENT_STATES, UNSENT_STATES, State

__all__ = ["PURGEABLE_STATES", "FailedPayloads", "Old", "Purge", "PurgeResult"]

PURGEABLE_STATES = tuple(state for state in State if state not in UNSENT_STATES)
_TRIES = 5
"""An email of a batch may get an event while it is deleted: then the whole batch is done again."""


@dataclass(frozen=True, slots=True)
class Old:
    """How many emails of one state would go, and the oldest of them."""

    state: str
    count: int
    oldest: datetime


@dataclass(slots=True)
class PurgeResult:
    """What was done so far.

    Attributes:
        emails: how many were deleted, or lost their bodies.
        events: how many events went with them.
        orphans: how many events without an email went.
    """

    emails: int = 0
    events: int = 0
    orphans: int = 0


@dataclass(slots=True, kw_only=True)
class Purge:
    """Forgets what was recorded before a moment.

    Attributes:
        before: what was recorded earlier goes.
        states: only emails in one of these; all that are not pending if empty.
        bodies_only: keep the emails, and forget their texts, their HTML and what the outbox has
            kept of them to be sent.
        batch_size: how many go in one transaction.
        on_progress: called with a number of emails that are done.
    """

    before: datetime
    states: Sequence[str] = ()
    bodies_only: bool = False
    batch_size: int = 500
    on_progress: Callable[[int], None] = lambda count: None

    def __post_init__(self) -> None:
        """Refuse states of emails with which something is still to be done.

        Raises:
            ValueError: one of the states is pending, or unknown; or the batch size is below 1.
        """
        for state in self.states:
            if state not in PURGEABLE_STATES:
                raise ValueError(f"Emails in state {state!r} are never purged.")
        if self.batch_size < 1:
            raise ValueError("The batch size must be 1 or more.")

    def emails(self) -> EmailQuerySet:
        """Return the emails that would go, or lose their bodies."""
        emails: EmailQuerySet = Email.objects.forgettable().filter(created_at__lt=self.before)
        if self.states:
            emails = emails.filter(state__in=self.states)
        if self.bodies_only:
            own = OutboxEntry.objects.filter(pk=OuterRef("pk"))
            emails = emails.filter(
                Q(text_body__isnull=False) | Q(html_body__isnull=False) | Exists(own)
            )
        return emails

    def orphans(self) -> QuerySet[EmailEvent]:
        """Return the events without an email that would go."""
        if self.bodies_only or self.states:
            return EmailEvent.objects.none()
        return EmailEvent.objects.filter(email=None, received_at__lt=self.before).order_by()

    def count(self) -> list[Old]:
        """Return what would go, by state."""
        counted = self.emails().order_by("state").values_list("state")
        return [Old(*row) for row in counted.annotate(Count("pk"), Min("created_at"))]

    def run(self, result: PurgeResult | None = None) -> PurgeResult:
        """Do it; ``result`` is written on, so that it is known after an interruption, too."""
        done = result or PurgeResult()
        start: datetime | None = None
        while True:
            batch = self.emails().order_by("created_at")
            if start is not None:
                # Not from the beginning again: an index keeps what was deleted for a while.
                batch = batch.filter(created_at__gte=start)
            rows = list(batch.values_list("pk", "created_at")[: self.batch_size])
            if not rows:
                break
            start = rows[-1][1]
            gone, events = in_tries(
                partial(self._forget, [pk for pk, _ in rows]),
                using=Email.objects.db,
                tries=_TRIES,
                worth_another=(*PASSING, IntegrityError),
            )
            done.emails += gone
            done.events += events
            self.on_progress(gone)
        self._delete_orphans(done)
        return done

    def _forget(self, ids: Sequence[UUID]) -> tuple[int, int]:
        """Return how many emails are done, and how many events went with them."""
        # The emails are not locked beforehand: a webhook stores its event before it locks one.
        with transaction.atomic(using=Email.objects.db):
            emails = self._held(ids)
            return self._scrub(emails) if self.bodies_only else self._delete(emails)

    def _held(self, ids: Sequence[UUID]) -> EmailQuerySet:
        """Return those emails that are still to go; none of them can be retried meanwhile."""
        hold_entries(ids)
        return self.emails().filter(pk__in=ids)

    def _scrub(self, emails: EmailQuerySet) -> tuple[int, int]:
        ids = list(emails.order_by().values_list("pk", flat=True))
        OutboxEntry.objects.filter(pk__in=ids).delete()
        return int(Email.objects.filter(pk__in=ids).update(text_body=None, html_body=None)), 0

    def _delete(self, emails: EmailQuerySet) -> tuple[int, int]:
        # Only the ids are read: bodies of a batch may be more than fits into memory.
        _, counts = emails.only("pk").delete()
        return counts.get(Email._meta.label, 0), counts.get(EmailEvent._meta.label, 0)

    def _delete_orphans(self, done: PurgeResult) -> None:
        while True:
            ids = list(self.orphans().values_list("pk", flat=True)[: self.batch_size])
            if not ids:
                return
            with transaction.atomic(using=EmailEvent.objects.db):
                # Looked at again: its email may have been recorded in this moment.
                count, _ = self.orphans().filter(pk__in=ids).delete()
            done.orphans += count


@dataclass(slots=True, kw_only=True)
class FailedPayloads:
    """Drops what the outbox could send again of emails that were not sent.

    Attributes:
        before: of those that were put into the outbox, or were last tried again, earlier.
        batch_size: how many go in one transaction.
    """

    before: datetime
    batch_size: int = 500

    def entries(self) -> QuerySet[OutboxEntry]:
        """Return those that would go."""
        return OutboxEntry.objects.filter(
            is_waiting=False,
            batch=None,
            created_at__lt=self.before,
            email__state__in=NEVER_SENT_STATES,
        ).order_by()

    def run(self) -> int:
        """Drop them; return how many went."""
        count = 0
        while ids := list(self.entries().values_list("pk", flat=True)[: self.batch_size]):
            count += in_tries(partial(self._drop, ids), using=OutboxEntry.objects.db, tries=_TRIES)
        return count

    def _drop(self, ids: Sequence[UUID]) -> int:
        with transaction.atomic(using=OutboxEntry.objects.db):
            hold_entries(ids)
            still = list(self.entries().filter(pk__in=ids).values_list("pk", flat=True))
            return OutboxEntry.objects.filter(pk__in=still).delete()[0]


def hold_entries(ids: Sequence[UUID]) -> None:
    """Let nobody try emails of the outbox again before the transaction ends."""
    if connections[Email.objects.db].features.has_select_for_update:
        entries = OutboxEntry.objects.filter(pk__in=ids).order_by("pk")
        list(entries.select_for_update().values_list("pk"))
    else:
        take_write_lock(Email.objects.all())  # before anything is read
