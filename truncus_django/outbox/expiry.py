"""Emails that are not sent in time."""

from collections.abc import Sequence
from uuid import UUID

from truncus_django.db.clock import Clock, moment_of
from truncus_django.db.locks import lock_free_rows, take_write_lock
from truncus_django.db.transactions import committed
from truncus_django.log import transitions
from truncus_django.log.transitions import EmailUpdate
from truncus_django.models import OutboxEntry
from truncus_django.states import State

_AT_ONCE = 100


def expire(email_ids: Sequence[UUID]) -> None:
    """Record that emails have expired, and drop their payloads; in the caller's transaction."""
    transitions.advance_emails([EmailUpdate(pk, State.EXPIRED) for pk in email_ids], ["state"])
    OutboxEntry.objects.filter(pk__in=email_ids).delete()


def expire_overdue(clock: Clock) -> int:
    """Record the expiry of waiting emails; return how many expired.

    Raises:
        django.db.DatabaseError: the other emails are left to the next time.
    """
    expired = 0
    while True:
        overdue = OutboxEntry.objects.filter(
            is_waiting=True, expires_at__lte=moment_of(clock.now())
        )
        if not overdue.exists():  # the usual case takes no lock
            return expired
        with committed(clock.using):
            take_write_lock(OutboxEntry.objects.all())
            free = lock_free_rows(overdue).order_by("pk")
            ids = list(free.values_list("pk", flat=True)[:_AT_ONCE])
            if not ids:
                return expired
            expire(ids)
            expired += len(ids)
