"""``truncus_suppress``: suppressed addresses from and to CSV files."""

import sqlite3
import sys
import tracemalloc
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from truncus_django.log.suppression_csv import Import, csv_lines
from truncus_django.models import SuppressedAddress
from truncus_django.suppression import suppress

pytestmark = pytest.mark.django_db


def run(*arguments):
    """Run the command; return what it writes to both streams."""
    out, err = StringIO(), StringIO()
    call_command("truncus_suppress", *map(str, arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file, and returns its path."""

    def write(text):
        path = tmp_path / "in.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def all_rows():
    names = ("address", "tenant_id", "list_name", "reason", "note", "created_at", "expires_at")
    return sorted(SuppressedAddress.objects.values_list(*names))


def test_what_was_exported_is_imported_as_it_was(tmp_path):
    suppress("ann@example.net", note='=1+1, "quoted"\nand more')
    suppress("+tag@example.net", list_name="digest", tenant_id="acmé", reason="unsubscribed")
    before = all_rows()
    assert run("--export", tmp_path / "out.csv") == ("", "Exported 2 addresses.\n")
    SuppressedAddress.objects.all().delete()

    out, err = run("--import", tmp_path / "out.csv")
    assert (out, err) == ("Suppressed 2 addresses of 2 good lines.\n", "")
    after = all_rows()
    assert [row[:5] for row in after] == [row[:5] for row in before]
    out, _ = run("--import", tmp_path / "out.csv")
    assert out == "Suppressed 0 addresses of 2 good lines.\n"
    assert all_rows() == after


def test_an_address_that_begins_like_an_escaped_formula_stays_as_it_is(tmp_path):
    addresses = ["'=ann@example.net", "''+ann@example.net", "'ann@example.net", "=ann@example.net"]
    for address in addresses:
        suppress(address)
    run("--export", tmp_path / "out.csv")
    SuppressedAddress.objects.all().delete()
    run("--import", tmp_path / "out.csv")
    assert sorted(SuppressedAddress.objects.values_list("address", flat=True)) == sorted(addresses)


def test_standard_input_is_read_like_a_file(monkeypatch):
    lines = b"\xef\xbb\xbfaddress,note\r\nann@example.net,caf\xe9\r\nbob@example.net,\xc3\xa9\r\n"
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(lines), "ascii"))
    assert run("--import", "-")[0] == "Suppressed 2 addresses of 2 good lines.\n"
    assert set(SuppressedAddress.objects.values_list("note", flat=True)) == {"caf?", "é"}


def test_standard_output_is_written_like_a_file(monkeypatch):
    suppress("ann@example.net", note="é", tenant_id="日本")
    out = BytesIO()
    monkeypatch.setattr("sys.stdout", TextIOWrapper(out, "ascii", newline="\r\n"))
    call_command("truncus_suppress", "--export", "-", stderr=StringIO())
    sys.stdout.flush()
    assert "ann@example.net,日本,,by_hand,é," in out.getvalue().decode()
    assert b"\r\r\n" not in out.getvalue()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the limit is SQLite's")
def test_a_file_is_imported_again_where_a_query_takes_few_values(file, monkeypatch):
    """As in SQLite before 3.32, and wherever it is compiled so."""
    monkeypatch.setattr(type(connection.features), "max_query_params", 999)
    connection.ensure_connection()
    before = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    try:
        path = file("address\n" + "".join(f"c{number}@example.net\n" for number in range(1000)))
        assert run("--import", path)[0] == "Suppressed 1000 addresses of 1000 good lines.\n"
        assert run("--import", path)[0] == "Suppressed 0 addresses of 1000 good lines.\n"
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


def test_each_bad_line_is_told_and_the_others_are_imported(file):
    lines = [
        b"\xef\xbb\xbfAddress,Reason,Until",
        b"Ann <ANN@example.net>,complaint,2030-01-31",
        b"no address,,",
        b"bob@example.net,spite,",
        b"bob@example.net,,tomorrow",
        b"bob@example.net,",
        b"b\xffb@example.net,,",
        b"",
        b"cy@example.net,,",
        b'"never closed,,',
    ]
    err = StringIO()
    with pytest.raises(CommandError, match="2 addresses of 2 good lines; 6 are bad"):
        call_command("truncus_suppress", "--import", str(file(b"\n".join(lines))), stderr=err)
    told = err.getvalue().splitlines()
    assert [line.partition(":")[0] for line in told] == [f"Line {n}" for n in (3, 4, 5, 6, 7, 10)]
    assert "@" not in err.getvalue()
    assert [row[0] for row in all_rows()] == ["ann@example.net", "cy@example.net"]
    assert all_rows()[0][3] == "complaint"


def test_a_missing_quote_costs_its_own_line_alone(file):
    others = [f"customer-{number}@example.net" for number in range(3000)]
    lines = ["address,note", '"ann@example.net,', *(f"{each}," for each in others), "bad,"]
    err = StringIO()
    with pytest.raises(CommandError, match="3000 addresses of 3000 good lines; 2 are bad"):
        call_command("truncus_suppress", "--import", str(file("\n".join(lines))), stderr=err)
    assert err.getvalue().splitlines() == [
        "Line 2: It cannot be read as CSV; is a quote missing?",
        "Line 3003: Its address is malformed.",
    ]
    assert {row[0] for row in all_rows()} == set(others)


@pytest.mark.parametrize("last", ['zoe@example.net,"a note"', "zoe@example.net,a note"])
def test_a_note_that_is_not_closed_takes_no_address_along(file, last):
    lines = ["address,note", 'ann@example.net,"no more', "bob@example.net,", last]
    err = StringIO()
    with pytest.raises(CommandError, match="2 addresses of 2 good lines; 1 are bad"):
        call_command("truncus_suppress", "--import", str(file("\n".join(lines))), stderr=err)
    assert err.getvalue() == "Line 2: It cannot be read as CSV; is a quote missing?\n"
    assert [row[0] for row in all_rows()] == ["bob@example.net", "zoe@example.net"]


def test_lines_after_a_note_of_several_lines_have_their_own_numbers(file):
    err = StringIO()
    lines = ["address,note", 'ann@example.net,"one', 'two"', "bad,"]
    with pytest.raises(CommandError, match="1 are bad"):
        call_command("truncus_suppress", "--import", str(file("\n".join(lines))), stderr=err)
    assert err.getvalue() == "Line 4: Its address is malformed.\n"
    assert all_rows()[0][4] == "one\ntwo"


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00+12:00", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59+00:00"],
)
def test_a_moment_that_some_time_zone_does_not_have_costs_its_own_line_alone(file, moment):
    lines = ["address,until", f"ann@example.net,{moment}", "bob@example.net,2030-01-31"]
    err = StringIO()
    with pytest.raises(CommandError, match="1 addresses of 1 good lines; 1 are bad"):
        call_command("truncus_suppress", "--import", str(file("\n".join(lines))), stderr=err)
    assert err.getvalue().startswith("Line 2: until must be a moment")


@pytest.mark.parametrize(
    "text",
    ["", "ann@example.net\n", "address,colour\n", "address,address\n", "x" * 200_000],
    ids=["empty", "no columns", "unknown column", "a column twice", "no CSV"],
)
def test_a_file_without_columns_is_a_clear_error(file, text):
    with pytest.raises(CommandError, match="first line must name the columns"):
        run("--import", file(text))


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(CommandError, match="cannot be used"):
        run("--import", tmp_path / "none.csv")
    with pytest.raises(CommandError, match="one of the arguments"):
        run()


def test_options_are_for_what_the_file_does_not_have(file):
    path = file("address,list\nann@example.net,\nbob@example.net,news\n")
    run("--import", path, "--list", " digest ", "--reason", "unsubscribed", "--tenant", "acme")
    assert [row[:4] for row in all_rows()] == [
        ("ann@example.net", "acme", "digest", "unsubscribed"),
        ("bob@example.net", "acme", "news", "unsubscribed"),
    ]
    assert set(SuppressedAddress.objects.values_list("source", flat=True)) == {"import"}


def test_dry_run_writes_nothing(file):
    out, _ = run("--import", file("address\nann@example.net\n"), "--dry-run")
    assert out == "1 lines are good.\n"
    assert all_rows() == []


def test_memory_does_not_grow_with_the_file():
    def lines(count):
        yield "address\n"
        for number in range(count):
            yield f"customer-{number}@example.net\n"

    def peak(count):
        tracemalloc.start()
        assert list(Import(is_dry_run=True).run(lines(count))) == []
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1000)  # what is imported and cached once
    assert peak(6000) < 1.5 * peak(2000)


def test_export_goes_through_a_table_of_many_pages(monkeypatch):
    monkeypatch.setattr("truncus_django.log.suppression_csv.ROWS_AT_ONCE", 3)
    for number in range(7):
        suppress(f"c{number}@example.net")
    lines = list(csv_lines(SuppressedAddress.objects.all()))
    found = sorted(line.partition(",")[0] for line in lines[1:])
    assert found == [f"c{number}@example.net" for number in range(7)]
