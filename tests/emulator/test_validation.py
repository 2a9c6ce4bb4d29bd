"""What each dialect refuses, and with which words."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truncus_django.emulator import SpokenDialect
from truncus_django.emulator.refusals import Refusal
from truncus_django.emulator.validation import check_email

from .conftest import an_email


def attachment(size=10, **changes):
    content = base64.b64encode(b"x" * size).decode()
    return {"filename": "a.txt", "content": content, **changes}


REFUSED = {
    "no recipient": {"to": None},
    "empty recipient": {"to": ""},
    "recipient without domain": {"to": "ada"},
    "recipient without top-level domain": {"to": "ada@localhost"},
    "recipient at a number": {"to": "ada@127.0.0.1"},
    "two recipients in one string": {"to": "ada@example.com, bob@example.com"},
    "recipient with a line break": {"to": "ada@example.com\nBcc: eve@example.com"},
    "recipient that is a number": {"to": 5},
    "no sender": {"from_": None},
    "malformed sender": {"from_": "Shop <shop>"},
    "no subject": {"subject": None},
    "blank subject": {"subject": " "},
    "subject with a line break": {"subject": "Hi\r\nBcc: eve@example.com"},
    "subject that is a list": {"subject": ["Hi"]},
    "no content": {"html": None},
    "html too large": {"html": "x" * (256 * 1024 + 1)},
    "text too large": {"text": "ä" * (64 * 1024) + "x"},
    "html that is a number": {"html": 5},
    "cc that is a string": {"cc": "bob@example.com"},
    "cc with a malformed address": {"cc": ["bob"]},
    "bcc with a number": {"bcc": [5]},
    "metadata with a number": {"metadata": {"order": 5}},
    "variables that are a list": {"variables": ["a"]},
    "tenant that is a number": {"tenant_id": 5},
    "tracking that is a string": {"track_opens": "yes"},
    "time in the past": {"send_at": "2020-01-01T00:00:00Z"},
    "time that is none": {"send_at": "tomorrow"},
    "time that is a number": {"send_at": 5},
    "attachments that are none": {"attachments": "a"},
    "11 attachments": {"attachments": [attachment()] * 11},
    "attachment without filename": {"attachments": [attachment(filename=None)]},
    "attachment that is no base64": {"attachments": [attachment(content="äö")]},
    "attachment with bad padding": {"attachments": [attachment(content="abc")]},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_bad_email_is_refused_in_the_dialects_form(either, changes):
    answer = either.send(**changes)
    assert answer.status_code == 400
    body = answer.json()
    if either.emulator.options.dialect == "sdk":
        assert body["code"] == "INVALID_REQUEST"
        assert body["error"]
    else:
        assert body["error"] in {"invalid_payload", "invalid_address"}
        assert body["message"]
    assert either.emulator.accepted == 0


ACCEPTED = {
    "name and address": {"to": '"Doe, Jane" <jane@example.com>'},
    "international address": {"to": "jörg@müller.example"},
    "encoded top-level domain": {"to": "a@example.xn--p1ai"},
    "largest html": {"html": "x" * 256 * 1024},
    "largest text": {"text": "x" * 128 * 1024},
    "10 attachments": {"attachments": [attachment()] * 10},
    "copies": {"cc": ["bob@example.com"], "bcc": ["Eve <eve@example.com>"]},
    "time with an offset": {"send_at": "2099-01-01T00:00:00+02:00"},
    "template": {"html": None, "template_id": "tmpl_1", "variables": {"name": "Ada"}},
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_good_email_is_accepted(either, changes):
    assert either.send(**changes).status_code == 200


def test_attachments_of_10_mb_are_accepted_and_one_byte_more_is_not(manual):
    ten_mb = attachment(10 * 1024 * 1024)
    assert manual.send(attachments=[ten_mb]).status_code == 200
    assert manual.send(attachments=[ten_mb, attachment(1)]).status_code == 400


def test_malformed_address_has_its_own_code_in_the_manual(manual):
    assert manual.send(to="ada").json()["error"] == "invalid_address"
    assert manual.send(to=None).json()["error"] == "invalid_payload"


def test_manual_checks_reply_to_and_headers(manual):
    assert manual.send(reply_to="nobody").status_code == 400
    assert manual.send(headers={"X Bad": "1"}).status_code == 400
    assert manual.send(headers={"X-Good": "1\r\nBcc: eve@example.com"}).status_code == 400
    assert manual.send(reply_to="a@example.com", headers={"X-Good": "1"}).status_code == 200


def test_sdk_says_that_to_must_be_a_string(sdk):
    answer = sdk.send(to=["ada@example.com"])
    assert answer.status_code == 400
    assert answer.json() == {"error": "to must be a string", "code": "INVALID_REQUEST"}


def test_sdk_says_that_html_is_required(sdk):
    answer = sdk.send(html=None, text="Thank you")
    assert answer.json()["error"] == "Either html, react, or template_id is required"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"text"', b"[" * 100_000])
def test_body_that_is_no_email_is_refused(either, body):
    headers = {"Content-Type": "application/json", "Idempotency-Key": "a"}
    answer = either.call("POST", "/api/v1/emails/send", data=body, headers=headers)
    assert answer.status_code == 400


def test_one_connection_serves_good_and_bad_requests(manual):
    for changes in ({}, {"to": None}, {}):
        manual.send(**changes)
    manual.call("GET", "/api/v1/unknown")
    manual.call("POST", "/api/v1/unknown", json=an_email())
    assert manual.call("PUT", "/api/v1/emails/send", json=an_email()).status_code == 405
    assert manual.emulator.connections == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ADDRESS_FIELDS = ("to", "from", "reply_to", "cc", "bcc")
TEXT_FIELDS = ("subject", "html", "text", "react", "template_id", "tenant_id", "send_at")
OTHER_FIELDS = ("headers", "variables", "metadata", "attachments", "track_opens", "track_clicks")
FIELDS = st.sampled_from([*ADDRESS_FIELDS, *TEXT_FIELDS, *OTHER_FIELDS])


@given(
    changes=st.dictionaries(FIELDS, JSON, max_size=4), dialect=st.sampled_from(list(SpokenDialect))
)
def test_any_json_is_checked_or_refused(changes, dialect):
    with contextlib.suppress(Refusal):
        draft = check_email({**an_email(), **changes}, dialect=dialect, now=0.0)
        assert draft.content_digest()
        assert draft.size_bytes() >= 0


def test_a_time_beyond_the_year_9999_is_refused():
    with pytest.raises(Refusal, match="ISO 8601"):
        check_email(
            {**an_email(), "send_at": "9999-12-31T23:59:59-23:59"},
            dialect=SpokenDialect.MANUAL,
            now=0.0,
        )
