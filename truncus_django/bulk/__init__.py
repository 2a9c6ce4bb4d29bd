"""Many emails with one call: paced, in constant memory, and safe to call again."""

import sys
from collections.abc import Callable, Iterable, Sized
from typing import Any

from django.apps import apps
from django.core.mail import EmailMessage

from truncus_django.bulk.result import BulkInterrupted, BulkResult
from truncus_django.conf import ConfigurationError, get_settings, mailers
from truncus_django.event_loop import is_database_refused
from truncus_django.mailers import Mailer, get_mailer
from truncus_django.message import TruncusStatus
from truncus_django.progress import Progress

__all__ = ["BulkInterrupted", "BulkResult", "send_bulk"]

MAX_KEY_LENGTH = 200


def send_bulk(
    messages: Iterable[EmailMessage],
    *,
    key: str | None = None,
    on_result: Callable[[EmailMessage, TruncusStatus], object] | None = None,
    progress: bool = False,
    using: str | None = None,
) -> BulkResult:
    """Send messages, any number of them, and return how many were sent, and why others were not.

    A hundred at a time are read from ``messages`` and written into the outbox's tables. With
    ``DELIVERY = "direct"`` this process then sends them, within the account's limits; with
    ``"outbox"`` the workers do. One bad message does not stop the others. Messages without a
    ``priority`` get ``"low"``.

    With a ``key``, whoever is in the records under it is skipped: after a crash, or a day later,
    the same call goes on where the last one ended. Emails that failed are tried again; those that
    may have been accepted (``unknown``) are not. A message is known by its own
    ``idempotency_key``, else by its recipients: of two with the same, the second is skipped.

    Args:
        messages: a list, a generator or any other iterable of messages.
        key: names the bulk, such as ``"newsletter-2026-11"``; up to 200 characters.
        on_result: called with each message and its :class:`~truncus_django.message.TruncusStatus`
            once its fate is known, also if it is skipped. If it fails, the bulk ends.
        progress: show on standard error how far it is.
        using: the mailer's name in ``MAILERS``; the default one if ``None``.

    Raises:
        BulkInterrupted: it ended too soon, because ``messages`` or ``on_result`` raised an
            exception, the database failed, or the account makes no requests at present. Its
            ``result`` tells what was sent.
        ConfigurationError: the settings are wrong, emails are not recorded, this is a coroutine,
            or with ``DELIVERY = "direct"`` a transaction is open.
        TypeError, ValueError: an argument is none.
    """
    check_arguments(messages, key)
    mailer = bulk_mailer(using)
    # Here, because its models need the app, which is optional.
    from truncus_django.bulk.job import BulkJob

    total = len(messages) if isinstance(messages, Sized) else None
    shown = Progress(total, "emails", stream=sys.stderr) if progress else None
    try:
        job = BulkJob(
            messages,
            key=key,
            mailer=mailer,
            on_result=on_result,
            on_progress=shown.advance if shown else None,
        )
        return job.run()
    finally:
        if shown:
            shown.close()


def check_arguments(messages: Any, key: Any) -> None:
    """Refuse what cannot be messages or a key.

    Raises:
        TypeError, ValueError: it is none, and what to give instead.
    """
    if isinstance(messages, EmailMessage | str) or not isinstance(messages, Iterable):
        what = type(messages).__name__
        raise TypeError(f"send_bulk() takes a list or a generator of messages, not {what}.")
    if key is None:
        return
    if not isinstance(key, str):
        raise TypeError(f"The key of a bulk is a string, not {type(key).__name__}.")
    if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        raise ValueError(
            f"The key of a bulk is 1 to {MAX_KEY_LENGTH} printable characters, such as "
            "'newsletter-2026-11'."
        )


def bulk_mailer(using: str | None) -> Mailer:
    """Return the mailer that a bulk is sent by, which must be Truncus and record its emails.

    Raises:
        ConfigurationError: it does not, or the database cannot be used here.
    """
    if is_database_refused():
        raise ConfigurationError(
            "send_bulk() uses the database, and Django allows no queries in a coroutine. Call "
            "await sync_to_async(send_bulk)(messages) instead, with sync_to_async of asgiref.sync."
        )
    if not apps.is_installed("truncus_django"):
        raise ConfigurationError(
            "send_bulk() keeps its place in the database, which needs 'truncus_django' in "
            "INSTALLED_APPS and manage.py migrate."
        )
    known = {alias: alias or "" for alias, _ in mailers()}
    alias = "default" if using is None and None not in known else using
    if alias not in known:
        raise ConfigurationError(
            f"The mailer {alias or 'default'!r} is not Truncus: give send_bulk(using=…) one of "
            "MAILERS whose BACKEND is truncus_django.backend.TruncusBackend. Test runners replace "
            "the backends; the fixture truncus_emulator brings Truncus back."
        )
    mailer = get_mailer(known[alias])
    if get_settings().accounts is None:
        _ = mailer.client  # whose settings are checked here
    if not mailer.settings.record:
        raise ConfigurationError(
            "send_bulk() knows from the records who got an email, and RECORD is off. Set "
            "TRUNCUS['RECORD'] = True."
        )
    return mailer
