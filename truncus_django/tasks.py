"""Tasks that send what is in the outbox, for Celery and for Django Tasks.

``dispatch``         Celery's task ``truncus_django.dispatch``; ``None`` where Celery is missing
``dispatch_outbox``  the task of Django Tasks, made when it is first asked for

Other systems look into modules of this name as well, so importing it needs none of the two.

A task runs for a short while, never waits long, and carries no emails. Where more is due later it
puts one follow-up into the queue for all workers. What is lost of all that, a task or its worker,
costs a delay: whichever task comes next, of another email or of the schedule, finds everything.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.db.models import Q, QuerySet

from truncus_django.conf import ConfigurationError
from truncus_django.db.clock import moment_of
from truncus_django.outbox.notify import report, while_sending

if TYPE_CHECKING:
    from truncus_django.models import OutboxAccount

try:
    from celery import shared_task
except ImportError:
    shared_task = None

TASK_NAME = "truncus_django.dispatch"
"""Of Celery's task, for ``task_routes`` and ``beat_schedule``."""
TASKS_ALIAS = "truncus"
"""Where ``TASKS`` has this alias, Django Tasks are queued there, else in ``"default"``."""

RUN_S = 30.0
"""A task begins no request after so many seconds; others want the worker, too."""
LONGEST_WAIT_S = 1.5
"""A task waits so long for the account's limits; a follow-up waits for what takes longer."""
SOONEST_S = 1.0
FURTHEST_S = 600.0
"""Brokers do not hold a task back for long: what is due later is looked at again after this."""
SLACK_S = 1.0
"""A follow-up that comes so much too late will do."""
LOST_AFTER_S = 30.0
"""A follow-up that is so much overdue was lost."""
EXPIRES_S = 600.0
"""Tasks that piled up while no worker ran are dropped after this."""


def __getattr__(name: str) -> Any:
    """Make the task of Django Tasks, whose settings are checked by that."""
    if name == "dispatch_outbox":
        return _django_task()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# What each task does ------------------------------------------------------------------------------

Put = Callable[[float, float], None]
"""Puts a follow-up into the queue: for which moment, in unix seconds, and in how many seconds."""


def run(put: Put | None, follow_up_at: float | None = None) -> None:
    """Send what is due, for a while, and see to it that what is due later is not forgotten.

    Args:
        put: how to queue a follow-up; ``None`` where the queue holds nothing back.
        follow_up_at: the moment that this task is the follow-up for.

    Raises:
        django.db.DatabaseError: nothing is lost; the next task goes on.
    """
    # Here and not above: queues import this module before Django's models are there.
    from truncus_django.outbox.dispatcher import Dispatcher

    if follow_up_at is not None:
        _clear_follow_up(follow_up_at)
    dispatcher = Dispatcher()
    with while_sending():
        stats = dispatcher.drain(deadline=time.monotonic() + RUN_S, longest_wait_s=LONGEST_WAIT_S)
    moment = stats.idle.due_at
    if put is not None and moment is not None:
        _follow_up(moment, dispatcher.clock.now(), put)


def _follow_up(moment: float, now: float, put: Put) -> None:
    """Queue a follow-up, unless one is in the queue for about that time, whoever put it there.

    Of the accounts' rows the first keeps the time for all: a task sends for all accounts.
    """
    moment = min(max(moment, now + SOONEST_S), now + FURTHEST_S)
    keeper = _keeper()
    is_free = (
        Q(follow_up_at=None)
        | Q(follow_up_at__lt=moment_of(now - LOST_AFTER_S))
        | Q(follow_up_at__gt=moment_of(moment + SLACK_S))
    )
    rows = _accounts().filter(is_free, account=keeper)
    if keeper is not None and rows.update(follow_up_at=moment_of(moment)):
        try:
            put(moment, moment - now)
        except BaseException:
            _clear_follow_up(moment)
            raise


def _clear_follow_up(moment: float) -> None:
    """Note that the follow-up for a moment is in the queue no longer."""
    rows = _accounts().filter(account=_keeper(), follow_up_at=moment_of(moment))
    rows.update(follow_up_at=None)


def _keeper() -> str | None:
    return _accounts().order_by("pk").values_list("pk", flat=True).first()


def _accounts() -> "QuerySet[OutboxAccount]":
    # Here and not above, as in run().
    from truncus_django.models import OutboxAccount

    return OutboxAccount.objects.all()


# Celery -------------------------------------------------------------------------------------------


def _run_by_celery(follow_up_at: float | None = None) -> None:
    """Send what is in the outbox."""
    run(_put_into_celery, follow_up_at)


dispatch: Any = None
"""Celery's task."""
if shared_task is not None:
    dispatch = shared_task(name=TASK_NAME, ignore_result=True)(_run_by_celery)


def _put_into_celery(moment: float, wait_s: float) -> None:
    task = celery_task()
    if task.app.conf.task_always_eager:
        return  # it would run here and now
    try:
        queue_celery_task(task, args=(moment,), countdown=wait_s, expires=wait_s + EXPIRES_S)
    except Exception as exc:
        report("celery", exc)
        raise


def celery_task() -> Any:
    """Return the task as it is in the app of this thread; others may have another app."""
    return dispatch.app.tasks[TASK_NAME]


def queue_celery_task(task: Any, **options: Any) -> None:
    """Put the task into Celery's queue; fail at once where the broker is gone.

    A connection that was idle for long may be dead: that is found out by the first try.
    """
    once_more = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    with task.app.producer_or_acquire() as producer:
        producer.connection.ensure_connection(max_retries=0)
        task.apply_async(
            producer=producer, ignore_result=True, retry=True, retry_policy=once_more, **options
        )


# Django Tasks -------------------------------------------------------------------------------------


def _run_by_django_tasks(follow_up_at: float | None = None) -> None:
    """Send what is in the outbox."""
    task = _django_task()
    run(_put_into_django_tasks if task.get_backend().supports_defer else None, follow_up_at)


# Workers find a task by its function's name.
_run_by_django_tasks.__qualname__ = _run_by_django_tasks.__name__ = "dispatch_outbox"


def _put_into_django_tasks(moment: float, wait_s: float) -> None:
    task = _django_task()
    task.using(run_after=moment_of(time.time() + wait_s)).enqueue(moment)


def _django_task() -> Any:
    """Return the task, for the backend ``"truncus"`` where there is one, and a queue that it has.

    Raises:
        ConfigurationError: there are no Django Tasks.
    """
    task, backends = _django_tasks()
    alias = TASKS_ALIAS if TASKS_ALIAS in backends.settings else "default"
    queues = backends[alias].queues
    queue = "default" if not queues or "default" in queues else min(queues)
    return task(backend=alias, queue_name=queue)(_run_by_django_tasks)


def _django_tasks() -> tuple[Any, Any]:
    """Return the decorator and the backends, of Django or of what stands in for it before 6.0."""
    for name in ("django.tasks", "django_tasks"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return module.task, module.task_backends
    raise ConfigurationError(
        "DISPATCHER is 'tasks', and Django has no tasks before 6.0: "
        'pip install "truncus-django[tasks]".'
    )
