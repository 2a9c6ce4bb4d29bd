"""The URLs in an email."""

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from django.core.mail import EmailMessage

from truncus_django.emulator import EmailRecord
from truncus_django.links import urls_in
from truncus_django.testing.sent_email import SentEmail, bodies_of, of_record

if TYPE_CHECKING:
    from truncus_django.models import Email


def links_in(
    email: "EmailMessage | SentEmail | EmailRecord | Email", *, mailto: bool = False
) -> list[str]:
    """Return the URLs in an email, each once: those of the HTML's ``href``, then of the text.

    In order, as whoever clicks would follow them: entities are decoded, and punctuation after a
    URL in the text is left out.

    Args:
        email: a Django message, what :func:`assert_email_sent` returned, an email of the emulator,
            or a record with ``STORE_BODIES``.
        mailto: whether to return ``mailto:`` links, too.

    Raises:
        TypeError: it is none of these.
        ValueError: its bodies are not stored.
    """
    text, html = _bodies(email)
    found = dict.fromkeys([*_hrefs(html), *(url for _, url in urls_in(text))])
    return [url for url in found if mailto or not url.lower().startswith("mailto:")]


def _bodies(email: "EmailMessage | SentEmail | EmailRecord | Email") -> tuple[str, str]:
    if isinstance(email, EmailMessage):
        return bodies_of(email)
    if isinstance(email, EmailRecord):
        if email.payload is None:
            raise ValueError("The emulator keeps this email's content no more; raise its 'keep'.")
        email = of_record(email)
    if isinstance(email, SentEmail):
        return email.text, email.html
    if not hasattr(email, "html_body"):
        raise TypeError(
            "links_in() takes a message, what assert_email_sent() returns, an email of the "
            f"emulator or a record, not {type(email).__name__}."
        )
    if email.html_body is None and email.text_body is None:
        raise ValueError(
            "The bodies of this email are not stored. Set TRUNCUS['STORE_BODIES'] = True for the "
            "test, or take what assert_email_sent() returns."
        )
    return email.text_body or "", email.html_body or ""


_LINE_BREAKS = re.compile(r"[\t\r\n]")


def _hrefs(html: str) -> list[str]:
    parser = _Hrefs()
    # A comment in HTML ("<![if mso]>"), at some of which Python's parser raises an error.
    parser.feed(html.replace("<![", "<!x["))
    parser.close()
    return parser.found


class _Hrefs(HTMLParser):
    """Collects where the elements of an email lead to, buttons of Outlook's VML included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"a", "area"} and ":" not in tag:  # nothing to click
            return
        # Of two attributes with one name, HTML takes the first.
        given = next((value for name, value in attrs if name == "href"), None)
        url = _LINE_BREAKS.sub("", given or "").strip()  # as the URL standard has it
        if url:
            self.found.append(url)
