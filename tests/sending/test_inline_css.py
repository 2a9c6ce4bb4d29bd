"""CSS in attributes: what moves, what stays, and that nothing is ever read from elsewhere."""

import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import pytest
from django.core.mail import EmailMessage

from truncus_django.admin.resend import resend
from truncus_django.api import contract
from truncus_django.api.errors import MessageError, MessageTooLarge
from truncus_django.backend import TruncusBackend
from truncus_django.conf import ConfigurationError, Settings
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.sending import inline_css
from truncus_django.sending.payload import build_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ON = Settings(inline_css=True)
MEDIA = "@media (max-width: 600px) { p { color: red } }"
CSS = f"<style>p {{ color: blue }} {MEDIA} a:hover {{ top: 0 }}</style>"
HTML = f"<!DOCTYPE html><html><head>{CSS}</head><body><p>Hello</p></body></html>"


def email_of(html=HTML, settings=ON, **kwargs):
    message = TruncusMessage("S", "p { }", "s@example.com", ["a@example.com"], html=html, **kwargs)
    return build_payload(message, settings, now=NOW).email


@pytest.fixture
def without_css_inline(monkeypatch):
    monkeypatch.setitem(sys.modules, "css_inline", None)
    inline_css._inliner.cache_clear()
    yield
    inline_css._inliner.cache_clear()


def test_css_moves_into_attributes_and_what_an_attribute_cannot_say_stays():
    email = email_of()
    assert '<p style="color: blue;">Hello</p>' in email["html"]
    assert MEDIA in email["html"]
    assert "a:hover" in email["html"]
    assert "p { color: blue }" not in email["html"]
    assert email["html"].startswith("<!DOCTYPE html>")
    assert email["text"] == "p { }"


@pytest.mark.parametrize(
    ("setting", "option", "is_inlined"),
    [
        (False, None, False),
        (False, True, True),
        (True, None, True),
        (True, False, False),
    ],
)
def test_the_option_of_a_message_wins_over_the_setting(setting, option, is_inlined):
    html = email_of(settings=Settings(inline_css=setting), inline_css=option)["html"]
    assert (html != HTML) is is_inlined


def test_any_message_may_have_the_option():
    message = EmailMessage("S", HTML, "s@example.com", ["a@example.com"])
    message.content_subtype = "html"
    message.inline_css = True
    assert 'style="color: blue;"' in build_payload(message, Settings(), now=NOW).email["html"]
    message.inline_css = "yes"
    with pytest.raises(MessageError, match="inline_css must be True, False or None"):
        build_payload(message, Settings(), now=NOW)


def test_html_without_style_elements_is_left_as_it_is():
    html = "<P class=a>not\nclosed &nbsp; <!--[if mso]><v:rect/><![endif]-->"
    assert email_of(html)["html"] == html


def test_conditional_comments_for_outlook_are_left():
    comment = "<!--[if mso]><style>p { color: green }</style><v:rect /><![endif]-->"
    assert comment in email_of(f"{CSS}{comment}<p>x</p>")["html"]


def test_messages_with_a_template_of_truncus_are_left_alone():
    settings = Settings(inline_css=True, unsupported="warn")
    assert "html" not in email_of(settings=settings, template_id="welcome")


def test_the_limit_is_measured_after_css_was_inlined():
    # Each of the paragraphs gets the colour of one rule.
    html = "<style>p { color: #123456 }</style>" + "<p>x</p>\n" * 12_000
    assert len(html) < contract.MAX_HTML_BYTES
    with pytest.raises((MessageTooLarge, MessageError)):
        email_of(html)
    rows = "<style>td { color: #123456 }</style><table>" + "<tr><td>x\n" * 12_000
    assert len(rows) < contract.MAX_HTML_BYTES
    with pytest.raises(MessageTooLarge, match="The html body has"):
        email_of(rows)


def test_no_stylesheet_is_read_from_network_or_disk(tmp_path, monkeypatch):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"p { color: leaked }")

        def log_message(self, *args):
            pass

    (tmp_path / "local.css").write_text("p { color: leaked }")
    monkeypatch.chdir(tmp_path)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for address in (
                f"http://127.0.0.1:{server.server_port}/a.css",
                f"//127.0.0.1:{server.server_port}/a.css",
                f"file://{tmp_path}/local.css",
                f"{tmp_path}/local.css",
                "local.css",
                "./local.css",
            ):
                html = email_of(
                    f'<base href="file://{tmp_path}/"><link rel="stylesheet" href="{address}">'
                    f'<link rel=StyleSheet type=text/css href="{address}"><style>@import url('
                    f'"{address}"); @import "{address}"; p {{ top: 0 }}</style><p>x</p>'
                )["html"]
                assert "leaked" not in html
                assert 'style="top: 0;"' in html
                assert f'<link rel="stylesheet" href="{address}">' in html
        finally:
            server.shutdown()
            thread.join()
    assert asked == []


