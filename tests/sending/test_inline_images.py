"""Images inside the HTML that go into a storage, and their URLs into the HTML."""

import email.utils
from datetime import UTC, datetime
from email.message import MIMEPart
from email.mime.image import MIMEImage

import django
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage, storages
from django.core.mail import EmailMultiAlternatives
from hypothesis import given
from hypothesis import strategies as st

from truncus_django.api.errors import MessageError, UnsupportedFeature
from truncus_django.backend import TruncusBackend
from truncus_django.conf import ConfigurationError, Settings
from truncus_django.sending.inline_images import host_of, with_hosted_images
from truncus_django.sending.payload import build_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTED = Settings(inline_images="hosted", inline_images_base_url="https://shop.example")
PNG = b"\x89PNG\r\n\x1a\nlogo"
IMAGES = {"png": PNG, "jpg": b"\xff\xd8\xff\xe0.", "gif": b"GIF89a.", "webp": b"RIFF....WEBPVP8 "}


class CountingStorage(InMemoryStorage):
    asked = 0
    saved = 0

    def exists(self, name):
        self.asked += 1
        return super().exists(name)

    def _save(self, name, content):
        self.saved += 1
        return super()._save(name, content)


class BrokenStorage(InMemoryStorage):
    def _save(self, name, content):
        raise OSError("disk of ann@kunde.test is full")


class AbsoluteStorage(InMemoryStorage):
    def url(self, name):
        return f"https://cdn.example/{name}?a=1&b=2"


class ProtocolRelativeStorage(InMemoryStorage):
    def url(self, name):
        return f"//cdn.example/{name}"


