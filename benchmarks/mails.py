"""The emails that every contender sends: 2 KB of text and 2 KB of HTML to one recipient."""

from collections.abc import Iterator
from dataclasses import dataclass

BODY_BYTES = 2048
SENDER = "Shop <shop@example.com>"

_SUBJECT = "Your order {order} is on its way"
_TEXT = """\
Hello {name},

thank you for your order {order}. Here is what happens next: we pack your parcel today,
and the carrier brings it within three working days. You can follow it at
https://shop.example.com/orders/{order}/track?lang=en&ref=mail – no account is needed.

"""
_TEXT_LINE = "  1 × Café crème, 250 g, ground for a moka pot                     EUR 7.90\n"
_HTML = """\
<!DOCTYPE html><html lang="en"><body style="font-family: sans-serif; color: #222">
<h1 style="font-size: 20px">Hello {name},</h1>
<p>thank you for your order <b>{order}</b>. You can follow it on
<a href="https://shop.example.com/orders/{order}/track?lang=en&amp;ref=mail">its page</a>.</p>
<table>
"""
_HTML_LINE = '<tr><td class="item">1 × Café crème, 250 g</td><td align="right">€ 7.90</td></tr>\n'
_HTML_END = "</table></body></html>\n"


@dataclass(frozen=True, slots=True)
class Mail:
    """One email, before anybody's own form of it."""

    recipient: str
    subject: str
    text: str
    html: str


def recipients(count: int, series: str) -> list[str]:
    """Return ``count`` addresses that no other ``series`` has."""
    return [f"customer-{series}-{number}@example.org" for number in range(count)]


def mails(count: int, series: str) -> Iterator[Mail]:
    """Yield ``count`` emails, each to a recipient and with bodies of its own."""
    for recipient, names in _names(count, series):
        yield Mail(
            recipient=recipient,
            subject=_SUBJECT.format(**names),
            text=_filled(_TEXT.format(**names), _TEXT_LINE, ""),
            html=_filled(_HTML.format(**names), _HTML_LINE, _HTML_END),
        )


MERGED = Mail(
    recipient="",
    subject=_SUBJECT.format(order="{{ order }}"),
    text=_TEXT.format(name="{{ name }}", order="{{ order }}") + "{{ text_rest }}",
    html=_HTML.format(name="{{ name }}", order="{{ order }}") + "{{ html_rest }}",
)
"""The same emails as one text for all, with variables for :func:`merge_data`."""


def merge_data(count: int, series: str) -> dict[str, dict[str, str]]:
    """Return what makes :func:`mails` of :data:`MERGED`, by recipient."""
    pairs = zip(_names(count, series), mails(count, series), strict=True)
    return {
        recipient: {
            **names,
            "text_rest": mail.text.removeprefix(_TEXT.format(**names)),
            "html_rest": SafeText(mail.html.removeprefix(_HTML.format(**names))),
        }
        for (recipient, names), mail in pairs
    }


class SafeText(str):
    """HTML that Django does not escape."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def _names(count: int, series: str) -> Iterator[tuple[str, dict[str, str]]]:
    for number, recipient in enumerate(recipients(count, series)):
        yield recipient, {"name": f"Customer {number}", "order": f"{series}-{number:05}"}


def _filled(start: str, line: str, end: str) -> str:
    """Return ``start``, as many lines as fit, and ``end``: :data:`BODY_BYTES` in UTF-8."""
    room = BODY_BYTES - len((start + end).encode())
    lines, rest = divmod(room, len(line.encode()))
    return start + line * lines + " " * rest + end
