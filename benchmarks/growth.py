"""The log ten times as large: ``python -m benchmarks --only growth``, on PostgreSQL.

Two logs, over 365 days each: pages of the admin, opened in turns, how large an email and an event
are, and a purge of half of the larger one while a sender is at work.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import purging
from benchmarks.admin_pages import PAGES, PageFigures, Size, measure, serve
from benchmarks.purging import Purging
from benchmarks.scratch import answers, scratch_database
from benchmarks.tables import ratio, table
from benchmarks.workers import Worker

ROWS = 10_000_000
FACTOR = 10
NOT_MEASURED = "Growth of the log: not measured: PostgreSQL does not answer."


@dataclass(frozen=True, slots=True)
class Growth:
    """What was measured.

    Attributes:
        rows: emails of the larger log.
        pages: each page of the smaller and of the larger log.
        sizes: of an email and of an event of the larger log.
    """

    rows: int
    pages: Sequence[tuple[PageFigures, PageFigures]]
    sizes: Sequence[Size]
    purging: Purging

    def ratio(self, key: str) -> float:
        """Return what a page of the larger log takes, beside the smaller."""
        [value] = [many.ms / few.ms for few, many in self.pages if many.page.key == key]
        return value

    @property
    def email_bytes(self) -> float:
        """What an email takes with its events, in tables and indexes."""
        return sum(each.rows * (each.table_bytes + each.index_bytes) for each in self.sizes) / (
            self.rows
        )


def run(
    rows: int = ROWS,
    alone_s: float = purging.ALONE_S,
    progress: Callable[[str], None] = lambda text: None,
) -> Growth | None:
    """Fill both logs, open the pages and purge; ``None`` where PostgreSQL does not answer.

    Args:
        rows: emails of the larger log; the smaller has a tenth.
        alone_s: for how long the sender is measured without a purge.
    """
    if not answers():
        return None
    pages = [page for page in PAGES if page.site == "log"]
    with ExitStack() as stack:
        workers, databases = {}, {}
        for count in (rows // FACTOR, rows):
            databases[count] = stack.enter_context(scratch_database(f"log{count}"))
            worker = Worker(f"{count:,} emails", serve, "log", databases[count])
            workers[count] = stack.enter_context(worker)
            workers[count].ask(("fill", count), progress)
        for count, worker in workers.items():
            progress(f"pages: what they must show, {count:,} emails")
            worker.ask(("prepare", count))
        opened = measure(
            [(page, worker) for worker in workers.values() for page in pages], progress
        )
        sizes = {count: worker.ask(("sizes",)) for count, worker in workers.items()}
        purged = purging.run(databases[rows], rows // 2, alone_s, progress)
    pairs = zip(opened[: len(pages)], opened[len(pages) :], strict=True)
    return Growth(rows, list(pairs), sizes[rows], purged)


def as_tables(found: Growth) -> str:
    """Return what :func:`run` found, to print."""
    return "\n\n".join((pages_table(found), sizes_table(found), purging.as_tables(found.purging)))


def pages_table(found: Growth) -> str:
    """Return what the pages of both logs took, to print."""
    few, many = found.rows // FACTOR, found.rows
    return table(
        [
            "admin, PostgreSQL",
            *(
                f"{rows:,}: {what}"
                for rows in (few, many)
                for what in ("first ms", "ms", "min–max")
            ),
            "÷",
            "queries",
            "emails",
        ],
        [
            [
                larger.page.title,
                *(
                    cell
                    for each in (smaller, larger)
                    for cell in (
                        f"{each.first_ms:.0f}",
                        f"{each.ms:.0f}",
                        f"{min(each.times_ms):.0f}–{max(each.times_ms):.0f}",
                    )
                ),
                ratio(larger.ms, smaller.ms),
                str(larger.queries),
                f"{larger.found:,}",
            ]
            for smaller, larger in found.pages
        ],
    )


def sizes_table(found: Growth) -> str:
    """Return how large the larger log is, to print."""
    return table(
        [f"size, {found.rows:,} emails", "rows", "table KB", "indexes KB", "GB"],
        [
            [
                name,
                f"{size.rows:,}",
                f"{size.table_bytes / 1000:.2f}",
                f"{size.index_bytes / 1000:.2f}",
                f"{size.rows * (size.table_bytes + size.index_bytes) / 1e9:.1f}",
            ]
            for name, size in zip(("an email", "an event"), found.sizes, strict=True)
        ],
    )
