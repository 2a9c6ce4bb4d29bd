"""What is left of an email's HTML, and that nothing takes long to get there."""

import re
import sys
from html import escape

import pytest

from tests.browser.hostile_html import HOSTILE, hostile_html
from tests.test_links import NO_LINKS
from truncus_django.api.contract import MAX_HTML_BYTES
from truncus_django.html_preview import (
    LINKS_HEADERS,
    LINKS_SANDBOX,
    MAX_DEPTH,
    links_of,
    preview_page,
)
from truncus_django.links import REL

GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def left_of(html: str, *, links: bool = False) -> str:
    """Return what the page shows of ``html``."""
    body = (
        preview_page(html, links=links).partition('<body tabindex="0">')[2].rpartition("</body>")[0]
    )
    return body.strip()


def depth_of(html: str) -> int:
    depth = deepest = 0
    for tag in re.findall(r"</?\w+", html):
        depth += -1 if tag.startswith("</") else tag not in {"<br", "<img", "<hr"}
        deepest = max(deepest, depth)
    return deepest


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_hostile_is_left(kind):
    left = left_of(hostile_html(kind, "https://evil.example/lure"))

    for tag in re.findall(r"<[a-z][^>]*>", left):
        texts_apart = re.sub(r' (?:title|alt)="[^"]*"', "", tag)
        assert not re.search(r"evil|lure|href|script|url|\bon|position|@", texts_apart), tag
    assert not re.search(r"<(?:a?link|meta|i?frame|frameset|object|svg|math|form|style)", left)


@pytest.mark.parametrize("kind", HOSTILE)
def test_of_hostile_html_with_links_only_links_to_the_web_are_left_besides(kind):
    url = "https://evil.example/lure"
    left = left_of(hostile_html(kind, url), links=True)

    for link in re.findall(r"<a [^>]*href[^>]*>", left):
        assert f'href="{url}"' in link
        assert link.count("href") == link.count('="_blank"') == link.count(f'rel="{REL}"') == 1
    a_tags = r"</?a\b[^>]*>"
    assert re.sub(a_tags, "", left) == re.sub(a_tags, "", left_of(hostile_html(kind, url)))
    assert links_of(hostile_html(kind, url)) in {(), (url,)}


def link(url: str, style: str = "", content: str = "x") -> str:
    """Return a link as it is left where links can be followed."""
    url = escape(url)
    style = f' style="{style}"' if style else ""
    return f'<a href="{url}"{style} title="{url}" target="_blank" rel="{REL}">{content}</a>'


@pytest.mark.parametrize(
    ("html", "url"),
    [
        ('<a href="https://example.com/reset/?a=1&copy=2&amp;b">x</a>',
         "https://example.com/reset/?a=1&copy=2&b"),
        ("<a href=http://localhost:8000/x>x</a>", "http://localhost:8000/x"),
        ("<a href='&#104;ttps&colon;//example.com/'>x</a>", "https://example.com/"),
        ('<a href=" https://example.com/\n">x</a>', "https://example.com/"),
        ('<A HREF="https://example.com/" href="/" title="https://bank.test/" target="_top">x</A>',
         "https://example.com/"),
        ('<a href="https://example.com/" rel="opener" ping="/" download>x</a>',
         "https://example.com/"),
    ],
)  # fmt: skip
def test_a_link_opens_in_a_new_tab_and_says_where_it_leads(html, url):
    assert left_of(html, links=True) == link(url)
    assert links_of(html) == (url,)
    assert "href" not in left_of(html)


@pytest.mark.parametrize("url", [url for url in NO_LINKS if "\ud800" not in url])
@pytest.mark.parametrize("form", ["as it is", "in entities"])
def test_no_other_link_leads_anywhere(url, form):
    written = escape(url) if form == "as it is" else "".join(f"&#{ord(c)};" for c in url)
    html = f'<a href="{written}">x</a>'

    assert set(links_of(html)) <= {"https://example.com/"}
    if url.rstrip() != "https://example.com/":
        assert "href" not in left_of(html, links=True)


