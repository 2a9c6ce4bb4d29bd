"""Django message → payload: all that Django lets a message hold, and what the API cannot carry."""

import base64
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from email.message import MIMEPart

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils import timezone as django_timezone
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from truncus_django.api import contract
from truncus_django.api.errors import (
    InvalidAddress,
    InvalidHeader,
    MessageError,
    MessageTooLarge,
    UnsupportedFeature,
)
from truncus_django.conf import Settings
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.sending.payload import build_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DROPPING = Settings(unsupported="warn")


def a_message(**kwargs):
    given = {"subject": "Subject", "body": "Text", "to": ["ann@example.com"], **kwargs}
    return TruncusMessage(from_email="shop@example.com", **given)


def payload_of(message, settings=None):
    return build_payload(message, settings or Settings(), now=NOW)


def email_of(message=None, **kwargs):
    return payload_of(message or a_message(**kwargs)).email


def refused(message, error=MessageError, settings=None):
    """Return the text of the error that ``message`` raises."""
    with pytest.raises(MessageError) as caught:
        payload_of(message, settings)
    assert type(caught.value) is error
    return str(caught.value)


# Addresses --------------------------------------------------------------------------------------


def test_plain_message_is_five_fields():
    message = EmailMessage("Subject", "Text", "shop@example.com", ["ann@example.com"])
    payload = payload_of(message)
    assert payload.email == {
        "from": "shop@example.com",
        "to": "ann@example.com",
        "subject": "Subject",
        "text": "Text",
    }
    assert payload.idempotency_key is None
    assert payload.is_sandbox is False
    assert payload.dropped == ()


def test_default_sender_is_django_default():
    assert email_of(EmailMessage("S", "B", None, ["a@example.com"]))["from"] == (
        "Shop <shop@example.com>"
    )


def test_recipients_of_every_kind_are_carried():
    email = email_of(
        to=["Jörg <a@example.com>", "b@example.com"],
        cc=['"Doe, J" <c@example.com>'],
        bcc=["d@faß.example", "e@example.com"],
        reply_to=['"Doe, J" <f@example.com>', "g@example.com"],
    )
    assert email["to"] == ["Jörg <a@example.com>", "b@example.com"]
    assert email["cc"] == ['"Doe, J" <c@example.com>']
    assert email["bcc"] == ["d@xn--fa-hia.example", "e@example.com"]
    assert email["reply_to"] == '"Doe, J" <f@example.com>, g@example.com'


def test_lazy_strings_are_carried_as_strings():
    message = a_message(
        subject=lazystr("Lazy"),
        body=lazystr("Text"),
        html=lazystr("<p>"),
        to=[lazystr("ann@example.com")],
        headers={"X-A": lazystr("1")},
        metadata={"a": lazystr("2")},
    )
    email = email_of(message)
    assert (email["subject"], email["text"], email["html"]) == ("Lazy", "Text", "<p>")
    assert (email["to"], email["headers"], email["metadata"]) == (
        "ann@example.com",
        {"X-A": "1"},
        {"a": "2"},
    )


def test_empty_recipients_are_passed_over_as_django_does():
    assert email_of(to=["", "ann@example.com", None])["to"] == "ann@example.com"


@pytest.mark.parametrize("to", [[], [""]])
def test_message_without_to_is_refused_with_a_way_out(to):
    message = a_message(to=to, bcc=["eve@kunde.test"])
    assert "put your own address into 'to'" in refused(message, InvalidAddress)
    assert "kunde" not in refused(message, InvalidAddress, DROPPING)


@pytest.mark.parametrize("name", ["to", "cc", "bcc", "reply_to"])
@pytest.mark.parametrize("value", ["ann@kunde.test", lazystr("ann@kunde.test"), 5])
def test_recipients_that_are_no_list_are_refused(name, value):
    message = a_message()
    setattr(message, name, value)
    assert refused(message, InvalidAddress) == f"{name!r} must be a list or tuple of addresses."


@pytest.mark.parametrize("name", ["to", "cc", "bcc", "reply_to"])
def test_malformed_recipient_is_refused_with_its_place(name):
    text = refused(a_message(**{name: ["ann@example.com", "eve kunde"]}), InvalidAddress)
    assert f"{name!r}, number 2" in text
    assert "kunde" not in text


def test_missing_sender_is_refused():
    message = a_message()
    message.from_email = None
    assert "'from'" in refused(message, InvalidAddress)


