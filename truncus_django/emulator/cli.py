"""The command line of the emulator, shared by ``python -m`` and ``manage.py truncus_emulator``."""

import argparse
import ipaddress
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator.emulator import Emulator, EmulatorMissesWerkzeug
from truncus_django.emulator.faults import Fault
from truncus_django.emulator.options import BatchRefusal, BatchReplay, Dialect, DomainState

DESCRIPTION = """\
A local Truncus: takes e-mail over the Truncus API, delivers it nowhere, and shows it in an inbox
in the browser. Recipients named bounce, complaint, suppressed, deferred, open or click, at any
domain, simulate what they say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option of the emulator to ``parser``, in groups."""
    server = parser.add_argument_group("server")
    server.add_argument("--port", type=int, default=8025, help="0: any free one (default: 8025)")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, only here)"
    )
    server.add_argument(
        "--dialect",
        choices=list(Dialect),
        default=Dialect.MANUAL.value,
        help="speak as the Truncus manual says, or as the Python SDK expects (default: manual)",
    )
    server.add_argument(
        "--keep", type=int, default=10_000, metavar="N", help="e-mails kept (default: 10000)"
    )
    _add_account_arguments(parser)
    _add_limit_arguments(parser)
    _add_delivery_arguments(parser)
    _add_webhook_arguments(parser)
    _add_trouble_arguments(parser)


def _add_account_arguments(parser: argparse.ArgumentParser) -> None:
    account = parser.add_argument_group("account")
    account.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY[:SCOPE+SCOPE]",
        help="accept this key, with the scopes send and read_events unless told; repeatable "
        "(default: any key that begins with tr_)",
    )
    account.add_argument(
        "--revoked-key", action="append", default=[], metavar="KEY", help="repeatable"
    )
    account.add_argument(
        "--verified-domain",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="send from this domain only; repeatable (default: any domain)",
    )
    account.add_argument(
        "--domain",
        action="append",
        default=[],
        metavar="DOMAIN=STATE",
        help=f"state of a domain: {', '.join(DomainState)}; repeatable",
    )
    account.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="ID=FILE",
        help="an HTML template with {{name}} places; repeatable (default: any id, a stub text)",
    )
    account.add_argument(
        "--suppress", action="append", default=[], metavar="ADDRESS", help="repeatable"
    )


def _add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits (0: none)")
    limits.add_argument(
        "--requests-per-second",
        type=int,
        default=contract.REQUESTS_PER_SECOND,
        metavar="N",
        help=f"of each API key (default: {contract.REQUESTS_PER_SECOND})",
    )
    limits.add_argument(
        "--requests-per-minute",
        type=int,
        default=contract.REQUESTS_PER_MINUTE,
        metavar="N",
        help=f"of each API key (default: {contract.REQUESTS_PER_MINUTE})",
    )
    limits.add_argument(
        "--monthly-limit",
        type=int,
        default=250_000,
        metavar="N",
        help="e-mails of each API key in a month (default: 250000)",
    )
    limits.add_argument(
        "--daily-limit",
        type=int,
        default=0,
        metavar="N",
        help="e-mails of each domain in a day (default: 0)",
    )


def _add_delivery_arguments(parser: argparse.ArgumentParser) -> None:
    delivery = parser.add_argument_group("answers and delivery")
    delivery.add_argument(
        "--delivery-delay",
        type=float,
        default=0.1,
        metavar="SECONDS",
        help="between sent, delivered, opened and clicked (default: 0.1)",
    )
    delivery.add_argument(
        "--retry-delay",
        type=float,
        default=0.3,
        metavar="SECONDS",
        help="until a deferred e-mail is tried again (default: 0.3)",
    )
    delivery.add_argument(
        "--suppress-after-bounce",
        action="store_true",
        help="suppress an address that bounced or complained",
    )
    delivery.add_argument(
        "--batch-replay",
        choices=list(BatchReplay),
        default=BatchReplay.FIRST.value,
        help="what a repeated batch key answers (default: first)",
    )
    delivery.add_argument(
        "--batch-refusal",
        choices=list(BatchRefusal),
        default=BatchRefusal.ITEM.value,
        help="what an invalid item does to its batch (default: item)",
    )
    delivery.add_argument(
        "--dedup-window",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="equal content within it is not sent again, dialect sdk (default: 0, off)",
    )


