"""The Makefile, for somebody who has just cloned the project."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import ROOT
from tests.waiting import PATIENCE_S

OLD_PYTHON = """\
#!{python}
import sys
if sys.argv[1:] == ["--version"]:
    print("Python 3.10.13")
elif sys.argv[1] == "-c":
    sys.version_info = (3, 10, 13, "final", 0)
    exec(sys.argv[2])
"""
"""Claims to be Python 3.10, which is not on every machine."""


def make(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "-C", folder, "-f", ROOT / "Makefile", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    script = tmp_path / "python3.10"
    script.write_text(OLD_PYTHON.format(python=sys.executable))
    script.chmod(0o755)
    return script


def test_a_python_that_is_too_old_is_told_before_anything_is_made(old_python, tmp_path):
    (tmp_path / "pyproject.toml").touch()
    done = make("demo", f"PYTHON={old_python}", folder=tmp_path)

    assert done.returncode != 0
    assert f"needs Python 3.11 or newer, and {old_python} is Python 3.10.13" in done.stderr
    assert "make demo PYTHON=python3.13" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_that_is_not_there_is_told_too(tmp_path):
    done = make("demo", "PYTHON=python3.99", folder=tmp_path)

    assert done.returncode != 0
    assert "make demo PYTHON=python3.13" in done.stderr


LEFTOVERS = [
    ".venv/.pip", ".venv-oldest/.pip", ".mypy_cache/x", ".ruff_cache/x", ".hypothesis/x",
    ".import_linter_cache/x", ".coverage", ".coverage.host.1", "build/x", "dist/x",
    "truncus_django.egg-info/x", "truncus_django/__pycache__/x.pyc",
    "example_project/demo.sqlite3", "example_project/demo.sqlite3-wal",
]  # fmt: skip
KEPT = ["example_project/shop.sqlite3", "truncus_django/conf.py"]
"""The shop that somebody plays with is no leftover."""


def test_clean_leaves_nothing_that_other_targets_make(tmp_path):
    for name in [*LEFTOVERS, *KEPT]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    assert make("clean", folder=tmp_path).returncode == 0
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(KEPT)
