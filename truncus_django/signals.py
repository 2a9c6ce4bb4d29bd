"""Signals around a send.

``pre_send`` (``message``, ``payload``, ``alias``): before the request. Receivers may change the
message, and the payload, a dict of the API's fields. The message is sent as they leave it, with
their changes of the payload. If they change a field in both, to different values, the message is
refused with a :class:`~truncus_django.api.errors.MessageError`. If they leave it without
recipients, it is skipped. They may raise :class:`~truncus_django.api.errors.SendCancelled` to
cancel the email.

``post_send`` (``message``, ``status``, ``alias``): Truncus accepted the email. ``status`` is the
:class:`~truncus_django.message.TruncusStatus` that is also ``message.truncus_status``.

``send_failed`` (``message``, ``error``, ``alias``): the email was not sent. ``error`` is the
:class:`~truncus_django.api.errors.TruncusError` that says why.

``alias`` is the mailer's name in ``MAILERS`` (Django 6.1 and later) or ``None``. The sender is the
backend's class. If a receiver of ``post_send`` or ``send_failed`` fails, nothing else does, and the
failure is logged once. Emails that such a receiver sends, or a log handler about its failure, send
neither of these signals.

If emails are recorded, two more signals are sent after the transaction is committed, once each:

``email_state_changed`` (``email``, ``old_state``, ``new_state``): the state of a recorded email
changed. ``email_event`` (``email``, ``event``): something happened to it, such as an open or a
click. Their sender is :class:`~truncus_django.models.Email`.

``unsubscribed`` (``address``, ``list_name``, ``tenant_id``): somebody used an unsubscribe link, and
gets no more emails of the list. It is sent after the commit, once until the address may be mailed
again. Its sender is :class:`~truncus_django.models.SuppressedAddress`.

``quota_threshold`` (``mailers``, ``share``, ``quota``): 80, 95 or 100 % of an account's monthly
quota are used up; once each in a month, also with several processes. ``mailers`` is the tuple of
names of the mailers that send through the account, ``share`` is 0.8, 0.95 or 1.0, and ``quota`` is
a :class:`~truncus_django.quota.overview.Quota`. Where one answer reaches several, the highest is
told. The sender is :class:`~truncus_django.models.AccountQuota`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from django.dispatch import Signal

from truncus_django.trouble_log import TroubleLog

pre_send = Signal()
post_send = Signal()
send_failed = Signal()

email_state_changed = Signal()
email_event = Signal()
unsubscribed = Signal()

quota_threshold = Signal()

__all__ = [
    "email_event",
    "email_state_changed",
    "post_send",
    "pre_send",
    "quota_threshold",
    "send_failed",
    "unsubscribed",
]


# Asynchronous receivers run in another thread, to which a context goes along.
_is_sending_signal: ContextVar[bool] = ContextVar("is_sending_signal", default=False)
_trouble = TroubleLog()


def _is_elsewhere(record: logging.LogRecord) -> bool:
    return not _is_sending_signal.get()


logging.getLogger("django.dispatch").addFilter(_is_elsewhere)


def send_safely(signal: Signal, **facts: Any) -> None:
    """Send a signal; a receiver that fails harms nobody, and is logged once.

    Django's own log line for it, each time, may be emailed to the admins; that email has events
    of its own, at which the receiver fails again, without end.
    """
    outer = _is_sending_signal.set(True)
    try:
        answers = signal.send_robust(**facts)
    finally:
        _is_sending_signal.reset(outer)
    for receiver, answer in answers:
        name = getattr(receiver, "__qualname__", type(receiver).__name__)
        if isinstance(answer, Exception):
            kind = type(answer).__name__
            _trouble.error(
                name,
                "The receiver %s fails: %s",
                name,
                kind,
                extra={
                    "truncus_event": "receiver_failed",
                    "truncus_receiver": name,
                    "truncus_error": kind,
                },
            )


_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)


@contextmanager
def outermost() -> Iterator[bool]:
    """Yield ``True`` unless this block already runs in this context; its exceptions are dropped.

    Signals and failure logs run receivers and log handlers that may send email themselves,
    Django's handler for the admins above all. Those inner sends are neither signalled nor logged
    again, or it would have no end.
    """
    if _is_inside.get():
        yield False
        return
    outer = _is_inside.set(True)
    try:
        with suppress(Exception):
            yield True
    finally:
        _is_inside.reset(outer)
