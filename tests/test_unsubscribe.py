"""Unsubscribe links: headers, tokens, the page, and one click."""

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from django.core.signing import Signer
from django.db import OperationalError
from django.template import Context, Template
from django.test import Client, override_settings
from hypothesis import given
from hypothesis import strategies as st

from truncus_django.api.errors import (
    ConfigurationError,
    EmailRefused,
    InvalidHeader,
    MessageError,
)
from truncus_django.checks import check_settings
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, SuppressedAddress
from truncus_django.signals import unsubscribed
from truncus_django.testing import send_outbox
from truncus_django.unsubscribe import PLACEHOLDER, Subscription, read_token, token_of

pytestmark = pytest.mark.django_db

BASE_URL = "https://shop.example.com"
PATH = "/truncus/unsubscribe/{}/"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def emulator(truncus_emulator, configure):
    configure(RECORD=True, SUPPRESS="learn", UNSUBSCRIBE_BASE_URL=BASE_URL)
    return truncus_emulator


@pytest.fixture
def signalled():
    """The facts of each signal."""
    found = []

    def note(sender, signal, **facts):
        found.append((facts["address"], facts["list_name"], facts["tenant_id"]))

    unsubscribed.connect(note)
    yield found
    unsubscribed.disconnect(note)


def message(*to, text="Text", **options):
    to = list(to) or ["Ann <Ann@example.net>"]
    options = {"unsubscribe": "digest", **options}
    return TruncusMessage("Hello", text, "shop@example.com", to, **options)


def links(email):
    """Return the links of the header, without their brackets."""
    return [each.strip("<>") for each in email.payload["headers"]["List-Unsubscribe"].split(", ")]


def path_of(email):
    return links(email)[0].removeprefix(BASE_URL)


# The email ----------------------------------------------------------------------------------------


def test_headers_have_a_link_that_shows_no_address(emulator):
    message(tenant_id="acme").send()
    [email] = emulator.emails
    assert email.payload["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    [link] = links(email)
    assert link.startswith(f"{BASE_URL}/truncus/unsubscribe/")
    assert "unsubscribe_list" not in email.payload
    token = link.rstrip("/").rpartition("/")[2]
    assert read_token(token) == Subscription("ann@example.net", "digest", "acme")
    assert Email.objects.get().unsubscribe_list == "digest"


def test_mailto_is_there_if_it_is_set(emulator, configure):
    configure(UNSUBSCRIBE_MAILTO="leave+list@example.com")
    message().send()
    https, mailto = links(emulator.emails[0])
    token = https.rstrip("/").rpartition("/")[2]
    assert mailto == f"mailto:leave+list@example.com?subject=unsubscribe%20{token}"


def test_headers_of_the_message_stay(emulator):
    message(headers={"X-Shop": "tea"}).send()
    headers = emulator.emails[0].payload["headers"]
    assert set(headers) == {"X-Shop", "List-Unsubscribe", "List-Unsubscribe-Post"}


def test_each_recipient_of_merge_data_has_a_link_of_their_own(emulator):
    message(
        "ann@example.net",
        "bob@example.net",
        text="Hello {{ name }}: {{ unsubscribe_url }}",
        merge_data={"ann@example.net": {"name": "Ann"}, "bob@example.net": {"name": "Bob"}},
    ).send()
    found = {email.payload["to"]: links(email)[0] for email in emulator.emails}
    assert len(set(found.values())) == 2
    for email in emulator.emails:
        name = email.payload["to"].partition("@")[0].title()
        assert email.payload["text"] == f"Hello {name}: {found[email.payload['to']]}"


def test_merge_data_may_be_empty_with_or_without_a_link_in_the_body(emulator):
    message(text="{{ unsubscribe_url }}", merge_data={}).send()
    message(text="No link", merge_data={}).send()
    first, second = emulator.emails
    assert first.payload["text"] == links(first)[0]
    assert second.payload["text"] == "No link"


def test_a_template_of_truncus_gets_the_link_as_a_variable(emulator):
    emulator.reset(templates={"digest": "<p>{{unsubscribe_url}}"})
    message(text="", template_id="digest", merge_data={}).send()
    [email] = emulator.emails
    assert email.payload["variables"] == {"unsubscribe_url": links(email)[0]}


def test_the_tag_is_the_link_in_bodies_that_are_rendered_before(emulator):
    tag = Template("{% load truncus %}<a href='{% unsubscribe_url %}'>No more</a>")
    message(html=tag.render(Context())).send()
    [email] = emulator.emails
    assert email.payload["html"] == f"<a href='{links(email)[0]}'>No more</a>"


def test_a_template_of_the_project_may_show_it(emulator, settings):
    html = "<a href='{{ unsubscribe_url }}'>x</a>"
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {
                            "d_subject.txt": "News",
                            "d.html": html,
                        },
                    )
                ]
            },
        }
    ]
    TruncusMessage.from_template(
        "d", to=["ann@example.net"], unsubscribe="digest", from_email="shop@example.com"
    ).send()
    [email] = emulator.emails
    assert email.payload["html"] == f"<a href='{links(email)[0]}'>x</a>"
    assert links(email)[0] in email.payload["text"]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"cc": ["b@example.net"]}, MessageError, "more than one recipient"),
        ({"bcc": ["b@example.net"]}, MessageError, "more than one recipient"),
        ({"merge_data": {}, "merge_cc": True, "cc": ["b@c.net"]}, MessageError, "more than one"),
        ({"unsubscribe": ""}, MessageError, "name of a list"),
        ({"unsubscribe": True}, MessageError, "name of a list"),
        ({"unsubscribe": "x" * 101}, MessageError, "name of a list"),
        ({"unsubscribe": "a\nb"}, MessageError, "line break"),
        ({"headers": {"list-unsubscribe": "<x>"}}, InvalidHeader, "of its own"),
        ({"tenant_id": "t" * 800}, InvalidHeader, "too long"),
        ({"unsubscribe": None, "text": PLACEHOLDER}, MessageError, "no list"),
        (
            {"unsubscribe": None, "template_id": "t", "variables": {"url": PLACEHOLDER}},
            MessageError,
            "no list",
        ),
    ],
)
def test_what_cannot_be_is_a_clear_error(emulator, given, error, text):
    with pytest.raises(error, match=text):
        message(**given).send()
    assert emulator.requests == []


