"""Errors tell where they happened, and neither hold nor show what was to be sent."""

import sys

import pytest
from django.core.mail import EmailMessage
from django.test import override_settings
from django.views.debug import ExceptionReporter

from tests.conftest import API_KEY
from tests.messages import bad_message, message, messages
from truncus_django.api.errors import (
    ConfigurationError,
    MessagesNotSent,
)
from truncus_django.backend import TruncusBackend

pytestmark = pytest.mark.usefixtures("naps")


def test_a_key_shows_in_no_local_variable_of_a_configuration_error():
    with pytest.raises(ConfigurationError) as caught:
        TruncusBackend(api_key=API_KEY, base_url="http://mail.example").open()

    shown = [
        repr(value)
        for entry in caught.traceback
        if "/truncus_django/" in str(entry.path)
        for value in entry.frame.f_locals.values()
    ]
    assert shown
    assert not [text for text in shown if API_KEY in text]


def traceback_of(error):
    """Functions and local variables of the frames of an error."""
    frames = {}
    entry = error.__traceback__
    while entry:
        frames[entry.tb_frame.f_code.co_name] = entry.tb_frame.f_locals
        entry = entry.tb_next
    return frames


def test_a_failed_message_tells_where_it_failed_and_does_not_hold_its_payload(truncus):
    truncus.always_answers(400, {"error": "invalid_payload", "message": "No"})
    many = messages(3)
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages(many)
    frames = traceback_of(many[0].truncus_status.error)
    assert "request_results" in frames
    assert [name for name, variables in frames.items() if variables] == []
    assert many[0].truncus_status.error.__context__ is None


@pytest.mark.parametrize("settings", [{}, {"DELIVERY": "outbox"}])
def test_a_message_that_cannot_be_sent_tells_where_it_failed_and_holds_nothing(settings, request):
    if settings:
        request.getfixturevalue("db")
    with override_settings(TRUNCUS={"API_KEY": API_KEY, **settings}):
        bad = [bad_message(), message(priority="soon") if settings else bad_message()]
        with pytest.raises(MessagesNotSent):
            TruncusBackend().send_messages(bad)
    for one in bad:
        frames = traceback_of(one.truncus_status.error)
        assert frames
        assert [name for name, variables in frames.items() if variables] == []


def test_an_error_report_shows_nothing_of_what_breaks_a_send(truncus, monkeypatch, rf):
    """What Django reports, for an exception that nobody expects, too: a time limit, a bug."""
    secret = "the-reset-link"

    def fail(*args, **kwargs):
        inner = secret  # noqa: F841
        raise RuntimeError("A bug")

    monkeypatch.setattr("truncus_django.sending.direct.request_results", fail)
    try:
        TruncusBackend().send_messages([EmailMessage("Hi", secret, None, ["ann@example.org"])])
    except RuntimeError:
        reporter = ExceptionReporter(rf.get("/"), *sys.exc_info())
    frames = {frame["function"]: dict(frame["vars"]) for frame in reporter.get_traceback_frames()}
    ours = {name: frames[name] for name in ("send_messages", "send_batches", "_request", "fail")}
    assert all(ours.values())
    for variables in ours.values():
        assert secret not in str(variables)
        assert API_KEY not in str(variables)
        assert "ann@example.org" not in str(variables)
