"""The HTML of an email as a page on which nothing is left that loads or runs.

Only text, inline styles and images inside the HTML itself (``data:``) are left. Its links lead
nowhere in the Django admin, where they are a customer's, and can be followed by developers, in the
emulator's inbox and in the previews. The page is made in two steps: the markup is written down
again, well nested and no deeper than a browser can lay out at once; then nh3, an HTML sanitizer,
removes all that is not allowed. nh3 is optional: ``pip install "truncus-django[preview]"``.
"""

import re
from collections.abc import Mapping
from html import unescape
from typing import NamedTuple

from truncus_django.api.contract import MAX_HTML_BYTES
from truncus_django.links import REL, web_url

POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
"""The ``Content-Security-Policy`` to serve the page with: a second wall."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""All headers to serve the page with in a frame of the same site."""
LINKS_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
"""The ``sandbox`` of a frame whose links open in new tabs."""
LINKS_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": POLICY.replace("sandbox", f"sandbox {LINKS_SANDBOX}", 1),
}
"""All headers to serve the page with where its links can be followed."""
MAX_DEPTH = 100
"""How deep elements may be nested; newsletters come to about half of it.

Of what is nested deeper, the text is left: a browser takes minutes for 20,000 nested elements.
"""

MISSING = 'To see the HTML of emails here, install nh3: pip install "truncus-django[preview]".'
TOO_LARGE = f"This HTML is not shown: it is larger than {MAX_HTML_BYTES // 1024} KB."
FLATTENED = f"Of elements nested more than {MAX_DEPTH} deep, the text alone is shown here."


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INLINE = _names(
    "a abbr b bdi bdo big br cite code del dfn em font i img ins kbd mark q s samp small span "
    "strike strong sub sup time tt u var wbr"
)
_BLOCKS = _names(
    "address article aside blockquote center dd div dl dt figcaption figure footer h1 h2 h3 h4 h5 "
    "h6 header hr li main ol p pre section ul"
)
_TABLE = _names("caption col colgroup table tbody td tfoot th thead tr")
_VOID = frozenset({"br", "col", "hr", "img", "wbr"})
TAGS = _INLINE | _BLOCKS | _TABLE
"""The elements that are left of an email."""
DROPPED = _names(
    "audio canvas iframe math noembed noframes object script select style svg template textarea "
    "title video xmp"
)
"""The elements of which not even the text is left: it is no text of the email."""
ATTRIBUTES = _names(
    "align bgcolor border cellpadding cellspacing color colspan dir face height hspace lang nowrap "
    "rowspan size start style title valign vspace width"
)
"""The attributes that are left of any element; of ``img``, ``alt`` and ``src`` besides.

Of a link that can be followed, ``href`` is left, and ``title`` says where it leads: a link may hold
all of an email, or lie over other parts of it.
"""
STYLES = _names(
    "background background-color border border-bottom border-bottom-color "
    "border-bottom-left-radius border-bottom-right-radius border-bottom-style "
    "border-bottom-width border-collapse border-color border-left border-left-color "
    "border-left-style border-left-width border-radius border-right border-right-color "
    "border-right-style border-right-width border-spacing border-style border-top "
    "border-top-color border-top-left-radius border-top-right-radius border-top-style "
    "border-top-width border-width box-sizing caption-side clear color direction display "
    "empty-cells float font font-family font-size font-style font-variant font-weight height "
    "letter-spacing line-height list-style-type margin margin-bottom margin-left margin-right "
    "margin-top max-height max-width min-height min-width opacity overflow overflow-wrap padding "
    "padding-bottom padding-left padding-right padding-top table-layout text-align "
    "text-decoration text-indent text-transform unicode-bidi vertical-align visibility "
    "white-space width word-break word-spacing word-wrap"
)
"""The CSS properties that are left of ``style``."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>HTML of the email</title><style>
body {{ margin: 8px; color: #000; background: #fff; overflow-wrap: break-word }}
body > div:only-child {{ box-sizing: border-box; min-height: calc(100vh - 16px) }}
body:focus-visible {{ outline: 2px solid #0645ad; outline-offset: -2px }}
a {{ color: #0645ad; text-decoration: underline }}
img:not([src]) {{ outline: 1px dashed #999 }}
.preview-note {{ margin: 0 0 8px; padding: 8px 12px; color: #553b00; background: #fdf1d3;
font: 14px/1.5 sans-serif }}
</style></head><body tabindex="0">
{note}{html}
</body></html>
"""


class _Preview(NamedTuple):
    html: str = ""
    note: str = ""
    urls: tuple[str, ...] = ()
    """Where its links lead, each once."""