def test_without_a_base_url_or_a_page_it_is_a_clear_error(emulator, configure):
    configure(UNSUBSCRIBE_BASE_URL=None)
    with pytest.raises(ConfigurationError, match="UNSUBSCRIBE_BASE_URL"):
        message().send()
    configure(UNSUBSCRIBE_BASE_URL=BASE_URL)
    elsewhere = override_settings(ROOT_URLCONF="truncus_django.previews.urls")
    with elsewhere, pytest.raises(ConfigurationError, match="include"):
        message().send()
    configure(SUPPRESS="off")
    with pytest.raises(ConfigurationError, match="SUPPRESS"):
        message().send()
    assert emulator.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com",
        "ftp://localhost",
        "shop.example.com",
        "https://",
        "https://[",
        "https://x.example/path",
        "https://me@x.example",
        "https://x.example?a=b",
        "https://x.example:99999",
        "https://x..example",
        "https://x.example>,",
        "https://x.example;y",
    ],
)
def test_a_base_url_that_is_not_https_is_an_error_of_the_checks(emulator, configure, url):
    configure(UNSUBSCRIBE_BASE_URL=url)
    [found] = [each for each in check_settings() if each.id == "truncus.E002"]
    assert "UNSUBSCRIBE_BASE_URL must be an https URL" in found.msg


def test_a_base_url_in_unicode_is_ascii_in_the_header(emulator, configure):
    configure(UNSUBSCRIBE_BASE_URL="https://bücher.example:8443/")
    message().send()
    header = emulator.emails[0].payload["headers"]["List-Unsubscribe"]
    assert header.startswith("<https://xn--bcher-kva.example:8443/truncus/unsubscribe/")


# Tokens -------------------------------------------------------------------------------------------


def test_a_token_outlives_a_rotated_key(settings):
    token = token_of(Subscription("ann@example.net", "digest"))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", settings.SECRET_KEY]
    assert read_token(token) == Subscription("ann@example.net", "digest")
    settings.SECRET_KEY_FALLBACKS = []
    assert read_token(token) is None  # of another site


def test_a_token_is_the_same_each_time_and_another_for_each_list():
    ann = Subscription("ann@example.net", "digest")
    assert token_of(ann) == token_of(ann)
    others = [Subscription("ann@example.net", "news"), Subscription("bob@example.net", "digest")]
    others.append(Subscription("ann@example.net", "digest", "acme"))
    assert len({token_of(each)[:20] for each in [ann, *others]}) == 4


