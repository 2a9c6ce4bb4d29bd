"""A clock for what waits."""


class Time:
    """A clock that only waiting moves.

    Attributes:
        now_s: what it shows.
        naps: each wait, in seconds.
    """

    def __init__(self) -> None:
        self.now_s = 50.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now_s += seconds
