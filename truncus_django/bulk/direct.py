"""Sends what a bulk has written into the outbox, where no worker does."""

import time
from collections.abc import Iterable, Iterator, MutableMapping
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db import transaction

from truncus_django.api.contract import MAX_BATCH_SIZE
from truncus_django.api.errors import QuotaExceeded, TruncusError, kind_of, log_text_of_code
from truncus_django.bulk.statuses import (
    STATUS_FIELDS,
    status_of_deleted,
    status_of_record,
)
from truncus_django.conf import ConfigurationError
from truncus_django.db.clock import moment_of
from truncus_django.mailers import Mailer
from truncus_django.message import TruncusStatus
from truncus_django.models import Email, OutboxAccount, OutboxEntry, Priority, database
from truncus_django.outbox.claim import lease_s
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.states import OUTBOX_STATES

MAX_UNFINISHED = 1000
"""So many emails may wait for their next try while others go on."""
LOOK_AGAIN_S = 1.0
MARGIN_S = 5.0

_Message = TypeVar("_Message")


class AccountPaused(TruncusError):
    """The account makes no request for longer than a bulk waits, or until a person acts.

    Also where ``QUOTA_RESERVE`` holds emails of low priority back.
    """


def refuse_open_transaction() -> None:
    """Refuse to send what a transaction of the caller's may still take back.

    Raises:
        ConfigurationError: one is open.
    """
    try:
        with transaction.atomic(using=database(), durable=True):
            pass
    except RuntimeError:
        raise ConfigurationError(
            "send_bulk() with DELIVERY 'direct' commits each hundred emails, which is not possible "
            "inside transaction.atomic(). Call it outside, or send with DELIVERY 'outbox'."
        ) from None


class DirectSender:
    """Sends the emails of one mailer that are in the outbox.

    Args:
        mailer: whose emails.
    """

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self._dispatcher = Dispatcher(mailer=mailer.name)
        # A worker that died has left its request to others by then.
        self._patience_s = MARGIN_S + max(
            lease_s(mailer.settings), float(mailer.settings.retry_budget)
        )

    def send_due(self) -> None:
        """Send what is due, within the account's limits.

        Raises:
            django.db.DatabaseError: nothing is lost.
        """
        self._dispatcher.drain()

    def finish(
        self, unfinished: MutableMapping[UUID, _Message], *, is_last: bool
    ) -> Iterator[list[tuple[_Message, TruncusStatus]]]:
        """Send what is due, and yield what became of emails; these are taken out of ``unfinished``.

        Emails that wait for their next try may remain.

        Args:
            unfinished: by the primary keys of their records.
            is_last: whether to wait also for the next tries of a few.

        Raises:
            AccountPaused: no request is made at present.
            django.db.DatabaseError: nothing is lost.
        """
        progressed_at = time.monotonic()
        while unfinished:
            idle = self._dispatcher.drain().idle
            finished = _finished(unfinished)
            if finished:
                progressed_at = time.monotonic()
                yield finished
            if not unfinished:
                return
            paused = self._paused_account()
            if paused is None and not is_last and len(unfinished) <= MAX_UNFINISHED:
                return
            wait_s = idle.wait_s(self._dispatcher.clock.now())
            is_too_long = time.monotonic() - progressed_at + wait_s > self._patience_s
            if paused is not None and (is_too_long or _needs_a_person(paused)):
                why = log_text_of_code(paused.error_code)
                raise AccountPaused(f"The account makes no requests at present: {why}")
            why_held_back = idle.held_back.get(self._mailer.name)
            if why_held_back and _holds_low_priority(unfinished):
                raise AccountPaused(f"Emails of low priority are held back: {why_held_back}")
            if is_too_long:
                return
            time.sleep(min(wait_s, LOOK_AGAIN_S))

    def _paused_account(self) -> OutboxAccount | None:
        """Return the account if it is paused. A run of the dispatcher tells only if more is due."""
        if not self._mailer.has_account:
            return None
        now = moment_of(self._dispatcher.clock.now())
        accounts = OutboxAccount.objects.filter(pk=self._mailer.client.account)
        return accounts.filter(paused_until__gt=now).first()


def _holds_low_priority(unfinished: Iterable[UUID]) -> bool:
    """Whether any of the first of these emails waits with low priority."""
    first = list(islice(unfinished, MAX_BATCH_SIZE))
    return OutboxEntry.objects.filter(pk__in=first, priority=Priority.LOW).exists()


def _needs_a_person(paused: OutboxAccount) -> bool:
    """Whether waiting does not help: the key, a scope or a quota."""
    kind = kind_of(paused.error_code)
    return kind is not None and (kind.is_misconfiguration or issubclass(kind, QuotaExceeded))


def _finished(
    unfinished: MutableMapping[UUID, _Message],
) -> list[tuple[_Message, TruncusStatus]]:
    """Take the emails out of ``unfinished`` that are not to be sent any more."""
    records = Email.objects.order_by().only(*STATUS_FIELDS).in_bulk(list(unfinished))
    found = []
    for pk in list(unfinished):
        email = records.get(pk)
        if email is None or email.state not in OUTBOX_STATES:
            status = status_of_deleted(pk) if email is None else status_of_record(email)
            found.append((unfinished.pop(pk), status))
    return found
