"""Queues the task of Celery."""

from collections.abc import Callable
from contextvars import copy_context
from threading import Thread

from django.db import connections

from truncus_django import tasks
from truncus_django.conf import ConfigurationError

QUEUE_WITHIN_S = 2.0
"""For how long a broker that does not answer may delay whoever sends an email."""


def notify(using: str) -> None:
    """Queue the task.

    Raises:
        ConfigurationError: Celery is not installed.
        TimeoutError: the broker does not answer.
        Exception: whatever the broker's client raises.
    """
    if tasks.dispatch is None:
        raise ConfigurationError(
            "DISPATCHER is 'celery', and Celery is not installed: "
            'pip install "truncus-django[celery]".'
        )
    task = tasks.celery_task()
    if task.app.conf.task_always_eager:
        task.apply_async()
    else:
        _within(QUEUE_WITHIN_S, lambda: tasks.queue_celery_task(task, expires=tasks.EXPIRES_S))


def _within(limit_s: float, function: Callable[[], None]) -> None:
    """Call a function that may hang, and stop waiting for it after ``limit_s``.

    Raises:
        TimeoutError: it takes longer.
        Exception: what it raised.
    """
    raised: list[Exception] = []

    def call() -> None:
        try:
            function()
        except Exception as exc:  # noqa: BLE001  raised below
            raised.append(exc)
        finally:
            connections.close_all()  # of this thread: what receivers of Celery's signals opened

    thread = Thread(target=copy_context().run, args=(call,), daemon=True, name="truncus-notify")
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise TimeoutError
    if raised:
        raise raised[0]
