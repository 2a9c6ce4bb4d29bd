"""A newcomer's first minutes: what README and docs say, word for word, in a fresh project."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import django
import pytest

from tests.test_docs import FENCE, PAGES, ROOT
from tests.test_example_project import environment
from tests.waiting import PATIENCE_S
from truncus_django.emulator import Emulator
from truncus_django.testing import run_emulator

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
IS_BY_MAILERS = django.VERSION >= (6, 1)


def snippets(page: Path, file: str) -> list[str]:
    """Return the snippets of a page for a file of the project, on the Django of this run."""
    return [
        code
        for kind, code in FENCE.findall(page.read_text())
        if kind == "python" and code.startswith(f"# {file}") and is_for_this_django(code)
    ]


def is_for_this_django(code: str) -> bool:
    title = code.partition("\n")[0]
    return "Django" not in title or ("Django 6.1" in title) is IS_BY_MAILERS


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of each ``python manage.py …`` in the page's consoles."""
    consoles = "".join(code for kind, code in FENCE.findall(page.read_text()) if kind == "console")
    return [line.split() for line in re.findall(r"^python manage\.py ([^#\n]+)", consoles, re.M)]


class Project:
    """What ``django-admin startproject`` makes, and its ``manage.py``."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        self.emulator = emulator
        self.variables = {"TRUNCUS_API_KEY": "tr_test_1", "TRUNCUS_BASE_URL": emulator.url}
        self._run("-m", "django", "startproject", "shop", ".")

    def paste(self, file: str, code: str) -> None:
        """Put a snippet at the end of a file, as README says."""
        with (self.folder / "shop" / file).open("a") as opened:
            opened.write("\n" + code.replace("whsec_…", "whsec_0"))  # a placeholder is refused

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("manage.py", *arguments)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=self.folder,
            env=environment(**self.variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A fresh project with all that README says, and a local Truncus to send to."""
    with run_emulator() as emulator:
        project = Project(tmp_path, emulator)
        for code in snippets(README, "settings.py"):
            project.paste("settings.py", code)
        yield project


def test_what_readme_says_sends_an_email_and_records_it(project: Project) -> None:
    named = commands(README)
    assert [arguments[0] for arguments in named] == ["migrate", "sendtestemail"]

    check = project.manage("check", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr
    for arguments in named:
        done = project.manage(*arguments)
        assert (done.returncode, done.stderr) == (0, "")

    [email] = project.emulator.emails
    with closing(sqlite3.connect(project.folder / "db.sqlite3")) as database:
        rows = database.execute("SELECT message_id FROM truncus_django_email").fetchall()
    assert rows == [(email.id,)]


UNTOUCHED = """
from django.conf import settings
from shop.settings import BASE_DIR
from shop.urls import urlpatterns
assert "django.contrib.admin" in settings.INSTALLED_APPS
assert settings.DATABASES["default"]["NAME"] == BASE_DIR / "db.sqlite3"
assert str(urlpatterns[0].pattern) == "admin/"
"""


def pasted() -> Iterator[pytest.ParameterSet]:
    for page in PAGES:
        for file in ("settings.py", "urls.py"):
            for number, code in enumerate(snippets(page, file), start=1):
                if page not in {README, TUTORIAL}:
                    yield pytest.param(file, code, id=f"{page.stem}-{file}-{number}")


@pytest.mark.parametrize(("file", "code"), list(pasted()))
def test_a_snippet_goes_to_the_end_of_a_file_and_replaces_nothing_of_the_project(
    project: Project, file: str, code: str
) -> None:
    project.paste(file, code)

    check = project.manage("check")
    assert check.returncode == 0, check.stderr
    shell = project.manage("shell", "-c", UNTOUCHED)
    assert shell.returncode == 0, shell.stderr


def test_the_tutorial_begins_a_project_of_its_own(tmp_path: Path) -> None:
    with run_emulator() as emulator:
        project = Project(tmp_path, emulator)
        for file in ("settings.py", "urls.py"):
            for code in snippets(TUTORIAL, file):
                project.paste(file, code)
        check = project.manage("check", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("command", ["migrate", "makemigrations --check", "truncus_purge"])
def test_a_command_that_sends_nothing_runs_without_a_key_and_warns(
    project: Project, command: str
) -> None:
    project.paste("settings.py", "TRUNCUS = {'RETENTION_DAYS': 90}")
    assert project.manage("migrate").returncode == 0
    del project.variables["TRUNCUS_API_KEY"]

    done = project.manage(*command.split())
    assert done.returncode == 0, done.stderr
    assert "(truncus.W007) There is no API key" in done.stderr


def test_a_deployment_without_a_key_fails_its_check_and_its_sends(project: Project) -> None:
    del project.variables["TRUNCUS_API_KEY"]

    check = project.manage("check", "--deploy")
    assert check.returncode == 1
    assert "(truncus.E003) There is no API key" in check.stderr

    send = project.manage("sendtestemail", "ann@example.org")
    assert send.returncode == 1
    assert "ConfigurationError: There is no API key" in send.stderr
    assert project.emulator.requests == []
