"""How the processes of a run are started and ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def start(
    module: str,
    *arguments: str,
    chaos: Mapping[str, Any] | None = None,
    pipes: bool = False,
    output: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a module in a session of its own, so that signals to its group reach its children, too.

    Args:
        chaos: what its settings get; those of this process by default.
        pipes: to write to it and to read what it prints.
        output: a file for what it prints.
    """
    given = {} if chaos is None else {"CHAOS": json.dumps(chaos)}
    with (output or Path(os.devnull)).open("w") as printed:
        return subprocess.Popen(
            # Celery warns of root, whose machine a container is.
            [
                sys.executable,
                "-W",
                "ignore::UserWarning:celery.platforms",
                "-m",
                module,
                *arguments,
            ],
            env={**os.environ, **given},
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else printed,
            text=True,
            start_new_session=True,
        )


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and its children at once, if it has not ended; leave no zombie."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a process at the end of a ``with`` block."""
    with process:
        try:
            yield process
        finally:
            kill(process)
