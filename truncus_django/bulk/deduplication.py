"""Emails of a bulk → the outbox, but for those that an earlier run has written.

All in one transaction: an email is in the outbox if, and only if, its bulk knows it.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import IntegrityError, connections, transaction

from truncus_django.bulk.statuses import STATUS_FIELDS
from truncus_django.conf import Settings
from truncus_django.db.bulk import insert
from truncus_django.db.locks import take_write_lock
from truncus_django.db.retry import PASSING, in_tries
from truncus_django.models import BulkEmail, Email, OutboxEntry, database
from truncus_django.outbox.enqueue import Row, enqueue
from truncus_django.states import State

NOT_SENT = frozenset({State.FAILED, State.REJECTED, State.EXPIRED})
"""States of emails that a later run tries again."""

_TRIES = 5


def enqueue_new(rows: Mapping[UUID, Row], key: str, settings: Settings) -> dict[UUID, Email]:
    """Write emails into the outbox that are new to the bulk; return the records of the others.

    Args:
        rows: by the identity of each email.
        key: of the bulk.
        settings: of its mailer.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    using = database()

    def write() -> dict[UUID, Email]:
        with transaction.atomic(using=using):
            take_write_lock(BulkEmail.objects.all())
            known = known_emails(list(rows))
            for identity in _forget_unsent(known):
                del known[identity]
            new = {identity: row for identity, row in rows.items() if identity not in known}
            if new:
                enqueue(list(new.values()), settings)
                # In one order for all processes, so that none waits for another in a circle.
                bulk_emails = [
                    BulkEmail(id=identity, key=key, email_id=new[identity].email.pk)
                    for identity in sorted(new)
                ]
                insert(bulk_emails, using=using)
            return known

    # Another process was faster with one of them; the next try finds it. A transaction of the
    # caller's may have ended with anything else.
    is_inside = connections[using].in_atomic_block
    worth_another = (IntegrityError,) if is_inside else (*PASSING, IntegrityError)
    return in_tries(write, using=using, tries=_TRIES, worth_another=worth_another)


def known_emails(identities: Sequence[UUID]) -> dict[UUID, Email]:
    """Return the records of emails that a bulk has written, by their identities."""
    found = BulkEmail.objects.filter(pk__in=identities).select_related("email")
    fields = [f"email__{name}" for name in STATUS_FIELDS]
    return {each.pk: each.email for each in found.only("email_id", *fields)}


def _forget_unsent(known: Mapping[UUID, Email]) -> list[UUID]:
    """Let emails that failed be written anew; return their identities.

    What the outbox kept of them goes, so that nobody sends the earlier one from the admin as well.
    """
    unsent = {email.pk: identity for identity, email in known.items() if email.state in NOT_SENT}
    if not unsent:
        return []
    entries = OutboxEntry.objects.filter(pk__in=list(unsent)).order_by("pk")
    list(entries.select_for_update().values_list("pk"))  # as whoever retries them does
    emails = Email.objects.filter(pk__in=list(unsent), state__in=NOT_SENT).order_by()
    pks = list(emails.values_list("pk", flat=True))
    OutboxEntry.objects.filter(pk__in=pks).delete()
    BulkEmail.objects.filter(email__in=pks).delete()
    return [unsent[pk] for pk in pks]
