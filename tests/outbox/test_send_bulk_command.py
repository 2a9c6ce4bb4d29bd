"""``manage.py truncus_send_bulk``: what it says, and how it ends."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from truncus_django.models import BulkEmail, Email, OutboxEntry

pytestmark = pytest.mark.django_db

MESSAGES = "tests.outbox.bulk_messages"


@pytest.fixture
def run(emulator: Any) -> Callable[..., str]:
    """Return a function that runs the command and returns its output."""

    def run(name: str, *options: str) -> str:
        out = StringIO()
        path = name if "." in name else f"{MESSAGES}.{name}"
        try:
            call_command(
                "truncus_send_bulk", path, "--key", "letters", *options, stdout=out, stderr=out
            )
        except CommandError as error:
            raise CommandError(f"{out.getvalue()}{error}", returncode=error.returncode) from error
        return out.getvalue()

    return run


def test_it_says_what_it_sent_and_skips_it_the_next_time(run, is_direct):
    assert run("three_letters").startswith("3 messages: 3 accepted, in ")
    assert run("three_letters").startswith("3 messages: 3 skipped, in ")


def test_it_fills_the_outbox(run):
    assert run("letters").startswith("350 messages: 350 queued, in ")
    assert OutboxEntry.objects.count() == 350


def test_it_shows_how_far_it_is_unless_told_not_to(run, capsys, monkeypatch):
    monkeypatch.setenv("LETTERS", "1000")
    run("letters")
    assert capsys.readouterr().err == "1000 emails\n"
    run("letters", "--no-progress")
    assert capsys.readouterr().err == ""


def test_a_dry_run_writes_and_sends_nothing(run, emulator):
    with pytest.raises(CommandError) as caught:
        run("with_a_bad_one", "--dry-run")
    assert "1 × InvalidAddress, first in message 2\n" in str(caught.value)
    assert "3 messages: 2 would be sent, 1 failed, in " in str(caught.value)
    assert "1 email would fail." in str(caught.value)
    assert "not an address" not in str(caught.value)
    assert caught.value.returncode == 1
    assert not Email.objects.exists()
    assert not BulkEmail.objects.exists()
    assert emulator.requests == []


def test_a_dry_run_knows_who_is_skipped(run, monkeypatch):
    run("three_letters")
    monkeypatch.setenv("LETTERS", "5")
    assert "5 messages: 2 would be sent, 3 skipped" in run("letters", "--dry-run")


def test_what_fails_makes_the_status_1(run):
    with pytest.raises(CommandError, match="1 email failed") as caught:
        run("with_a_bad_one")
    assert "2 queued, 1 failed" in str(caught.value)
    assert caught.value.returncode == 1


def test_messages_that_raise_are_told_with_what_was_sent(run):
    with pytest.raises(CommandError) as caught:
        run("broken")
    text = str(caught.value)
    assert "3 messages: 3 queued, in " in text
    assert "LookupError in broken() (bulk_messages.py, line" in text
    assert "with the same key" in text
    assert "customer-3" not in text
    assert caught.value.returncode == 1


def test_ctrl_c_makes_the_status_130(run):
    with pytest.raises(CommandError, match="the next run with the same key goes on") as caught:
        run("interrupted")
    assert caught.value.returncode == 130


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("letter_s", "cannot be imported: .*letter_s.* full path of a function"),
        ("nowhere.at_all.letters", "cannot be imported: No module named 'nowhere'"),
        ("SETTING", "is a int. Give a function that yields messages"),
        ("of", "cannot be called without arguments: missing a required argument: 'segment'"),
        ("later", "is asynchronous"),
        ("nothing", "a list or a generator of messages, not NoneType"),
    ],
)
def test_what_cannot_be_sent(run, name, text):
    with pytest.raises(CommandError, match=text):
        run(name)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--using", "letters"], "'letters' is not Truncus"),
        (["--key", ""], "1 to 200 printable characters"),
    ],
)
def test_options_that_do_not_do(run, options, text):
    with pytest.raises(CommandError, match=text):
        run("three_letters", *options)


def test_settings_that_do_not_do(run, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    with pytest.raises(CommandError, match="RECORD is off"):
        run("three_letters")
