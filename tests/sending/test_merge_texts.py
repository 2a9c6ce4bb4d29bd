"""Merge data: subject and bodies with variables and filters."""

from datetime import date

import pytest

from tests.sending.merged import PEOPLE, by_recipient, merged
from truncus_django.api.errors import MessageError, MessagesNotSent
from truncus_django.message import TruncusMessage

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("emulator")]


def test_variables_are_filled_into_subject_and_bodies(emulator):
    message = TruncusMessage(
        "{{ name }}, your code",
        "Dear {{ name }}: {{ code }} & {{ shop }}",
        "shop@example.com",
        PEOPLE,
        html="<p>Dear {{ name }}: {{ code }} &amp; {{ shop|upper }}</p>",
        merge_global_data={"name": "friend", "shop": "Leaf"},
        merge_data={
            "ann@example.org": {"name": "<Ann>", "code": 1},
            "bob@example.org": {"code": 2},
        },
    )
    message.send()

    found = by_recipient(emulator)
    ann, bob = (found[address].payload for address in ("ann@example.org", "bob@example.org"))
    assert ann["subject"] == "<Ann>, your code"
    assert ann["text"] == "Dear <Ann>: 1 & Leaf"
    assert ann["html"] == "<p>Dear &lt;Ann&gt;: 1 &amp; LEAF</p>"
    assert bob["text"] == "Dear friend: 2 & Leaf"
    assert message.subject == "{{ name }}, your code"


def test_a_html_body_is_escaped_whatever_place_it_has(emulator):
    message = merged(merge_data={"bob@example.org": {"name": "<b>"}}, to=["bob@example.org"])
    message.body, message.content_subtype = "<p>{{ name }}</p>", "html"
    message.send()
    assert emulator.emails[0].payload["html"] == "<p>&lt;b&gt;</p>"


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "TEXT/HTML", "text/html ", "body"])
def test_values_are_escaped_however_html_is_written(emulator, kind):
    message = merged(to=["ann@example.org"], merge_global_data={"name": "<script>x</script>"})
    if kind == "body":
        message.body, message.content_subtype = "<p>{{ name }}", "HTML"
    else:
        message.attach_alternative("<p>{{ name }}", kind)
    message.send()
    assert emulator.emails[0].payload["html"] == "<p>&lt;script&gt;x&lt;/script&gt;"


def test_filters_show_values_as_django_does(emulator):
    message = merged(
        to=["ann@example.org"],
        merge_global_data={"day": date(2026, 11, 29), "price": 1234.5, "name": "ann lee", "n": 2},
    )
    message.body = (
        "{{ day|date:'j F Y' }}, {{ price|floatformat:2 }}, {{ name|title }}, "
        "{{ n }} item{{ n|pluralize }}, {{ name|truncatechars:4|upper }}"
    )
    message.send()
    assert emulator.emails[0].payload["text"] == "29 November 2026, 1234.50, Ann Lee, 2 items, ANN…"


@pytest.mark.parametrize("body", ["Dear {{ name }}", b"Dear {{ name }}"])
@pytest.mark.parametrize("data", [{}, {"bob@example.org": {}}])
def test_a_variable_is_never_sent_as_it_is(emulator, body, data):
    message = merged(merge_data=data)
    message.body = body
    with pytest.raises((MessageError, MessagesNotSent)):
        message.send()
    assert emulator.requests == []


def test_of_metadata_alone_the_texts_are_as_they_are(emulator):
    message = merged(merge_data=None, merge_metadata={})
    message.body = "How to write {{ name }}"
    message.send()
    assert emulator.emails[0].payload["text"] == "How to write {{ name }}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{% include 'secret.txt' %}{{ name }}", "The body has a template tag"),
        ("{{ name | }}", "that is no plain name, or has a filter other than capfirst"),
        (
            "{{ name|date:'j F'|nope }}",
            "that is no plain name, or has a filter other than capfirst",
        ),
        ("{{ name|upper:'x' }}", "The body has a {{ variable }} that cannot be read"),
        (
            "{{ name|center:'9999' }}",
            "The body has a {{ variable }} that is no plain name, or has a",
        ),
        (
            "{{ name|stringformat:'9s' }}",
            "that is no plain name, or has a filter other than",
        ),
        ("{{ name.password }}", "that is no plain name, or has a filter other than capfirst, date"),
        ("{{ name|upper|safe }}", "that is no plain name, or has a filter other than capfirst"),
        ("{{ nmae }}", "The body has {{ nmae }}, which the merge data of a recipient lacks"),
        ("{{ name|default:other }}", "that is no plain name, or has a filter other than capfirst"),
        ("{{ nmae|upper }}", "The body has {{ nmae }}, which the merge data of a recipient lacks"),
    ],
)
def test_wrong_templates_are_an_error_that_names_the_place(body, text, emulator):
    message = merged(merge_global_data={"name": "Geheimnis"})
    message.body = body
    with pytest.raises((MessageError, MessagesNotSent)) as caught:
        message.send()
    assert text in str(message.truncus_status.error)
    assert "Geheimnis" not in str(message.truncus_status.error)
    assert "Geheimnis" not in str(caught.value)
    assert emulator.requests == []
