"""What mail programs will make of an email, where that is not what its author meant."""

from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from urllib.parse import urlsplit

from truncus_django.api.contract import MAX_HTML_BYTES

GMAIL_BYTES = 102 * 1024
"""Gmail cuts HTML off here, and hides the rest behind a link."""
CLOSE_TO_GMAIL_BYTES = 100 * 1024
"""From here on the page warns: links that are tracked grow on the way."""

_BULK_PRECEDENCE = {"bulk", "list"}
_SHOWN = 3


def advice(
    *, text: str, html: str, headers: Mapping[str, object], is_bulk: bool, has_template: bool
) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with an email and does not keep it from going.

    Args:
        text, html: the bodies; empty where there is none.
        headers: those that the message sets itself.
        is_bulk: whether it says elsewhere that it goes to many.
        has_template: whether its bodies are in a template at Truncus.
    """
    if not text and not has_template:
        yield (
            "There is no text part. Some people read emails as text, and spam filters expect one: "
            "put a text into the message's body, and the HTML beside it."
        )
    size = len(html.encode(errors="replace"))
    if size > MAX_HTML_BYTES:
        yield (
            f"The HTML has {size:,} bytes. Truncus takes {MAX_HTML_BYTES:,}: shorten it, or link "
            "to the rest."
        )
    else:
        if size > CLOSE_TO_GMAIL_BYTES:
            yield (
                f"The HTML has {size:,} bytes. Gmail cuts it off after {GMAIL_BYTES:,}, with the "
                "end and its links out of sight: shorten it."
            )
        yield from _advice_on_markup(html)
    lower = {name.lower(): str(value).strip().lower() for name, value in headers.items()}
    if (is_bulk or lower.get("precedence") in _BULK_PRECEDENCE) and "list-unsubscribe" not in lower:
        yield (
            "It goes to many and has no List-Unsubscribe header. Gmail and Yahoo ask for one on "
            "bulk email: set the option unsubscribe to the name of its list."
        )


_MAX_TAGS = 4000


def _advice_on_markup(html: str) -> Iterator[str]:
    if html.count("<") > _MAX_TAGS:  # the parser of some versions of Python takes very long
        yield f"It has over {_MAX_TAGS:,} tags; its links and images were not looked at."
        return
    found = _Markup()
    found.feed(html.replace("<![", "<!x["))  # the parser fails at some of these
    found.close()
    for what, urls in (("link", found.relative_links), ("image", found.relative_images)):
        if urls:
            yield (
                f"{_count(len(urls), 'relative ' + what)}: {_some(urls)}. An email belongs to no "
                "site: begin with https:// and the name of yours."
            )
    if found.images_without_alt:
        yield (
            f"{_count(len(found.images_without_alt), 'image')} without alt: "
            f"{_some(found.images_without_alt)}. Many people see no images: say in alt what each "
            'shows, or alt="" where it shows nothing.'
        )


class _Markup(HTMLParser):
    """Collects the links and images of an email."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_links: list[str] = []
        self.relative_images: list[str] = []
        self.images_without_alt: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in {"a", "area"} and "href" in attributes:
            url = attributes["href"] or ""
            if not url.startswith("#") and _is_relative(url):
                self.relative_links.append(url)
        if tag == "img":
            url = attributes.get("src") or ""
            if _is_relative(url):
                self.relative_images.append(url)
            if "alt" not in attributes:
                self.images_without_alt.append(url)


def _is_relative(url: str) -> bool:
    if url.lstrip().startswith("{{"):  # a variable of a template at Truncus
        return False
    try:
        return not urlsplit(url.strip()).scheme
    except ValueError:
        return False  # such as "https://[": broken in another way


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _some(urls: list[str]) -> str:
    shown = ", ".join(f"“{url[:60]}{'…' if len(url) > 60 else ''}”" for url in urls[:_SHOWN])
    return shown if len(urls) <= _SHOWN else f"{shown} and {len(urls) - _SHOWN} more"
