"""CSS of an email's ``<style>`` elements → its ``style`` attributes, which every mail client reads.

css-inline does it; it is optional: ``pip install "truncus-django[css]"``. It is told to read no
stylesheet, neither of the network nor of a file: what is not in the HTML stays a link.
"""

import re
from functools import cache
from typing import TYPE_CHECKING

from truncus_django.api.errors import MessageError
from truncus_django.conf import ConfigurationError

if TYPE_CHECKING:
    from css_inline import CSSInliner

_STYLE = re.compile(r"<style\b", re.IGNORECASE)
_STYLE_WITH_MEDIA = re.compile(
    r"""<style\b(?P<before>[^>]*?)\smedia\s*=\s*(?P<quote>["']?)(?P<media>[^"'>]*)(?P=quote)"""
    r"(?P<after>[^>]*)>(?P<css>.*?)</style",
    re.IGNORECASE | re.DOTALL,
)
_START_TAG = re.compile(r"<([a-z][^\s/>]*)", re.IGNORECASE)
_FOREIGN = re.compile(r"<(?:svg|math)\b", re.IGNORECASE)
# Cells lie within each other only where tables do.
_NOT_NESTED = frozenset(
    {"br", "col", "hr", "img", "input", "link", "meta", "wbr"}
    | {"tbody", "td", "tfoot", "th", "thead", "tr"}
)
MAX_NESTED = 4_000
"""How many elements may lie within each other.

css-inline 0.24 walks through them by recursion: over 10,000 in each other end the
process, where a thread's stack has 8 MB. Those that are side by side are counted, too, for only a
whole parser of HTML could tell; but not the cells of tables.
"""


def inlined(html: str) -> str:
    """Return ``html`` with its CSS in ``style`` attributes.

    What an attribute cannot say stays in the ``<style>`` elements: media queries, ``:hover``,
    fonts. Without such elements ``html`` is returned as it is.

    Raises:
        MessageError: the HTML or its CSS cannot be read.
        ConfigurationError: css-inline is not installed.
    """
    if not _STYLE.search(html):
        return html
    inliner = _inliner()
    html = _STYLE_WITH_MEDIA.sub(_as_media_query, html)
    if _is_perhaps_too_deep(html):
        raise MessageError(
            f"The HTML has over {MAX_NESTED:,} elements, which may be more within each other than "
            "css-inline can go into. Shorten it, or set inline_css=False on the message."
        )
    try:
        return inliner.inline(html)
    except ValueError:  # InlineError, and text that is no whole Unicode; both may quote the email
        raise MessageError(
            "The CSS of the HTML body could not be inlined: css-inline cannot read it. Correct its "
            "<style> elements and style attributes, or set inline_css=False on the message."
        ) from None


@cache
def _inliner() -> "CSSInliner":
    try:
        # Here, because css-inline is optional.
        from css_inline import CSSInliner
    except ImportError:
        raise ConfigurationError(
            "INLINE_CSS (or the option inline_css of a message) needs css-inline, which is not "
            'installed: run pip install "truncus-django[css]".'
        ) from None
    return CSSInliner(
        load_remote_stylesheets=False,
        keep_link_tags=True,
        keep_style_tags=True,
        remove_inlined_selectors=True,
    )


def _as_media_query(style: re.Match[str]) -> str:
    """Return a style element whose media are in its CSS: css-inline does not look at attributes."""
    tag, media = f"<style{style['before']}{style['after']}>", style["media"].strip()
    if media.lower() in {"", "all", "screen"}:
        return f"{tag}{style['css']}</style"
    return f"{tag}@media {media} {{{style['css']}}}</style"


def _is_perhaps_too_deep(html: str) -> bool:
    if html.count("<") * 2 <= MAX_NESTED:  # a <td> may stand for four elements, with its table
        return False
    names = [name.lower() for name in _START_TAG.findall(html)]
    if _FOREIGN.search(html):  # in a drawing, cells lie within each other as all else
        return len(names) * 2 > MAX_NESTED
    nested = sum(name not in _NOT_NESTED for name in names)
    return nested + 3 * names.count("table") > MAX_NESTED
