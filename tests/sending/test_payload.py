"""Django message → payload: addresses, subject, bodies, attachments, and what is unsupported."""

import base64
from email.message import MIMEPart

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.functional import lazystr

from tests.sending.payloads import DROPPING, a_message, email_of, payload_of, refused
from truncus_django.api import contract
from truncus_django.api.errors import (
    InvalidAddress,
    InvalidHeader,
    MessageError,
    MessageTooLarge,
    UnsupportedFeature,
)

# Addresses ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("sender", ["webmaster@localhost", "Shop <root@localhost>"])
def test_a_sender_at_localhost_is_told_which_settings_to_change(sender):
    with pytest.raises(InvalidAddress, match=r"DEFAULT_FROM_EMAIL.*SERVER_EMAIL") as told:
        email_of(EmailMessage("S", "B", sender, ["a@example.com"]))
    assert sender not in str(told.value)


# Subject and bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["", " ", None, b"Geheimnis", object()])
def test_empty_subject_is_refused(subject):
    text = refused(a_message(subject=subject))
    assert "subject is empty or no string" in text
    assert "Geheimnis" not in text


@pytest.mark.parametrize("subject", ["Geheimnis\nBcc: x", "Geheimnis\r", "Geheimnis\ud800"])
def test_impossible_subject_is_refused(subject):
    assert "Geheimnis" not in refused(a_message(subject=subject), InvalidHeader)


@pytest.mark.parametrize("subject", ["", "  ", None])
def test_empty_subject_is_an_error_that_names_the_setting_or_filled_in(subject):
    message = a_message(subject=subject)
    assert "TRUNCUS['UNSUPPORTED'] = 'warn'" in refused(message)
    payload = payload_of(message, DROPPING)
    assert payload.email["subject"] == "(no subject)"
    assert payload.dropped == ("An empty subject, in whose place '(no subject)' is sent",)


def test_subject_that_is_no_string_is_refused_in_any_case():
    assert "no string" in refused(a_message(subject=object()), settings=DROPPING)


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


# Sizes and counts ---------------------------------------------------------------------------------


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


# Attachments --------------------------------------------------------------------------------------


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
