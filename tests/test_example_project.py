"""The example project: its demo in both dialects, and its own tests."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.projects

ROOT = Path(__file__).resolve().parent.parent
MANAGE = "example_project/manage.py"
TITLES = [
    "Sign-up, password link",
    "Order, HTML and PDF",
    "Order, in German",
    "Delay notice to many",
    "Letters, killed midway",
    "News, by merge data",
    "Weekly digest, scheduled",
    "Digest in the sandbox",
    "Answer to a question",
    "Order, mailbox full",
    "Order, suppressed",
    "Error mail to the admins",
    "Order on a staging site",
]
"""Of those that have an id of Truncus's."""
SENT_OTHERWISE = ["Order, suppressed again", "Digest, unsubscribed", "Order, key revoked"]


@pytest.fixture(autouse=True)
def _own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run beside each other, and the demo's database is one file."""
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.sqlite3"))


def command(*arguments: str) -> list[str]:
    """Return the command line of ``manage.py``, where deprecated calls are errors."""
    return [sys.executable, "-W", "error", MANAGE, *arguments]


def environment(**others: str) -> dict[str, str]:
    """Return an environment without settings of the one who runs the tests."""
    own = ("TRUNCUS", "DJANGO", "PYTHONWARNINGS", "SITE_URL", "DEBUG", "COV_CORE", "OTEL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, **others}


def run(*arguments: str, **others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(**others),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


ACCOUNT_OF_THE_ENVIRONMENT = {
    "TRUNCUS_API_KEY": "tr_live_" + "0" * 64,
    "TRUNCUS_BASE_URL": "https://truncus.invalid",
    "TRUNCUS_SANDBOX": "true",
    "TRUNCUS_DIALECT": "sdk",
    "SHOP_STAGING": "1",
    "SHOP_FALLBACK_HOST": "smtp.invalid",
    "SHOP_DELIVERY": "outbox",
}


@pytest.mark.parametrize(
    ("dialect", "account"),
    [("manual", ACCOUNT_OF_THE_ENVIRONMENT), ("sdk", {})],
    ids=["manual, not that of the environment", "sdk"],
)
def test_demo_shows_every_mail_and_exits_0(dialect: str, account: dict[str, str]) -> None:
    demo = run("demo", "--dialect", dialect, PYTHONIOENCODING="utf-8", **account)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    lines = demo.stdout.splitlines()
    rows = [line for line in lines if re.search(r" (msg|em)_[0-9a-f]{24} ", line)]
    assert [row[:24].strip() for row in rows] == TITLES
    others = [line[:24].strip() for line in lines if re.search(r" (failed|sent) +none: ", line)]
    assert others == SENT_OTHERWISE
    assert "raised EmailRefused" in demo.stdout
    assert "763 mails: 759 accepted and 1 refused by Truncus" in demo.stdout
    assert "1 TCP connection," in demo.stdout
    assert "went to developer@example.com instead" in demo.stdout
    assert "758 of this month's 758 emails are used, 0 are left" in demo.stdout
    assert re.search(r"health +HTTP 200: healthy, .*held_back 5", demo.stdout)
    assert 'truncus_sent_emails_total{error=""} 759' in demo.stdout
    assert "truncus_event=fallback_mailer_used" in demo.stdout
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in demo.stdout
    assert "tr_live" not in demo.stdout
    assert demo.stderr == ""


def test_demo_says_what_to_install_without_werkzeug(tmp_path: Path) -> None:
    (tmp_path / "werkzeug.py").write_text("raise ModuleNotFoundError(name='werkzeug')")
    demo = run("demo", PYTHONPATH=str(tmp_path))
    assert demo.returncode == 1
    assert 'pip install "truncus-django[emulator]"' in demo.stderr


WITHOUT_EXTRAS = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(["prometheus_client", "opentelemetry"]))  # as if not installed
sys.argv = [{MANAGE!r}, "demo"]
runpy.run_path({MANAGE!r}, run_name="__main__")
"""


def test_demo_says_what_to_install_for_metrics_and_spans() -> None:
    demo = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT / "example_project"), PYTHONIOENCODING="utf-8"),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert 'metrics       pip install "truncus-django[prometheus]"' in demo.stdout
    assert "spans         pip install opentelemetry-sdk" in demo.stdout


@pytest.fixture
def kept_running() -> Iterator[subprocess.Popen[str]]:
    demo = subprocess.Popen(
        command("demo", "--keep-running"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    deadline = threading.Timer(PATIENCE_S, demo.kill)
    deadline.start()
    with demo:
        yield demo
        demo.kill()
    deadline.cancel()


def test_demo_keeps_the_inbox_open_until_ctrl_c(kept_running: subprocess.Popen[str]) -> None:
    assert kept_running.stdout is not None
    inbox = next(
        found[0]
        for line in kept_running.stdout
        if "inbox is at" in line and (found := re.search(r"http://\S+", line))
    )
    with urllib.request.urlopen(inbox, timeout=PATIENCE_S) as page:
        assert "New in the shop this week" in page.read().decode()
    kept_running.send_signal(signal.SIGINT)
    assert kept_running.wait(timeout=PATIENCE_S) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def admin() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The served admin with the log of a demo, and where it is."""
    assert run("demo").returncode == 0
    port = free_port()
    process = subprocess.Popen(
        command("serve_admin", "--port", str(port)),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    deadline = threading.Timer(PATIENCE_S, process.kill)
    deadline.start()
    with process:
        yield process, f"http://127.0.0.1:{port}/"
        process.kill()
    deadline.cancel()


def test_the_admin_is_served_and_says_where_and_nothing_odd(
    admin: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = admin
    assert process.stdout is not None
    told = list(iter(process.stdout.readline, "Ctrl-C stops them.\n"))
    wait_until_it_answers(url)
    process.send_signal(signal.SIGINT)
    told += process.stdout.readlines()
    text = "".join(told)
    assert f"Admin  {url}admin/" in text
    assert "settings None" not in text
    assert "Traceback" not in text


def wait_until_it_answers(url: str) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S) as page:
            return page.status == 200
        return False

    until(answers, f"An answer of {url}")


def test_a_port_in_use_is_told_with_the_option_that_chooses_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve_admin", "--port", port)
    assert done.returncode == 1
    assert re.search(rf"Port {port} cannot be used: .*in use.*--port 8001", done.stderr)
    assert "--port" in run("serve_admin", "--port", "99999").stderr


def test_help_tells_what_the_demo_does() -> None:
    shown = run("demo", "--help")
    assert shown.returncode == 0
    assert "send_mass_mail()" in shown.stdout
    assert "--keep-running" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("test", "shop"), id="its-own-tests-pass"),
        pytest.param(("check", "--fail-level", "WARNING"), id="system-checks-pass"),
        pytest.param(("makemigrations", "--check", "--dry-run"), id="migrations-are-complete"),
    ],
)
def test_project(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
