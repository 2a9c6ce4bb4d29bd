"""The targets, and whether a run reached them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import growth as growth_part
from benchmarks.admin_pages import FILTERS, ROWS, SEARCHES, Pages
from benchmarks.bulk import FEW, MANY, Bulk
from benchmarks.contenders import BATCH_SIZE, Mode
from benchmarks.css import Inlined
from benchmarks.growth import Growth
from benchmarks.memory import Memory
from benchmarks.outbox import Outbox
from benchmarks.pending import LEVELS
from benchmarks.purging import KINDS
from benchmarks.rounds import Figures
from benchmarks.startup import Startup
from benchmarks.sync import Sync
from benchmarks.tables import table
from benchmarks.webhook import Received


@dataclass(frozen=True, slots=True)
class Target:
    """One figure and its bound. ``value`` is ``None`` where a run did not measure it."""

    text: str
    limit: float
    value: float | None
    unit: str = "×"
    at_least: bool = False

    @property
    def decision(self) -> str:
        """``reached``, ``missed`` or ``not measured``."""
        if self.value is None:
            return "not measured"
        within = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "reached" if within else "MISSED"


@dataclass(frozen=True)
class Results:
    """All that one run measured."""

    figures: Sequence[Figures] = ()
    memory: dict[str, Memory] | None = None
    startup: Startup | None = None
    pages: Pages | None = None
    sync: Sync | None = None
    outbox: Outbox | None = None
    css: list[Inlined] | None = None
    bulk: Sequence[Bulk] | None = None
    webhooks: Sequence[Received] | None = None
    growth: Growth | None = None

    def find(self, contender: str, mode: Mode, latency_ms: float) -> Figures | None:
        """Return the figures of an entry, if it was measured."""
        for figures in self.figures:
            entry = figures.entry
            if (entry.contender, entry.mode, figures.latency_ms) == (contender, mode, latency_ms):
                return figures
        return None


def targets(results: Results) -> Iterator[Target]:
    """Yield every target with what ``results`` say of it."""
    single = results.find("truncus", "one by one", 0)
    several = results.find("truncus", "as a list", 0)
    bare = results.find("requests", "one by one", 0)
    anymail = results.find("anymail", "one by one", 0)
    anymail_list = results.find("anymail", "as a list", 0)
    sdk_batch = results.find("sdk", "as a list", 0)
    yield Target("one by one, CPU: bare requests", 1.25, _cpu_ratio(single, bare))
    yield Target("one by one, CPU: Anymail", 0.6, _cpu_ratio(single, anymail))
    yield Target("one by one, TCP connections", 1, single.connections if single else None, unit="")
    yield Target("as a list, CPU: Anymail", 0.1, _cpu_ratio(several, anymail_list))
    yield Target("as a list, CPU: the SDK's batch", 5, _cpu_ratio(several, sdk_batch))
    merged = results.find("merge", "as a list", 0)
    yield Target("merge data, CPU: as a list", 1.5, _cpu_ratio(merged, several))
    recording = results.find("recording", "one by one", 0)
    recording_list = results.find("recording", "as a list", 0)
    yield Target("recording, one by one, CPU: bare requests", 2.5, _cpu_ratio(recording, bare))
    for name, where in (("", "SQLite"), ("-wal", "SQLite, WAL"), ("-pg", "PostgreSQL")):
        one_by_one = results.find(f"recording{name}", "one by one", 0)
        floor = results.find(f"floor{name}", "one by one", 0)
        yield Target(f"recording, one by one, {where}: floor", 1.5, _cpu_ratio(one_by_one, floor))
    yield Target(
        "recording, as a list, CPU: Anymail without", 0.3, _cpu_ratio(recording_list, anymail_list)
    )
    requests = -(-several.mails // BATCH_SIZE) if several else 5
    yield Target("as a list, requests", requests, several.requests if several else None, unit="")
    slow = results.find("truncus", "as a list", 30)
    slow_anymail = results.find("anymail", "as a list", 30)
    faster = slow_anymail.wall_s / slow.wall_s if slow and slow_anymail else None
    yield Target("as a list at 30 ms, faster than Anymail", 40, faster, at_least=True)
    memory = (results.memory or {}).get("truncus")
    yield Target(
        "10 MB attachment, over baseline", 60, memory.peak_mb if memory else None, unit="MB"
    )
    startup = results.startup.ratio if results.startup else None
    yield Target("django.setup(), with the app: without", 1.15, startup)
    yield from _page_targets(results.pages)
    requests_each = results.sync.requests / results.sync.emails if results.sync else None
    yield Target("sync, requests per email", 1, requests_each, unit="")
    queries = results.sync.queries_per_100 if results.sync else None
    yield Target("sync, queries per 100 emails", 12, queries, unit="")
    yield from _outbox_targets(results.outbox)
    faster = min(
        (each.premailer_us / each.css_inline_us for each in results.css or ()), default=None
    )
    yield Target("CSS into attributes, faster than premailer", 10, faster, at_least=True)
    many = f"{results.bulk[-1].messages if results.bulk else MANY:,}"
    more_mb = results.bulk[-1].peak_mb - results.bulk[0].peak_mb if results.bulk else None
    yield Target(f"send_bulk, {many} messages: peak over {FEW:,}'s", 40, more_mb, unit="MB")
    on_postgresql = [each for each in results.webhooks or () if each.database == "PostgreSQL"]
    cpu_ms = max((each.cpu_us / 1000 for each in on_postgresql), default=None)
    yield Target("webhook, PostgreSQL, CPU", 1.2, cpu_ms, unit="ms")
    queries = max((each.queries for each in on_postgresql), default=None)
    yield Target("webhook, PostgreSQL, queries", 5, queries, unit="")
    yield from _growth_targets(results.growth)


_KINDS_OF_PAGES = {
    "log page": ["list"],
    "its filters, the slowest": FILTERS,
    "search, the slowest": SEARCHES,
    "an email's page": ["detail"],
    "dashboard": ["dashboard"],
}


def _page_targets(pages: Pages | None) -> Iterator[Target]:
    """Yield what the admin's pages may take; of the searches, the slowest counts."""
    ours = (
        {each.page.key: each for each in pages.figures if each.page.site == "log"} if pages else {}
    )
    peer = pages.find("post_office", "list").ms if pages else None
    rows = f"{pages.rows if pages else ROWS:,}"
    for name, keys in _KINDS_OF_PAGES.items():
        slowest = max((ours[key].ms for key in keys if key in ours), default=None)
        value = slowest / peer if slowest is not None and peer else None
        yield Target(f"{rows} emails, {name}: post_office's list", 0.5, value)
    searched = pages.find("post_office", "address").ms if pages else None
    value = ours["address"].ms / searched if searched else None
    yield Target(f"{rows} emails, search by address: post_office's", 0.5, value)
    most = max((each.queries for each in ours.values()), default=None)
    yield Target("queries of any of these pages", 19, most, unit="")


