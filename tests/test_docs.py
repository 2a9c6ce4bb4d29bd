"""Every snippet of the documentation runs, and every command in it exists."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.management import get_commands
from django.test.utils import override_settings
from django.utils.log import AdminEmailHandler

from tests.test_contract_rows import FACTS, words
from truncus_django import conf
from truncus_django.checks import check_settings
from truncus_django.models import Email, EmailEvent
from truncus_django.signals import post_send, pre_send, send_failed

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)


CODES = [code for page in PAGES for _, code in FENCE.findall(page.read_text())]


def snippets(language: str) -> list[Any]:
    return [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (kind, code) in enumerate(FENCE.findall(page.read_text()), start=1)
        if kind == language
    ]


@pytest.fixture
def no_receivers_left() -> Iterator[None]:
    before = [(signal, list(signal.receivers)) for signal in (pre_send, post_send, send_failed)]
    yield
    for signal, receivers in before:
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.mark.django_db
@pytest.mark.usefixtures("no_receivers_left")
@pytest.mark.parametrize("code", snippets("python"))
def test_a_python_snippet_runs(code, truncus_emulator, monkeypatch, tmp_path):
    monkeypatch.setitem(settings.TRUNCUS, "RECORD", True)
    monkeypatch.setenv("TRUNCUS_API_KEY", "tr_live_documented")
    monkeypatch.setenv("TRUNCUS_BASE_URL", truncus_emulator.url)
    conf.forget_settings()
    if code.startswith("# urls.py"):
        names: dict[str, Any] = {"urlpatterns": []}
        exec(compile(code, "urls", "exec"), names)
        assert names["urlpatterns"]
    elif code.startswith("# settings.py"):
        check_that_settings_are_right(code)
    elif code.startswith("# test_"):
        run_as_tests(code, tmp_path)
    else:
        exec(compile(code, "snippet", "exec"), {})
        with suppress(IndexError):  # the snippets about the client need no email at the end
            assert truncus_emulator.requests[-1].status == 200
    conf.forget_settings()


def check_that_settings_are_right(code: str) -> None:
    # Snippets go to the end of a project's settings; test_fresh_project.py puts them there.
    names: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {"default": {}}}
    code = code.replace("whsec_…", "whsec_0")  # a placeholder is refused
    exec(compile(code, "settings", "exec"), names)
    truncus = names.get("TRUNCUS", {})
    senders = {
        name: names[name] for name in ("DEFAULT_FROM_EMAIL", "SERVER_EMAIL") if name in names
    }
    if "FALLBACK_MAILER" in truncus:  # an alias of the snippet's own mailers
        if django.VERSION < (6, 1):
            return
        senders["MAILERS"] = names["MAILERS"]
    with override_settings(TRUNCUS=truncus, **senders):
        assert list(conf.problems()) == []
        for mailer in names.get("MAILERS", {}).values():
            assert list(conf.problems(mailer.get("OPTIONS", {}))) == []
        assert check_settings() == []


if django.VERSION >= (6, 1):

    def test_an_outage_does_not_escape_from_the_documented_error_reports(truncus_emulator):
        code = next(code for code in CODES if "AdminEmailHandler" in code)
        documented: dict[str, Any] = {}
        exec(compile(code, "settings", "exec"), documented)
        (options,) = documented["LOGGING"]["handlers"].values()
        handler = AdminEmailHandler(using=options["using"])
        truncus = {**settings.TRUNCUS, "MAX_RETRIES": 0, "DELIVERY": "outbox"}

        with override_settings(MAILERS=documented["MAILERS"], TRUNCUS=truncus):
            for number, fault in enumerate([None, "reset_before", None], start=1):
                if fault:
                    truncus_emulator.faults.next(fault)
                report = {"levelname": "ERROR", "msg": f"Report {number}"}
                handler.handle(logging.makeLogRecord(report))

        subjects = [email.payload["subject"] for email in truncus_emulator.emails]
        assert [subject.partition("] ")[2] for subject in subjects] == [
            "ERROR: Report 1",
            "ERROR: Report 3",
        ]


def run_as_tests(code: str, folder: Path) -> None:
    (folder / "test_snippet.py").write_text(code)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))

    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_setting_is_documented():
    page = (ROOT / "docs" / "settings.md").read_text()

    assert [name for name in conf.SETTING_NAMES if f"`{name.upper()}`" not in page] == []


def test_every_system_check_is_documented():
    identity = re.compile(r"truncus\.[EW]\d{3}")
    code = (ROOT / "truncus_django" / "checks.py").read_text()
    page = (ROOT / "docs" / "settings.md").read_text()

    assert set(identity.findall(page)) == set(identity.findall(code)) != set()


def test_every_path_header_code_and_state_of_the_api_is_documented_with_its_source():
    page = (ROOT / "docs" / "contract.md").read_text()
    told = {word for value in FACTS.values() for word in words(value)} - {"tr_"}

    assert len(told) > 60
    assert sorted(word for word in told if word not in page) == []


@pytest.mark.parametrize("model", [Email, EmailEvent])
def test_every_field_of_the_log_is_documented(model):
    page = (ROOT / "docs" / "models.md").read_text()
    own = {field.name for field in model._meta.get_fields()} - {"id", "outbox_entry"}

    assert [name for name in own if f"`{name}`" not in page] == []