# Headers ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("sender", ["webmaster@localhost", "Shop <root@localhost>"])
def test_a_sender_at_localhost_is_told_which_settings_to_change(sender):
    with pytest.raises(InvalidAddress, match=r"DEFAULT_FROM_EMAIL.*SERVER_EMAIL") as told:
        email_of(EmailMessage("S", "B", sender, ["a@example.com"]))
    assert sender not in str(told.value)


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


# Subject and bodies -----------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["", " ", None, b"Geheimnis", object()])
def test_empty_subject_is_refused(subject):
    text = refused(a_message(subject=subject))
    assert "subject is empty or no string" in text
    assert "Geheimnis" not in text


@pytest.mark.parametrize("subject", ["Geheimnis\nBcc: x", "Geheimnis\r", "Geheimnis\ud800"])
def test_impossible_subject_is_refused(subject):
    assert "Geheimnis" not in refused(a_message(subject=subject), InvalidHeader)


@pytest.mark.parametrize("subtype", ["html", "HTML"])
def test_html_alone_is_sent_alone(subtype):
    message = EmailMessage("Subject", "<p>HTML</p>", "a@example.com", ["b@example.com"])
    message.content_subtype = subtype
    email = email_of(message)
    assert email["html"] == "<p>HTML</p>"
    assert "text" not in email


def test_text_and_html_are_sent_side_by_side():
    message = EmailMultiAlternatives("Subject", "Grüße 👋\r\n", "a@example.com", ["b@example.com"])
    message.attach_alternative("<p>Grüße 👋</p>", "text/html; charset=utf-8")
    email = email_of(message)
    assert (email["text"], email["html"]) == ("Grüße 👋\r\n", "<p>Grüße 👋</p>")


def test_text_may_be_the_alternative():
    message = a_message(body="<p>HTML</p>")
    message.content_subtype = "html"
    message.attach_alternative("Text", "text/plain")
    email = email_of(message)
    assert (email["text"], email["html"]) == ("Text", "<p>HTML</p>")


def test_body_of_bytes_is_read_in_the_charset_of_the_message():
    message = a_message(body="Größe".encode("latin-1"))
    message.encoding = "latin-1"
    assert email_of(message)["text"] == "Größe"


@pytest.mark.parametrize("body", [b"Geheimnis\xff", "Geheimnis\ud800", ["Geheimnis"], 5])
def test_body_that_is_no_text_is_refused(body):
    assert "Geheimnis" not in refused(a_message(body=body))


@pytest.mark.parametrize("body", ["", None, lazystr("")])
def test_message_without_a_body_is_refused(body):
    assert "has no body" in refused(a_message(body=body))


@pytest.mark.parametrize(
    ("mimetype", "told"),
    [
        ("text/html", "A second html body"),
        ("text/plain", "A second text body"),
        ("text/x-amp-html", "An alternative of type text/x-amp-html"),
        ("text/calendar; method=REQUEST", "An alternative of type text/calendar"),
    ],
)
def test_further_alternative_is_unsupported(mimetype, told):
    message = a_message(html="<p>")
    message.attach_alternative("Geheimnis", mimetype)
    text = refused(message, UnsupportedFeature)
    assert text.startswith(told)
    assert "Geheimnis" not in text
    payload = payload_of(message, DROPPING)
    assert (payload.email["text"], payload.email["html"]) == ("Text", "<p>")
    assert payload.dropped == (told,)


def test_body_of_another_subtype_is_unsupported():
    message = a_message(body="# Geheimnis", html="<p>")
    message.content_subtype = "markdown"
    assert "content_subtype to 'plain' or 'html'" in refused(message, UnsupportedFeature)
    payload = payload_of(message, DROPPING)
    assert "text" not in payload.email
    assert payload.dropped == ("A body of type text/markdown",)


@pytest.mark.parametrize("alternative", [("text/html", "<p>Geheimnis</p>"), ("<p>",), None])
def test_malformed_alternative_is_refused_without_its_content(alternative):
    message = a_message()
    message.alternatives.append(alternative)
    assert "Geheimnis" not in refused(message, MessageError, DROPPING)


