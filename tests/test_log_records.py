"""Every log line carries fields for machines, by names that the documentation lists."""

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage

from truncus_django.api.errors import APIError, log_fields
from truncus_django.backend import TruncusBackend
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.worker import Worker

ROOT = Path(__file__).parents[1]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
PAGE = (ROOT / "docs" / "monitoring.md").read_text()


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call that logs, of a logger or of a TroubleLog, and where it is."""
    for file in sorted((ROOT / "truncus_django").rglob("*.py")):
        if file.name == "trouble_log.py":
            continue  # which passes on what it is given
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            whose = ast.unparse(node.func.value)
            is_trouble = node.func.attr == "failed" and "trouble" in whose
            is_line = node.func.attr in LEVELS and re.search(r"logger|trouble|getLogger", whose)
            if is_trouble or is_line:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node


CALLS = dict(log_calls())


def extra_of(call: ast.Call) -> ast.Dict:
    events = [keyword.value for keyword in call.keywords if keyword.arg == "event"]
    if events:  # TroubleLog.failed(), whose fields tests/test_trouble_log.py looks at
        names = [ast.Constant("truncus_event"), ast.Constant("truncus_error")]
        return ast.Dict(names, [*events, ast.Constant("")])
    (found,) = (keyword.value for keyword in call.keywords if keyword.arg == "extra")
    assert isinstance(found, ast.Dict)
    return found


def names_of(call: ast.Call) -> list[str]:
    return [key.value for key in extra_of(call).keys if isinstance(key, ast.Constant)]


def test_the_calls_are_found():
    assert len(CALLS) > 25
    assert {place.partition(":")[0] for place in CALLS} >= {
        "truncus_django/backend.py",
        "truncus_django/views.py",
        "truncus_django/api/transport.py",
        "truncus_django/outbox/worker.py",
        "truncus_django/signals.py",
    }


def test_nobody_logs_by_another_way():
    loggers = [
        file.relative_to(ROOT)
        for file in (ROOT / "truncus_django").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and "logging.getLogger" in ast.unparse(node.func)
        for target in [ast.unparse(node)]
        if not re.search(r"truncus_django|django\.(request|dispatch)", target)
    ]
    assert loggers == []


@pytest.mark.parametrize("place", CALLS)
def test_each_line_names_its_event_and_has_documented_fields(place):
    names = names_of(CALLS[place])
    assert names[0] == "truncus_event"
    assert [name for name in names if f"`{name}`" not in PAGE] == []
    # What is unpacked has documented names, too.
    unpacked = [
        ast.unparse(value)
        for key, value in zip(
            extra_of(CALLS[place]).keys, extra_of(CALLS[place]).values, strict=True
        )
        if key is None
    ]
    assert set(unpacked) <= {"log_fields(error)", "fields"}


def test_the_documented_names_are_those_in_use():
    used = {name for call in CALLS.values() for name in names_of(call)}
    used |= set(log_fields(APIError("No")))
    documented = set(re.findall(r"^\| `(truncus_\w+)` \|", PAGE, re.M)) & {
        name for name in re.findall(r"`(truncus_\w+)`", PAGE) if name in used
    }
    assert documented == used


def test_no_name_is_one_of_the_records_own():
    own = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    assert {name for call in CALLS.values() for name in names_of(call)} & own == set()


def test_the_documented_events_are_those_in_use():
    def events_in(node: ast.AST) -> set[str]:
        return {
            found.value
            for found in ast.walk(node)
            if isinstance(found, ast.Constant) and isinstance(found.value, str)
        }

    table = PAGE.partition("## Log lines")[2]
    documented = set(re.findall(r"^\| `(\w+)` \| (?:DEBUG|INFO|WARNING|ERROR)", table, re.M))
    in_calls = {
        extra_of(call).values[0].value
        for call in CALLS.values()
        if isinstance(extra_of(call).values[0], ast.Constant)
    }
    constants = set().union(
        *(
            events_in(ast.parse(file.read_text()))
            for file in (ROOT / "truncus_django").rglob("*.py")
        )
    )
    assert in_calls <= documented <= constants
    assert len(documented) > 20


# Real ones ----------------------------------------------------------------------------------------


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG, logger="truncus_django")
    return lambda event: [r for r in caplog.records if getattr(r, "truncus_event", "") == event]


def message(**options: Any) -> EmailMessage:
    return EmailMessage("x", "x", "shop@example.com", ["ada@example.org"], **options)


def test_an_accepted_email_is_logged_with_its_id(truncus_emulator, records):
    one = message()
    one.send()

    (record,) = records("email_accepted")
    assert record.truncus_message_id == one.truncus_status.id
    assert record.truncus_status == one.truncus_status.status


def test_a_retry_is_logged_with_what_it_met(truncus_emulator, records, naps):
    truncus_emulator.reset(dialect="manual")
    truncus_emulator.faults.next("provider_502")
    message().send()

    (record,) = records("request_retried")
    assert (record.truncus_attempt, record.truncus_http_status) == (1, 502)
    assert (record.truncus_error, record.truncus_code) == ("ServerError", "PROVIDER_ERROR")
    assert record.truncus_path.endswith("/send")
    assert record.truncus_seconds > 0


def test_a_silent_failure_is_logged_with_its_code(truncus_emulator, records):
    truncus_emulator.reset(domains={"example.com": "paused"})
    TruncusBackend(fail_silently=True).send_messages([message()])

    (record,) = records("email_not_sent")
    assert (record.truncus_error, record.truncus_http_status) == ("DomainError", 403)


@pytest.mark.django_db
def test_a_request_of_the_outbox_that_fails_is_logged_with_its_batch(
    truncus_emulator, records, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    message().send()
    truncus_emulator.faults.next("provider_502")
    dispatcher = Dispatcher()
    dispatcher.step()

    (record,) = records("outbox_request_failed")
    assert (record.truncus_attempt, record.truncus_count) == (1, 1)
    assert len(record.truncus_batch) == 36
    assert record.truncus_error == "ServerError"


def test_trouble_of_a_worker_is_logged_with_its_kind(records, monkeypatch):
    worker = Worker.__new__(Worker)
    from truncus_django.trouble_log import TroubleLog

    worker._trouble = TroubleLog()
    try:
        raise KeyError("geheim")
    except KeyError as exc:
        worker._report(exc)

    (record,) = records("worker_step_failed")
    assert record.truncus_error == "KeyError"
