"""Which links somebody may follow, and how they are found in plain text."""

import re
from html import unescape

import pytest

from truncus_django.links import REL, linked_text, web_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://example.com/reset/MQ/c5kz2i-3e1f/?next=/a,b&c=%20#top",
        "HTTPS://EXAMPLE.COM:8443/~ada/(x)",
        "http://localhost:8000/",
        "http://127.0.0.1/",
        "http://[::1]:8000/",
        "https://bücher.example/grüße",
        "https://example.com?a@b",
    ],
)
def test_absolute_urls_of_the_web_may_be_followed(url):
    assert web_url(url) == url
    assert web_url(f" \n{url}\t") == url


NO_LINKS = [
    "",
    "#top",
    "/relative",
    "relative",
    "?query",
    "//example.com/",
    r"\\example.com\x",
    "https:example.com",
    "https:/example.com",
    "https:///example.com",
    r"https:\\example.com",
    r"https://example.com\@evil.example",
    "https://",
    "https://?x",
    "https://ada@example.com/",
    "https://ada:secret@example.com/",
    "https://bank.example@evil.example/",
    "https://exa%6dple.com/",
    "https://example.com:x/",
    "https://example.com:/",
    "https://[::1",
    "https://exam ple.com/",
    "https://example.com/a b",
    "https://exam\tple.com/",
    "https://example.com/\n",
    "ht\ntps://example.com/",
    "\x01https://example.com/",
    "https://example.com/\x00",
    "https://example.com/\u202egpj.exe",
    "https://example\u200b.com/",
    "https://example.com\u2044@evil.example/",
    "https://example.com/\ud800",
    "https://example.com/\"onclick='x'",
    "https://example.com/<script>",
    "javascript:alert(1)",
    "java\tscript:alert(1)",
    " javascript:alert(1)//https://example.com/",
    "JaVaScRiPt:alert(1)",
    "vbscript:msgbox(1)",
    "data:text/html,<script>alert(1)</script>",
    "blob:https://example.com/0",
    "file:///etc/passwd",
    "filesystem:https://example.com/temporary/x",
    "view-source:https://example.com/",
    "intent://example.com/#Intent;scheme=https;end",
    "ftp://example.com/",
    "ws://example.com/",
    "mailto:ada@example.com",
    "tel:+4912345",
    "about:blank",
    "chrome://settings",
    "httpsx://example.com/",
]


@pytest.mark.parametrize("text", NO_LINKS)
def test_nothing_else_may_be_followed(text):
    # White space at the end is no trick.
    assert web_url(text) is None or text.rstrip() == web_url(text) == "https://example.com/"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("Reset: https://example.com/reset/MQ/x-1/", ["https://example.com/reset/MQ/x-1/"]),
        ("See https://example.com/a.", ["https://example.com/a"]),
        ("(see https://example.com/a)", ["https://example.com/a"]),
        ("(https://example.com/a_(b)).", ["https://example.com/a_(b)"]),
        ("<https://example.com/a>", ["https://example.com/a"]),
        ("'https://example.com/a', \"http://example.com/b\"!",
         ["https://example.com/a", "http://example.com/b"]),
        ("**https://example.com/a**", ["https://example.com/a"]),
        ("https://example.com/?token=ab_-~=\nnext line", ["https://example.com/?token=ab_-~="]),
        ("https://example.com?a=1&b=2", ["https://example.com?a=1&b=2"]),
        ("xhttps://example.com", []),
        ("example.com and www.example.com", []),
        ("https://ada@example.com/ https://example.com/", ["https://example.com/"]),
        ("javascript:alert(1)", []),
        ("https://...", []),
        ("(‘https://example.com/a’ …) “https://example.com/b”…",
         ["https://example.com/a", "https://example.com/b"]),
        ("https://example.com/a。https://example.com/b，",
         ["https://example.com/a", "https://example.com/b"]),
        ("[https://example.com/a] {https://example.com/[b]}",
         ["https://example.com/a", "https://example.com/[b]"]),
        ("Look...https://example.com/a here.https://example.com/b",
         ["https://example.com/a", "https://example.com/b"]),
        ("shop://orders/1 mailto:ada@example.com", []),
        ("`https://example.com/a` ```https://example.com/b```",
         ["https://example.com/a", "https://example.com/b"]),
    ],
)  # fmt: skip
def test_urls_in_a_text_are_links(text, urls):
    html = linked_text(text)

    assert [unescape(url) for url in re.findall(r'href="([^"]*)"', html)] == urls
    assert unescape(re.sub(r"<[^>]*>", "", html)) == text


def test_a_link_tells_its_target_nothing_and_all_else_is_text():
    assert linked_text("<b>&https://example.com/?a&b</b>") == (
        "&lt;b&gt;&amp;"
        f'<a href="https://example.com/?a&amp;b" target="_blank" rel="{REL}">'
        "https://example.com/?a&amp;b</a>&lt;/b&gt;"
    )
    assert {"noopener", "noreferrer"} < set(REL.split())


@pytest.mark.parametrize(
    "part",
    ["https://", "https://a.", "https://a)", "(", "https://a/((", ":", "a", "a.", "a-", ")", "."],
)
@pytest.mark.parametrize("start", ["", "https://a"])
def test_no_text_costs_more_than_its_length(part, start):
    """Where the time grew with the square of the length, this would not end."""
    text = start + part * (1_000_000 // len(part))

    assert unescape(re.sub(r"<[^>]*>", "", linked_text(text))) == text
