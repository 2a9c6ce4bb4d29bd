"""Emails from templates: what is found, what is escaped, language, time zone, hostile names."""

import importlib.util
import re
import sys
from datetime import UTC, datetime
from email.message import EmailMessage as StandardMessage
from html.parser import HTMLParser

import pytest
from django.http import HttpRequest
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from truncus_django.conf import ConfigurationError, Settings
from truncus_django.message import TruncusMessage
from truncus_django.sending.payload import build_payload

TO = ["ann@example.com"]
TEMPLATES = {
    "shipped_subject.txt": "\n  Order for {{ name }}\n",
    "shipped.txt": "Hello {{ name }}",
    "shipped.html": (
        '<p title="{{ name }}">Hello {{ name }}</p><script>var x = "{{ name }}"</script>'
    ),
}


def engines(folder, **options):
    django_engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [folder],
        "OPTIONS": options,
    }
    jinja = {
        "BACKEND": "django.template.backends.jinja2.Jinja2",
        "DIRS": [folder / "jinja"],
        "NAME": "other",
    }
    return override_settings(TEMPLATES=[django_engine, jinja])


@pytest.fixture(autouse=True)
def write(tmp_path):
    """A project with Django's engine, and Jinja2 by the name "other"; returns what adds a file."""
    (tmp_path / "jinja").mkdir()

    def write(name, text):
        (tmp_path / name).write_text(text)

    with engines(tmp_path):
        yield write


@pytest.fixture
def shipped(write):
    for name, text in TEMPLATES.items():
        write(name, text)


def shown(html):
    """Return the tags of ``html`` and its text."""
    tags, texts = [], []
    parser = HTMLParser(convert_charrefs=True)
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, *attributes))
    parser.handle_data = texts.append
    parser.feed(html)
    parser.close()
    return tags, "".join(texts)


@pytest.mark.usefixtures("shipped")
def test_subject_text_and_html_are_rendered_and_only_html_is_escaped():
    message = TruncusMessage.from_template("shipped", {"name": "Ann & <Co>"}, to=TO)
    assert message.subject == "Order for Ann & <Co>"
    assert message.body == "Hello Ann & <Co>"
    [(html, mimetype)] = message.alternatives
    assert mimetype == "text/html"
    assert html.startswith('<p title="Ann &amp; &lt;Co&gt;">Hello Ann &amp; &lt;Co&gt;</p>')


def test_a_template_may_still_escape_or_inherit(write):
    write("base.txt", "{% block words %}{% endblock %}, {{ name }}")
    write("a.txt", "{% extends 'base.txt' %}{% block words %}{% include 'b.txt' %}{% endblock %}")
    write("b.txt", "{% autoescape on %}{{ name }}{% endautoescape %}")
    message = TruncusMessage.from_template("a", {"name": "A & B"}, subject="S", to=TO)
    assert message.body == "A &amp; B, A & B"


def test_options_are_those_of_the_message(write):
    write("a_subject.txt", "Hello")
    write("a.txt", "Text")
    message = TruncusMessage.from_template("a", to=TO, tenant_id="acme", cc=["b@example.com"])
    assert (message.to, message.cc, message.tenant_id) == (TO, ["b@example.com"], "acme")
    with pytest.raises(TypeError, match="did you mean 'tenant_id'"):
        TruncusMessage.from_template("a", to=TO, tenantid="acme")


@pytest.mark.usefixtures("shipped")
def test_what_is_given_needs_no_template(write):
    message = TruncusMessage.from_template("shipped", {"name": "Ann"}, subject="Mine", body="Own")
    assert (message.subject, message.body) == ("Mine", "Own")
    write("only.html", "<p>Hi</p>")
    message = TruncusMessage.from_template("only", subject="S", body="")
    assert (message.body, message.alternatives[0][0]) == ("", "<p>Hi</p>")


