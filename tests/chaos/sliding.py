"""A Truncus that does nothing but count: no window of any start may hold more than the limits.

It shares no code with the package, nor with the package's own local Truncus, which counts in
windows that start at whole seconds and minutes. A request counts when it has arrived, some while
after it was made; what is refused does not count.

``python -m tests.chaos.sliding '{"latency_s": 0.05}'`` prints its URL, serves until a line
comes, and then prints the requests.
"""

import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from tests.servers import LocalServer, QuietHandler, serving


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request.

    Attributes:
        at: monotonic seconds.
        is_refused: whether it was answered 429.
    """

    at: float
    is_refused: bool


class SlidingServer(LocalServer):
    """Answers sends of one email, and questions about one.

    Args:
        limits: how many requests each span of so many seconds may hold.
        way_there_s: tells of each request how many seconds pass until it counts.
        way_back_s: and until it is answered then.
    """

    def __init__(
        self,
        limits: dict[float, int],
        *,
        way_there_s: Callable[[], float] = lambda: 0.0,
        way_back_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(_Handler)
        self.arrivals: list[Arrival] = []
        self._limits = limits
        self._lock = threading.Lock()
        self.way_there_s, self.way_back_s = way_there_s, way_back_s

    @property
    def refused(self) -> int:
        """How many requests were answered 429."""
        return sum(arrival.is_refused for arrival in self.arrivals)

    def count(self) -> float:
        """Count a request; return for how many seconds it is refused, 0 where it is not."""
        with self._lock:
            now = time.monotonic()
            wait_s = 0.0
            for span_s, limit in self._limits.items():
                inside = [
                    arrival.at
                    for arrival in self.arrivals
                    if not arrival.is_refused and arrival.at > now - span_s
                ]
                if len(inside) >= limit:
                    wait_s = max(wait_s, inside[-limit] + span_s - now)
            self.arrivals.append(Arrival(now, wait_s > 0))
        return wait_s


class _Handler(QuietHandler):
    server: SlidingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for each answer

    def do_POST(self) -> None:  # noqa: N802
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"status": "sent"})

    def do_GET(self) -> None:  # noqa: N802
        self._answer({"id": self.path.rpartition("/")[2], "status": "sent", "events": []})

    def _answer(self, answer: dict[str, object]) -> None:
        time.sleep(self.server.way_there_s())
        wait_s = self.server.count()
        time.sleep(self.server.way_back_s())
        if wait_s:
            self.send_response(HTTPStatus.TOO_MANY_REQUESTS)
            self.send_header("Retry-After", str(math.ceil(wait_s)))
            answer = {"error": "rate_limit_exceeded"}
        else:
            self.send_response(HTTPStatus.OK)
            if self.command == "POST":
                answer = {**answer, "message_id": f"msg-{random.getrandbits(64):x}"}
        body = json.dumps(answer).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve; of the latency a part that is left to chance passes before a request counts."""
    told = json.loads(sys.argv[1])
    latency_s = told["latency_s"]
    chance = threading.local()

    def way_there_s() -> float:
        chance.there_s = random.uniform(0.0, latency_s)
        return chance.there_s

    limits = {1.0: told["per_second"], 60.0: told["per_minute"]}
    server = SlidingServer(
        limits, way_there_s=way_there_s, way_back_s=lambda: latency_s - chance.there_s
    )
    with serving(server):
        print(json.dumps(server.url), flush=True)
        sys.stdin.readline()
        print(json.dumps([[each.at, each.is_refused] for each in server.arrivals]), flush=True)


if __name__ == "__main__":
    main()