@pytest.mark.parametrize(
    "html",
    [
        "<style>p { color: </style><p>x",
        "<style>}}}{{{ p { a: b }</style><p>x",
        "<style>" + "@media x {" * 20_000 + "</style><p>x",
        "<style>" + "p:not(" * 5_000 + "p" + ")" * 5_000 + " { a: b }</style><p>x",
        "<style>p { a: " + "(" * 50_000 + "}</style><p>x",
        "<svg><style>p { a: b }</style></svg><p>x",
        "<style>p { a: b }</style>\x00<p>x",
    ],
)
def test_broken_css_costs_no_email(html):
    assert "x" in email_of(html)["html"]


def test_css_that_cannot_be_read_is_an_error_without_the_content():
    with pytest.raises(MessageError, match="could not be inlined") as caught:
        email_of("<style>p { a: b }</style><p style='color:secret;}{'>secret</p>")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(MessageError):
        email_of("<style>p { a: b }</style>\ud800")


@pytest.mark.parametrize(
    "nested",
    [
        "<div>" * 20_000,
        "<table><td>" * 10_000,
        "<table><tr><td>" * 1_200,
        "<svg>" + "<td>" * 5_000,
        "<b><div></b>" * 5_000,
        "<div><!--</div>-->" * 5_000,
    ],
)
def test_html_that_would_end_the_process_is_refused(nested):
    # css-inline walks by recursion in a language without RecursionError.
    with pytest.raises(MessageError, match=r"over 4,000 elements"):
        email_of(f"<style>p {{ a: b }}</style>{nested}")


@pytest.mark.parametrize(
    "nested", ["<div>" * 2_000, "<table><td>" * 900, "<b><div></b>" * 700, "<svg>" + "<g>" * 1_900]
)
def test_deep_html_within_the_bound_is_inlined(nested):
    assert '<p style="a: b;">' in email_of(f"<style>p {{ a: b }}</style><p>x</p>{nested}")["html"]


@pytest.mark.django_db
@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_what_is_sent_recorded_and_sent_again_is_the_same(delivery, truncus_emulator, settings):
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "RECORD": True,
        "DELIVERY": delivery,
        "INLINE_CSS": True,
        "STORE_BODIES": True,
        "REQUESTS_PER_SECOND": 0,
        "REQUESTS_PER_MINUTE": 0,
    }
    truncus_emulator.reset(requests_per_second=0, requests_per_minute=0)
    messages = [
        TruncusMessage("S", "Text", None, [f"{name}@example.com"], html=HTML) for name in "ab"
    ]
    TruncusBackend().send_messages(messages)
    Dispatcher().drain()
    first, second = Email.objects.all()
    again = resend(first, click=uuid4()).record
    Dispatcher().drain()

    expected = email_of()["html"]
    assert expected != HTML
    assert [email.payload["html"] for email in truncus_emulator.emails] == [expected] * 3
    assert {email.html_body for email in (first, second, again)} == {expected}


def test_merge_data_is_filled_in_before_css_is_inlined(truncus):
    message = TruncusMessage("S", "Text", to=["a@example.com", "b@example.com"], inline_css=True)
    message.attach_alternative(f"{CSS}<p>Hello {{{{ name }}}}</p>", "text/html")
    message.merge_data = {"a@example.com": {"name": "<A>"}, "b@example.com": {"name": "B"}}
    assert message.send() == 2
    first, second = (email["html"] for email in truncus.last.emails)
    assert '<p style="color: blue;">Hello &lt;A&gt;</p>' in first
    assert '<p style="color: blue;">Hello B</p>' in second


def test_without_css_inline_the_error_names_the_extra(without_css_inline):
    with pytest.raises(ConfigurationError, match=r'pip install "truncus-django\[css\]"'):
        email_of()
    assert email_of(settings=Settings())["html"] == HTML


@pytest.mark.parametrize(
    ("attribute", "shown"),
    [
        ('media="print"', False),
        ("media=print", False),
        ("type='text/css' media='(max-width: 600px)'", False),
        ('media="not screen"', False),
        ('media="screen"', True),
        ('media="all" type="text/css"', True),
    ],
)
def test_the_media_of_a_style_element_hold(attribute, shown):
    html = f'<style {attribute}>.d {{ display: none }}</style><div class="d">x</div>'
    found = inline_css.inlined(html)
    assert ('style="display: none' in found) == shown
    assert ("@media" in found) == (not shown)
