"""The distributions, built as for a release, and a virtual environment that has the wheel."""

import fcntl
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a fresh sdist and the wheel that is built from its files."""
    return _made_once("dist", _make_distributions, tmp_path_factory)


def _made_once(
    name: str, make: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder of the whole run, which the first of pytest-xdist's workers has made."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            make(folder / f"{name}.new")
            (folder / f"{name}.new").rename(folder / name)
    return folder / name


def _make_distributions(folder: Path) -> None:
    _build(ROOT, "sdist", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(folder, filter="data")
    _build(folder / archive.name.removesuffix(".tar.gz"), "wheel", folder)


def _build(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, check=True, cwd=source, capture_output=True)


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    """The folder into which the sdist was unpacked."""
    (archive,) = distributions.glob("*.tar.gz")
    return distributions / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    """The wheel."""
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def python_with_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and all that this one has besides.

    Not the sources: a package folder that is appended by its path has its ``.pth`` files left out.
    """

    def make(home: Path) -> None:
        venv.create(home, symlinks=True)
        folder = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
        ZipFile(wheel).extractall(folder)
        (folder / "others.pth").write_text(sysconfig.get_path("purelib"))

    return _made_once("environment", make, tmp_path_factory) / "bin" / "python"
