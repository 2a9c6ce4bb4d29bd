"""Unsubscribe links as recipients and forgers use them: in a real browser, on a real server."""

import random
import unicodedata
from base64 import b16encode, b32encode, b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings as django_settings
from django.core.servers.basehttp import WSGIRequestHandler
from django.core.signals import request_started
from django.core.signing import Signer
from django.template import Context, Template
from django.test import override_settings

from tests.browser.chromium import expect
from tests.browser.conftest import UnderWay, page_without_errors
from tests.browser.test_hostile_mail import note_trouble
from truncus_django.message import TruncusMessage
from truncus_django.models import SuppressedAddress
from truncus_django.unsubscribe import Subscription, token_of

pytestmark = pytest.mark.django_db(transaction=True)

HTML = "{% load truncus %}<p>Teas of the week.</p><a href='{% unsubscribe_url %}'>No more</a>"
PATH = "/truncus/unsubscribe/"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SUBMITS = "button, input[type=submit], input[type=image]"


@pytest.fixture
def visitor(browser: Any, live_server: Any, under_way: UnderWay) -> Iterator[Any]:
    """A page of a browser in which nobody is signed in."""
    yield from page_without_errors(browser.new_context(base_url=live_server.url), under_way)


@pytest.fixture
def newsletter(emulator: Any, settings: Any, live_server: Any) -> str:
    """The HTML of an email with a link, as Truncus was given it for ann@example.net."""
    own = {"SUPPRESS": "learn", "UNSUBSCRIBE_BASE_URL": live_server.url}
    settings.TRUNCUS = {**settings.TRUNCUS, **own}
    html = Template(HTML).render(Context())
    to = ["Ann <Ann@example.net>"]
    message = TruncusMessage("Tea", "…", "shop@example.com", to, html=html, unsubscribe="digest")
    message.send()
    [email] = emulator.emails
    return str(email.payload["html"])


def path_of(token: str) -> str:
    return f"{PATH}{quote(token, '')}/"


def suppressed() -> list[tuple[str, str, str]]:
    return list(SuppressedAddress.objects.values_list("address", "list_name", "reason"))


# The page -----------------------------------------------------------------------------------------


def test_a_recipient_opens_the_link_looks_twice_and_clicks_twice(visitor, newsletter):
    answers: list[Any] = []
    visitor.on("response", lambda answer: answers.append(answer))
    visitor.set_content(newsletter)

    visitor.click("text=No more")
    expect(visitor.locator("h1")).to_have_text("Unsubscribe?")
    visitor.reload()
    assert visitor.locator(SUBMITS).count() == 1
    assert suppressed() == []

    visitor.click("button")
    expect(visitor.locator("h1")).to_have_text("You are unsubscribed")
    expect(visitor.locator("p")).to_contain_text("no more emails of the list digest")
    assert visitor.locator(SUBMITS).count() == 0
    ended = [("ann@example.net", "digest", "unsubscribed")]
    assert suppressed() == ended

    visitor.set_content(newsletter)
    visitor.click("text=No more")
    visitor.click("button")
    expect(visitor.locator("h1")).to_have_text("You are unsubscribed")
    visitor.reload()  # which posts again
    expect(visitor.locator("h1")).to_have_text("You are unsubscribed")
    assert suppressed() == ended
    asked = Counter(answer.request.method for answer in answers)
    assert asked == {"GET": 3, "POST": 3}
    assert {answer.status for answer in answers} == {200}
    assert [answer for answer in answers if "set-cookie" in answer.all_headers()] == []
    assert visitor.context.cookies() == []


@pytest.mark.parametrize(
    "name",
    [
        "<script>document.title='pwned';alert(1)</script>",
        "<img src=/lure onerror=\"document.title='pwned'\">",
        "</bdi></strong><form action=/lure><button>Win</button>",
        '" onmouseover="alert(1)" x=\'',
        "{{ list_name }}{% url 'admin:index' %}&lt;b&gt;",
        "\u202egnp.tnuocca\u2066 digest",
    ],
)
def test_a_hostile_name_of_a_list_or_an_address_is_only_text(visitor, live_server, name):
    happened = note_trouble(visitor)
    hostile = Subscription(f"{name}@example.net", name)

    visitor.goto(path_of(token_of(hostile)))
    for _ in range(2):  # the question, and the answer
        assert visitor.locator("main bdi").evaluate("shown => shown.textContent") == name
        assert visitor.locator("main bdi *, script, img").count() == 0
        assert "example.net" not in visitor.content()
        assert visitor.locator(SUBMITS).count() <= 1
        if visitor.locator("button").count():
            visitor.hover("bdi")
            visitor.click("button")
            expect(visitor.locator("h1")).to_have_text("You are unsubscribed")

    assert visitor.title() == "Unsubscribed"
    assert happened == []
    assert suppressed() == [(f"{name}@example.net", name, "unsubscribed")]


