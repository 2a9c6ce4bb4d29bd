"""How long tests wait for what must happen: so long that a busy machine fails none of them."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0
"""A test that passes never waits so long."""


def until(condition: Callable[[], Any], what: str = "The condition") -> None:
    """Return as soon as a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not hold within {PATIENCE_S:.0f} s."
        time.sleep(0.02)
