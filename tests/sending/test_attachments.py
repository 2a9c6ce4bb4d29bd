"""Attachments in every form that Django takes."""

import mimetypes
from email import message_from_bytes
from email.charset import Charset
from email.message import EmailMessage as StandardMessage
from email.message import Message, MIMEPart
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from django.core.mail import EmailAttachment, EmailMessage
from django.utils.functional import lazystr

from truncus_django.api.errors import MessageError, UnsupportedFeature
from truncus_django.sending.attachments import read_attachment


def read(given, **kwargs):
    return read_attachment(given, index=0, **kwargs)


def test_field_is_base64_with_name_and_type():
    assert read(("a.pdf", b"\x00\xff", "application/pdf")).as_field() == {
        "filename": "a.pdf",
        "content": "AP8=",
        "content_type": "application/pdf",
    }


@pytest.mark.parametrize(
    "given",
    [
        ("a.pdf", b"PDF", "application/pdf"),
        ["a.pdf", b"PDF", "application/pdf"],
        ("a.pdf", b"PDF"),
        ("a.pdf", bytearray(b"PDF"), None),
        ("a.pdf", memoryview(b"PDF"), None),
        EmailAttachment("a.pdf", b"PDF", "application/pdf"),
    ],
)
def test_tuple_or_email_attachment_is_taken(given):
    found = read(given)
    assert (found.filename, found.content) == ("a.pdf", b"PDF")
    assert found.content_type == "application/pdf"
    assert found.size == 3


def test_attached_file_is_taken(tmp_path):
    path = tmp_path / "Größe.csv"
    path.write_bytes("a;ß\r\n".encode())
    message = EmailMessage()
    message.attach_file(path)
    found = read(message.attachments[0])
    assert (found.filename, found.content) == ("Größe.csv", "a;ß\r\n".encode())
    assert found.content_type == 'text/csv; charset="utf-8"'


@pytest.mark.parametrize("name", ["rechnung-ä.pdf", "請求書.pdf", 'a "b"; c.pdf', "no-extension"])
def test_filename_is_carried_as_it_is(name):
    assert read((name, b"", "application/pdf")).filename == name


@pytest.mark.parametrize("name", [None, ""])
@pytest.mark.parametrize(
    ("mimetype", "made"),
    [
        ("application/pdf", "attachment-1.pdf"),
        ("message/rfc822", "attachment-1.eml"),
        ("application/x-unheard-of", "attachment-1.bin"),
        (None, "attachment-1.bin"),
    ],
)
def test_missing_filename_is_made_from_place_and_type(name, mimetype, made):
    assert read((name, b"x", mimetype)).filename == made


def test_unknown_extension_is_a_stream_of_octets():
    assert read(("//[", b"x")).content_type == "application/octet-stream"
    assert mimetypes.guess_type("a.unheard-of")[0] is None
    assert read(("a.unheard-of", b"x")).content_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [
        (None, "utf-8"),
        ("utf-8", "utf-8"),
        ("iso-8859-1", "iso-8859-1"),
        ("utf-16", "utf-16"),
        (Charset("windows-1252"), "windows-1252"),
    ],
)
def test_text_is_encoded_in_the_charset_of_the_message(encoding, charset):
    found = read(("a.txt", "Größe", "text/plain"), encoding=encoding)
    assert found.content == "Größe".encode(charset)
    assert found.content_type == f'text/plain; charset="{charset}"'


@pytest.mark.parametrize("encoding", ["ascii", "koi8-r", "no-such-charset", "a\0b"])
def test_text_that_the_charset_lacks_is_encoded_in_utf_8(encoding):
    found = read(("a.txt", "€", "text/plain"), encoding=encoding)
    assert (found.content, found.content_type) == ("€".encode(), 'text/plain; charset="utf-8"')


@pytest.mark.parametrize(
    ("mimetype", "told"),
    [
        ("text/calendar; method=REQUEST", 'text/calendar; method=REQUEST; charset="utf-8"'),
        ("text/csv; charset=latin-1; header=present", 'text/csv; header=present; charset="utf-8"'),
        ('text/csv; charset="latin-1"', 'text/csv; charset="utf-8"'),
    ],
)
def test_text_keeps_the_parameters_of_its_type_except_the_charset(mimetype, told):
    found = read(("a", "ä", mimetype))
    assert (found.content, found.content_type) == ("ä".encode(), told)