@pytest.mark.parametrize(
    ("content", "is_link"),
    [
        ("x", True),
        ("<b><i>x</i></b>", True),
        ("<img>", True),
        ("<table><tr><td>x", True),
        ("", False),
        (" &nbsp;&#8203;\xad\n", False),
        ("<b></b><br>", False),
        ("<title>x</title><!-- x -->", False),
    ],
)
def test_a_link_needs_something_to_click_on(content, is_link):
    html = f'<a href="https://example.com/">{content}</a> after'

    assert ("href" in left_of(html, links=True)) is is_link


def test_a_link_that_ends_where_another_begins_needs_something_itself():
    html = '<a href="https://example.com/1"><b><a href="https://example.com/2">x</a> after'

    assert links_of(html) == ("https://example.com/2",)


@pytest.mark.parametrize(
    "style",
    [
        "padding:12px 24px;margin:0 auto",
        "border:1px solid rgb(200, 200, 200);border-radius:50%",
        "border-color:#999999;padding-top:1.25em",
        "display:inline-block;padding:5vw;margin-left:300px",
    ],
)
def test_a_link_may_look_like_a_button(style):
    html = f'<a href="https://example.com/" style="{style}">x</a>'

    assert left_of(html, links=True) == link("https://example.com/", style)


@pytest.mark.parametrize(
    "style",
    ["padding:0 25em", "padding:calc(1em + 2px)", "margin:-1px", "margin-top:calc(1px - 9px)",
     "border-top:240px solid"],
)  # fmt: skip
def test_an_email_looks_the_same_where_its_links_can_be_followed(style):
    html = f'<p style="{style}">x</p>'

    assert left_of(html, links=True) == left_of(html) == html


def test_a_frame_with_links_may_open_tabs_and_nothing_else():
    assert LINKS_HEADERS["Content-Security-Policy"] == (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    )
    assert LINKS_SANDBOX == "allow-popups allow-popups-to-escape-sandbox"
    assert LINKS_HEADERS["Referrer-Policy"] == "no-referrer"
    assert LINKS_HEADERS["X-DNS-Prefetch-Control"] == "off"