# Sizes and counts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [("body", contract.MAX_TEXT_BYTES), ("html", contract.MAX_HTML_BYTES)],
)
def test_body_is_as_long_as_documented_and_no_longer(name, limit):
    kind = "text" if name == "body" else "html"
    longest = "ä" * (limit // 2)
    assert email_of(**{name: longest})[kind] == longest
    text = refused(a_message(**{name: longest + "x"}), MessageTooLarge)
    assert f"The {kind} body has {limit + 1:,} bytes; the API takes {limit:,}." in text


def test_body_over_the_limit_is_dropped_where_the_other_remains():
    message = a_message(body="x" * (contract.MAX_TEXT_BYTES + 1), html="<p>")
    payload = payload_of(message, DROPPING)
    assert payload.email["html"] == "<p>"
    assert "text" not in payload.email
    assert payload.dropped == ("The text body has 131,073 bytes; the API takes 131,072",)


def test_body_over_the_limit_is_refused_where_nothing_else_remains():
    too_long = "x" * (contract.MAX_HTML_BYTES + 1)
    refused(a_message(body=too_long), MessageTooLarge, DROPPING)
    refused(a_message(body=too_long, html=too_long), MessageTooLarge, DROPPING)


def test_ten_attachments_are_the_most():
    files = [(f"{number}.bin", b"x") for number in range(11)]
    assert len(email_of(attachments=files[:10])["attachments"]) == 10
    assert "11 attachments; the API takes 10" in refused(
        a_message(attachments=files), MessageTooLarge
    )
    payload = payload_of(a_message(attachments=files), DROPPING)
    assert [file["filename"] for file in payload.email["attachments"]] == [
        f"{number}.bin" for number in range(10)
    ]
    assert len(payload.dropped) == 1


def test_ten_megabytes_of_attachments_are_the_most():
    files = [("a.bin", bytes(contract.MAX_ATTACHMENT_BYTES - 1)), ("b.bin", b"xx"), ("c.bin", b"x")]
    assert len(email_of(attachments=[files[0], files[2]])["attachments"]) == 2
    assert "Send a link" in refused(a_message(attachments=files), MessageTooLarge)
    payload = payload_of(a_message(attachments=files), DROPPING)
    assert [file["filename"] for file in payload.email["attachments"]] == ["a.bin", "c.bin"]
    assert len(payload.dropped) == 1


def test_size_counts_bodies_and_encoded_attachments():
    message = a_message(body="ä" * 500, html="x" * 1000, attachments=[("a.bin", bytes(3000))])
    assert payload_of(message).size == 1000 + 1000 + 4000


@pytest.mark.parametrize("subject", ["", "  ", None])
def test_empty_subject_is_an_error_that_names_the_setting_or_filled_in(subject):
    message = a_message(subject=subject)
    assert "TRUNCUS['UNSUPPORTED'] = 'warn'" in refused(message)
    payload = payload_of(message, DROPPING)
    assert payload.email["subject"] == "(no subject)"
    assert payload.dropped == ("An empty subject, in whose place '(no subject)' is sent",)


def test_subject_that_is_no_string_is_refused_in_any_case():
    assert "no string" in refused(a_message(subject=object()), settings=DROPPING)


@pytest.mark.parametrize(
    ("files", "line"), [(1, "See the attached file."), (2, "See the attached files.")]
)
def test_empty_body_beside_attachments_is_an_error_that_names_the_setting_or_filled_in(files, line):
    message = a_message(body="")
    for number in range(files):
        message.attach(f"{number}.pdf", b"%PDF", "application/pdf")
    assert "TRUNCUS['UNSUPPORTED'] = 'warn'" in refused(message)
    payload = payload_of(message, DROPPING)
    assert payload.email["text"] == line
    assert payload.dropped == (
        "An empty body, in whose place a line about the attachments is sent",
    )


def test_empty_body_without_attachments_is_refused_in_any_case():
    assert "has no body" in refused(a_message(body=""), settings=DROPPING)
    message = a_message(body="", template_id="invoice")
    message.attach("a.pdf", b"%PDF", "application/pdf")
    assert "text" not in payload_of(message, DROPPING).email


# Attachments ------------------------------------------------------------------------------------


def test_attachments_are_carried_in_order():
    part = MIMEPart()
    part.set_content(b"PDF", "application", "pdf", filename="ä.pdf")
    message = a_message()
    message.attachments += [("a.txt", "ä", "text/plain"), part, (None, b"\xff", "image/png")]
    message.encoding = "latin-1"
    fields = email_of(message)["attachments"]
    assert [(f["filename"], base64.b64decode(f["content"]), f["content_type"]) for f in fields] == [
        ("a.txt", b"\xe4", 'text/plain; charset="latin-1"'),
        ("ä.pdf", b"PDF", "application/pdf"),
        ("attachment-3.png", b"\xff", "image/png"),
    ]


def test_inline_image_is_unsupported():
    image = MIMEPart()
    image.set_content(b"PNG", "image", "png", disposition="inline", filename="a.png", cid="<logo>")
    message = a_message(html='<img src="cid:logo">')
    message.attachments.append(image)
    assert "link to the image by its URL" in refused(message, UnsupportedFeature)
    payload = payload_of(message, DROPPING)
    assert payload.email["attachments"][0]["filename"] == "a.png"
    assert payload.dropped == ("The Content-ID of attachment 1 (an image inside the HTML)",)


# Options ----------------------------------------------------------------------------------------


def test_options_of_the_message_are_carried():
    payload = payload_of(
        a_message(
            tenant_id="acme",
            metadata={"order": 42, "total": Decimal("9.90"), "placed": date(2026, 3, 1)},
            track_opens=False,
            track_clicks=True,
            idempotency_key="order-42",
            sandbox=True,
        )
    )
    assert payload.email["tenant_id"] == "acme"
    assert payload.email["metadata"] == {"order": "42", "total": "9.90", "placed": "2026-03-01"}
    assert payload.email["track_opens"] is False
    assert payload.email["track_clicks"] is True
    assert payload.idempotency_key == "order-42"
    assert payload.is_sandbox is True


def test_options_are_read_from_any_django_message():
    message = EmailMessage("Subject", "Text", "a@example.com", ["b@example.com"])
    message.tenant_id = "acme"
    message.track_opens = False
    email = email_of(message)
    assert (email["tenant_id"], email["track_opens"]) == ("acme", False)


DEFAULTS = Settings(
    tenant_id="acme",
    track_opens=False,
    track_clicks=True,
    sandbox=True,
    metadata={"site": "shop", "order": "none"},
)


def test_settings_are_the_default_of_every_message():
    payload = payload_of(a_message(), DEFAULTS)
    assert payload.is_sandbox is True
    assert payload.email["tenant_id"] == "acme"
    assert payload.email["track_opens"] is False
    assert payload.email["track_clicks"] is True
    assert payload.email["metadata"] == {"site": "shop", "order": "none"}


def test_the_message_wins_over_the_settings():
    message = a_message(
        tenant_id="other",
        track_opens=True,
        track_clicks=False,
        sandbox=False,
        metadata={"order": "42"},
    )
    payload = payload_of(message, DEFAULTS)
    assert payload.is_sandbox is False
    assert payload.email["tenant_id"] == "other"
    assert payload.email["track_opens"] is True
    assert payload.email["track_clicks"] is False
    assert payload.email["metadata"] == {"site": "shop", "order": "42"}


def test_settings_are_not_changed_by_a_message():
    payload_of(a_message(metadata={"order": "42"}), DEFAULTS)
    assert DEFAULTS.metadata == {"site": "shop", "order": "none"}


@pytest.mark.parametrize("name", ["variables", "merge_global_data"])
def test_template_needs_no_body(name):
    message = a_message(body="", template_id="welcome", **{name: {"first": "Ann", "count": 3}})
    email = email_of(message)
    assert email["template_id"] == "welcome"
    assert email["variables"] == {"first": "Ann", "count": "3"}
    assert email.keys().isdisjoint({"html", "text", "merge_global_data"})


def test_html_beside_a_template_is_unsupported():
    message = a_message(html="<p>", template_id="welcome")
    assert "leave one of them out" in refused(message, UnsupportedFeature)
    payload = payload_of(message, DROPPING)
    assert "html" not in payload.email
    assert payload.email["text"] == "Text"
    assert payload.dropped == ("An HTML body beside template_id",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"variables": {"a": "1"}}, "no template_id"),
        ({"template_id": "t", "variables": {"a": 1}, "merge_global_data": {"a": 1}}, "two names"),
        ({"template_id": "t", "variables": {"a": None}}, "strings or numbers"),
        ({"template_id": ""}, "template_id must be"),
        ({"tenant_id": ""}, "tenant_id must be"),
        ({"tenant_id": ["acme"]}, "tenant_id must be"),
        ({"tenant_id": "a\nb"}, "tenant_id has a line break"),
        ({"metadata": ["a"]}, "metadata must be a dict"),
        ({"metadata": {1: "a"}}, "not int to str"),
        ({"metadata": {"a": ["b"]}}, "not str to list"),
        ({"metadata": {"a": "\ud800"}}, "metadata holds half a character"),
        ({"track_opens": "no"}, "track_opens must be True, False or None"),
        ({"track_clicks": 1}, "track_clicks must be True, False or None"),
        ({"sandbox": "yes"}, "sandbox must be True, False or None"),
        ({"idempotency_key": ""}, "idempotency_key must be a string that is not empty"),
        ({"idempotency_key": True}, "idempotency_key must be a string"),
        ({"idempotency_key": "schlüssel"}, "1 to 255 printable ASCII"),
        ({"idempotency_key": "x" * 256}, "1 to 255 printable ASCII"),
        ({"esp_extra": ["a"]}, "esp_extra must be a dict"),
        ({"esp_extra": {1: "a"}}, "esp_extra must be a dict"),
    ],
)
def test_impossible_option_is_refused(options, reason):
    assert reason in refused(a_message(**options))