def test_nothing_of_the_subscription_can_be_read_in_a_token():
    texts = ["ann@example.net", "digest", "acme"]
    token = token_of(Subscription(*texts))
    signed = token.partition(".")[0]
    decoded = urlsafe_b64decode(signed + "=" * (-len(signed) % 4)).decode("latin-1")
    for text in texts:
        for length in range(4, len(text) + 1):
            assert text[:length] not in token + decoded


def test_texts_that_begin_alike_are_masked_differently():
    tokens = [token_of(Subscription(f"ann{n}@example.net", "digest")) for n in range(100)]
    masked = {urlsafe_b64decode(each.partition(".")[0] + "==")[16:26] for each in tokens}
    assert len(masked) == 100


@given(address=st.text(), list_name=st.text(max_size=100), tenant_id=st.text())
def test_what_was_put_into_a_token_comes_out(address, list_name, tenant_id):
    subscription = Subscription(address, list_name, tenant_id)
    assert read_token(token_of(subscription)) == subscription


@pytest.mark.parametrize("token", ["", "x", "é" * 30, "a" * 5000, "%00", "a.b", "....", "=" * 40])
def test_what_is_no_token_is_none(token):
    assert read_token(token) is None


def forged(good: str, chance: random.Random) -> str:
    """Return a token that somebody made who has a good one, and no key."""
    signed, signature = good.split(".")
    parts = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (signed, signature)]
    change, place = chance.randrange(7), chance.randrange(1, len(good))
    match change:
        case 0:  # a bit of what is signed, or of the signature
            which = chance.randrange(2)
            flipped = bytearray(parts[which])
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            parts[which] = bytes(flipped)
        case 1:
            return good[:place]
        case 2:
            return good[place:]
        case 3:  # a bit of a character
            return (
                good[:place] + chr(ord(good[place]) ^ 1 << chance.randrange(7)) + good[place + 1 :]
            )
        case 4:  # in front, in the midst, or behind
            place = chance.choice([0, place, len(good)])
            return good[:place] + chance.choice("Aa0-_=. ") * chance.randrange(1, 4) + good[place:]
        case 5:  # another text under this signature, of any length
            parts[0] = chance.randbytes(chance.randrange(100))
        case 6:
            parts = [chance.randbytes(len(part)) for part in parts]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_ten_thousand_forged_tokens_are_refused_without_a_query(
    client, django_assert_num_queries, emulator
):
    good = token_of(Subscription("ann@example.net", "digest", "acme"))
    chance = random.Random(20)
    tokens: set[str] = set()
    while len(tokens) < 10_000:
        tokens |= {forged(good, chance)} - {good}
    with django_assert_num_queries(0):
        assert [each for each in tokens if read_token(each) is not None] == []
        for token in sorted(each for each in tokens if each.isprintable() and "/" not in each)[
            ::40
        ]:
            path = PATH.format(quote(token))
            assert client.get(path).status_code == 404
            assert client.post(path, ONE_CLICK).status_code == 404
    assert client.get(PATH.format(good)).status_code == 200


def test_parts_of_two_good_tokens_make_none():
    ann, bob = (token_of(Subscription(f"{name}@example.net", "digest")) for name in ("ann", "bob"))
    (one, one_signature), (other, other_signature) = ann.split("."), bob.split(".")
    assert read_token(f"{one}.{other_signature}") is None
    assert read_token(f"{other}.{one_signature}") is None
    assert read_token(f"{one[:22]}{other[22:]}.{other_signature}") is None


def test_what_the_site_signs_elsewhere_is_no_token():
    masked = token_of(Subscription("ann@example.net", "digest")).partition(".")[0]
    for salt in ("", "truncus_django", "django.core.signing.Signer"):
        assert read_token(Signer(sep=".", salt=salt).sign(masked)) is None


def test_a_token_of_another_site_is_refused(client, settings, django_assert_num_queries, emulator):
    own = settings.SECRET_KEY
    settings.SECRET_KEY = "that of another site"
    token = token_of(Subscription("ann@example.net", "digest"))
    assert client.get(PATH.format(token)).status_code == 200
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = own, ["one of its own"]
    assert read_token(token) is None
    with django_assert_num_queries(0):
        assert client.get(PATH.format(token)).status_code == 404
        assert client.post(PATH.format(token), ONE_CLICK).status_code == 404


