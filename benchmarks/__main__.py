"""``python -m benchmarks``: measure, print tables and targets, perhaps write them to a file."""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    admin_pages,
    bulk,
    css,
    growth,
    memory,
    outbox,
    purging,
    startup,
    sync,
    webhook,
)
from benchmarks.contenders import CONTENDERS
from benchmarks.processes import WrongWork
from benchmarks.rounds import WARM_UP_MAILS, Figures, entries, run
from benchmarks.sink_process import SinkProcess
from benchmarks.tables import ratio, table
from benchmarks.targets import Results, Target, as_table, targets

NOTES = """\
Every email has 2 KB of text and 2 KB of HTML and a recipient of its own. CPU is the sending
process's own, user and system, medians of all rounds; each contender has its own process, and one
works at a time. Not counted for any: imports, building the messages, the first connection and
{warm_up} emails of warm-up. Latency is added to every HTTP answer and to every SMTP reply, also to
the greeting (a mail takes 4 replies on an open connection, 7 with its own); opening a TCP
connection adds none. Anymail and both SMTP backends open a connection for each send(). Variables of
the environment that requests or a contender would read are taken out. Recording writes each email
to a file of SQLite, set up as Django does, or (WAL) as sites in production do."""

PARTS = ("memory", "startup", "pages", "sync", "outbox", "css", "bulk", "webhook")
LONG_PARTS = ("growth",)
"""Those that take an hour, and are measured only if they are asked for."""
GROUPS = {"log": ("truncus", "recording", "recording-wal", "requests", "anymail", "pages", "sync")}
"""What ``--only`` takes for several at once: all that the log's targets need."""

