"""The command line as a subprocess: ready line, trouble at the start, the end."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.waiting import PATIENCE_S
from truncus_django.emulator import Options
from truncus_django.emulator.cli import add_arguments, emulator_from, main

from .conftest import an_email

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "truncus_django.emulator"]
COMMAND = [sys.executable, "-m", "django", "truncus_emulator"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "DJANGO_SETTINGS_MODULE": "tests.settings",
    "PYTHONWARNINGS": "error",
}


@contextmanager
def running(*arguments: str, command: list[str] = MODULE) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run the emulator and yield it with its ready line."""
    process = subprocess.Popen(
        [*command, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def finish(*arguments: str, command: list[str] = MODULE) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "end"),
    [(MODULE, signal.SIGINT), (COMMAND, signal.SIGTERM)],
    ids=["module, Ctrl-C", "manage, SIGTERM"],
)
def test_runs_until_it_is_told_to_stop(command, end):
    with running("--dialect", "sdk", command=command) as (process, ready):
        match = re.fullmatch(
            r"Truncus emulator at (http://127\.0\.0\.1:\d+) \(dialect: sdk\)\. "
            r"Inbox: \1/  Ctrl-C stops it\.\n",
            ready,
        )
        assert match
        with requests.Session() as session:  # a kept connection does not hold up the end
            answer = session.get(match[1], timeout=PATIENCE_S)
            assert answer.status_code == 200
            process.send_signal(end)
            out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, err) == (0, "", "")


def test_options_reach_the_emulator(tmp_path):
    template = tmp_path / "hello.html"
    template.write_text("<p>Hello {{name}}</p>")
    arguments = [
        *("--api-key", "tr_a", "--api-key", "tr_b:read_events"),
        *("--verified-domain", "mail.example.com", "--domain", "bad.example=paused"),
        *("--template", f"hello={template}", "--suppress", "eve@example.com"),
        *("--requests-per-minute", "1000", "--requests-per-second", "0"),
        *("--fault", "error_503@batch=1", "--fault-seed", "7", "--latency", "1"),
    ]
    with running(*arguments) as (_, ready):
        base = ready.split()[3]

        def post(path: str, key: str, body: object) -> requests.Response:
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "a"}
            return requests.post(
                f"{base}/api/v1/{path}", json=body, headers=headers, timeout=PATIENCE_S
            )

        assert post("emails/send", "tr_b", an_email()).status_code == 403
        assert post("emails/send", "tr_c", an_email()).status_code == 401
        assert post("emails/send", "tr_a", an_email(from_="a@bad.example")).status_code == 403
        rejected = post("emails/send", "tr_a", an_email(to="eve@example.com"))
        assert rejected.json()["status"] == "rejected"
        assert post("emails/batch", "tr_a", {"emails": [an_email()]}).status_code == 503


@pytest.mark.parametrize("command", [MODULE, COMMAND], ids=["module", "manage"])
def test_a_webhook_that_nobody_takes_is_told_on_the_terminal(command):
    webhooks = ("--webhook-url", "http://127.0.0.1:9/", "--webhook-secret", "s")
    with running(*webhooks, command=command) as (process, ready):
        headers = {"Authorization": "Bearer tr_a", "Idempotency-Key": "a"}
        url = f"{ready.split()[3]}/api/v1/emails/send"
        assert (
            requests.post(url, json=an_email(), headers=headers, timeout=PATIENCE_S).status_code
            == 200
        )
        told = process.stderr.readline()
    assert "Webhooks are not acknowledged: no answer" in told
    assert "@" not in told


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_without_arguments_it_is_as_in_python_but_for_the_request_limits():
    options = emulator_from(parsed()).options
    assert options == Options(
        requests_per_second=10,
        requests_per_minute=60,
        revoked_keys=[],
        verified_domains=[],
        suppressed=[],
    )


def test_options_arrive_under_their_names_in_python():
    emulator = emulator_from(
        parsed(
            *("--dialect", "sdk", "--keep", "5", "--revoked-key", "tr_old", "--latency", "20"),
            *("--webhook-url", "http://127.0.0.1:9/", "--webhook-secret", "whsec"),
            *("--webhook-backoff", "0.5", "3", "--webhook-event-ids", "--webhook-threads", "4"),
            *("--webhook-bad-signatures", "0.25", "--webhook-stale", "0.5"),
        )
    )
    assert emulator.options == Options(
        dialect="sdk",
        keep=5,
        revoked_keys=["tr_old"],
        latency_s=0.02,
        requests_per_second=10,
        requests_per_minute=60,
        verified_domains=[],
        suppressed=[],
        webhook_url="http://127.0.0.1:9/",
        webhook_secret="whsec",
        webhook_backoff_s=[0.5, 3],
        webhook_event_ids=True,
        webhook_threads=4,
        webhook_bad_signatures=0.25,
        webhook_stale=0.5,
    )


def test_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = finish("--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf"Error: .*127\.0\.0\.1:{port}: .*in use.*--port.*\n", done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "earthquake=1"],
        ["--fault", "error_500"],
        ["--fault", "error_500=often"],
        ["--api-key", "sk_live"],
        ["--api-key", "tr_a:fly"],
        ["--domain", "a.example=gone"],
        ["--webhook-url", "http://127.0.0.1:9/"],
        ["--template", "hello=/no/such/file"],
        ["--webhook-stale", "2"],
        ["--webhook-threads", "0"],
        ["--webhook-backoff", "1", "-1"],
        ["--port", "99999"],
    ],
)
def test_wrong_option_is_one_line(arguments, capsys):
    assert main(["--port", "0", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"Error: .+\n", err)


def test_other_machines_are_let_in_only_when_asked_and_with_a_warning():
    with running("--host", "0.0.0.0") as (process, ready):
        assert ready.startswith("Truncus emulator at http://0.0.0.0:")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert re.fullmatch(r"Warning: 0\.0\.0\.0 is reachable from other machines\.\n", err)


def test_help_is_grouped(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for group in ("server:", "account:", "limits (0: none):", "webhooks:", "trouble:"):
        assert f"\n{group}\n" in text
    assert "--fault NAME[@PATH]=RATE" in text


def test_missing_werkzeug_says_what_to_install(tmp_path):
    (tmp_path / "werkzeug.py").write_text("raise ModuleNotFoundError('no', name='werkzeug')")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [*MODULE, "--port", "0"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        'Error: The emulator needs werkzeug: pip install "truncus-django[emulator]"\n'
    )