# The page -----------------------------------------------------------------------------------------


@pytest.fixture
def path(emulator):
    message(tenant_id="acme").send()
    return path_of(emulator.emails[0])


def test_get_shows_a_button_and_changes_nothing(path, django_assert_num_queries):
    for method in ("get", "head"):
        with django_assert_num_queries(0):
            answer = getattr(Client(), method)(path)
        assert answer.status_code == 200
    answer = Client().get(path)
    assert answer.text.count("<button") == 1
    assert "digest" in answer.text
    assert "<script" not in answer.text
    assert "example.net" not in answer.text
    assert answer["Referrer-Policy"] == "no-referrer"
    assert answer["Cache-Control"] == "no-store"
    assert not SuppressedAddress.objects.exists()


@pytest.mark.parametrize("body", ["urlencoded", "multipart"])
@pytest.mark.parametrize("behind_login", [True, False])
def test_one_click_unsubscribes_without_cookie_login_or_redirect(
    path, settings, body, behind_login, signalled, django_capture_on_commit_callbacks
):
    if behind_login:
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
        ]
    mail_program = Client(enforce_csrf_checks=True)
    with django_capture_on_commit_callbacks(execute=True):
        if body == "multipart":
            answer = mail_program.post(path, ONE_CLICK)
        else:
            answer = mail_program.post(
                path,
                "List-Unsubscribe=One-Click",
                content_type="application/x-www-form-urlencoded",
            )
    assert answer.status_code == 200
    assert not answer.cookies
    entry = SuppressedAddress.objects.get()
    facts = (entry.address, entry.list_name, entry.tenant_id)
    assert facts == ("ann@example.net", "digest", "acme")
    assert (entry.reason, entry.source) == ("unsubscribed", "link")
    assert signalled == [facts]


def test_a_second_click_is_answered_alike_and_signalled_once(
    path, signalled, django_capture_on_commit_callbacks
):
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            assert Client().post(path, ONE_CLICK).status_code == 200
    assert SuppressedAddress.objects.count() == len(signalled) == 1


@pytest.mark.parametrize(
    ("body", "status"), [({}, 400), ({"List-Unsubscribe": "x"}, 400), ({"x": "y" * 20_000}, 413)]
)
def test_another_post_changes_nothing(path, body, status):
    assert Client().post(path, body).status_code == status
    assert not SuppressedAddress.objects.exists()
    assert Client().put(path).status_code == 405


def test_a_database_that_is_gone_is_503_and_tells_no_address(path, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OperationalError("gone")

    with monkeypatch.context() as patched:
        patched.setattr("truncus_django.log.suppression.insert_new", fail)
        caplog.clear()
        answers = [Client().post(path, ONE_CLICK) for _ in range(2)]
        assert [each.status_code for each in answers] == [503, 503]
        assert Client().get(path).status_code == 200
    [line] = caplog.records  # and none of Django's, which may be mailed with a traceback
    assert line.truncus_event == "unsubscribe_not_stored"
    assert line.truncus_error == "OperationalError"
    assert line.exc_info is None
    assert Client().post(path, ONE_CLICK).status_code == 200
    assert SuppressedAddress.objects.count() == 1


def test_who_has_unsubscribed_gets_other_emails_and_no_more_of_the_list(path, emulator):
    Client().post(path, ONE_CLICK)
    with pytest.raises(EmailRefused, match="unsubscribed"):
        message(tenant_id="acme").send()
    message(tenant_id="acme", unsubscribe=None).send()
    message(tenant_id="acme", unsubscribe="news").send()
    message(tenant_id="other").send()
    assert len(emulator.emails) == 4


def test_who_unsubscribes_while_the_email_waits_does_not_get_it(path, emulator, configure):
    configure(DELIVERY="outbox")
    message(tenant_id="acme").send()
    Client().post(path, ONE_CLICK)
    assert send_outbox() == 0
    assert len(emulator.emails) == 1
    newest = Email.objects.order_by("-created_at").first()
    assert (newest.state, newest.unsubscribe_list) == ("rejected", "digest")


def test_an_email_of_the_outbox_has_its_headers_and_no_field_of_ours(emulator, configure):
    configure(DELIVERY="outbox")
    message().send()
    assert send_outbox() == 1
    [email] = emulator.emails
    assert links(email)
    assert "unsubscribe_list" not in email.payload