def preview_page(html: str, *, links: bool = False) -> str:
    """Return a page that shows the HTML of an email, or says why it does not.

    To be served with :data:`HEADERS`. It takes about a second for the slowest HTML that there is.
    With ``links``, links to absolute URLs of the web open in new tabs; to be served with
    :data:`LINKS_HEADERS`, in a frame with :data:`LINKS_SANDBOX`.
    """
    preview = _preview(html, links=links)
    note = f'<p class="preview-note">{preview.note}</p>\n' if preview.note else ""
    return _PAGE.format(note=note, html=preview.html)


def links_of(html: str) -> tuple[str, ...]:
    """Return where the links lead that ``preview_page(html, links=True)`` shows, each URL once."""
    return _preview(html, links=True).urls


def _preview(html: str, *, links: bool) -> _Preview:
    html = html.encode("utf-8", "replace").decode()  # JSON can hold lone surrogates
    if len(html.encode()) > MAX_HTML_BYTES:
        return _Preview(note=TOO_LARGE)
    try:
        import nh3  # optional: the extra "preview"
    except ImportError:
        return _Preview(note=MISSING)
    urls: dict[str, None] = {}

    def attribute(tag: str, name: str, value: str) -> str | None:
        """Return an attribute's value as it may stay, or ``None`` for one that may not."""
        if tag == "a" and name in {"href", "title"} and links:
            url = web_url(value)
            if url and name == "href":
                urls[url] = None
            return url
        return _attribute(name, value)

    rewritten, is_flattened = _rewritten(html, links=links)
    attributes = {"*": ATTRIBUTES, "img": {"alt", "src"}, "a": {"href"} if links else set()}
    clean = nh3.clean(
        rewritten,
        tags=TAGS,
        clean_content_tags=DROPPED,
        attributes=attributes,
        attribute_filter=attribute,
        filter_style_properties=STYLES,
        link_rel=REL if links else None,
        set_tag_attribute_values={"a": {"target": "_blank"}} if links else None,
        url_schemes={"data", "http", "https"} if links else {"data"},
        url_relative="deny",
    )
    return _Preview(clean, FLATTENED if is_flattened else "", tuple(urls))


# What is left of an attribute -------------------------------------------------------------------

_DATA_IMAGE = re.compile(r"data:image/(?:bmp|gif|jpe?g|png|webp);base64,[a-z0-9+/=\s]*+", re.I)
_SPAN = re.compile(r"[0-9]{1,2}")
_URL = re.compile(r"url\([^)]*+\)?", re.I)
_FUNCTION = re.compile(r"([\w-]*+)\(")
_FUNCTIONS = frozenset({"calc", "hsl", "hsla", "rgb", "rgba"})
_DISPLAYS = frozenset({"block", "inline", "inline-block", "list-item", "none"})


def _attribute(name: str, value: str) -> str | None:
    """Return an attribute's value as it may stay, or ``None`` for an attribute that may not.

    nh3 calls it with what a browser would read, and sees to names and CSS properties itself.
    """
    if name == "src":
        # SVG is left out: no mail program shows it, and it can take a browser very long.
        return value if _DATA_IMAGE.fullmatch(value) else None
    if name in {"colspan", "rowspan"}:
        return value if _SPAN.fullmatch(value) else None
    if name == "style":
        return _style(value)
    return value


def _style(value: str) -> str | None:
    """Return CSS without functions that could load something, and without slow layouts."""
    if re.search(r"[\\{}]|/\*", value):  # any name can be written with them
        return None
    value = _URL.sub("none", value)  # for the colour beside it
    return ";".join(filter(None, map(_declaration, value.split(";"))))


def _declaration(text: str) -> str:
    """Return a CSS declaration as it may stay; the empty string for one that may not."""
    if any(name.lower() not in _FUNCTIONS for name in _FUNCTION.findall(text)):
        return ""
    name, _, value = text.partition(":")
    name = name.strip().lower()
    # Nested grids, and nested tables whose padding depends on their width, each take a browser
    # twice the time of the one around it, or more.
    if name == "display" and value.partition("!")[0].strip().lower() not in _DISPLAYS:
        return ""
    return text.replace("%", "vw") if name.startswith("padding") else text


# The markup, written down again -------------------------------------------------------------------

_ATTRIBUTE_PATTERN = (
    r"""([^\s/>][^\s/>=]*+)(?:\s*+=\s*+("[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^\s>]*+))?+"""
)
_ATTRIBUTE = re.compile(_ATTRIBUTE_PATTERN)
# Each alternative either fails at once or ends at the end of the text at the latest, so that the
# time it takes grows with the text and no faster.
_MARKUP = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"
    rf"|<(?P<dropped>{'|'.join(sorted(DROPPED))})(?=[\s/>]).*?(?:</(?P=dropped)(?=[\s/>])[^>]*+|\Z)>?"
    rf"|<(?P<end>/?)(?P<name>[a-z][^\s/>]*+)(?P<attributes>(?:[\s/]|{_ATTRIBUTE_PATTERN})*+)(?:>|\Z)"
    r"|<[!?/][^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_CELLS = frozenset({"caption", "td", "th"})