def test_text_of_another_type_is_utf_8():
    found = read(("a.json", lazystr('"ä"'), "application/json"))
    assert (found.content, found.content_type) == ('"ä"'.encode(), "application/json")


def test_bytes_of_a_text_keep_their_type():
    found = read(("a.txt", b"\xe4", "text/plain; charset=latin-1"))
    assert (found.content, found.content_type) == (b"\xe4", "text/plain; charset=latin-1")


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252"])
def test_mime_part_with_text_keeps_its_bytes_and_charset(charset):
    part = MIMEPart()
    part.set_content("Größe", subtype="csv", charset=charset, filename="größe.csv")
    found = read(part)
    assert found.content == "Größe\n".encode(charset)
    assert found.filename == "größe.csv"
    assert found.content_type == f'text/csv; charset="{charset}"'


def test_legacy_mime_parts_are_taken():
    pdf = MIMEApplication(b"\x00PDF", "pdf")
    pdf.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "ä.pdf"))
    assert read(pdf).as_field()["filename"] == "ä.pdf"
    assert read(pdf).content == b"\x00PDF"

    base = MIMEBase("application", "zip", name="a.zip")
    base.set_payload(b"\xffPK")
    found = read(base)
    assert (found.filename, found.content, found.content_type) == (
        "a.zip",
        b"\xffPK",
        "application/zip",
    )


def test_mime_part_keeps_the_parameters_of_its_type():
    invitation = MIMEText("BEGIN:VCALENDAR", "calendar", "utf-8")
    invitation.set_param("method", "REQUEST")
    assert read(invitation).content_type == 'text/calendar; charset="utf-8"; method="REQUEST"'


def inner_message():
    inner = StandardMessage()
    inner["Subject"] = "Größe"
    inner.set_content("From here on\n")
    return inner


@pytest.mark.parametrize(
    "given",
    [
        ("a.eml", inner_message(), "message/rfc822"),
        ("a.eml", inner_message().as_bytes(), "message/rfc822"),
        ("a.eml", inner_message().as_string(), "message/rfc822"),
        MIMEMessage(inner_message()),
    ],
)
def test_attached_message_is_carried_whole(given):
    found = read(given)
    assert found.content == inner_message().as_bytes()
    assert found.content_type == "message/rfc822"
    assert found.filename.endswith(".eml")


def test_attached_django_message_is_written_out_without_its_bcc():
    inner = EmailMessage("Inner", "Text", "a@example.com", ["b@example.com"], bcc=["c@example.com"])
    content = read(("a.eml", inner, "message/rfc822")).content
    assert message_from_bytes(content)["Subject"] == "Inner"
    assert b"c@example.com" not in content


def test_attached_delivery_report_is_carried_whole():
    report, about = MIMEBase("message", "delivery-status"), Message()
    about["Action"] = "failed"
    report.attach(about)
    assert read(report).content == b"Action: failed\n\n"


def test_content_id_is_told():
    image = MIMEApplication(b"PNG")
    image["Content-ID"] = "<logo>"
    assert read(image).content_id == "<logo>"


def test_multipart_is_unsupported():
    with pytest.raises(UnsupportedFeature, match="message/rfc822"):
        read(MIMEMultipart())


def never_encoded():
    part = MIMEBase("text", "plain")
    part.set_payload("Geheimnis €")
    return part


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "NoneType"),
        ("Geheimnis", "str"),
        (("Geheimnis",), "tuple"),
        (("a.txt", object()), r"read\(\) a file first"),
        (("a.txt", None), "NoneType"),
        (("a\nGeheimnis", b""), "line break"),
        (("a\ud800", b""), "half a character"),
        (("a.txt", b"", "Geheimnis"), "no type like"),
        (("a.txt", b"", "téxt/Geheimnis"), "no type like"),
        (("a.txt", b"", "text/plain; a=\nGeheimnis"), "line break"),
        (("a.txt", "\ud800Geheimnis", "text/plain"), "half a character"),
        (("a.json", "\ud800Geheimnis", "application/json"), "half a character"),
        (("a.eml", EmailMessage("Geheimnis\nBcc: x", "", "a@example.com")), "check its headers"),
        (never_encoded(), "never encoded"),
    ],
)
def test_impossible_attachment_is_refused_with_its_place_and_without_its_content(given, reason):
    with pytest.raises(MessageError, match=reason) as caught:
        read(given)
    assert "ttachment 1" in str(caught.value)
    assert "Geheimnis" not in repr(caught.value)