def test_idempotency_key_may_be_a_uuid():
    key = uuid.UUID(int=1)
    assert payload_of(a_message(idempotency_key=key)).idempotency_key == str(key)


def test_esp_extra_is_added_to_the_fields_of_the_api():
    email = email_of(esp_extra={"react": "<Welcome/>", "track_opens": False})
    assert (email["react"], email["track_opens"]) == ("<Welcome/>", False)


@pytest.mark.parametrize("name", ["tags", "envelope_sender"])
def test_anymail_option_that_truncus_lacks_is_unsupported(name):
    message = a_message()
    setattr(message, name, ["Geheimnis"])
    text = refused(message, UnsupportedFeature)
    assert f"The option {name!r} cannot be sent through Truncus" in text
    assert "Geheimnis" not in text
    assert payload_of(message, DROPPING).dropped == (f"The option {name!r}",)


@pytest.mark.parametrize("settings", [Settings(), DROPPING])
@pytest.mark.parametrize("value", [{}, {"ann@example.org": {"name": "Ann"}}])
@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_one_payload_is_never_an_email_to_recipients_that_are_to_get_one_each(
    name, value, settings
):
    message = a_message()
    message.to = ["ann@example.org", "bob@example.org"]
    setattr(message, name, value)
    text = refused(message, MessageError, settings)
    assert text.startswith(f"{name} makes one email for each recipient")
    assert "@" not in text


