"""A release is refused unless its tag, the package's version and CHANGELOG.md agree."""

from runpy import run_path

import pytest

from tests.packaging.conftest import ROOT

PACKAGE = '__version__ = "0.2.0"\n'
CHANGES = "# Changes\n\n## 0.2.0 (2027-01-02)\n\n* New.\n\n## 0.1.0 (2026-12-01)\n"

problem = run_path(str(ROOT / ".github" / "check_release.py"))["problem"]


def test_a_tag_with_its_version_and_a_dated_entry_is_released():
    assert problem("v0.2.0", PACKAGE, CHANGES) is None


@pytest.mark.parametrize(
    ("tag", "changes", "told"),
    [
        ("v0.3.0", CHANGES, "package has version 0.2.0"),
        ("0.2.0", CHANGES, "package has version 0.2.0"),
        ("v0.2.0", CHANGES.replace("0.2.0", "0.1.1"), "newest entry of CHANGELOG.md is 0.1.1"),
        ("v0.2.0", "# Changes\n", "newest entry of CHANGELOG.md is None"),
        ("v0.2.0", CHANGES.replace("2027-01-02", "unreleased"), "dated unreleased"),
    ],
)
def test_a_tag_that_differs_is_refused(tag, changes, told):
    assert told in problem(tag, PACKAGE, changes)


def test_the_files_of_this_repository_are_read():
    package = (ROOT / "truncus_django" / "__init__.py").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    version = package.partition('__version__ = "')[2].partition('"')[0]

    assert problem(f"v{version}", package, changes) in (
        None,
        "The entry of CHANGELOG.md is dated unreleased, not YYYY-MM-DD.",
    )
