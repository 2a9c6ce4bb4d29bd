"""The command line of the emulator, shared by ``python -m`` and ``manage.py truncus_emulator``."""

import argparse
import ipaddress
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields
from enum import StrEnum
from typing import Any

from truncus_django.emulator.emulator import Emulator, EmulatorMissesWerkzeug
from truncus_django.emulator.options import Options

DESCRIPTION = """\
A local Truncus: takes email over the Truncus API, delivers it nowhere, and shows it in an inbox
in the browser. Recipients named bounce, complaint, suppressed, deferred, open or click, at any
domain, simulate what they say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option of the emulator to ``parser``, in groups."""
    server = parser.add_argument_group("server")
    server.add_argument("--port", type=int, default=8025, help="0: any free one (default: 8025)")
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, only here)"
    )
    groups = {"server": server}
    for declared in fields(Options):
        title = declared.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        flag = "--" + declared.name.removesuffix("_s").replace("_", "-")
        groups[title].add_argument(
            declared.metadata["flag"] or flag, dest=declared.name, **_argument(declared)
        )


def _argument(option: Field[Any]) -> dict[str, Any]:
    """Return what argparse is told of an option: its default tells the kind."""
    default = option.metadata["default"]
    argument: dict[str, Any] = {"help": option.metadata["meaning"], "default": default}
    if option.name.endswith("_s"):
        argument["metavar"] = "SECONDS"
    match default:
        case bool():
            argument["action"] = "store_true"
        case StrEnum():
            argument["choices"] = list(type(default))
            argument["help"] += " (default: %(default)s)"
        case int() | float():
            argument.setdefault("metavar", "N")
            argument["type"] = type(default)
            argument["help"] += " (default: %(default)g)"
        case [float(), *_]:
            argument |= {"type": float, "nargs": "*"}
            argument["help"] += f" (default: {' '.join(f'{seconds:g}' for seconds in default)})"
        case tuple() | Mapping():
            argument |= {"action": "append", "default": []}
    return {**argument, **option.metadata["argument"]}


def emulator_from(arguments: argparse.Namespace) -> Emulator:
    """Return the emulator that the parsed ``arguments`` describe.

    Raises:
        ValueError: a value cannot be understood, or a template's file not be read.
    """
    chosen = {declared.name: getattr(arguments, declared.name) for declared in fields(Options)}
    for declared in fields(Options):
        read = declared.metadata["read"]
        if read is not None:
            chosen[declared.name] = dict(map(read, chosen[declared.name]))
    return Emulator(host=arguments.host, port=arguments.port, **chosen)


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
