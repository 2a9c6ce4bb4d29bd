"""Tells workers that there is work. Losing it costs a delay, never an email.

Nothing that fails here reaches whoever sends an email: the email is in the outbox by then.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import transaction
from django.utils.module_loading import import_string

from truncus_django.api.errors import ConfigurationError
from truncus_django.conf import Settings
from truncus_django.outbox.listener import can_notify
from truncus_django.trouble_log import TroubleLog

NOTIFIERS = {
    "worker": "truncus_django.outbox.listener.notify_workers",
    "celery": "truncus_django.queues.celery.notify",
    "tasks": "truncus_django.queues.django_tasks.notify",
}
"""What notifies whoever sends, for each value of ``DISPATCHER``; called with the database's alias.

Imported when it is called: a site needs only the queue that it uses.
"""
PAUSE_S = 30.0
"""For how long a queue that failed is left alone: each try may cost the caller some time."""

_trouble: defaultdict[str, TroubleLog] = defaultdict(TroubleLog)
"""That of each dispatcher."""
_paused_until: dict[str, float] = {}
"""Monotonic seconds until which each dispatcher is left alone."""


@dataclass(slots=True)
class _Notification:
    """What a thread calls after its commits: the first of several calls notifies."""

    using: str
    dispatcher: str
    is_pending: bool = False

    def after_commit(self) -> None:
        """Notify, if nobody has since the last email."""
        if self.is_pending:
            self.is_pending = False
            notify(self.using, self.dispatcher)


class _OfThisThread(threading.local):
    def __init__(self) -> None:
        self.is_sending = False
        self.notifications: dict[tuple[str, str], _Notification] = {}


_here = _OfThisThread()


def notify_after_commit(using: str, settings: Settings) -> None:
    """Notify whoever sends once the open transaction is committed; once for each transaction.

    Args:
        using: the alias of the outbox's database.
        settings: ``dispatcher`` says who is notified.
    """
    if settings.dispatcher == "worker" and not can_notify(using):
        return  # workers look for themselves
    if _here.is_sending:
        return  # this thread finds it in its next step
    key = (using, settings.dispatcher)
    notification = _here.notifications.setdefault(key, _Notification(*key))
    notification.is_pending = True
    # Registered for each email: a savepoint that is rolled back takes its registrations along.
    transaction.on_commit(notification.after_commit, using=using, robust=True)


@contextmanager
def while_sending() -> Iterator[None]:
    """Notify nobody of emails that are written in this thread: it is the one that sends.

    Otherwise a receiver that sends an email about each one would, where tasks run in the process
    that queues them, be called inside itself without end.
    """
    before = _here.is_sending
    _here.is_sending = True
    try:
        yield
    finally:
        _here.is_sending = before


def notify(using: str, dispatcher: str) -> None:
    """Notify whoever sends, now. Nothing is raised, and each kind of trouble is logged once.

    Args:
        using: the alias of the outbox's database.
        dispatcher: one of the values of :attr:`~truncus_django.conf.Settings.dispatcher`.
    """
    if time.monotonic() < _paused_until.get(dispatcher, 0.0):
        return
    try:
        import_string(NOTIFIERS[dispatcher])(using)
    except Exception as exc:  # noqa: BLE001  the emails are in the outbox; see the module
        _paused_until[dispatcher] = time.monotonic() + PAUSE_S
        report(dispatcher, exc)
    else:
        _trouble[dispatcher].clear()


def report(dispatcher: str, exc: Exception) -> None:
    """Log a kind of trouble with a dispatcher's queue, once until it works again.

    What a queue's exception says is not logged: it may hold the password of a broker.
    """
    kind = type(exc).__name__
    _trouble[dispatcher].error(
        kind,
        "Emails are in the outbox, and whoever sends them (DISPATCHER %r) could not be "
        "notified: %s. They are sent later. Further ones are not logged.",
        dispatcher,
        str(exc) if isinstance(exc, ConfigurationError) else kind,
        extra={
            "truncus_event": "dispatcher_not_notified",
            "truncus_dispatcher": dispatcher,
            "truncus_error": kind,
        },
    )


def forget_trouble() -> None:
    """Notify at once again after trouble; for tests."""
    _trouble.clear()
    _paused_until.clear()
