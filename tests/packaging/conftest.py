"""The distributions, built as for a release, and a virtual environment that has the wheel."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a fresh sdist and the wheel that is built from its files."""
    folder = tmp_path_factory.mktemp("dist")
    _build(ROOT, "sdist", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(folder, filter="data")
    _build(folder / archive.name.removesuffix(".tar.gz"), "wheel", folder)
    return folder


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
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    folder = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    ZipFile(wheel).extractall(folder)
    (folder / "others.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin" / "python"