def _add_webhook_arguments(parser: argparse.ArgumentParser) -> None:
    webhooks = parser.add_argument_group("webhooks")
    webhooks.add_argument("--webhook-url", default="", metavar="URL", help="where to post them")
    webhooks.add_argument(
        "--webhook-secret", default="", metavar="SECRET", help="what to sign them with"
    )
    webhooks.add_argument(
        "--webhook-delay", type=float, default=0.0, metavar="SECONDS", help="hold each back"
    )
    webhooks.add_argument(
        "--webhook-duplicates", type=int, default=0, metavar="N", help="send each N more times"
    )
    webhooks.add_argument(
        "--webhook-shuffle",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="make each late by up to this, so that they come out of order",
    )


def _add_trouble_arguments(parser: argparse.ArgumentParser) -> None:
    trouble = parser.add_argument_group("trouble")
    trouble.add_argument(
        "--latency", type=float, default=0.0, metavar="MS", help="each answer takes (default: 0)"
    )
    trouble.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[@PATH]=RATE",
        help="strike this share of requests, 0 to 1; repeatable. Names: " + ", ".join(Fault),
    )
    trouble.add_argument(
        "--fault-seed", type=int, default=0, metavar="N", help="same seed, same faults (default: 0)"
    )


def emulator_from(arguments: argparse.Namespace) -> Emulator:
    """Return the emulator that the parsed ``arguments`` describe.

    Raises:
        ValueError: a value cannot be understood.
        OSError: a template's file cannot be read.
    """
    templates = {
        name: Path(path).read_text(encoding="utf-8")
        for name, path in _pairs(arguments.template, "--template ID=FILE")
    }
    rates = {
        name: _number(rate) for name, rate in _pairs(arguments.fault, "--fault NAME[@PATH]=RATE")
    }
    return Emulator(
        host=arguments.host,
        port=arguments.port,
        dialect=arguments.dialect,
        keep=arguments.keep,
        api_keys=dict(_key_and_scopes(text) for text in arguments.api_key),
        revoked_keys=arguments.revoked_key,
        verified_domains=arguments.verified_domain,
        domains=dict(_pairs(arguments.domain, "--domain DOMAIN=STATE")),
        templates=templates,
        suppressed=arguments.suppress,
        requests_per_second=arguments.requests_per_second,
        requests_per_minute=arguments.requests_per_minute,
        monthly_limit=arguments.monthly_limit,
        daily_limit=arguments.daily_limit,
        delivery_delay_s=arguments.delivery_delay,
        retry_delay_s=arguments.retry_delay,
        suppress_after_bounce=arguments.suppress_after_bounce,
        batch_replay=arguments.batch_replay,
        batch_refusal=arguments.batch_refusal,
        dedup_window_s=arguments.dedup_window,
        webhook_url=arguments.webhook_url,
        webhook_secret=arguments.webhook_secret,
        webhook_delay_s=arguments.webhook_delay,
        webhook_duplicates=arguments.webhook_duplicates,
        webhook_shuffle_s=arguments.webhook_shuffle,
        latency_s=arguments.latency / 1000,
        fault_rates=rates,
        seed=arguments.fault_seed,
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the emulator until Ctrl-C or SIGTERM; return the exit status."""
    try:
        emulator = emulator_from(arguments)
        if not _is_loopback(arguments.host):
            _complain(f"Warning: {arguments.host} is reachable from other machines.")
        emulator.start()
    except (ValueError, EmulatorMissesWerkzeug) as exc:
        _complain(f"Error: {exc}")
        return 1
    except (OSError, OverflowError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        _complain(f"Error: cannot start on {arguments.host}:{arguments.port}: {reason}")
        return 1
    with emulator, _told_to_stop() as told:
        _announce(emulator)
        told.wait()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m truncus_django.emulator",
        usage="%(prog)s [options]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _announce(emulator: Emulator) -> None:
    print(  # noqa: T201 - the one line that says where it is
        f"Truncus emulator at {emulator.url} (dialect: {emulator.options.dialect}). "
        f"Inbox: {emulator.inbox_url}  Ctrl-C stops it.",
        flush=True,
    )


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set, in place of what they did before."""
    told = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: told.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command speaks to its user


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pairs(texts: Iterable[str], usage: str) -> list[tuple[str, Any]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{text!r} is not {usage}")
        pairs.append((name, value))
    return pairs


def _key_and_scopes(text: str) -> tuple[str, tuple[str, ...]]:
    key, colon, scopes = text.partition(":")
    if not colon:
        return key, (contract.SEND_SCOPE, contract.READ_SCOPE)
    return key, tuple(scopes.split("+"))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
