"""The example project as a site: with an outbox, and when Truncus takes nothing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.outbox.processes import ROOT
from tests.waiting import PATIENCE_S

SEND = (
    "from django.core.mail import send_mail;"
    "print(send_mail('Hello', 'Hello', None, ['rose@example.com']))"
)


@pytest.fixture
def shop(emulator: Any, tmp_path: Path) -> Any:
    """Return a function that runs a command of the shop, whose emails go into an outbox."""

    def run(*arguments: str, **others: str) -> str:
        own = ("TRUNCUS", "DJANGO", "SHOP", "COV_CORE")
        env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        env |= {
            "SHOP_DATABASE": str(tmp_path / "shop.sqlite3"),
            "SHOP_DELIVERY": "outbox",
            "TRUNCUS_BASE_URL": emulator.url,
            "PYTHONPATH": os.pathsep.join([others.pop("PYTHONPATH", ""), str(ROOT)]).lstrip(":"),
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT / "example_project",
            env=env | others,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("manage.py", "migrate", "--verbosity", "0")
    return run


def test_its_worker_sends(shop, emulator):
    assert shop("manage.py", "shell", "--verbosity", "0", "-c", SEND) == "1\n"
    assert emulator.accepted == 0
    assert "Sent 1 email in 1 request" in shop("manage.py", "truncus_worker", "--once")
    assert emulator.accepted == 1


def test_its_celery_has_the_task_and_a_schedule_for_it(shop):
    show = (
        "from config import celery_app as app; app.loader.import_default_modules();"
        "[entry] = app.conf.beat_schedule.values();"
        "print(entry['task'] in app.tasks, app.conf.broker_url)"
    )
    shown = shop("manage.py", "shell", "--verbosity", "0", "-c", show, SHOP_BROKER="memory://")
    assert shown == "True memory://\n"


def test_it_works_without_celery(shop, tmp_path):
    (tmp_path / "celery.py").write_text("raise ModuleNotFoundError(name='celery')")
    shop("manage.py", "check", PYTHONPATH=str(tmp_path))


def test_what_truncus_does_not_take_goes_into_files(shop, emulator, tmp_path):
    emulator.reset(revoked_keys=["tr_test_revoked"])
    directly = {
        "SHOP_DELIVERY": "direct",
        "SHOP_FALLBACK_FILES": str(tmp_path / "fallback"),
        "TRUNCUS_API_KEY": "tr_test_revoked",
    }
    assert shop("manage.py", "shell", "--verbosity", "0", "-c", SEND, **directly) == "1\n"
    [file] = (tmp_path / "fallback").iterdir()
    assert "To: rose@example.com" in file.read_text()
    assert emulator.accepted == 0


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"SHOP_STAGING": "1"}, id="staging"),
        pytest.param({"SHOP_FALLBACK_HOST": "smtp.example.com"}, id="smtp"),
        pytest.param({"TRUNCUS_HEALTH_TOKEN": "only-for-this-test-of-the-shop"}, id="token"),
    ],
)
def test_each_variable_makes_settings_that_are_right(shop, variables):
    shop("manage.py", "check", "--fail-level", "WARNING", **variables)


def test_staging_redirects(shop, emulator):
    shop(
        "manage.py",
        "shell",
        "--verbosity",
        "0",
        "-c",
        SEND,
        SHOP_DELIVERY="direct",
        SHOP_STAGING="1",
    )
    assert [email.to for email in emulator.emails] == [("developer@example.com",)]
