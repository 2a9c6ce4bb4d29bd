"""The command line of the emulator, shared by ``python -m`` and ``manage.py truncus_emulator``."""

import argparse
import ipaddress
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from truncus_django.api import contract
from truncus_django.emulator.emulator import Emulator, EmulatorMissesWerkzeug
from truncus_django.emulator.faults import Fault
from truncus_django.emulator.options import (
    BatchRefusal,
    BatchReplay,
    DomainState,
    Options,
    SpokenDialect,
)

DESCRIPTION = """\
A local Truncus: takes email over the Truncus API, delivers it nowhere, and shows it in an inbox
in the browser. Recipients named bounce, complaint, suppressed, deferred, open or click, at any
domain, simulate what they say."""


class _Group(Protocol):
    """What arguments are added to: a parser, or a group of one."""

    def add_argument(self, *flags: str, **options: Any) -> Any:
        """Add an argument."""


_DEFAULTS = Options(
    requests_per_second=contract.REQUESTS_PER_SECOND,
    requests_per_minute=contract.REQUESTS_PER_MINUTE,
)
"""Those of Python, but with the request limits of a real account."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option of the emulator to ``parser``, in groups."""
    server = parser.add_argument_group("server")
    server.add_argument("--port", type=int, default=8025, help="0: any free one (default: 8025)")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, only here)"
    )
    _add_choice(
        server,
        "--dialect",
        "dialect",
        SpokenDialect,
        "speak as the Truncus manual says, or as the Python SDK expects",
    )
    _add_value(server, "--keep", "keep", "N", "emails kept")
    _add_account_arguments(parser.add_argument_group("account"))
    _add_limit_arguments(parser.add_argument_group("limits (0: none)"))
    _add_delivery_arguments(parser.add_argument_group("answers and delivery"))
    _add_webhook_arguments(parser.add_argument_group("webhooks"))
    _add_trouble_arguments(parser.add_argument_group("trouble"))


def _add_account_arguments(account: _Group) -> None:
    _add_repeatable(
        account,
        "--api-key",
        "api_keys",
        "KEY[:SCOPE+SCOPE]",
        "accept this key, with the scopes send and read_events unless told; repeatable "
        "(default: any key that begins with tr_)",
    )
    _add_repeatable(account, "--revoked-key", "revoked_keys", "KEY", "repeatable")
    _add_repeatable(
        account,
        "--verified-domain",
        "verified_domains",
        "DOMAIN",
        "send from this domain only; repeatable (default: any domain)",
    )
    states = ", ".join(DomainState)
    _add_repeatable(
        account, "--domain", "domains", "DOMAIN=STATE", f"state of a domain: {states}; repeatable"
    )
    _add_repeatable(
        account,
        "--template",
        "templates",
        "ID=FILE",
        "an HTML template with {{name}} places; repeatable (default: any id, a stub text)",
    )
    _add_repeatable(account, "--suppress", "suppressed", "ADDRESS", "repeatable")


def _add_limit_arguments(limits: _Group) -> None:
    _add_value(limits, "--requests-per-second", "requests_per_second", "N", "of each API key")
    _add_value(limits, "--requests-per-minute", "requests_per_minute", "N", "of each API key")
    _add_value(limits, "--monthly-limit", "monthly_limit", "N", "emails of an API key in a month")
    _add_value(limits, "--daily-limit", "daily_limit", "N", "emails of a domain in a day")


def _add_delivery_arguments(delivery: _Group) -> None:
    _add_value(
        delivery,
        "--delivery-delay",
        "delivery_delay_s",
        "SECONDS",
        "between sent, delivered, opened and clicked",
    )
    _add_value(
        delivery, "--retry-delay", "retry_delay_s", "SECONDS", "until a deferred email is retried"
    )
    _add_switch(
        delivery,
        "--suppress-after-bounce",
        "suppress_after_bounce",
        "suppress an address that bounced or complained",
    )
    _add_choice(
        delivery, "--batch-replay", "batch_replay", BatchReplay, "what a repeated batch key answers"
    )
    _add_choice(
        delivery,
        "--batch-refusal",
        "batch_refusal",
        BatchRefusal,
        "what an invalid item does to its batch",
    )
    _add_value(
        delivery,
        "--dedup-window",
        "dedup_window_s",
        "SECONDS",
        "equal content within it is not sent again, dialect sdk; 0 is off",
    )


