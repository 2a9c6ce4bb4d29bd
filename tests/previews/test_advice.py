"""What the page warns of."""

from typing import Any

import pytest

from truncus_django.api.contract import MAX_HTML_BYTES
from truncus_django.previews.advice import advice


def advised(**given: Any) -> list[str]:
    email = {"text": "Hello.", "html": "", "headers": {}, "is_bulk": False, "has_template": False}
    return list(advice(**{**email, **given}))


@pytest.mark.parametrize(
    "html",
    [
        "",
        '<a href="https://example.com/">a</a><a href="mailto:a@example.com">b</a>',
        '<a href="#top">a</a><a name="top"></a><a href="{{ url }}">b</a><a href="tel:+1">c</a>',
        '<img src="https://example.com/a.png" alt="a"><img src="data:image/gif;base64,R0" alt="">',
        '<img src="cid:logo" alt="Logo"><a href="https://[broken">a</a>',
        "<![nonsense[x]> <![CDATA[x]]> <!x",
    ],
)
def test_nothing_is_said_of_a_good_email(html):
    assert advised(html=html) == []


def test_an_email_without_text():
    [warning] = advised(text="", html="<p>Hello.</p>")

    assert warning.startswith("There is no text part.")
    assert advised(text="", has_template=True) == []


@pytest.mark.parametrize(
    ("size", "word"),
    [
        (100 * 1024, None),
        (100 * 1024 + 1, "Gmail cuts it off after 104,448"),
        (MAX_HTML_BYTES, "Gmail"),
        (MAX_HTML_BYTES + 1, "Truncus takes 262,144"),
    ],
)
def test_html_that_is_too_large(size, word):
    warnings = advised(html="ä" * (size // 2) + "x" * (size % 2))

    assert len(warnings) == (word is not None)
    assert word is None or word in warnings[0]


@pytest.mark.parametrize("url", ["/orders/1", "orders", "//example.com/", "?page=2", "", " /x "])
def test_relative_links(url):
    [warning] = advised(html=f'<p>Look <a href="{url}">here</a></p>')

    assert warning.startswith(f"1 relative link: “{url}”.")


def test_many_relative_links_and_images_are_counted():
    html = "".join(
        f'<a href="/{number}">a</a><img src="/{number}.png" alt="">' for number in "1234"
    )

    links, images = advised(html=html)
    assert links.startswith("4 relative links: “/1”, “/2”, “/3” and 1 more.")
    assert images.startswith("4 relative images: “/1.png”")


def test_images_without_alt():
    [warning] = advised(html='<IMG SRC="https://example.com/a.png"><img src="cid:b" alt>')

    assert warning.startswith("1 image without alt: “https://example.com/a.png”.")


@pytest.mark.parametrize(
    ("headers", "is_bulk", "is_warned"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"precedence": "Bulk"}, False, True),
        ({"Precedence": "list"}, False, True),
        ({"Precedence": "first-class"}, False, False),
        ({"List-Unsubscribe": "<https://example.com/>"}, True, False),
        ({"PRECEDENCE": "bulk", "LIST-UNSUBSCRIBE": "<https://example.com/>"}, True, False),
    ],
)
def test_bulk_without_a_way_out(headers, is_bulk, is_warned):
    warnings = advised(headers=headers, is_bulk=is_bulk)

    assert ["List-Unsubscribe" in warning for warning in warnings] == [True] * is_warned
