"""tests/contract_rows.md names a test for every row of the contract; here it is held to that."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from truncus_django.api import contract

TESTS = Path(__file__).parent
LIST = (TESTS / "contract_rows.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in LIST.splitlines()
    if line.startswith("| ") and not line.startswith(("| row", "| ---"))
]
NAMED = sorted(set(re.findall(r"[\w/]+\.py::\w+", LIST)))
FACTS = {name: value for name, value in vars(contract).items() if name.isupper()}


@cache
def names_of_tests(file: str) -> set[str]:
    """The names of the tests that a module has on every supported Django."""
    module = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def words(value: object) -> set[str]:
    """The codes, states and reasons in a constant of the contract."""
    if isinstance(value, str):
        return {value}
    return set(value) if isinstance(value, frozenset | tuple) else set()


@pytest.mark.parametrize("test", NAMED)
def test_every_test_that_is_named_exists(test):
    file, _, name = test.partition("::")
    assert name.startswith("test_")
    assert name in names_of_tests(file)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_is_met_by_a_test(row):
    assert len(row) == 3
    assert re.fullmatch(r"[\w/]+\.py::\w+(, [\w/]+\.py::\w+)*", row[2])


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_of_the_contract_is_listed(name):
    assert f"`{name}`" in LIST


@pytest.mark.parametrize(
    "name", [name for name in FACTS if re.search("CODE|STATUS|REASON|EVENT_TYPES", name)]
)
def test_every_code_state_and_reason_is_listed(name):
    assert {word for word in words(FACTS[name]) if f"`{word}`" not in LIST} == set()


def test_the_list_is_read_at_all():
    assert len(ROWS) > 60
    assert len(NAMED) > 80
