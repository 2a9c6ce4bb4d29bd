"""Sends that a coroutine awaits, and that may be cancelled while they are on their way.

A thread that makes a request cannot be stopped, and whoever was cancelled does not learn what came
of it. So a cancelled send begins nothing new, keeps the keys of its requests, and is over before
the cancellation goes on.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event, Lock
from typing import TypeVar

from asgiref.sync import sync_to_async

from truncus_django.api.retry import no_more_tries

_Result = TypeVar("_Result")


class AwaitedSend:
    """A send as the thread that makes it knows it.

    Attributes:
        cancelled: set when nobody awaits it any more.
    """

    def __init__(self) -> None:
        self.cancelled = Event()
        self.is_over = False
        self._once_learned: list[Callable[[], None]] = []
        self._has_begun = False
        self._lock = Lock()

    def begin(self) -> None:
        """Note that it begins; raise :class:`asyncio.CancelledError` if it may not."""
        with self._lock:
            self.stop_if_cancelled()
            self._has_begun = True

    def cancel(self) -> bool:
        """Let it begin nothing more; return whether it has begun at all."""
        with self._lock:
            self.cancelled.set()
            return self._has_begun

    def stop_if_cancelled(self) -> None:
        """Raise :class:`asyncio.CancelledError`, where nothing is half done, if it is cancelled."""
        if self.cancelled.is_set():
            raise asyncio.CancelledError

    def once_learned(self, work: Callable[[], None]) -> None:
        """Have something done when whoever awaits the send has its answer; never, if cancelled."""
        self._once_learned.append(work)

    def has_been_learned(self) -> None:
        """Do what was to be done then."""
        for work in self._once_learned:
            work()


_current: ContextVar[AwaitedSend | None] = ContextVar("truncus_awaited_send", default=None)


def current_awaited_send() -> AwaitedSend | None:
    """Return the send that this thread makes for a coroutine; ``None`` where it makes none.

    A context that outlives the send, as a receiver of a signal may keep one, is no part of it.
    """
    send = _current.get()
    return None if send is None or send.is_over else send


def after_answer(work: Callable[[], None]) -> None:
    """Do ``work`` when whoever sends knows the answer: now, or when a coroutine has it."""
    send = current_awaited_send()
    if send is None:
        work()
    else:
        send.once_learned(work)


async def in_thread(work: Callable[[], _Result], *, thread_sensitive: bool) -> _Result:
    """Return what ``work``, which sends, returns in a thread; raise what it raises.

    Args:
        thread_sensitive: as that of ``sync_to_async()``: whether it uses the database.

    Raises:
        RuntimeError: there is no event loop.
        asyncio.CancelledError: after ``work`` is over; at once where it had not begun.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "There is no event loop of asyncio here. In synchronous code, call send() instead."
        ) from None
    send = AwaitedSend()

    def unless_cancelled() -> _Result:
        tokens = _current.set(send), no_more_tries.set(send.cancelled)
        try:
            send.begin()
            return work()
        finally:
            send.is_over = True
            _current.reset(tokens[0])
            no_more_tries.reset(tokens[1])

    task = asyncio.ensure_future(
        sync_to_async(unless_cancelled, thread_sensitive=thread_sensitive)()
    )
    try:
        result = await asyncio.shield(task)
    except asyncio.CancelledError:
        if not send.cancel():
            raise  # nothing has begun, and nothing will
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:  # once is enough
                continue
        if not task.cancelled():
            task.exception()  # has been seen
        raise
    except BaseException:
        send.has_been_learned()
        raise
    send.has_been_learned()
    return result
