"""Work on the database from a coroutine, where Django refuses it."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from django.db import connections

__all__ = ["is_database_refused", "off_the_event_loop"]

_Result = TypeVar("_Result")


def is_database_refused() -> bool:
    """Return whether Django raises ``SynchronousOnlyOperation`` here, as it does in coroutines.

    See "Async safety" in Django's documentation, also for the variable of the environment.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def off_the_event_loop(work: Callable[[], _Result]) -> _Result:
    """Return what ``work`` returns, done where it may use the database; raise what it raises.

    In a coroutine another thread does it, and this one waits. The thread is a new one: asgiref's
    may be waiting for this event loop. Its connections are its own and closed afterwards, as
    nobody else would close them.
    """
    if not is_database_refused():
        return work()

    def work_and_close() -> _Result:
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1, thread_name_prefix="truncus-database") as thread:
        return thread.submit(copy_context().run, work_and_close).result()
