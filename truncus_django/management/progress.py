"""How far a long job is: a bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from typing import TextIO

_REDRAW_S = 0.1
_BAR_WIDTH = 30


class Progress:
    """Tells how many of ``total`` are done.

    Args:
        total: how many there are to do, as far as is known.
        what: the things that are counted, in the plural.
        stream: where to write; a bar is drawn only where it is a terminal.
        every: how many things, or ``every_s`` seconds, lie between two lines elsewhere.
        clock: monotonic seconds, for tests.
    """

    def __init__(
        self,
        total: int,
        what: str,
        *,
        stream: TextIO,
        every: int = 1000,
        every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = 0
        self._total = total
        self._what = what
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._every = every
        self._every_s = every_s
        self._clock = clock
        self._told_at = clock()
        self._told_done = 0
        self._is_bar_drawn = False

    def advance(self, count: int = 1) -> None:
        """Note that ``count`` more are done."""
        self.done += count
        now = self._clock()
        if self._is_terminal:
            if now - self._told_at >= _REDRAW_S or self.done >= self._total:
                self._draw(now)
        elif self.done - self._told_done >= self._every or now - self._told_at >= self._every_s:
            self._stream.write(f"{self.done} of {self._most} {self._what}\n")
            self._stream.flush()
            self._told_at, self._told_done = now, self.done

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._is_bar_drawn:
            self._draw(self._clock())
            self._stream.write("\n")
            self._is_bar_drawn = False

    @property
    def _most(self) -> int:
        return max(self._total, self.done)

    def _draw(self, now: float) -> None:
        share = self.done / self._most if self._most else 1.0
        bar = ("#" * round(_BAR_WIDTH * share)).ljust(_BAR_WIDTH, ".")
        self._stream.write(f"\r[{bar}] {share:4.0%}  {self.done} of {self._most} {self._what}")
        self._stream.flush()
        self._told_at = now
        self._is_bar_drawn = True