def test_a_wrong_token_is_a_page_that_is_not_there(visitor, live_server):
    good = token_of(Subscription("ann@example.net", "digest"))

    answer = visitor.goto(path_of(good.swapcase()))

    assert answer.status == 404
    expect(visitor.locator("h1")).to_have_text("Not Found")
    assert visitor.locator(SUBMITS).count() == 0
    assert visitor.context.cookies() == []
    assert suppressed() == []


# Forged tokens ------------------------------------------------------------------------------------


class Forger:
    """Somebody with real links of this site, and without its key.

    Args:
        seed: of all choices.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._subscriptions = [
            Subscription(f"person{number}@example.net", "digest", "acme") for number in range(100)
        ]
        self.links = [token_of(each) for each in self._subscriptions]

    def flipped(self) -> str:
        """Return a link with a bit changed, of its text or of its signature."""
        parts = [_decoded(part) for part in self._link().split(".")]
        octets = bytearray(parts.pop(which := self.chance.randrange(2)))
        octets[self.chance.randrange(len(octets))] ^= 1 << self.chance.randrange(8)
        parts.insert(which, bytes(octets))
        return _joined(*parts)

    def truncated(self) -> str:
        """Return the beginning of a link, its end, or what is left without a piece of it."""
        link = self._link()
        begin, end = sorted(self.chance.sample(range(len(link) + 1), 2))
        return self.chance.choice([link[:end], link[begin:], link[:begin] + link[end:]])

    def swapped(self) -> str:
        """Return parts of two links in one."""
        one, other = self.chance.sample(self.links, 2)
        text, signature = one.split(".")
        place = self.chance.randrange(len(text))
        return self.chance.choice(
            [
                f"{text}.{other.split('.')[1]}",
                f"{text[:place]}{other.split('.')[0][place:]}.{signature}",
                f"{text[:22]}{other.split('.')[0][22:]}.{other.split('.')[1]}",  # the nonce
                f"{signature}.{text}",
                f"{one}.{other}",
            ]
        )

    def recoded(self) -> str:
        """Return a link in another writing, which a careless reader takes for the same one."""
        text, signature = self._link().split(".")
        sealed, mac = _decoded(text), _decoded(signature)
        encode = self.chance.choice(
            [
                b16encode,
                b32encode,
                b64encode,
                lambda each: urlsafe_b64encode(urlsafe_b64encode(each)),
            ]
        )
        place = self.chance.randrange(1, len(text))
        # The last letter of 32 bytes in base64 has two bits that nothing reads.
        last = _LETTERS[_LETTERS.index(signature[-1]) ^ self.chance.randrange(1, 4)]
        assert b64decode(f"{signature[:-1]}{last}=", altchars=b"-_") == mac
        return self.chance.choice(
            [
                f"{encode(sealed).decode()}.{encode(mac).decode()}",
                f"{text}.{signature}=",
                f"{text}==.{signature}",
                f"{text[:place]}\n{text[place:]}.{signature}",
                f"{text}.{signature[:-1]}{last}",
                quote(f"{text}.{signature}").replace(".", "%2E"),
                f"{text}:{signature}",
            ]
        )

    def of_another_list(self) -> str:
        """Return a link whose masked text is changed into that of another list."""
        return self._remasked('["digest"', f'["{"".join(self.chance.choices("abcdef", k=6))}"')

    def of_another_person(self) -> str:
        """Return a link whose masked text is changed into that of somebody else."""
        return self._remasked("person", "".join(self.chance.choices("abcdefghij", k=6)))

    def in_unicode(self) -> str:
        """Return a link with letters that look like its own, or with what cannot be seen."""
        link = list(self._link())
        for place in self.chance.sample(range(len(link)), self.chance.randrange(1, 4)):
            wide = chr(ord(link[place]) + 0xFEE0)
            assert unicodedata.normalize("NFKC", wide) == link[place]
            link[place] = self.chance.choice(
                [wide, link[place] + "\u0301", link[place] + "\u200b", "\u202e" + link[place], "é"]
            )
        return "".join(link)

    def in_other_case(self) -> str:
        """Return a link with some letters large that were small, or the other way round."""
        chance = self.chance
        return "".join(each.swapcase() if chance.random() < 0.2 else each for each in self._link())

    def of_another_site(self) -> str:
        """Return a link that is good at another site; call it with that site's settings."""
        return token_of(Subscription(f"{self.chance.random()}@example.net", "digest", "acme"))

    def signed_for_something_else(self) -> str:
        """Return a link's text as this site signs what is no link."""
        salt = f"{self.chance.choice(['', 'truncus_django', 'django.core'])}{self.chance.random()}"
        return Signer(sep=".", salt=salt).sign(self._link().split(".")[0])

    def _link(self) -> str:
        return self.chance.choice(self.links)

    def _remasked(self, known: str, wanted: str) -> str:
        """Change masked text as somebody can who knows what it says: a mask is only an XOR."""
        number = self.chance.randrange(len(self.links))
        each = self._subscriptions[number]
        text = f'["{each.list_name}","{each.address}","{each.tenant_id}"]'
        changed = text.replace(known, wanted)
        assert changed != text
        head, signature = self.links[number].split(".")
        mask = bytes(16) + bytes(
            a ^ b for a, b in zip(text.encode(), changed.encode(), strict=True)
        )
        forged = bytes(a ^ b for a, b in zip(_decoded(head), mask, strict=True))
        return _joined(forged, _decoded(signature))


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _joined(*parts: bytes) -> str:
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def forged_tokens(forger: Forger) -> dict[str, str]:
    """Return 10,000 forged tokens, and how each was made."""
    kinds: list[tuple[str, Callable[[], str]]] = [
        ("a bit", forger.flipped),
        ("truncated", forger.truncated),
        ("swapped", forger.swapped),
        ("another writing", forger.recoded),
        ("another list", forger.of_another_list),
        ("another person", forger.of_another_person),
        ("Unicode", forger.in_unicode),
        ("another case", forger.in_other_case),
        ("another purpose", forger.signed_for_something_else),
        ("another site", forger.of_another_site),
    ]
    made: dict[str, str] = {}
    for number, (kind, forge) in enumerate(kinds, 1):
        key = "another" if kind == "another site" else django_settings.SECRET_KEY
        with override_settings(SECRET_KEY=key):
            while len(made) < 1000 * number:
                token = forge()
                if token.strip(".") and token not in forger.links:
                    made[token] = kind
    return made


