"""Trouble that is logged once, until it is over."""

import logging

import pytest

from truncus_django.trouble_log import TroubleLog


def test_each_kind_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    trouble = TroubleLog()
    for kind in ("KeyError", "KeyError", "ValueError", "KeyError"):
        trouble.error(kind, "The queue fails: %s", kind, extra={"truncus_error": kind})

    assert caplog.messages == ["The queue fails: KeyError", "The queue fails: ValueError"]
    assert [record.truncus_error for record in caplog.records] == ["KeyError", "ValueError"]


def test_trouble_that_comes_back_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    trouble = TroubleLog()
    assert not trouble.clear()
    trouble.error("KeyError", "The queue fails", extra={})

    assert trouble.clear()
    assert not trouble.clear()
    trouble.error("KeyError", "The queue fails", extra={})

    assert len(caplog.messages) == 2


def test_what_failed_is_told_by_the_class_of_its_exception_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = TroubleLog()
    for _ in range(2):
        trouble.failed(KeyError("ann@example.org"), "It fails: %s. No more.", event="it_failed")

    [record] = caplog.records
    assert record.getMessage() == "It fails: KeyError. No more."
    assert (record.truncus_event, record.truncus_error) == ("it_failed", "KeyError")
    assert "ann@" not in str(vars(record))


def test_a_log_handler_that_meets_the_same_trouble_ends_there() -> None:
    trouble, logged = TroubleLog(), []

    class Mailing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record)
            trouble.error("KeyError", "The email about it fails", extra={})

    handler = Mailing()
    logging.getLogger("truncus_django").addHandler(handler)
    try:
        trouble.error("KeyError", "The email fails", extra={})
    finally:
        logging.getLogger("truncus_django").removeHandler(handler)

    assert [record.getMessage() for record in logged] == ["The email fails"]