@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_anymail_none_of_a_merge_option_is_no_option(name):
    message = a_message()
    setattr(message, name, None)
    assert email_of(message).keys() == {"from", "to", "subject", "text"}


def test_anymail_unset_is_no_option():
    message = a_message()
    message.metadata = message.tags = message.send_at = type("UNSET", (), {})
    message.merge_data = message.merge_metadata = message.merge_headers = message.tags
    assert email_of(message).keys() == {"from", "to", "subject", "text"}


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


# send_at ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("send_at", "sent"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), "2026-07-01T12:00:00Z"),
        (datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-5))), "2026-07-01T17:00:00Z"),
        (datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC), "2026-07-01T12:00:00.250Z"),
        (datetime(2026, 7, 1, 12), "2026-07-01T10:00:00Z"),  # summer in Berlin
        (datetime(2026, 12, 1, 12), "2026-12-01T11:00:00Z"),  # winter in Berlin
        (date(2026, 7, 1), "2026-06-30T22:00:00Z"),
        ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
        ("2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00Z"),
        (lazystr("2026-07-01 12:00"), "2026-07-01T10:00:00Z"),
        (1782907200, "2026-07-01T12:00:00Z"),
        (1782907200.5, "2026-07-01T12:00:00.500Z"),
    ],
)
def test_send_at_is_sent_as_utc(send_at, sent):
    assert email_of(send_at=send_at)["send_at"] == sent


def test_naive_send_at_is_in_the_current_time_zone():
    with django_timezone.override("Asia/Tokyo"):
        email = email_of(send_at=datetime(2026, 7, 1, 12))
    assert email["send_at"] == "2026-07-01T03:00:00Z"


@pytest.mark.parametrize("send_at", [NOW, NOW - timedelta(seconds=1), date(2026, 3, 1), 0])
def test_send_at_in_the_past_is_refused(send_at):
    assert "leave it out to send now" in refused(a_message(send_at=send_at))


@pytest.mark.parametrize("send_at", ["tomorrow", "", True, float("nan"), 1e20, datetime.max, ["x"]])
def test_impossible_send_at_is_refused(send_at):
    with django_timezone.override("America/New_York"):
        assert "must be a datetime" in refused(a_message(send_at=send_at))
