"""What a 10 MB attachment costs in memory, in fresh processes: ``python -m benchmarks.memory``.

Each process first sends a small email; what it then holds is its baseline. The peak is Linux's own
high-water mark of the process (``VmHWM``), set back to the baseline before the attachment's content
is made. MB are 10**6 bytes, the attachment has 10 * 2**20: the most that the API takes.
"""

import json
import os
import re
import resource
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.mails import mails
from benchmarks.processes import WrongWork, output_of
from benchmarks.sink_process import Addresses, SinkProcess
from benchmarks.tables import table

ATTACHMENT_BYTES = 10 * 2**20
CONTENDER_NAMES = ("truncus", "anymail", "smtp")
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """One process's memory, in MB.

    Attributes:
        baseline_mb: held after a small email.
        content_mb: what making the attachment's content added.
        peak_mb: the most that was added while content, message and request were made and sent.
    """

    baseline_mb: float
    content_mb: float
    peak_mb: float


def run(sink: SinkProcess, names: Sequence[str] = CONTENDER_NAMES) -> dict[str, Memory]:
    """Return the medians of each contender."""
    found = {}
    for name in names:
        fresh = [_in_fresh_process(name, sink) for _ in range(REPEATS)]
        found[name] = Memory(
            *(
                statistics.median(getattr(each, field) for each in fresh)
                for field in Memory.__dataclass_fields__
            )
        )
    return found


def as_table(found: dict[str, Memory]) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        ["memory of a 10 MB attachment", "baseline MB", "content MB", "peak over baseline MB"],
        [
            [CONTENDERS[name].title]
            + [f"{value:.1f}" for value in (each.baseline_mb, each.content_mb, each.peak_mb)]
            for name, each in found.items()
        ],
    )


def _in_fresh_process(name: str, sink: SinkProcess) -> Memory:
    sink.reset()
    addresses = sink.addresses
    printed = output_of(
        "-m", "benchmarks.memory", name, addresses.http_url, str(addresses.smtp_port)
    )
    if sink.report().mails != 2:
        raise WrongWork(f"{name}: the email with the attachment did not arrive")
    return Memory(**json.loads(printed))


def _measure(name: str, sinks: Addresses) -> Memory:
    contender = CONTENDERS[name](sinks)
    from django.core.mail import EmailMultiAlternatives

    contender.prepare("one by one", (), mails(1, "memory"))
    _forget_peak()
    baseline = _status("VmRSS")
    content = os.urandom(ATTACHMENT_BYTES)
    with_content = _status("VmRSS")
    message = EmailMultiAlternatives("Your file", "Here", "shop@example.com", ["ann@example.org"])
    message.attach_alternative("<p>Here</p>", "text/html")
    message.attach("file.bin", content, "application/octet-stream")
    if message.send() != 1:
        raise RuntimeError("The email was not accepted")
    return Memory(baseline, with_content - baseline, max(0.0, peak_mb() - baseline))


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # man 5 proc
    except OSError:
        print("The peak cannot be set back here and may be an earlier one.", file=sys.stderr)


def _status(name: str) -> float:
    """Return a value of /proc/self/status, in MB; Linux."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    if match is None:
        raise LookupError(name)
    return int(match[1]) * 1024 / 1e6


def peak_mb() -> float:
    """Return the most memory that this process has held."""
    try:
        return _status("VmHWM")
    except LookupError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(arguments: Sequence[str]) -> None:
    """Measure this very process, or print the table of all."""
    if arguments:
        name, http_url, smtp_port = arguments
        memory = _measure(name, Addresses(http_url, int(smtp_port)))
        print(json.dumps({field: getattr(memory, field) for field in Memory.__slots__}))
        return
    with SinkProcess() as sink:
        print(as_table(run(sink)))


if __name__ == "__main__":
    main(sys.argv[1:])
