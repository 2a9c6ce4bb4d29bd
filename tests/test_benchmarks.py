"""The benchmarks start on every supported Django, and find that the right work was done."""

import re
import subprocess
import sys

import pytest
from django.db import connection

from benchmarks.admin_rows import EMAILS_SQL, EVENTS_SQL
from benchmarks.purging import percentile, rates
from tests.test_docs import ROOT
from tests.test_example_project import environment
from truncus_django.models import Email, EmailEvent


def benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


def test_a_small_run_ends_with_its_tables():
    contenders = ("truncus", "recording", "requests", "smtp", "dummy", "sync", "bulk")
    sizes = ("--mails", "5", "--emails", "30", "--bulk", "150", "--repeat", "1", "--latency", "0")
    done = benchmarks("--only", *contenders, *sizes)
    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "this backend, one by one",
        "this backend, recording, as a list",
        "Django's SMTP",
        "send_bulk, 150 messages",
    ):
        assert shown in done.stdout


def test_the_rows_of_the_pages_have_all_columns():
    for model, sql in ((Email, EMAILS_SQL), (EmailEvent, EVENTS_SQL)):
        columns = re.findall(r"\w+", sql.partition("SELECT")[0])
        assert [f.column for f in model._meta.concrete_fields if f.column not in columns] == []


def test_the_rates_of_a_purge_are_those_of_its_parts():
    marks = [(0, 0.0), (100, 1.0), (200, 3.0)]
    assert rates(marks) == [100, 50]
    many = [(number * 10, float(number)) for number in range(41)]
    assert rates(many) == [10.0] * 10


def test_a_percentile_is_one_of_the_values():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 3, 5, 5]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="fills databases of PostgreSQL")
def test_a_small_log_grows_and_is_purged():
    done = benchmarks("--only", "growth", "--grown", "3000", "--alone", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "an email with its events" in done.stdout
    assert "1,500 emails, " in done.stdout
    assert "send and record, during the purge" in done.stdout
