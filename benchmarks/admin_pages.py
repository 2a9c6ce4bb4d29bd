"""The admin over a million emails, beside post_office's: ``python -m benchmarks.admin_pages``.

Each site has a process and a scratch database on PostgreSQL of its own, filled with the same
emails over 365 days. A superuser opens its pages with Django's test client: wall clock from
request to finished answer, the database's work included; the pages of both sites take turns.
What each page must show is looked for every time.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.admin_rows import LOG_SQL, POST_OFFICE_SQL, fill
from benchmarks.processes import WrongWork
from benchmarks.scratch import answers, scratch_database
from benchmarks.tables import ratio, table
from benchmarks.workers import Worker

ROWS = 1_000_000
REPEATS = 7
DASHBOARD_DAYS = 30
TIME_ZONE = "Europe/Berlin"
NOT_MEASURED = "Pages of the admin: not measured: PostgreSQL does not answer."


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a site, and how it is named in tables and targets."""

    key: str
    site: str
    title: str


PAGES = (
    Page("list", "log", "log page"),
    Page("address", "log", "search: an address"),
    Page("rare", "log", "search: a rare word"),
    Page("frequent", "log", "search: a frequent word"),
    Page("nothing", "log", "search: nothing found"),
    Page("state", "log", "filter: bounced"),
    Page("tenant", "log", "filter: a tenant"),
    Page("mailer", "log", "filter: a mailer"),
    Page("sandbox", "log", "filter: sandbox"),
    Page("clicked", "log", "filter: clicked"),
    Page("week", "log", "filter: the last 7 days"),
    Page("detail", "log", "an email with its events"),
    Page("dashboard", "log", f"dashboard, {DASHBOARD_DAYS} days"),
    Page("list", "post_office", "list"),
    Page("address", "post_office", "search: an address"),
)
SEARCHES = ("address", "rare", "frequent", "nothing")
"""The keys of the log's searches."""
FILTERS = ("state", "tenant", "mailer", "sandbox", "clicked", "week")
"""The keys of the log's filters."""


@dataclass(frozen=True, slots=True)
class PageFigures:
    """All openings of a page."""

    page: Page
    first_ms: float
    """The first opening, before ``times_ms``."""
    times_ms: Sequence[float]
    queries: int
    found: int
    """How many emails it is about."""

    @property
    def ms(self) -> float:
        """Median."""
        return statistics.median(self.times_ms)


@dataclass(frozen=True, slots=True)
class Pages:
    """What was measured, over how many emails."""

    rows: int
    figures: Sequence[PageFigures]

    def find(self, site: str, key: str) -> PageFigures:
        """Return the figures of a page."""
        [found] = [each for each in self.figures if (each.page.site, each.page.key) == (site, key)]
        return found


def run(rows: int = ROWS, progress: Callable[[str], None] = lambda text: None) -> Pages | None:
    """Fill both databases and open the pages; ``None`` where PostgreSQL does not answer."""
    if not answers():
        return None
    with ExitStack() as stack:
        workers = {}
        for name in SITES:
            progress(f"pages: {rows:,} emails for {name}")
            database = stack.enter_context(scratch_database(name))
            workers[name] = stack.enter_context(Worker(name, serve, name, database))
            workers[name].ask(("fill", rows), progress)
        for worker in workers.values():
            worker.ask(("prepare", rows))
        figures = measure([(page, workers[page.site]) for page in PAGES], progress)
    return Pages(rows, figures)


