"""The URLs in an email, as whoever clicks would follow them."""

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.conftest import order
from truncus_django.models import Email
from truncus_django.testing import assert_email_sent, links_in

HREF = "https://shop.example/orders/1/?utm=a&b=1"
IN_TEXT = "https://shop.example/orders/1/"


def html(markup):
    message = EmailMultiAlternatives("Hi", "")
    message.attach_alternative(markup, "text/html")
    return message


@pytest.mark.parametrize(
    ("markup", "links"),
    [
        ('<a href="https://a.example/?a=1&amp;b=2&#38;c">', ["https://a.example/?a=1&b=2&c"]),
        ("<A HREF=https://a.example/>x</A>", ["https://a.example/"]),
        ("<a class='x' href='https://a.example/'>", ["https://a.example/"]),
        ('<a href=" https://a.example/\n  b\t">', ["https://a.example/  b"]),
        (
            '<a href="/a"><a href="https://b"><a href="/a"><a href="#top">',
            ["/a", "https://b", "#top"],
        ),
        ('<a href="https://first/" href="https://second/">', ["https://first/"]),
        ("<a href><a href=''><a name='x'>", []),
        ('<map><area href="https://a.example/"></map>', ["https://a.example/"]),
        ('<v:roundrect href="https://a.example/">', ["https://a.example/"]),
        ('<base href="https://b/"><link href="https://c/style.css">', []),
        ('<!-- <a href="https://a.example/"> -->', []),
        ("<!--[if mso]><a href='/mso'><![endif]--><a href='/all'>", ["/all"]),
        ("<![if !mso]><a href='/all'><![endif]><![nonsense[x]><a href='/b'>", ["/all", "/b"]),
        ("<script>'<a href=\"/script\">'</script><style><a href='/style'></style>", []),
        ('<a title="<a href=\'/no\'>" href="/yes">', ["/yes"]),
        ('<p <a <<<a href="/broken">', []),
        ("<a href=/1><b><a href='/2", ["/1"]),
        ('<a href="javascript:alert(1)">', ["javascript:alert(1)"]),
        ('<a href="https://[">', ["https://["]),
        ("</a href='/end'>", []),
        ("\x00<a href='/zero\x00'>", ["/zero\x00"]),
        ("<div>" * 5000 + "<a href='/deep'>", ["/deep"]),
        ("<a href='/1'>" + "<" * 5000, ["/1"]),
    ],
)
def test_links_of_html(markup, links):
    assert links_in(html(markup)) == links


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("See https://a.example/b?c=d&amp;e.", ["https://a.example/b?c=d&amp;e"]),
        (
            '(https://a.example/b), <https://c.example/>; "https://d.example"!',
            ["https://a.example/b", "https://c.example/", "https://d.example"],
        ),
        (
            "https://en.example/Tea_(drink) (https://en.example/Tea_(drink))",
            ["https://en.example/Tea_(drink)"],
        ),
        ("https://a.example/#/b\nhttps://a.example/#/b", ["https://a.example/#/b"]),
        ("请访问 https://a.example/x。谢谢", ["https://a.example/x"]),
        ("“https://müller.example/straße”…", ["https://müller.example/straße"]),
        (
            "HTTPS://A.example/ shop://orders/1 ftp://b.example/",
            ["HTTPS://A.example/", "shop://orders/1", "ftp://b.example/"],
        ),
        ("http:// https://... mailto: www.example.com ann@example.org", []),
        ("https://a.example/c1abc-0f3_", ["https://a.example/c1abc-0f3_"]),
        (
            "Done.https://a.example/ com.example.app://x",
            ["https://a.example/", "com.example.app://x"],
        ),
    ],
)
def test_links_of_text(text, links):
    assert links_in(EmailMessage("Hi", text)) == links


def test_addresses_are_links_when_asked_for():
    message = html('<a href="MAILTO:a@example.org?subject=x">')
    message.body = "mailto:b@example.org, https://c.example/"

    assert links_in(message) == ["https://c.example/"]
    assert links_in(message, mailto=True) == [
        "MAILTO:a@example.org?subject=x",
        "mailto:b@example.org",
        "https://c.example/",
    ]


def test_links_of_the_html_come_first_and_each_once():
    message = order()
    message.body += HREF

    assert links_in(message) == [HREF, IN_TEXT]


def test_links_of_what_was_sent(send):
    send(order())

    assert links_in(assert_email_sent()) == [HREF, IN_TEXT]


def test_links_of_an_email_of_the_emulator(truncus_emulator):
    order().send()

    assert links_in(truncus_emulator.emails[0]) == [HREF, IN_TEXT]


def test_links_of_a_record(recorded, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    order().send()

    assert links_in(Email.objects.get()) == [HREF, IN_TEXT]


def test_a_record_without_bodies_tells_the_setting(recorded):
    order().send()

    with pytest.raises(ValueError, match="STORE_BODIES"):
        links_in(Email.objects.get())


def test_what_is_no_email_is_told():
    with pytest.raises(TypeError, match="not dict"):
        links_in({"html": "x"})


@given(
    st.text(alphabet="<>!-[]\"'=/& \nahrefmilto:[CDAT#;").map(lambda text: f"<a href='/x'>{text}")
)
def test_any_markup_is_read(markup):
    message = html(markup)
    message.body = markup

    assert links_in(message)[0] == "/x"