@pytest.mark.parametrize(
    "html",
    [
        '<p style="color:red">a<br>b</p>',
        f'<img src="{GIF}" alt="Logo" width="40">',
        '<table width="100%"><tbody><tr><td align="right" colspan="2">x</td></tr></tbody></table>',
        "<ul><li>a</li><li>b</li></ul>",
        "<p>5 &lt; 6 &amp; 7 Grüße 😀</p>",
        '<p style="background:rgb(1, 2, 3);width:calc(100% - 2px)">x</p>',
    ],
)
def test_what_a_mail_looks_like_stays(html):
    assert left_of(html) == html


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ('<a href="https://example.com" style="color:red">x</a>', '<a style="color:red">x</a>'),
        ('<body style="background:#eee" onload="x()"><p>x',
         '<div style="background:#eee"><p>x</p></div>'),
        ("<title>x</title><style>p {}</style><script>1</script><p>y</p>", "<p>y</p>"),
        ("<!--[if mso]><b>1</b><![endif]--><!--[if !mso]><!-->2<!--<![endif]-->", "2"),
        ("<center><font color=red>x</font></center>",
         '<center><font color="red">x</font></center>'),
        ("<form><button>Win</button></form>", "Win"),
        ("<p style='background:#fff url(https://example.com/x) top'>x</p>",
         '<p style="background:#fff none top">x</p>'),
        ("<p style='position:fixed;top:0;color:red'>x</p>", '<p style="color:red">x</p>'),
        ("<p style='display:grid;color:red'>x</p>", '<p style="color:red">x</p>'),
        ("<p style='display:inline grid;color:red'>x</p>", '<p style="color:red">x</p>'),
        ("<p style='display: none !important'>x</p>", '<p style="display:none ! important">x</p>'),
        ("<p style='padding:0 5%;width:90%'>x</p>", '<p style="padding:0 5vw;width:90%">x</p>'),
        (r"<p style='background:\75rl(x)'>x</p>", "<p>x</p>"),
        ("<img src='/logo.png' alt='Logo'><img src=data:image/svg+xml;base64,aaaa>",
         '<img alt="Logo"><img>'),
        ("<td>x</td><table><tr><td rowspan=65534>y",
         "x<table><tbody><tr><td>y</td></tr></tbody></table>"),
    ],
)  # fmt: skip
def test_what_is_taken_away(html, left):
    assert left_of(html) == left


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("<p>a<p>b", "<p>a</p><p>b</p>"),
        ("<ul><li>a<li>b</ul>", "<ul><li>a</li><li>b</li></ul>"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "<dl><dt>a</dt><dd>b</dd><dt>c</dt></dl>"),
        ("<div><table><tr><td>a</div><td>b<tr><th>c</table>d</div>",
         "<div><table><tbody><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></tbody></table>d</div>"),
        ("<b><i>a</b>b", "<b><i>a</i></b>b"),
        ("a < b <c> <3 </ d> e", "a &lt; b  &lt;3  e"),
        ("\ud800", "?"),
    ],
)  # fmt: skip
def test_sloppy_markup_is_read_as_it_was_meant(html, left):
    assert left_of(html) == left


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<ul><li>", "<span><p>", "<table><td>"])
def test_what_is_nested_too_deep_is_flattened_and_the_page_says_so(tag):
    left = left_of(tag * 20_000 + "The end.")

    assert "The end." in left
    assert "nested more than 100 deep" in left
    assert depth_of(left) <= 2 * MAX_DEPTH  # the parser adds tbody


def test_what_is_nested_just_deep_enough_is_left():
    html = "<div>" * MAX_DEPTH + "x" + "</div>" * MAX_DEPTH

    assert left_of(html) == html


def test_the_text_after_a_deep_part_is_where_it_was():
    html = "<div>" * 200 + "deep" + "</div>" * 200 + "<p>after</p>"

    assert left_of(html).endswith("</div><p>after</p>")


@pytest.mark.parametrize(
    "part",
    ["<", "<a ", '<a "', "<p a b c=", "<!--", "<style>", "<svg>", "</p>", "<p><font size={}>", "&"],
)
def test_no_markup_costs_more_than_its_length(part):
    """Where the time, or the page, grew with the square of the length, this would not end."""
    html = "".join(part.replace("{}", str(number)) for number in range(12_000))

    assert len(left_of(html[:MAX_HTML_BYTES])) < 8 * MAX_HTML_BYTES


def test_larger_html_than_truncus_accepts_is_not_shown():
    assert "larger than 256 KB" in left_of("ä" * (MAX_HTML_BYTES // 2) + "<p>")
    assert left_of("ä" * (MAX_HTML_BYTES // 2)).startswith("ä")


@pytest.mark.parametrize(
    ("part", "is_link"),
    [
        ("<a href=https://a/{}>x</a>", True),
        ("<a href=https://a/{}>", False),
        ("<b><a href=https://a/{}>", False),
    ],
)
def test_of_as_many_links_as_an_email_can_hold_each_is_found(part, is_link):
    """Where the time grew with the square of the number of links, this would not end."""
    numbers = range(MAX_HTML_BYTES // len(part.format(9999)))
    html = "".join(part.format(number) for number in numbers)

    urls = [f"https://a/{number}" for number in numbers] if is_link else []
    assert links_of(html) == tuple(urls)


def test_without_nh3_no_html_is_shown_and_the_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nh3", None)

    left = left_of("<h1>Hello</h1>")

    assert "Hello" not in left
    assert 'pip install "truncus-django[preview]"' in left
