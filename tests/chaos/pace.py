"""Several workers under the limits of a real account, in real time.

They are measured by :mod:`tests.chaos.sliding`, which counts requests as they arrive.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.chaos.processes import ended, start
from tests.chaos.sliding import Arrival

PER_SECOND, PER_MINUTE = 10, 60
TRUNCUS = {"API_KEY": "tr_test_pace", "DELIVERY": "outbox"}
"""With the limits of a real account, which are the defaults."""
START_UP_S = 15.0
"""Workers make their first request within so many seconds."""


@dataclass(frozen=True, slots=True)
class Use:
    """How well the limits were used, from the arrival of the first request on.

    Attributes:
        accepted: requests that were let through.
        allowed: the most that the limits let through in that time.
        requests: all, refused ones among them.
        refused: how many were answered 429.
        minute_s: the median of the seconds from a request that was let through until the next
            one after a minute's number of requests; 60 at best.
    """

    accepted: int
    allowed: int
    requests: int
    refused: int
    minute_s: float

    @property
    def used(self) -> float:
        """The share of what is allowed that was used."""
        return self.accepted / self.allowed

    @property
    def refused_share(self) -> float:
        """The share of requests that were answered 429."""
        return self.refused / self.requests


def use_of(arrivals: Sequence[Arrival], *, seconds: float) -> Use:
    """Return how well the limits were used in so many seconds that were full of work."""
    until = arrivals[0].at + seconds
    inside = [arrival for arrival in arrivals if arrival.at < until]
    accepted = [arrival.at for arrival in inside if not arrival.is_refused]
    later = accepted[PER_MINUTE:]
    return Use(
        accepted=len(accepted),
        allowed=allowed_in(seconds),
        requests=len(inside),
        refused=len(inside) - len(accepted),
        minute_s=median(b - a for a, b in zip(accepted, later, strict=False)),
    )


def allowed_in(seconds: float) -> int:
    """Return the most requests that the limits allow in so many seconds, from the first one on."""
    minutes, rest_s = divmod(seconds, 60)
    return int(minutes) * PER_MINUTE + min(PER_MINUTE, PER_SECOND * math.ceil(rest_s))


def measure(database: Mapping[str, Any], *, seconds: float, workers: int, latency_s: float) -> Use:
    """Let workers send emails that need a request each.

    Args:
        database: settings of a database that other processes can open, and whose outbox is full.
        seconds: from the first request on.
        workers: processes, each making one request at a time.
        latency_s: seconds until a request is answered; how many of them pass before it counts is
            left to chance.
    """
    options = {"per_second": PER_SECOND, "per_minute": PER_MINUTE, "latency_s": latency_s}
    with ExitStack() as stack:
        truncus = stack.enter_context(
            ended(start("tests.chaos.sliding", json.dumps(options), pipes=True))
        )
        assert truncus.stdout is not None
        chaos = {
            "database": database,
            "truncus": {**TRUNCUS, "BASE_URL": json.loads(truncus.stdout.readline())},
        }
        for _ in range(workers):
            stack.enter_context(
                ended(start("django", "truncus_worker", "--verbosity=0", chaos=chaos))
            )
        time.sleep(START_UP_S + seconds)
        told, _ = truncus.communicate("\n", timeout=60)
    return use_of([Arrival(*each) for each in json.loads(told)], seconds=seconds)