def _growth_targets(growth: Growth | None) -> Iterator[Target]:
    """Yield what a log ten times as large may take; of filters and searches, the worst counts."""
    many = growth.rows if growth else growth_part.ROWS
    few = many // growth_part.FACTOR
    for name, keys in _KINDS_OF_PAGES.items():
        value = max((growth.ratio(key) for key in keys), default=None) if growth else None
        yield Target(f"{many:,} emails, {name}: {few:,}", 2, value)
    most = max((each.queries for _, each in growth.pages), default=None) if growth else None
    yield Target(f"{many:,} emails, queries of any of these pages", 19, most, unit="")
    for kind in KINDS:
        value = growth.purging.p99_ratio(kind) if growth else None
        yield Target(f"during a purge, {kind}, 99th percentile: without", 2, value)
    value = growth.purging.purged.slowdown if growth else None
    yield Target("purge, its fastest tenth: its last", 1.5, value)


def _outbox_targets(outbox: Outbox | None) -> Iterator[Target]:
    """Yield what the outbox may take, on each database."""
    measured = outbox.databases if outbox else []
    for name, enqueue_bound in (("SQLite", 3), ("PostgreSQL", 2)):
        found = outbox if outbox and name in measured else None
        yield Target(
            f"outbox, {name}: enqueue a list, CPU: django-mailer",
            enqueue_bound,
            found.enqueue_ratio(name) if found else None,
        )
        yield Target(
            f"outbox, {name}: drain, faster than the fastest peer over SMTP",
            2.5,
            found.drain_ratio(name, ["SMTP"]) if found else None,
            at_least=True,
        )
        yield Target(
            f"outbox, {name}: drain, faster than the fastest peer through this backend",
            4,
            found.drain_ratio(name, ["this backend"]) if found else None,
            at_least=True,
        )
        yield Target(
            f"outbox, {name}: CPU with {LEVELS[-1]:,} waiting: with {LEVELS[0]:,}",
            1.25,
            found.cost_ratio(name) if found else None,
        )


def as_table(found: Sequence[Target]) -> str:
    """Return the targets, to print."""
    return table(
        ["target", "bound", "measured", "verdict"],
        [
            [
                each.text,
                f"{'≥' if each.at_least else '≤'} {each.limit:g} {each.unit}".rstrip(),
                "–" if each.value is None else f"{each.value:.3g} {each.unit}".rstrip(),
                each.decision,
            ]
            for each in found
        ],
    )


def _cpu_ratio(one: Figures | None, other: Figures | None) -> float | None:
    return one.cpu_per_mail_us / other.cpu_per_mail_us if one and other else None