def measure(
    pages: Sequence[tuple[Page, Worker]], progress: Callable[[str], None] = lambda text: None
) -> list[PageFigures]:
    """Open each page at its worker, and then :data:`REPEATS` times more, in turns."""
    first: list[Opened] = []
    for page, worker in pages:
        progress(f"pages: {page.site}, {page.title}")
        first.append(worker.ask(("open", page.key)))
    times: list[list[float]] = [[] for _ in pages]
    for turn in range(REPEATS):
        progress(f"pages: turn {turn + 1} of {REPEATS}")
        for place in (*range(turn, len(pages)), *range(turn)):
            page, worker = pages[place]
            times[place].append(worker.ask(("open", page.key)).ms)
    return [
        PageFigures(page, opened.ms, times_ms, opened.queries, opened.found)
        for (page, _), opened, times_ms in zip(pages, first, times, strict=True)
    ]


def as_table(pages: Pages | None) -> str:
    """Return what :func:`run` found, to print."""
    if pages is None:
        return NOT_MEASURED
    peer = pages.find("post_office", "list").ms
    return table(
        [
            f"admin, {pages.rows:,} emails, PostgreSQL, {REPEATS} times",
            "ms",
            "min–max",
            "÷ post_office's list",
            "queries",
            "emails",
        ],
        [
            [
                f"{SITES[each.page.site].title}, {each.page.title}",
                f"{each.ms:.0f}",
                f"{min(each.times_ms):.0f}–{max(each.times_ms):.0f}",
                ratio(each.ms, peer),
                str(each.queries),
                f"{each.found:,}",
            ]
            for each in pages.figures
        ],
    )


