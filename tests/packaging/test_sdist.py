"""The sdist holds all that its tests need, so that they run from it, as distributors run them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.packaging.conftest import ROOT

LEFT_OUT = {"__pycache__", "build", "dist"}


def files_of(root: Path) -> Iterator[str]:
    """Yield the files below a folder, without what tools leave there."""
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        is_shown = parts[0] == ".ci" or not any(part.startswith(".") for part in parts)
        if path.is_file() and is_shown and not LEFT_OUT & set(parts) and path.suffix != ".sqlite3":
            yield "/".join(parts)


def test_it_holds_every_file_of_the_repository(sdist):
    files = set(files_of(ROOT))
    assert {"Makefile", ".ci/run", "tests/contract_rows.md", "example_project/manage.py"} <= files

    assert sorted(files - set(files_of(sdist))) == []


def test_the_tests_run_from_it(sdist, python_with_wheel):
    """All are collected, and those that read files beside the package are run.

    Not the example project's demos: they take long, and their files are all there.
    """
    readers = [
        "tests/test_contract_rows.py",
        "tests/test_docs.py",
        "tests/test_public_surface.py",
        "tests/emulator/test_testing.py",
        "tests/outbox/test_example.py",
    ]

    run_pytest(python_with_wheel, sdist, "--collect-only", "-q")
    run_pytest(python_with_wheel, sdist, "--numprocesses", "2", *readers)


def run_pytest(python: Path, folder: Path, *arguments: str) -> None:
    """Run pytest in a folder, and fail with what it says where it fails."""
    done = subprocess.run(
        [str(python), "-m", "pytest", *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