_ROWS = frozenset({"tbody", "tfoot", "thead"})
_ENDED_BY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_BLOCKS | {"table"}, frozenset({"p"})),
    "li": frozenset({"li", "p"}),
    **dict.fromkeys(("dd", "dt"), frozenset({"dd", "dt", "p"})),
    **dict.fromkeys(("td", "th"), frozenset({"p", "td", "th"})),
    "tr": frozenset({"p", "td", "th", "tr"}),
    **dict.fromkeys(_ROWS, _CELLS | _ROWS | {"p", "tr"}),
}
"""Element → those that end where it begins, as their end tags may be left out."""


def _rewritten(html: str, *, links: bool) -> tuple[str, bool]:
    """Return the markup with allowed names alone and every element ended; whether it was too deep.

    With ``links``, links keep where they lead if there is something in them to click on.

    An HTML parser takes quadratic time, or memory, for elements that are nested deep or never
    ended, and for thousands of attributes. It finds none of them here.
    """
    writer = _Writer(links=links)
    at = 0
    for found in _MARKUP.finditer(html):
        writer.text(html[at : found.start()])
        at = found.end()
        name = (found["name"] or "").lower()
        if name == "body":
            name = "div"  # its style is that of the whole mail
        if name not in TAGS:
            continue
        if found["end"]:
            writer.end_tag(name)
        else:
            writer.start_tag(name, found["attributes"])
    writer.text(html[at:])
    writer.end_all()
    return "".join(writer.parts), writer.is_flattened


class _Writer:
    """Writes markup down in which every element is ended where it should be."""

    def __init__(self, *, links: bool) -> None:
        self.parts: list[str] = []
        self.is_flattened = False
        self._links = links
        self._open_names: list[str] = []
        self._shown = 0  # of the open elements, the outermost ones
        # Which of the parts begins the open link, and which one is seen last.
        self._link = self._seen = -1

    def text(self, text: str) -> None:
        if _is_seen(text):
            self._seen = len(self.parts)
        self.parts.append(text.replace("<", "&lt;"))

    def start_tag(self, name: str, attributes: str) -> None:
        while self._open_names and self._open_names[-1] in _ENDED_BY.get(name, ()):
            self._end(len(self._open_names) - 1)
        is_shown = self._shown == len(self._open_names) < MAX_DEPTH
        if is_shown:
            self._write_start(name, _attributes(attributes))
        else:
            self.is_flattened = True
        if name not in _VOID:
            self._open_names.append(name)
            self._shown += is_shown

    def end_tag(self, name: str) -> None:
        begun = _place_of(name, self._open_names)
        if begun is not None:
            self._end(begun)

    def end_all(self) -> None:
        self._end(0)

    def _write_start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "a":
            self._end_link()  # a parser, too, ends it where another one begins
            self._link = len(self.parts)
            if self._links and "href" in attributes:
                attributes["title"] = attributes["href"]  # wherever the email says that it leads
        elif name == "img":
            self._seen = len(self.parts)
        written = "".join(f" {key}={value}" for key, value in attributes.items())
        self.parts.append(f"<{name}{written}>")

    def _end(self, down_to: int) -> None:
        while len(self._open_names) > down_to:
            name = self._open_names.pop()
            if len(self._open_names) < self._shown:
                if name == "a":
                    self._end_link()
                self.parts.append(f"</{name}>")
                self._shown -= 1

    def _end_link(self) -> None:
        if self._seen < self._link:
            self.parts[self._link] = "<a>"
        self._link = -1


def _place_of(name: str, open_names: list[str]) -> int | None:
    """Return which of the innermost open elements an end tag ends, if any."""
    for place in range(len(open_names) - 1, max(-1, len(open_names) - 1 - MAX_DEPTH), -1):
        if open_names[place] == name:
            return place
        if open_names[place] in _CELLS and name not in _TABLE:
            return None  # a cell is ended by its table alone
    return None


def _is_seen(text: str) -> bool:
    return any(each.isprintable() and not each.isspace() for each in unescape(text))


def _attributes(text: str) -> dict[str, str]:
    """Return an element's attributes, as far as one may be left; the values are in quotes."""
    kept: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        if name.lower() in ATTRIBUTES | {"alt", "href", "src"}:
            kept.setdefault(name.lower(), f'"{_unquoted(value)}"')
    return kept


def _unquoted(value: str) -> str:
    for quote in ("'", '"'):
        if value.startswith(quote):
            value = value[1:].removesuffix(quote)
            break
    return value.replace('"', "&quot;")