# One site's process -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of a page."""

    ms: float
    queries: int
    found: int


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a row, in its table and in all its indexes."""

    rows: int
    table_bytes: float
    index_bytes: float


@dataclass(frozen=True, slots=True)
class _Aim:
    """Where a page is, and what it must show.

    Attributes:
        arguments: of the view.
        rows: how many lines its list has; ``None`` where it is no list.
        texts: what it has.
        counts: which text it has how often.
        number: what it tells, whatever stands between thousands; within the tolerance.
    """

    view: str
    query: dict[str, str]
    found: int
    rows: int | None
    texts: Sequence[str] = ()
    number: int | None = None
    tolerance: float = 0.0
    arguments: Sequence[Any] = ()
    counts: tuple[str, int] | None = None


class Site:
    """A Django project with one admin."""

    title: ClassVar[str]
    app: ClassVar[str]
    admin_name: ClassVar[str]
    table: ClassVar[str]
    searched: ClassVar[str]
    """SQL of the text that is searched."""
    address: ClassVar[str]
    """SQL of an email's first address."""
    per_page: ClassVar[int]
    tolerance: ClassVar[float] = 0.0
    """How far the list's count of all emails may be off."""
    fill_sql: ClassVar[str]
    filled: ClassVar[Sequence[str]]
    """The tables that it fills."""

    def __init__(self, database: dict[str, Any]) -> None:
        import django
        from django.conf import settings

        settings.configure(
            SECRET_KEY="benchmarks",
            USE_TZ=True,
            TIME_ZONE=TIME_ZONE,
            ALLOWED_HOSTS=["testserver"],
            ROOT_URLCONF="benchmarks.admin_urls",
            STATIC_URL="/static/",
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DATABASES={"default": database},
            INSTALLED_APPS=[
                "django.contrib.admin",
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.sessions",
                "django.contrib.messages",
                "django.contrib.staticfiles",
                self.app,
            ],
            MIDDLEWARE=[
                "django.middleware.security.SecurityMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware",
            ],
            TEMPLATES=[
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "APP_DIRS": True,
                    "OPTIONS": {
                        "context_processors": [
                            "django.template.context_processors.request",
                            "django.contrib.auth.context_processors.auth",
                            "django.contrib.messages.context_processors.messages",
                        ]
                    },
                }
            ],
        )
        django.setup()

    def fill(self, rows: int) -> Generator[str]:
        """Make the tables, ``rows`` emails, and the planner's statistics."""
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        yield from fill(self.fill_sql, self.filled, rows)

    def prepare(self, rows: int) -> None:
        """Log a superuser in, and find out what the pages must show of so many emails.

        Shortly before they are opened: the dashboard's days end at midnight.
        """
        from django.contrib.auth import get_user_model
        from django.test import Client

        self.rows = rows
        user, _ = get_user_model().objects.get_or_create(
            username="ann", is_staff=True, is_superuser=True
        )
        self.client = Client()
        self.client.force_login(user)
        self.aims = dict(self.aimed())

    def aimed(self) -> Iterator[tuple[str, _Aim]]:
        """Yield each page's key and what it is to show."""
        newest = self._one(f"SELECT {self.address} FROM {self.table} ORDER BY id DESC LIMIT 1")
        yield (
            "list",
            _Aim(
                "changelist",
                {},
                self.rows,
                rows=min(self.rows, self.per_page),
                texts=[newest],
                number=self.rows,
                tolerance=self.tolerance,
            ),
        )
        somebody = self._one(
            f"SELECT {self.address} FROM {self.table} ORDER BY id OFFSET %s LIMIT 1", self.rows // 3
        )
        yield "address", self._search(somebody, shown=somebody)

    def _search(self, term: str, *, shown: str | None) -> _Aim:
        found = self._one(
            f"SELECT count(*) FROM {self.table} WHERE {self.searched} LIKE %s", f"%{term}%"
        )
        return _Aim(
            "changelist", {"q": term}, found, min(found, self.per_page), [shown] if shown else []
        )

    def _one(self, sql: str, *parameters: str | int) -> Any:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            row = cursor.fetchone()
        if row is None:
            raise WrongWork(f"nothing found: {sql}")
        return row[0]

    def sizes(self) -> list[Size]:
        """Return how large a row of each of its tables is."""
        found = []
        for name in self.filled:
            rows = self._one(f"SELECT count(*) FROM {name}")
            table_bytes, index_bytes = (
                self._one(f"SELECT {measured}(%s)", name) / rows
                for measured in ("pg_table_size", "pg_indexes_size")
            )
            found.append(Size(rows, table_bytes, index_bytes))
        return found

    def open(self, key: str) -> Opened:
        """Open a page and look that it shows what it must."""
        from django.db import connection
        from django.urls import reverse

        aim = self.aims[key]
        url = reverse(f"admin:{self.admin_name}_{aim.view}", args=aim.arguments)
        queries = 0

        def count(execute: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal queries
            queries += 1
            return execute(*arguments)

        with connection.execute_wrapper(count):
            began = time.perf_counter()
            answer = self.client.get(url, aim.query)
            ms = (time.perf_counter() - began) * 1000
        _check(aim, answer.status_code, answer.content.decode())
        return Opened(ms, queries, aim.found)


def _check(aim: _Aim, status: int, content: str) -> None:
    """Raise :class:`WrongWork` unless the page shows what it must."""
    if status != 200:
        raise WrongWork(f"{aim.view} {aim.query}: answered {status}")
    rows = content.count('name="_selected_action"')
    if aim.rows is not None and rows != aim.rows:
        raise WrongWork(f"{aim.view} {aim.query}: {rows} rows, not {aim.rows}")
    for text in aim.texts:
        if text not in content:
            raise WrongWork(f"{aim.view} {aim.query}: {text!r} is missing")
    if aim.counts is not None:
        text, times = aim.counts
        if content.count(text) != times:
            raise WrongWork(
                f"{aim.view}: {text!r} is there {content.count(text)} times, not {times}"
            )
    if aim.number is not None:
        numbers = {int(re.sub(r"\D", "", each)) for each in _NUMBER.findall(content)}
        if not any(abs(told - aim.number) <= aim.number * aim.tolerance for told in numbers):
            raise WrongWork(f"{aim.view} {aim.query}: it does not tell {aim.number}")


_NUMBER = re.compile(r"\d{1,3}(?:[,.\u202f\u00a0 ]\d{3})+|\d+")


class Log(Site):
    """This package's log."""

    title, app, admin_name = "this package", "truncus_django", "truncus_django_email"
    table, searched, address = "truncus_django_email", "search_text", '"to"->>0'
    per_page = 50
    tolerance = 0.02  # of a large log it is the planner's estimate
    fill_sql = LOG_SQL
    filled = ("truncus_django_email", "truncus_django_emailevent")

    def aimed(self) -> Iterator[tuple[str, _Aim]]:
        """Yield each page's key and what it is to show."""
        yield from super().aimed()
        yield "rare", self._search("refund", shown="refund")
        yield "frequent", self._search("password", shown="password")
        yield "nothing", self._search("nobody.known@nowhere.example", shown=None)
        counted = f"SELECT count(*) FROM {self.table} WHERE"
        for key, condition, query, text in (
            ("state", "state = 'bounced'", {"state__exact": "bounced"}, "bounced"),
            ("tenant", "tenant_id = 'school'", {"tenant_id": "school"}, "school"),
            ("mailer", "mailer = 'newsletter'", {"mailer": "newsletter"}, "newsletter"),
            ("sandbox", "is_sandbox", {"is_sandbox__exact": "1"}, "sandbox"),
            ("clicked", "click_count > 0", {"engagement": "clicked"}, " click"),
        ):
            found = self._one(f"{counted} {condition}")
            yield key, _Aim("changelist", query, found, min(self.per_page, found), [text])
        yield "week", self._week(counted)
        yield "detail", self._detail()
        yield "dashboard", self._dashboard(counted)

    def _week(self, counted: str) -> _Aim:
        since = self._one("SELECT now() - interval '7 days'").isoformat()
        found = self._one(f"{counted} created_at >= %s", since)
        return _Aim("changelist", {"created_at__gte": since}, found, min(self.per_page, found))

    def _detail(self) -> _Aim:
        """Return the page of an email that was opened and clicked, which shows each event."""
        pk = self._one(
            f"""SELECT id FROM {self.table} WHERE open_count > 1 AND click_count > 0
            ORDER BY created_at OFFSET %s LIMIT 1""",
            self.rows // 100,
        )
        events = self._one(
            "SELECT count(*) FROM truncus_django_emailevent WHERE email_id = %s", str(pk)
        )
        texts = ["clicked", "opened", "delivered"]
        return _Aim("change", {}, 1, None, texts, arguments=[pk], counts=("email.delivery", events))

    def _dashboard(self, counted: str) -> _Aim:
        sent = self._one(
            f"""{counted} NOT is_sandbox
                AND state IN ('sent', 'delivered', 'bounced', 'complained')
                AND created_at >= (date_trunc('day', now() AT TIME ZONE %s)
                    - interval '1 day' * %s) AT TIME ZONE %s""",
            TIME_ZONE,
            DASHBOARD_DAYS - 1,
            TIME_ZONE,
        )
        return _Aim("dashboard", {"days": str(DASHBOARD_DAYS)}, sent, rows=None, number=sent)


class PostOffice(Site):
    """django-post_office, its bodies kept short here, in its favour."""

    title, app, admin_name = "post_office", "post_office", "post_office_email"
    table, searched, address = "post_office_email", "lower(\"to\" || ' ' || subject)", '"to"'
    per_page = 100
    fill_sql = POST_OFFICE_SQL
    filled = ("post_office_email",)


SITES: dict[str, type[Site]] = {"log": Log, "post_office": PostOffice}


def serve(name: str, database: dict[str, Any]) -> Callable[[Any], Any]:
    """Be a site's process: return what answers a method's name and its arguments."""
    site = SITES[name](database)

    def respond(order: tuple[Any, ...]) -> Any:
        method, *arguments = order
        return getattr(site, method)(*arguments)

    return respond


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin_pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="emails in each database")
    options = parser.parse_args(arguments)
    print(as_table(run(options.rows, lambda text: print(text, file=sys.stderr))))


if __name__ == "__main__":
    main()