def _add_webhook_arguments(webhooks: _Group) -> None:
    _add_text(webhooks, "--webhook-url", "webhook_url", "URL", "where to post them")
    _add_text(webhooks, "--webhook-secret", "webhook_secret", "SECRET", "what to sign them with")
    _add_value(webhooks, "--webhook-threads", "webhook_threads", "N", "posted at the same time")
    _add_value(webhooks, "--webhook-delay", "webhook_delay_s", "SECONDS", "hold each back")
    _add_value(
        webhooks, "--webhook-duplicates", "webhook_duplicates", "N", "send each N more times"
    )
    _add_value(
        webhooks,
        "--webhook-shuffle",
        "webhook_shuffle_s",
        "SECONDS",
        "make each late by up to this, so that they come out of order",
    )
    webhooks.add_argument(
        "--webhook-backoff",
        dest="webhook_backoff_s",
        type=float,
        nargs="*",
        default=_DEFAULTS.webhook_backoff_s,
        metavar="SECONDS",
        help="before each repetition of one that was not acknowledged; nothing: never repeat "
        f"(default: {' '.join(f'{seconds:g}' for seconds in _DEFAULTS.webhook_backoff_s)})",
    )
    _add_switch(
        webhooks,
        "--webhook-event-ids",
        "webhook_event_ids",
        "add event_id to each body, which the published body has not",
    )
    _add_value(
        webhooks,
        "--webhook-bad-signatures",
        "webhook_bad_signatures",
        "SHARE",
        "of webhooks, 0 to 1: send one with a wrong signature too",
    )
    _add_value(
        webhooks,
        "--webhook-stale",
        "webhook_stale",
        "SHARE",
        "of webhooks, 0 to 1: send one signed 10 minutes ago too",
    )


def _add_trouble_arguments(trouble: _Group) -> None:
    trouble.add_argument(
        "--latency",
        dest="latency_s",
        type=milliseconds,
        default=_DEFAULTS.latency_s,
        metavar="MS",
        help="each answer takes (default: 0)",
    )
    _add_repeatable(
        trouble,
        "--fault",
        "fault_rates",
        "NAME[@PATH]=RATE",
        "strike this share of requests, 0 to 1; repeatable. Names: " + ", ".join(Fault),
    )
    _add_value(trouble, "--fault-seed", "seed", "N", "same seed, same faults and bad webhooks")


# Each of these adds one option whose name and default are those of the field of `Options`.


def _add_value(group: _Group, flag: str, field: str, unit: str, meaning: str) -> None:
    """Add a number, whole where its default is."""
    default = getattr(_DEFAULTS, field)
    group.add_argument(
        flag,
        dest=field,
        type=type(default),
        default=default,
        metavar=unit,
        help=f"{meaning} (default: {default:g})",
    )


def _add_text(group: _Group, flag: str, field: str, unit: str, meaning: str) -> None:
    group.add_argument(
        flag, dest=field, default=getattr(_DEFAULTS, field), metavar=unit, help=meaning
    )


def _add_choice(group: _Group, flag: str, field: str, choices: type[StrEnum], meaning: str) -> None:
    group.add_argument(
        flag,
        dest=field,
        choices=[str(choice) for choice in choices],
        default=str(getattr(_DEFAULTS, field)),
        help=f"{meaning} (default: %(default)s)",
    )


def _add_switch(group: _Group, flag: str, field: str, meaning: str) -> None:
    group.add_argument(flag, dest=field, action="store_true", help=meaning)


def _add_repeatable(group: _Group, flag: str, field: str, form: str, meaning: str) -> None:
    group.add_argument(flag, dest=field, action="append", default=[], metavar=form, help=meaning)


def emulator_from(arguments: argparse.Namespace) -> Emulator:
    """Return the emulator that the parsed ``arguments`` describe.

    Raises:
        ValueError: a value cannot be understood, or a template's file not be read.
    """
    chosen = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    return Emulator(
        host=arguments.host,
        port=arguments.port,
        **{
            **chosen,
            "api_keys": dict(_key_and_scopes(text) for text in arguments.api_keys),
            "domains": dict(_pairs(arguments.domains, "--domain DOMAIN=STATE")),
            "templates": _templates(arguments.templates),
            "fault_rates": _fault_rates(arguments.fault_rates),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the emulator until Ctrl-C or SIGTERM; return the exit status."""
    if not arguments.host:
        _complain("Error: --host is empty, which would be every address of this machine.")
        return 1
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
        _complain(
            f"Error: cannot start on {arguments.host}:{arguments.port}: {reason}. "
            "Choose another port with --port, or another address with --host."
        )
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


def _templates(texts: Iterable[str]) -> dict[str, str]:
    templates = {}
    for name, path in _pairs(texts, "--template ID=FILE"):
        try:
            templates[name] = Path(path).read_text(encoding="utf-8")
        except OSError as exc:
            raise ValueError(f"--template {name}: {path} cannot be read: {exc.strerror}") from exc
    return templates


def _fault_rates(texts: Iterable[str]) -> dict[str, float]:
    return {name: _number(rate) for name, rate in _pairs(texts, "--fault NAME[@PATH]=RATE")}


def milliseconds(text: str) -> float:
    """Return milliseconds as seconds; argparse tells the name of this function with an error."""
    seconds = float(text) / 1000
    if not 0 <= seconds < float("inf"):
        raise ValueError(text)
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
