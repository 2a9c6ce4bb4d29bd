"""What the app adds to ``django.setup()``, in fresh processes: ``python -m benchmarks.startup``."""

import compileall
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import truncus_django
from benchmarks.processes import output_of
from benchmarks.tables import ratio, table

REPEATS = 25

# Imports nothing but Django before the clock starts.
_PROGRAM = """
import sys, time
from django.conf import settings
settings.configure(
    SECRET_KEY="benchmarks",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
        "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles",
        *sys.argv[1:],
    ],
)
import django
wall, cpu = time.perf_counter(), time.process_time()
django.setup()
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
import json
print(json.dumps([wall, cpu, sorted(sys.modules)]))
"""


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds of ``django.setup()`` without and with the app, medians, and what it imports."""

    without_s: float
    with_s: float
    cpu_without_s: float
    cpu_with_s: float
    modules: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """With the app over without, wall clock or CPU: the worse. Other load blurs the first."""
        return max(self.with_s / self.without_s, self.cpu_with_s / self.cpu_without_s)


def run(progress: Callable[[str], None] = lambda text: None) -> Startup:
    """Start Django again and again, in turns without and with the app."""
    # As pip does when it installs a package; an editable one may have been run never before, or
    # where the environment forbids to keep byte code.
    compileall.compile_dir(truncus_django.__path__[0], quiet=2)
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    modules: dict[bool, set[str]] = {}
    for turn in range(-1, REPEATS):  # the first turn fills the caches of files and bytecode
        progress(f"[{turn + 1}/{REPEATS}] startup")
        for installed in (False, True) if turn % 2 else (True, False):
            app = ["truncus_django"] if installed else []
            wall, cpu, names = json.loads(output_of("-c", _PROGRAM, *app))
            modules[installed] = set(names)
            if turn >= 0:
                times[installed].append((wall, cpu))
    return Startup(
        without_s=statistics.median(wall for wall, _ in times[False]),
        with_s=statistics.median(wall for wall, _ in times[True]),
        cpu_without_s=statistics.median(cpu for _, cpu in times[False]),
        cpu_with_s=statistics.median(cpu for _, cpu in times[True]),
        modules=tuple(sorted(modules[True] - modules[False])),
    )


def as_table(found: Startup) -> str:
    """Return what :func:`run` found, to print."""
    rows = [
        ("wall clock ms", found.without_s, found.with_s),
        ("CPU ms", found.cpu_without_s, found.cpu_with_s),
    ]
    lines = table(
        ["django.setup()", "without", "with the app", "ratio"],
        [
            [name, f"{without * 1000:.1f}", f"{with_app * 1000:.1f}", ratio(with_app, without)]
            for name, without, with_app in rows
        ],
    )
    return f"{lines}\nimported because of the app: {', '.join(found.modules) or 'nothing'}"


if __name__ == "__main__":
    print(as_table(run()))
