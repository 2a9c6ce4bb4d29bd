"""Trouble on demand: what can go wrong between a client and Truncus, scripted or at random."""

import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can be made to go wrong with one request.

    ================  ==========================================================  =========
    name              what the client sees                                        accepted?
    ================  ==========================================================  =========
    refuse            connection reset before its body was read                   no
    reset_before      connection reset (TCP RST) after its body was read          no
    reset_after       connection reset (TCP RST) instead of the answer            yes
    truncated         a 200 whose body is shorter than its Content-Length         yes
    truncated_before  the same, but nothing was done                              no
    delay             the request waits ``seconds`` before it is looked at        yes
    delay_after       the answer waits ``seconds`` after the email was accepted  yes
    rate_limit        429 with Retry-After of ``retry_after`` seconds             no
    error_500         500 ``transient_failure``                                   no
    error_503         503 ``transient_failure`` with Retry-After                  no
    error_500_after   500 ``transient_failure``, though it was accepted           yes
    provider_502      502 ``PROVIDER_ERROR`` in JSON                              no
    html_502          502 of a proxy, with an HTML body                           no
    ================  ==========================================================  =========
    """

    REFUSE = "refuse"
    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    TRUNCATED = "truncated"
    TRUNCATED_BEFORE = "truncated_before"
    DELAY = "delay"
    DELAY_AFTER = "delay_after"
    RATE_LIMIT = "rate_limit"
    ERROR_500 = "error_500"
    ERROR_503 = "error_503"
    ERROR_500_AFTER = "error_500_after"
    PROVIDER_502 = "provider_502"
    HTML_502 = "html_502"


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault that strikes one request."""

    fault: Fault
    seconds: float = 1.0
    """Of ``delay`` and ``delay_after``."""
    retry_after: int = 1
    """Seconds, of ``rate_limit`` and ``error_503``."""


@dataclass(slots=True)
class _Scripted:
    strike: Strike
    times: int
    path: str | None


class Faults:
    """The faults to come: a scripted queue first, then random rates drawn from a seed.

    ``path`` is an endpoint's name (``send``, ``batch``, ``validate``, ``email``, ``cancel``,
    ``events``, ``replay``) or a request path; None means every request to the API.
    Safe to use from any thread.
    """

    def __init__(self, rates: Mapping[str, float] | None = None, *, seed: int = 0) -> None:
        """Begin with random ``rates``, by ``"name"`` or ``"name@path"``, and nothing scripted."""
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lock = threading.RLock()
        self._script: list[_Scripted] = []
        self._rates: dict[tuple[Fault, str | None], float] = {}
        self.struck: Counter[str] = Counter()
        """How often each fault struck, by name."""
        for name, rate in (rates or {}).items():
            fault, _, path = name.partition("@")
            self.rate(fault, rate, path=path or None)

    def next(
        self,
        fault: str,
        *,
        times: int = 1,
        path: str | None = None,
        seconds: float = 1.0,
        retry_after: int = 1,
    ) -> None:
        """Strike the next ``times`` requests (to ``path``) with ``fault``, in order of calls.

        Raises:
            ValueError: there is no such fault, or ``times`` is less than 1.
        """
        if times < 1:
            raise ValueError("times is at least 1")
        strike = Strike(_named(fault), seconds=seconds, retry_after=retry_after)
        with self._lock:
            self._script.append(_Scripted(strike, times, path))

    def rate(self, fault: str, rate: float, *, path: str | None = None) -> None:
        """Strike a random share of requests (to ``path``), from 0 (none) to 1 (all).

        Raises:
            ValueError: there is no such fault, or the rate is not between 0 and 1.
        """
        if not 0 <= rate <= 1:
            raise ValueError("the rate of a fault is between 0 and 1")
        with self._lock:
            self._rates[_named(fault), path] = rate

    def clear(self) -> None:
        """Forget the script and all rates."""
        with self._lock:
            self._script.clear()
            self._rates.clear()

    @property
    def pending(self) -> int:
        """How many scripted faults are still to strike."""
        with self._lock:
            return sum(scripted.times for scripted in self._script)

    def take(self, path: str, endpoint: str) -> Strike | None:
        """Return what strikes this request, and count it."""
        with self._lock:
            strike = self._take_scripted(path, endpoint) or self._draw(path, endpoint)
            if strike is not None:
                self.struck[strike.fault.value] += 1
            return strike

    def _take_scripted(self, path: str, endpoint: str) -> Strike | None:
        for scripted in self._script:
            if scripted.path in {None, path, endpoint}:
                scripted.times -= 1
                if not scripted.times:
                    self._script.remove(scripted)
                return scripted.strike
        return None

    def _draw(self, path: str, endpoint: str) -> Strike | None:
        """Draw once for each rate, so that the same seed and requests give the same faults."""
        drawn = None
        for (fault, wanted), rate in self._rates.items():
            if wanted in {None, path, endpoint} and self._random.random() < rate:
                drawn = drawn or Strike(fault)
        return drawn


def _named(fault: str) -> Fault:
    try:
        return Fault(fault)
    except ValueError:
        raise ValueError(f"no fault {fault!r}; there are {', '.join(Fault)}") from None
