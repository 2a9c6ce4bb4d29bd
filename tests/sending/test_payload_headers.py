"""Headers of a message in its payload: its own, and those of conversations and importance."""

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.utils.safestring import mark_safe

from tests.sending.payloads import DROPPING, a_message, email_of, payload_of, refused
from truncus_django.api.errors import InvalidHeader, UnsupportedFeature
from truncus_django.conf import Settings
from truncus_django.models import Email


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("Größe", "Größe"),
        (mark_safe("a"), "a"),
        (7, "7"),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (True, "True"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "Sun, 01 Mar 2026 12:00:00 +0000"),
    ],
)
def test_header_value_is_carried_as_text(value, text):
    assert email_of(headers={"X-Value": value})["headers"] == {"X-Value": text}


@pytest.mark.parametrize("value", [None, b"a", ["a"], object()])
def test_header_value_of_another_type_is_refused(value):
    text = refused(a_message(headers={"X-Value": value}), InvalidHeader)
    assert f"'X-Value' has a value of type {type(value).__name__}" in text


@pytest.mark.parametrize("value", ["a\nBcc: eve@kunde.test", "a\rb", "a\0b", "a\u2028b", "a\ud800"])
@pytest.mark.parametrize("name", ["X-Value", "From", "To", "Reply-To"])
def test_line_break_in_a_header_is_refused(name, value):
    text = refused(a_message(headers={name: value}), InvalidHeader)
    assert name in text
    assert "kunde" not in text


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X\n", "Größe", 5, None])
def test_impossible_header_name_is_refused(name):
    assert "printable ASCII" in refused(a_message(headers={name: "a"}), InvalidHeader)


def test_header_given_twice_is_refused():
    headers = {"X-A": "1", "x-a": "2"}
    assert "'x-a' is given twice" in refused(a_message(headers=headers), InvalidHeader)


@pytest.mark.parametrize("name", ["Bcc", "bcc", "Subject", "Content-Type", "MIME-Version"])
def test_header_that_truncus_sets_itself_is_refused(name):
    assert f"{name!r} cannot be set" in refused(a_message(headers={name: "a"}), InvalidHeader)


@pytest.mark.parametrize("name", ["From", "from"])
def test_from_header_wins(name):
    email = email_of(headers={name: "Ann <ann@example.com>"})
    assert email["from"] == "Ann <ann@example.com>"
    assert "headers" not in email


@pytest.mark.parametrize("name", ["Reply-To", "reply-to"])
def test_reply_to_header_wins(name):
    header = "=?utf-8?q?Doe=2C_J?= <j@example.com>, b@example.com"
    email = email_of(reply_to=["x@example.com"], headers={name: header, "X-A": "1"})
    assert email["reply_to"] == '"Doe, J" <j@example.com>, b@example.com'
    assert email["headers"] == {"X-A": "1"}


def test_header_that_repeats_the_recipients_says_nothing_new():
    email = email_of(
        to=["Ann <ann@example.com>", "b@example.com"],
        cc=["c@example.com"],
        headers={"To": '"Ann" <ann@example.com>, b@example.com', "cc": "c@example.com"},
    )
    assert email["to"] == ["Ann <ann@example.com>", "b@example.com"]
    assert "headers" not in email


@pytest.mark.parametrize("name", ["To", "Cc"])
@pytest.mark.parametrize("value", ["list@kunde.test", "undisclosed-recipients:;", ""])
def test_header_that_shows_other_recipients_is_unsupported(name, value):
    message = a_message(headers={name: value})
    text = refused(message, UnsupportedFeature)
    assert "leave the header out" in text
    assert "kunde" not in text
    payload = payload_of(message, DROPPING)
    assert payload.email["to"] == "ann@example.com"
    assert payload.dropped == (f"A {name} header that differs from the message's {name.lower()!r}",)


# Conversations and importance ---------------------------------------------------------------------


def test_an_answer_names_the_email_that_it_answers():
    email = email_of(in_reply_to="1a2b@mail.example.com")
    assert email["headers"] == {
        "References": "<1a2b@mail.example.com>",
        "In-Reply-To": "<1a2b@mail.example.com>",
    }


def test_references_grow_by_what_is_answered():
    email = email_of(in_reply_to="<b@x.example>", headers={"references": "<a@x.example>"})
    assert email["headers"]["references"] == "<a@x.example> <b@x.example>"
    email = email_of(in_reply_to="<a@x.example>", headers={"references": "<a@x.example>"})
    assert email["headers"]["references"] == "<a@x.example>"


def test_a_recorded_email_is_answered_by_its_provider_id():
    recorded = Email(provider_message_id="0100-0000")
    email = email_of(in_reply_to=recorded)
    assert email["headers"]["In-Reply-To"] == "<0100-0000@email.amazonses.com>"
    region = Settings(message_id_domain="eu-west-1.amazonses.com")
    headers = payload_of(a_message(in_reply_to=recorded), region).email["headers"]
    assert headers["In-Reply-To"] == "<0100-0000@eu-west-1.amazonses.com>"
    recorded = Email(provider_message_id="0100@ses.example")
    assert email_of(in_reply_to=recorded)["headers"]["In-Reply-To"] == "<0100@ses.example>"


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        ("no id", "in_reply_to must be a Message-ID such as"),
        ("<a@b>\nBcc: <c@d>", "in_reply_to must be a Message-ID such as"),
        ("<ä@b.example>", "in_reply_to must be a Message-ID such as"),
        ("", "in_reply_to must be a Message-ID such as"),
        ("<a\x1bb@c.example>", "in_reply_to must be a Message-ID such as"),
        (f"<{'a' * 300}@c.example>", "in_reply_to must be a Message-ID such as"),
        (7, "in_reply_to must be a Message-ID or a recorded Email"),
        (Email(), "in_reply_to is an Email whose Message-ID is not known"),
        (
            Email(provider_message_id="sandbox-1", is_sandbox=True),
            "is an Email whose Message-ID is n",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(answered, text):
    assert text in refused(a_message(in_reply_to=answered))


def test_importance_is_what_mail_programs_read():
    assert email_of(importance="high")["headers"] == {
        "Importance": "high",
        "X-Priority": "1",
        "X-MSMail-Priority": "High",
    }
    assert email_of(importance="low", headers={"x-priority": "4"})["headers"] == {
        "x-priority": "4",
        "Importance": "low",
        "X-MSMail-Priority": "Low",
    }


def test_headers_of_esp_extra_are_added_to_those_of_options():
    email = email_of(importance="high", esp_extra={"headers": {"X-A": "1", "x-priority": "2"}})
    assert email["headers"] == {
        "Importance": "high",
        "X-MSMail-Priority": "High",
        "X-A": "1",
        "x-priority": "2",
    }


@pytest.mark.parametrize("importance", ["hihg", "", 1, True, "normal"])
def test_an_unknown_importance_is_refused(importance):
    text = refused(a_message(importance=importance))
    assert "importance must be 'high' or 'low'" in text
    assert ("did you mean 'high'?" in text) == (importance == "hihg")