@pytest.fixture(autouse=True)
def _storages(settings):
    settings.MEDIA_URL = "/media/"
    settings.STORAGES = {
        "default": {"BACKEND": f"{__name__}.CountingStorage"},
        "broken": {"BACKEND": f"{__name__}.BrokenStorage"},
        "absolute": {"BACKEND": f"{__name__}.AbsoluteStorage"},
        "relative": {"BACKEND": f"{__name__}.ProtocolRelativeStorage"},
        "impossible": {"BACKEND": "nowhere.Storage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def image(content_id="<logo>", content=PNG, subtype="png"):
    part = MIMEImage(content, _subtype=subtype)
    part["Content-ID"] = content_id
    part["Content-Disposition"] = 'inline; filename="logo.png"'
    return part


def message_of(html='<p><img src="cid:logo"></p>', *attachments):
    message = EmailMultiAlternatives("S", "Text", "s@example.com", ["a@example.com"])
    message.attach_alternative(html, "text/html")
    message.attachments.extend(attachments)  # Django 6 deprecates attach() for MIMEImage
    return message


def payload_of(message, settings=HOSTED):
    return build_payload(message, settings, now=NOW, images=host_of(settings))


def email_of(*args, settings=HOSTED):
    return payload_of(message_of(*args), settings).email


def names():
    return storages["default"].listdir("email-images")[1] if storages["default"].saved else []


def test_an_image_becomes_a_file_and_its_url_stands_in_the_html():
    email = email_of('<p><img src="cid:logo" alt="x"></p>', image())
    [name] = names()
    assert email["html"] == (
        f'<p><img src="https://shop.example/media/email-images/{name}" alt="x"></p>'
    )
    assert name.endswith(".png")
    assert storages["default"].open(f"email-images/{name}").read() == PNG
    assert "attachments" not in email


def test_the_same_image_is_stored_once_and_asked_for_once_in_a_list():
    messages = [message_of('<img src="cid:logo">', image()) for _ in range(3)]
    host = host_of(HOSTED)
    for message in messages:
        build_payload(message, HOSTED, now=NOW, images=host)
    assert (storages["default"].asked, storages["default"].saved) == (2, 1)  # save() asks, too
    payload_of(messages[0])
    assert (storages["default"].asked, storages["default"].saved) == (3, 1)


def test_a_file_that_failed_half_way_is_stored_anew():
    payload_of(message_of('<img src="cid:logo">', image()))
    [name] = names()
    storages["default"].delete(f"email-images/{name}")
    storages["default"].save(f"email-images/{name}", ContentFile(PNG[:5]))
    payload_of(message_of('<img src="cid:logo">', image()))
    assert names() == [name]
    assert storages["default"].open(f"email-images/{name}").read() == PNG


@pytest.mark.parametrize(
    "reference",
    [
        '<img src="{}">',
        "<img src='{}'>",
        "<img src={} alt=x>",
        '<IMG\n SRC = " {}">',
        '<td background="{}">',
        "<td style=\"background: url('{}')\">",
        '<td style="background: url(&quot;{}&quot;)">',
        "<td style='background: URL( {} )'>",
        "<style>td {{ background: url({}) }}</style>",
        '<!--[if mso]><v:fill type="tile" src="{}" /><![endif]-->',
        '<a href="{}">',
    ],
)
@pytest.mark.parametrize("cid", ["cid:logo", "CID:logo"])
def test_every_form_of_reference_is_replaced(reference, cid):
    html = email_of(reference.format(cid), image())["html"]
    [name] = names()
    assert html == reference.format(f"https://shop.example/media/email-images/{name}")


@pytest.mark.parametrize(
    "html",
    [
        "<p>Order cid:7 (cid:8)</p>",
        '<a href="https://x.example/?a=cid:7&b=1">x</a>',
        '<p title="placid:7">x</p>',
    ],
)
def test_words_that_are_no_references_are_left(html):
    assert email_of(html)["html"] == html


def test_content_ids_are_compared_as_urls_write_them():
    domain = "a b+c@shop.example"
    html = email_of('<img src="cid:a%20b+c%40shop.example">', image(f" <{domain}> "))["html"]
    assert "cid:" not in html
    made = email.utils.make_msgid(domain="shop.example")
    assert "cid:" not in email_of(f'<img src="cid:{made[1:-1]}">', image(made))["html"]


@pytest.mark.skipif(django.VERSION < (6, 0), reason="MIMEPart is attached since Django 6.0")
def test_parts_of_the_modern_library_are_hosted_as_well():
    part = MIMEPart()
    part.set_content(PNG, maintype="image", subtype="png", cid="<logo>", disposition="inline")
    assert "cid:" not in email_of('<img src="cid:logo">', part)["html"]
    assert len(names()) == 1


@pytest.mark.parametrize(("extension", "content"), IMAGES.items())
def test_the_extension_is_that_of_the_real_type(extension, content):
    email_of('<img src="cid:logo">', image(content=content, subtype="svg+xml"))
    [name] = names()
    assert name.endswith(f".{extension}")


@pytest.mark.parametrize(
    "content", [b"<svg onload=alert(1)>", b"<html>", b"", b"BM\x00", b"RIFF", b" GIF89a"]
)
def test_only_images_of_dots_are_hosted_whatever_they_say_they_are(content):
    with pytest.raises(MessageError, match=r"Attachment 1, an image .* is no PNG, JPEG"):
        email_of('<img src="cid:logo">', image(content=content))
    assert storages["default"].saved == 0


def test_what_the_html_does_not_refer_to_stays_an_attachment():
    unused, report = image("<unused>"), ("report.pdf", b"%PDF-", "application/pdf")
    message = message_of('<img src="cid:logo">', image(), unused)
    message.attach(*report)
    attachments = payload_of(message).email["attachments"]
    assert [item["filename"] for item in attachments] == ["logo.png", "report.pdf"]
    assert "attachments" in email_of("<p>No image</p>", image())


def test_hosted_images_do_not_count_as_attachments():
    images = [image(f"<i{number}>", PNG + bytes([number])) for number in range(12)]
    html = "".join(f'<img src="cid:i{number}">' for number in range(12))
    assert "attachments" not in email_of(html, *images)
    assert len(names()) == 12


def test_an_image_that_is_not_attached_is_an_error():
    with pytest.raises(MessageError, match="no attachment has this Content-ID") as caught:
        email_of('<img src="cid:secret">', image())
    assert "secret" not in str(caught.value)


def test_by_default_an_image_inside_the_html_is_an_error_that_names_the_setting():
    with pytest.raises(UnsupportedFeature, match=r"TRUNCUS\['INLINE_IMAGES'\] = 'hosted'"):
        email_of('<img src="cid:logo">', image(), settings=Settings())


# Storages ---------------------------------------------------------------------------------------


def hosted_in(alias, base_url=None):
    return Settings(
        inline_images="hosted", inline_images_storage=alias, inline_images_base_url=base_url
    )


def test_absolute_urls_of_a_storage_are_taken_as_they_are_and_escaped():
    html = email_of('<img src="cid:logo">', image(), settings=hosted_in("absolute"))["html"]
    assert html.startswith('<img src="https://cdn.example/email-images/')
    assert html.endswith('.png?a=1&amp;b=2">')
    settings = hosted_in("relative", "https://shop.example")
    html = email_of('<img src="cid:logo">', image(), settings=settings)["html"]
    assert html.startswith('<img src="https://cdn.example/email-images/')


@pytest.mark.parametrize("alias", ["default", "relative"])
def test_urls_without_a_host_are_an_error_that_names_the_setting(alias):
    with pytest.raises(ConfigurationError, match="INLINE_IMAGES_BASE_URL"):
        email_of('<img src="cid:logo">', image(), settings=hosted_in(alias))


def test_a_storage_that_fails_is_an_error_without_its_text():
    settings = hosted_in("broken", "https://shop.example")
    with pytest.raises(MessageError, match=r"'broken'.* failed with OSError") as caught:
        email_of('<img src="cid:logo">', image(), settings=settings)
    assert "kunde" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("alias", ["nowhere", "impossible"])
def test_a_storage_that_is_not_there_is_an_error_that_names_the_setting(alias):
    settings = hosted_in(alias, "https://shop.example")
    with pytest.raises(ConfigurationError, match="INLINE_IMAGES_STORAGE"):
        email_of('<img src="cid:logo">', image(), settings=settings)


def test_without_images_no_storage_is_asked():
    assert email_of("<p>Hello</p>")["html"] == "<p>Hello</p>"
    assert storages["default"].asked == 0


def test_images_are_hosted_before_css_moves():
    settings = Settings(
        inline_images="hosted", inline_images_base_url="https://shop.example", inline_css=True
    )
    html = "<style>p { background: url(cid:logo) }</style><p>x</p>"
    assert "url(https://shop.example/media/" in email_of(html, image(), settings=settings)["html"]


# Sent -------------------------------------------------------------------------------------------


def test_a_send_hosts_its_images(truncus, settings):
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "INLINE_IMAGES": "hosted",
        "INLINE_IMAGES_BASE_URL": "https://shop.example",
    }
    assert message_of('<img src="cid:logo">', image()).send() == 1
    assert "cid:" not in truncus.last.body["html"]
    assert "attachments" not in truncus.last.body


def test_a_missing_base_url_is_raised_even_where_failures_are_silent(truncus, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "INLINE_IMAGES": "hosted"}
    backend = TruncusBackend(fail_silently=True)
    with pytest.raises(ConfigurationError, match="INLINE_IMAGES_BASE_URL"):
        backend.send_messages([message_of('<img src="cid:logo">', image())])
    assert truncus.seen == []


@given(st.text(st.sampled_from("cid:= \"'()<>&/url&quot;\n\tab"), max_size=80))
def test_any_html_is_left_or_an_error(text):
    host = host_of(HOSTED)
    try:
        html, places = with_hosted_images(text, message_of("", image()), host)
    except MessageError:
        return
    assert (html, places) == (text, frozenset())


def test_long_white_space_is_read_in_linear_time():
    for start in ("<p a=", "url(", "url(&quot;", '<p a="', " a"):
        html = f"{start}{' ' * 200_000}cid: cid:"
        assert email_of(html)["html"] == html
