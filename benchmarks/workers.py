"""A process of its own for each that is measured, and how to ask it for work."""

import multiprocessing
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from benchmarks.processes import WrongWork

ANSWER_S = 1800.0
"""Nothing that is measured stays silent for so long."""

Serve = Callable[..., Callable[[Any], Any]]


class Worker:
    """The parent's end of a process, as long as the ``with`` lasts.

    Args:
        title: who it is, for what goes wrong.
        serve: called in the fresh process with ``arguments``; what it returns answers each order.
            A generator yields how far it is, and returns the answer.
    """

    def __init__(self, title: str, serve: Serve, *arguments: Any) -> None:
        self.title = title
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(self._theirs, serve, arguments), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that its death is seen as an end of the pipe
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # it may have died
            self._pipe.send(None)
        self._process.join(10)

    def ask(self, order: Any, progress: Callable[[str], None] = lambda text: None) -> Any:
        """Return what the process answers; raise :class:`WrongWork` for what failed there.

        Args:
            progress: called with what the process tells meanwhile.
        """
        with suppress(OSError):  # it may have died, which reading will tell
            self._pipe.send(order)
        while True:
            if not self._pipe.poll(ANSWER_S):
                raise WrongWork(f"{self.title}: no answer in {ANSWER_S:g} s")
            try:
                answer = self._pipe.recv()
            except (EOFError, OSError):
                raise WrongWork(f"{self.title}: its process died") from None
            if isinstance(answer, _Failed):
                raise WrongWork(f"{self.title} failed with {answer.text}")
            if not isinstance(answer, _Progress):
                return answer
            progress(f"{self.title}: {answer.text}")


@dataclass(frozen=True, slots=True)
class _Failed:
    text: str


@dataclass(frozen=True, slots=True)
class _Progress:
    text: str


def _work(pipe: "Connection[Any, Any]", serve: Serve, arguments: tuple[Any, ...]) -> None:
    """Be the process: answer what the pipe says until it says ``None``."""
    respond = serve(*arguments)
    while (order := pipe.recv()) is not None:
        try:
            answer = respond(order)
            if isinstance(answer, Generator):
                answer = _told(answer, pipe)
        except Exception as exc:  # noqa: BLE001  told to the parent, which ends the run
            answer = _Failed(f"{type(exc).__name__}: {exc}")
        pipe.send(answer)


def _told(work: Generator[str, None, Any], pipe: "Connection[Any, Any]") -> Any:
    """Tell the parent how far the work is; return its answer."""
    while True:
        try:
            pipe.send(_Progress(next(work)))
        except StopIteration as end:
            return end.value
