"""Fresh processes, and what it means when one fails."""

import subprocess
import sys


class WrongWork(Exception):
    """The work that is compared was not done."""


def output_of(*arguments: str, timeout_s: float = 120) -> str:
    """Return what a fresh Python with these arguments prints; raise :class:`WrongWork`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise WrongWork(f"a fresh process failed: {reason}")
    return done.stdout


def without_extras() -> None:
    """Let this process have none of the extras ``otel`` and ``prometheus``.

    The environment may have them for tests; they have a cost of their own where they are installed.
    """
    for name in ("opentelemetry", "prometheus_client"):
        sys.modules[name] = None  # type: ignore[assignment]
