"""How far a long job is: a bar on a terminal that has tqdm, a line now and then anywhere else."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress:
    """Tells how many of ``total`` are done.

    Args:
        total: how many there are to do, as far as is known; ``None`` where that is not known.
        what: the things that are counted, in the plural.
        stream: where to write.
        every: how many things, or ``every_s`` seconds, lie between two lines.
        clock: monotonic seconds, for tests.
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        *,
        stream: TextIO,
        every: int = 1000,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._what = what
        self._stream = stream
        self._every = every
        self._every_s = every_s
        self._clock = clock
        self._done = self._told_done = 0
        self._told_at = clock()
        self._bar = _bar(total, what, stream)

    def advance(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = self._clock()
        if self._done - self._told_done >= self._every or now - self._told_at >= self._every_s:
            total = "" if self._total is None else f" of {max(self._total, self._done)}"
            self._stream.write(f"{self._done}{total} {self._what}\n")
            self._stream.flush()
            self._told_at, self._told_done = now, self._done

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()


def _bar(total: int | None, what: str, stream: TextIO) -> "tqdm[None] | None":
    if not stream.isatty():
        return None
    try:
        from tqdm import tqdm  # the extra "progress"
    except ImportError:
        return None
    return tqdm(total=total, unit=f" {what}", file=stream)
