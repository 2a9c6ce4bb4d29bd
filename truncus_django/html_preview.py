"""The HTML of an email as a page on which nothing is left that loads, leads or runs.

Only text, inline styles and images inside the HTML itself (``data:``) are left. The emulator's
inbox and the Django admin show the same page. It is made in two steps: the markup is written down
again, well nested and no deeper than a browser can lay out at once; then nh3, an HTML sanitizer,
removes all that is not allowed. nh3 is optional: ``pip install "truncus-django[preview]"``.
"""

import re
from collections.abc import Mapping

from truncus_django.api.contract import MAX_HTML_BYTES

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
"""The attributes that are left of any element; of ``img``, ``alt`` and ``src`` besides."""
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


def preview_page(html: str) -> str:
    """Return a page that shows the HTML of an email, or says why it does not.

    To be served with :data:`HEADERS`. It takes about a second for the slowest HTML that there is.
    """
    html = html.encode("utf-8", "replace").decode()  # JSON can hold lone surrogates
    if len(html.encode()) > MAX_HTML_BYTES:
        return _page(note=TOO_LARGE)
    try:
        import nh3  # optional: the extra "preview"
    except ImportError:
        return _page(note=MISSING)
    rewritten, is_flattened = _rewritten(html)
    clean = nh3.clean(
        rewritten,
        tags=TAGS,
        clean_content_tags=DROPPED,
        attributes={"*": ATTRIBUTES, "img": {"alt", "src"}},
        attribute_filter=_attribute,
        filter_style_properties=STYLES,
        link_rel=None,
        url_schemes={"data"},
        url_relative="deny",
    )
    return _page(note=FLATTENED if is_flattened else "", html=clean)


def _page(*, note: str, html: str = "") -> str:
    shown = f'<p class="preview-note">{note}</p>\n' if note else ""
    return _PAGE.format(note=shown, html=html)


# What is left of an attribute -------------------------------------------------------------------

_DATA_IMAGE = re.compile(r"data:image/(?:bmp|gif|jpe?g|png|webp);base64,[a-z0-9+/=\s]*+", re.I)
_SPAN = re.compile(r"[0-9]{1,2}")
_URL = re.compile(r"url\([^)]*+\)?", re.I)
_FUNCTION = re.compile(r"([\w-]*+)\(")
_FUNCTIONS = frozenset({"calc", "hsl", "hsla", "rgb", "rgba"})
_DISPLAYS = frozenset({"block", "inline", "inline-block", "list-item", "none"})


def _attribute(tag: str, name: str, value: str) -> str | None:
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
    return ";".join(kept for each in value.split(";") if (kept := _declaration(each)))


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


def _rewritten(html: str) -> tuple[str, bool]:
    """Return the markup with allowed names alone and every element ended; whether it was too deep.

    An HTML parser takes quadratic time, or memory, for elements that are nested deep or never
    ended, and for thousands of attributes. It finds none of them here.
    """
    parts: list[str] = []
    open_names: list[str] = []
    shown = 0  # of the open elements, the outermost ones
    is_flattened = False
    at = 0

    def end(down_to: int) -> None:
        nonlocal shown
        while len(open_names) > down_to:
            name = open_names.pop()
            if len(open_names) < shown:
                parts.append(f"</{name}>")
                shown -= 1

    for found in _MARKUP.finditer(html):
        parts.append(html[at : found.start()].replace("<", "&lt;"))
        at = found.end()
        name = (found["name"] or "").lower()
        if name == "body":
            name = "div"  # its style is that of the whole mail
        if name not in TAGS:
            continue
        if found["end"]:
            if (begun := _place_of(name, open_names)) is not None:
                end(begun)
            continue
        while open_names and open_names[-1] in _ENDED_BY.get(name, ()):
            end(len(open_names) - 1)
        is_shown = shown == len(open_names) < MAX_DEPTH
        is_flattened = is_flattened or not is_shown
        if is_shown:
            parts.append(f"<{name}{_attributes(found['attributes'])}>")
        if name not in _VOID:
            open_names.append(name)
            shown += is_shown
    parts.append(html[at:].replace("<", "&lt;"))
    end(0)
    return "".join(parts), is_flattened


def _place_of(name: str, open_names: list[str]) -> int | None:
    """Return which of the innermost open elements an end tag ends, if any."""
    for place in range(len(open_names) - 1, max(-1, len(open_names) - 1 - MAX_DEPTH), -1):
        if open_names[place] == name:
            return place
        if open_names[place] in _CELLS and name not in _TABLE:
            return None  # a cell is ended by its table alone
    return None


def _attributes(text: str) -> str:
    kept: dict[str, str] = {}
    for name, value in _ATTRIBUTE.findall(text):
        if name.lower() in ATTRIBUTES or name.lower() in {"alt", "src"}:
            kept.setdefault(name.lower(), value)
    return "".join(f' {name}="{_unquoted(value)}"' for name, value in kept.items())


def _unquoted(value: str) -> str:
    for quote in ("'", '"'):
        if value.startswith(quote):
            value = value[1:].removesuffix(quote)
            break
    return value.replace('"', "&quot;")