def test_subclasses_make_messages_of_their_own(write):
    class Letter(TruncusMessage):
        pass

    write("a.txt", "Text")
    assert type(Letter.from_template("a", subject="S")) is Letter


# What is missing --------------------------------------------------------------------------------


def test_missing_templates_are_all_named():
    with pytest.raises(TemplateDoesNotExist) as caught:
        TruncusMessage.from_template("orders/shippd", to=TO)
    for name in ("orders/shippd_subject.txt", "orders/shippd.html", "orders/shippd.txt"):
        assert name in str(caught.value)
    # For Django's debug page, which shows the places that were looked at.
    assert {reason.backend.name for reason in caught.value.chain} == {"django", "other"}
    assert all(reason.tried for reason in caught.value.chain if reason.backend.name == "django")


def test_missing_subject_is_an_error_that_names_it_alone(write):
    write("a.txt", "Text")
    with pytest.raises(TemplateDoesNotExist, match=r"no a_subject\.txt\. .*subject=") as caught:
        TruncusMessage.from_template("a", to=TO)
    assert "a.html" not in str(caught.value)


def test_errors_of_a_template_are_those_of_django(write):
    write("a_subject.txt", "Hello")
    write("a.txt", "{% nonsense %}")
    with pytest.raises(TemplateSyntaxError, match="nonsense"):
        TruncusMessage.from_template("a")
    write("b.txt", "{% include 'gone.txt' %}")
    with pytest.raises(TemplateDoesNotExist, match=r"^gone\.txt$"):
        TruncusMessage.from_template("b", subject="S")


# Text from the HTML -----------------------------------------------------------------------------


def test_text_is_made_of_the_html_where_there_is_none(write):
    write(
        "a.html",
        """<html><head><title>T</title><style>p{color:red}</style></head><body>
        <div style="display:none">Preview</div><h1>Thank you, {{ name }}!</h1>
        <p>See <a href="https://x.example/?a=1&amp;b=2">your order</a>.</p>
        <table><tr><td>Tea</td><td>8.90</td></tr><tr><td>Total</td><td>8.90</td></tr></table>
        <a href="https://x.example/"><img src="l.png" alt="Logo"></a>
        <a href="mailto:a@example.com">a@example.com</a></body></html>""",
    )
    message = TruncusMessage.from_template("a", {"name": "Ann & Co"}, subject="S")
    assert message.body.split("\n") == [
        "Thank you, Ann & Co!",
        "",
        "See [your order](https://x.example/?a=1&b=2).",
        "",
        "Tea    8.90",
        "Total  8.90",
        "",
        "[[Logo]](https://x.example/) a@example.com",
    ]


def test_without_inscriptis_the_error_names_the_extra_and_two_other_ways(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "inscriptis", None)
    write("a.html", "<p>Hi</p>")
    with pytest.raises(ConfigurationError) as caught:
        TruncusMessage.from_template("a", subject="S")
    for way in ("a.txt", 'pip install "truncus-django[text]"', "body=''"):
        assert way in str(caught.value)
    assert TruncusMessage.from_template("a", subject="S", body="").body == ""


# Language, time zone, request, engine -----------------------------------------------------------


def test_language_and_time_zone_are_those_of_the_recipient(write):
    write("a_subject.txt", "{% load i18n %}{% translate 'Monday' %}")
    write("a.txt", "{{ at|date:'l H:i' }}")
    context = {"at": datetime(2026, 3, 2, 23, 30, tzinfo=UTC)}

    def rendered(**kwargs):
        message = TruncusMessage.from_template("a", context, **kwargs)
        return message.subject, message.body

    assert rendered(language="de", time_zone="Asia/Tokyo") == ("Montag", "Dienstag 08:30")
    assert rendered(language="fr") == ("lundi", "mardi 00:30")  # in Europe/Berlin
    assert rendered() == ("Monday", "Tuesday 00:30")