_VARIABLES = re.compile(r"(?i)(http|https|all|no)_proxy|(requests|curl)_ca_bundle|truncus_\w+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if the work was right, whether or not the targets were reached."""
    options = _options(arguments)
    for name in filter(_VARIABLES.fullmatch, list(os.environ)):
        del os.environ[name]
    try:
        results = _measure(options)
    except WrongWork as exc:
        _progress("")
        print(f"Wrong work: {exc}", file=sys.stderr)
        return 1
    _progress("")
    found = list(targets(results))
    _print(results, found, options)
    if options.json:
        _write(options.json, results, found)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--mails", type=int, default=500, help="emails in a round")
    parser.add_argument(
        "--latency", type=float, action="append", metavar="MS", help="default: 0 and 30"
    )
    parser.add_argument("--repeat", type=int, default=5, help="rounds without latency")
    parser.add_argument(
        "--repeat-latency",
        type=int,
        default=1,
        help="rounds with latency, which are minutes of waiting and vary little",
    )
    parser.add_argument(
        "--rows", type=int, default=admin_pages.ROWS, help="emails in the pages' databases"
    )
    parser.add_argument(
        "--grown", type=int, default=growth.ROWS, help="emails of the larger log of growth"
    )
    parser.add_argument(
        "--alone", type=float, default=purging.ALONE_S, metavar="S", help="its sender, unpurged"
    )
    parser.add_argument("--emails", type=int, default=sync.EMAILS, help="emails to sync")
    parser.add_argument(
        "--queued", type=int, default=outbox.MAILS, help="emails to enqueue and to drain"
    )
    parser.add_argument("--repeat-queued", type=int, default=outbox.ROUNDS, help="rounds of that")
    parser.add_argument(
        "--bulk", type=int, default=bulk.MANY, help="messages of the larger send_bulk()"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*CONTENDERS, *PARTS, *LONG_PARTS, *GROUPS],
        help="measure only these; log: " + " ".join(GROUPS["log"]),
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds to a file")
    return parser.parse_args(arguments)


def _wanted(options: argparse.Namespace) -> set[str]:
    """Return the names of the contenders and parts to measure."""
    asked = options.only or [*CONTENDERS, *PARTS]
    return {part for name in asked for part in GROUPS.get(name, (name,))}


def _measure(options: argparse.Namespace) -> Results:
    wanted = _wanted(options)
    plan = [
        (latency, options.repeat_latency if latency else options.repeat)
        for latency in options.latency or [0.0, 30.0]
    ]
    chosen = entries([name for name in CONTENDERS if name in wanted])
    started = startup.run(_progress) if "startup" in wanted else None
    with SinkProcess() as sink:
        _progress("memory")
        used = memory.run(sink) if "memory" in wanted else None
        figures = run(chosen, sink, mail_count=options.mails, plan=plan, progress=_progress)
        sent = bulk.run(sink, options.bulk, _progress) if "bulk" in wanted else None
    pages = admin_pages.run(options.rows, _progress) if "pages" in wanted else None
    synced = sync.run(options.emails, _progress) if "sync" in wanted else None
    queued = (
        outbox.run(options.queued, options.repeat_queued, _progress) if "outbox" in wanted else None
    )
    inlined = css.run(_progress) if "css" in wanted else None
    received = webhook.run(_progress) if "webhook" in wanted else None
    grown = growth.run(options.grown, options.alone, _progress) if "growth" in wanted else None
    return Results(figures, used, started, pages, synced, queued, inlined, sent, received, grown)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _print(results: Results, found: Sequence[Target], options: argparse.Namespace) -> None:
    print(_conditions())
    for latency_ms in dict.fromkeys(figures.latency_ms for figures in results.figures):
        print(f"\n{_figures_table(results, latency_ms)}")
    if results.memory:
        print(f"\n{memory.as_table(results.memory)}")
    if results.startup:
        print(f"\n{startup.as_table(results.startup)}")
    if results.pages:
        print(f"\n{admin_pages.as_table(results.pages)}")
    elif "pages" in _wanted(options):
        print(f"\n{admin_pages.NOT_MEASURED}")
    if results.sync:
        print(f"\n{sync.as_table(results.sync)}")
    if results.outbox:
        print(f"\n{outbox.as_tables(results.outbox)}")
    if results.css:
        print(f"\n{css.as_table(results.css)}")
    if results.bulk:
        print(f"\n{bulk.as_table(results.bulk)}")
    if results.webhooks:
        print(f"\n{webhook.as_table(results.webhooks)}")
    if results.growth:
        print(f"\n{growth.as_tables(results.growth)}")
    elif "growth" in _wanted(options):
        print(f"\n{growth.NOT_MEASURED}")
    print(f"\n{as_table(found)}")


def _conditions() -> str:
    packages = ("django", "requests", "django-anymail", "django-ses", "truncus", "fluxmail")
    queues = ("django-post_office", "django-mailer")
    inliners = ("css-inline", "premailer")
    found = [
        f"{name} {version}"
        for name in (*packages, *queues, *inliners)
        if (version := _version(name))
    ]
    versions = ", ".join(found)
    return f"Python {platform.python_version()}, {versions}\n{NOTES.format(warm_up=WARM_UP_MAILS)}"


def _version(package: str) -> str | None:
    """Return a package's version; ``None`` if it is not there, as only some may be measured."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _figures_table(results: Results, latency_ms: float) -> str:
    rows = [row for row in results.figures if row.latency_ms == latency_ms]
    count, turns = rows[0].mails, len(rows[0].rounds)
    return table(
        [
            f"{count} mails, {latency_ms:g} ms, {turns} round" + "s" * (turns > 1),
            "CPU/mail µs",
            "min–max",
            "÷ requests",
            "÷ Anymail",
            "wall s",
            "÷ Anymail",
            "requests",
            "connections",
        ],
        [_figures_row(row, results) for row in rows],
    )


def _figures_row(row: Figures, results: Results) -> list[str]:
    """One line; "÷ Anymail" compares with Anymail in the same mode."""
    bare = results.find("requests", "one by one", row.latency_ms)
    anymail = results.find("anymail", row.entry.mode, row.latency_ms)
    spread = row.all_cpu_per_mail_us
    contender = CONTENDERS[row.entry.contender]
    return [
        row.entry.title,
        f"{row.cpu_per_mail_us:.0f}",
        f"{min(spread):.0f}–{max(spread):.0f}",
        ratio(row.cpu_per_mail_us, bare.cpu_per_mail_us if bare else None),
        ratio(row.cpu_per_mail_us, anymail.cpu_per_mail_us if anymail else None),
        f"{row.wall_s:.3f}",
        ratio(row.wall_s, anymail.wall_s if anymail else None),
        str(row.requests) if contender.is_http else "–",
        str(row.connections) if contender.arrives else "–",
    ]


def _write(path: Path, results: Results, found: Sequence[Target]) -> None:
    used = results.memory or {}
    content = {
        "conditions": _conditions(),
        "figures": [figures.as_json() for figures in results.figures],
        "memory": {name: asdict(each) for name, each in used.items()},
        "startup": results.startup and asdict(results.startup),
        "pages": results.pages and asdict(results.pages),
        "sync": results.sync and asdict(results.sync),
        "outbox": results.outbox and asdict(results.outbox),
        "css": [asdict(each) for each in results.css or ()],
        "bulk": [asdict(each) for each in results.bulk or ()],
        "webhooks": [asdict(each) for each in results.webhooks or ()],
        "growth": results.growth and asdict(results.growth),
        "targets": [{**asdict(each), "verdict": each.decision} for each in found],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
