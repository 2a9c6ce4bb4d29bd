"""The benchmarks start on every supported Django, and find that the right work was done."""

import subprocess
import sys

from benchmarks.admin_rows import LOG_SQL
from tests.test_docs import ROOT
from tests.test_example_project import environment
from truncus_django.models import Email


def test_a_small_run_ends_with_its_tables():
    contenders = ("truncus", "recording", "requests", "smtp", "dummy", "sync", "bulk")
    sizes = ("--mails", "5", "--emails", "30", "--bulk", "150", "--repeat", "1", "--latency", "0")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", *contenders, *sizes],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "this backend, one by one",
        "this backend, recording, as a list",
        "Django's SMTP",
        "send_bulk, 150 messages",
    ):
        assert shown in done.stdout


def test_the_rows_of_the_pages_have_all_columns():
    columns = LOG_SQL.partition("SELECT")[0].replace('"', "")
    missing = [field.column for field in Email._meta.concrete_fields if field.column not in columns]
    assert missing == []
