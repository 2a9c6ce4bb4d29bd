"""``send_bulk()`` of very many messages: memory and pace, in fresh processes.

``python -m benchmarks --only bulk``. The messages come from a generator, and this process sends
them (``DELIVERY = "direct"``) into the sink under a key, without limits, over a file of SQLite with
a write-ahead log, as sites in production have it. The peak is Linux's own high-water mark of the
process (``VmHWM``). MB are 10**6 bytes.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.contenders import API_KEY
from benchmarks.mailer import mailer
from benchmarks.mails import BODY_BYTES, SENDER, mails, recipients
from benchmarks.memory import peak_mb
from benchmarks.processes import WrongWork, output_of
from benchmarks.sink_process import SinkProcess
from benchmarks.sinks import digest_of
from benchmarks.tables import table

if TYPE_CHECKING:
    from django.core.mail import EmailMessage

FEW = 10_000
MANY = 1_000_000
_LONGEST_S = 3600


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one bulk took."""

    messages: int
    peak_mb: float
    cpu_s: float
    wall_s: float

    @property
    def per_second(self) -> float:
        """Messages in a second."""
        return self.messages / self.wall_s


def run(
    sink: SinkProcess, many: int = MANY, progress: Callable[[str], None] = lambda text: None
) -> list[Bulk]:
    """Return what few and ``many`` messages took.

    Raises:
        WrongWork: an email did not arrive, or arrived twice, or was not whole.
    """
    found = []
    for count in (min(FEW, many), many):
        progress(f"bulk: {count:,} messages")
        sink.reset()
        arguments = ("-m", "benchmarks.bulk", str(count), sink.addresses.http_url)
        printed = output_of(*arguments, timeout_s=_LONGEST_S)
        _check(sink, count)
        found.append(Bulk(**json.loads(printed)))
    return found


def _check(sink: SinkProcess, count: int) -> None:
    arrived = sink.report()
    expected = digest_of(recipients(1, _series(number))[0] for number in range(count))
    if arrived.mails != count or arrived.recipients != expected:
        raise WrongWork(f"bulk: {arrived.mails} emails arrived, not {count} once")
    if arrived.body_bytes != count * 2 * BODY_BYTES:
        raise WrongWork(f"bulk: {arrived.body_bytes} bytes of bodies arrived")


def as_table(found: Sequence[Bulk]) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        ["send_bulk, direct, SQLite", "peak MB", "CPU/email µs", "wall s", "emails/s"],
        [
            [
                f"{each.messages:,} messages",
                f"{each.peak_mb:.1f}",
                f"{each.cpu_s / each.messages * 1e6:.0f}",
                f"{each.wall_s:.1f}",
                f"{each.per_second:,.0f}",
            ]
            for each in found
        ],
    )


# The process that is measured ---------------------------------------------------------------------


def _series(number: int) -> str:
    return f"bulk{number}"


def _messages(count: int) -> "Iterator[EmailMessage]":
    from django.core.mail import EmailMultiAlternatives

    for number in range(count):
        (mail,) = mails(1, _series(number))
        message = EmailMultiAlternatives(mail.subject, mail.text, SENDER, [mail.recipient])
        message.attach_alternative(mail.html, "text/html")
        yield message


def _measure(count: int, http_url: str, directory: Path) -> Bulk:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        INSTALLED_APPS=["truncus_django"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": directory / "bulk.sqlite3",
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
                },
            }
        },
        TRUNCUS={
            "API_KEY": API_KEY,
            "BASE_URL": http_url,
            "REQUESTS_PER_SECOND": 0,
            "REQUESTS_PER_MINUTE": 0,
        },
        **mailer("truncus_django.backend.TruncusBackend", {}, {}),
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from truncus_django.bulk import send_bulk

    began_at, cpu_began_s = time.perf_counter(), time.process_time()
    result = send_bulk(_messages(count), key="benchmark")
    cpu_s, wall_s = time.process_time() - cpu_began_s, time.perf_counter() - began_at
    if result.accepted != count:
        raise WrongWork(f"bulk: {result}")
    return Bulk(count, peak_mb(), cpu_s, wall_s)


def main(arguments: Sequence[str]) -> None:
    """Measure this very process."""
    count, http_url = arguments
    with TemporaryDirectory(prefix="truncus_bench_") as directory:
        print(json.dumps(asdict(_measure(int(count), http_url, Path(directory)))))


if __name__ == "__main__":
    main(sys.argv[1:])
