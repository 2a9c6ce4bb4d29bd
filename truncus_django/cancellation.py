"""Sends that are awaited, and may be cancelled while they are on their way.

A thread that makes a request cannot be stopped, and whoever was cancelled does not learn what came
of it. So a cancelled send begins nothing new, keeps the keys of its requests, and is over before
the cancellation goes on.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Event, Lock
from typing import TypeVar

from asgiref.sync import sync_to_async

from truncus_django.api.retry import no_more_tries

_Result = TypeVar("_Result")


class Cancellation:
    """Whether a send that is awaited has been cancelled, for the thread that sends.

    Attributes:
        forget: what to call for each answer if it has not: takes away what was noted of a request
            in case that nobody learns its answer.
    """

    def __init__(self) -> None:
        self._requested = Event()
        self.forget: list[Callable[[], None]] = []
        self._has_begun = False
        self._is_over = False
        self._lock = Lock()

    def begin(self) -> None:
        """Note that the send begins; raise :class:`asyncio.CancelledError` if it may not."""
        with self._lock:
            self.stop_if_requested()
            self._has_begun = True

    @contextmanager
    def ending_retries(self) -> Iterator[None]:
        """Let no request be tried again once it is cancelled, in a ``with`` block."""
        token = no_more_tries.set(self._requested)
        try:
            yield
        finally:
            no_more_tries.reset(token)

    def end(self) -> None:
        """Note that the send is over: what it left a context to is no part of it."""
        self._is_over = True

    def request(self) -> bool:
        """Ask for the end of the send; return whether it has begun."""
        with self._lock:
            self._requested.set()
            return self._has_begun

    @property
    def is_requested(self) -> bool:
        """Whether it has been cancelled."""
        return self._requested.is_set()

    @property
    def is_over(self) -> bool:
        """Whether the send has ended."""
        return self._is_over

    def stop_if_requested(self) -> None:
        """Raise :class:`asyncio.CancelledError` where nothing is half done, if cancelled."""
        if self.is_requested:
            raise asyncio.CancelledError


_current: ContextVar[Cancellation | None] = ContextVar("truncus_cancellation", default=None)


def current_cancellation() -> Cancellation | None:
    """Return that of the send that this thread makes; ``None`` where nobody awaits it."""
    cancellation = _current.get()
    return None if cancellation is None or cancellation.is_over else cancellation


async def in_thread(send: Callable[[], _Result], *, thread_sensitive: bool) -> _Result:
    """Return what ``send`` returns, called in a thread; raise what it raises.

    Args:
        thread_sensitive: as that of ``sync_to_async()``: whether it uses the database.

    Raises:
        RuntimeError: there is no event loop.
        asyncio.CancelledError: after ``send`` is over; at once where it had not begun.
    """
    cancellation = Cancellation()

    def send_unless_cancelled() -> _Result:
        token = _current.set(cancellation)
        try:
            cancellation.begin()
            with cancellation.ending_retries():
                return send()
        finally:
            cancellation.end()
            _current.reset(token)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "There is no event loop of asyncio here. In synchronous code, call send() instead."
        ) from None
    call = sync_to_async(send_unless_cancelled, thread_sensitive=thread_sensitive)
    task = asyncio.ensure_future(call())
    try:
        result = await asyncio.shield(task)
    except asyncio.CancelledError:
        if not cancellation.request():
            raise  # nothing has begun, and nothing will
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:  # once is enough
                continue
        if not task.cancelled():
            task.exception()  # has been seen
        raise
    finally:
        if not cancellation.is_requested:
            for forget in cancellation.forget:
                forget()
    return result