def test_context_processors_see_the_request(tmp_path, write):
    write("a_subject.txt", "{{ request.path }} & co")
    write("a.html", "{{ request.path }} & co")
    request = HttpRequest()
    request.path = "/<here>/"
    processors = ["django.template.context_processors.request"]
    with engines(tmp_path, context_processors=processors):
        message = TruncusMessage.from_template("a", request=request, body="")
    assert message.subject == "/<here>/ & co"
    assert message.alternatives[0][0] == "/&lt;here&gt;/ & co"


def test_jinja2_escapes_the_html_alone_too(write):
    for name, text in TEMPLATES.items():
        write(f"jinja/{name}", text)
    context = {"name": "A & B"}
    message = TruncusMessage.from_template("shipped", context, using="other", request=HttpRequest())
    assert (message.subject, message.body) == ("Order for A & B", "Hello A & B")
    assert message.alternatives[0][0].startswith('<p title="A &amp; B">Hello A &amp; B</p>')
    assert context == {"name": "A & B"}
    # Without a name, each engine is asked in turn.
    assert TruncusMessage.from_template("shipped", context).body == "Hello A & B"


def test_an_unknown_engine_is_an_error_as_everywhere_in_django(write):
    write("a.txt", "Text")
    with pytest.raises(Exception, match="Could not find config for 'mako'"):
        TruncusMessage.from_template("a", subject="S", using="mako")


def test_templates_follow_changed_settings(tmp_path, write):
    write("a.txt", "first")
    assert TruncusMessage.from_template("a", subject="S").body == "first"
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("second")
    with engines(other):
        assert TruncusMessage.from_template("a", subject="S").body == "second"
    assert TruncusMessage.from_template("a", subject="S").body == "first"


# Hostile context --------------------------------------------------------------------------------

ENGINES = ["django", *(["other"] if importlib.util.find_spec("jinja2") else [])]
NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(
        st.sampled_from(
            [
                *[
                    "\r\n",
                    "\n",
                    "\u2028",
                    "\x85",
                    "\t",
                    "  ",
                    "Bcc: e@x.y",
                    "</script>",
                    "<script>",
                ],
                *[
                    '"',
                    "'",
                    "&",
                    "<b>",
                    "{{ name }}",
                    "{% now 'Y' %}",
                    "é",
                    "--boundary",
                    "=?utf-8?q?x?=",
                ],
            ]
        )
    ).map("".join),
)


@pytest.fixture(scope="module")
def hostile_project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "jinja").mkdir()
    for name, text in TEMPLATES.items():
        (folder / name).write_text(text)
        (folder / "jinja" / name).write_text(text)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@given(name=NAMES)
def test_hostile_context_breaks_neither_headers_nor_html(hostile_project, engine, name):
    with engines(hostile_project):
        message = TruncusMessage.from_template(
            "shipped", {"name": name}, to=TO, using=engine, from_email="shop@example.com"
        )
    words = re.split(r"[\s\x00-\x1f\x7f-\x9f]+", f"Order for {name}")
    assert message.subject == " ".join(filter(None, words))
    assert len(message.subject.splitlines()) == 1
    assert message.body == f"Hello {name}"
    html = message.alternatives[0][0]
    without_script, script = html.removesuffix("</script>").split("<script>")
    assert "</script" not in script.lower()
    assert '"' not in script.removeprefix('var x = "').removesuffix('"')
    tags, text = shown(without_script)
    readable = name.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    assert [tag for tag, *_ in tags] == ["p"]
    assert [attribute for _, *attributes in tags for attribute, _ in attributes] == ["title"]
    if name.isprintable():
        assert (tags, text) == ([("p", ("title", name))], f"Hello {readable}")
    email = build_payload(message, Settings(), now=datetime.now(UTC)).email
    standard = StandardMessage()
    standard["Subject"] = email["subject"]  # raises on a line break
    assert email.keys() == {"from", "to", "subject", "text", "html"}