def post_all(url: str, paths: Iterable[str]) -> list[int]:
    """Make one-click requests over one connection; return how each was answered.

    Not from the browser, which takes ten times as long while Playwright watches it.
    """
    statuses = []
    connection = HTTPConnection(url.removeprefix("http://"))
    with closing(connection):
        for path in paths:
            connection.request("POST", path, "List-Unsubscribe=One-Click", FORM)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
    return statuses


def test_ten_thousand_forged_tokens_are_answered_404(live_server, under_way, monkeypatch):
    # Else each answer's second packet waits until its first is acknowledged.
    monkeypatch.setattr(WSGIRequestHandler, "disable_nagle_algorithm", True)
    forger = Forger(seed=11)
    made = forged_tokens(forger)
    assert set(Counter(made.values()).values()) == {1000}
    asked: list[str] = []

    def note(sender: object, environ: dict[str, str], **kwargs: Any) -> None:
        asked.append(environ["PATH_INFO"].encode("latin-1").decode())

    request_started.connect(note)
    try:
        statuses = post_all(live_server.url, map(path_of, made))
    finally:
        request_started.disconnect(note)

    taken = [kind for kind, status in zip(made.values(), statuses, strict=True) if status != 404]
    assert Counter(taken) == {}
    assert [path.removeprefix(PATH).removesuffix("/") for path in asked] == list(made)
    assert len(asked) == 10_000
    assert suppressed() == []
    # By the same way, a token that is not forged.
    assert post_all(live_server.url, [path_of(forger.links[0])]) == [200]
    assert suppressed() == [("person0@example.net", "digest", "unsubscribed")]
    under_way.wait_until_none()
