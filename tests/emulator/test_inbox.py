"""The inbox: hostile mail stays text, nothing loads from outside, other sites get nothing."""

import base64
import re
import sys
import time

import pytest

from tests.waiting import PATIENCE_S
from truncus_django.emulator import inbox

from .conftest import an_email

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def page_of(client, path="/"):
    answer = client.session.get(client.emulator.url + path, timeout=PATIENCE_S)
    assert answer.status_code == 200
    return answer


def test_list_shows_the_newest_first(either):
    either.send(subject="First")
    either.send(subject="Second", to="bob@example.com", tenant_id="acme", sandbox=True)
    page = page_of(either).text
    assert page.index("Second") < page.index("First")
    assert "bob@example.com" in page
    assert "acme" in page
    assert ">sandbox<" in page


def test_long_address_breaks_before_its_at_sign_and_is_whole_in_the_title(manual):
    manual.send(to="ada@example.com")
    page = page_of(manual).text
    assert 'title="ada@example.com"><bdi>ada<wbr>@example.com</bdi>' in page


def test_scheduled_mail_shows_its_time(manual):
    manual.send(send_at="2099-01-01T12:00:00Z")
    assert "2099-01-01" in page_of(manual).text


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_last_moment_there_is_can_be_shown_in_any_time_zone(manual, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        message_id = manual.send(send_at="9999-12-31T23:59:00Z").json()["message_id"]
        assert "9999-12-31" in page_of(manual).text
        assert "9999-12-31" in page_of(manual, f"/mail/{message_id}").text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_search_finds_by_recipient_subject_and_text(manual):
    manual.send(subject="Invoice 42", to="bob@example.com", text="Total: ten")
    manual.send(subject="Welcome")
    for query in ("invoice", "BOB@", "ten"):
        page = page_of(manual, f"/?q={query}").text
        assert "Invoice 42" in page
        assert "Welcome" not in page
    assert "Nothing fits" in page_of(manual, "/?q=nothing").text


def test_pages_of_50(manual):
    for number in range(51):
        manual.send(subject=f"Order-{number:02}")
    first, second = page_of(manual).text, page_of(manual, "/?page=2").text
    assert "Order-50" in first
    assert "Order-00" not in first
    assert "Order-00" in second
    assert page_of(manual, "/?page=99").text == second


def test_refreshing_is_asked_for(manual):
    assert "http-equiv" not in page_of(manual).text
    assert 'http-equiv="refresh"' in page_of(manual, "/?refresh=1").text


def test_mail_shows_everything_that_was_sent(manual):
    manual.batch(
        an_email(
            cc=["cc@example.com"],
            bcc=["bcc@example.com"],
            reply_to="reply@example.com",
            headers={"X-Entity": "17"},
            metadata={"order": "42"},
            text="Plain words",
        ),
        key="batch-key",
    )
    email = manual.emulator.emails[0]
    page = page_of(manual, f"/mail/{email.id}").text
    for shown in (
        "cc@example.com",
        "bcc@example.com",
        "reply@example.com",
        "X-Entity",
        "17",
        "order",
        "42",
        "Plain words",
        "batch-key",
        "1 of 1",
        "delivered",
        email.global_message_id,
    ):
        assert shown in page


@pytest.mark.parametrize("where", ["subject", "text", "to", "from", "tenant_id", "metadata"])
def test_hostile_content_stays_text(manual, where):
    value = {
        "to": '"<script>alert(1)</script>" <x@example.com>',
        "from": '"<script>alert(1)</script>" <x@example.com>',
        "metadata": {HOSTILE: HOSTILE},
    }.get(where, HOSTILE)
    assert manual.send(**{where: value}).status_code == 200
    for path in ("/", f"/mail/{manual.emulator.emails[0].id}", f"/?q={HOSTILE}"):
        page = page_of(manual, path).text
        assert "<script" not in page
        assert "<img" not in page


def test_html_is_framed_under_a_policy_that_loads_nothing(manual):
    manual.send(html=f"<h1>Hello</h1>{HOSTILE}")
    path = f"/mail/{manual.emulator.emails[0].id}"
    page = page_of(manual, path)
    sandbox = "allow-popups allow-popups-to-escape-sandbox"
    assert f'<iframe sandbox="{sandbox}" src="{path}/html"' in page.text
    assert "Hello" not in page.text
    frame = page_of(manual, f"{path}/html")
    assert "<h1>Hello</h1>" in frame.text
    assert "<script" not in frame.text
    assert "onerror" not in frame.text
    for answer in (page, frame):
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "script-src" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-DNS-Prefetch-Control"] == "off"
    assert frame.headers["Content-Security-Policy"].startswith(f"sandbox {sandbox};")
    assert frame.headers["X-Frame-Options"] == "SAMEORIGIN"


RESET = "https://shop.example/reset/MQ/x-1/?a&amp;b"
RESET_LINK = f'<a href="{RESET}" target="_blank" rel="noopener noreferrer nofollow">{RESET}</a>'


def test_links_of_the_html_are_listed_below_it_each_once(manual):
    link = f'<a href="{RESET}">reset</a>'
    manual.send(html=f'{link}{link}<a href="javascript:x">x</a><a href="/x">x</a>', text="")
    page = page_of(manual, f"/mail/{manual.emulator.emails[0].id}").text
    assert "Links in this email" in page
    assert page.count(RESET_LINK) == 1
    assert page.count("_blank") == 1


def test_html_without_links_has_no_list_of_them(manual):
    manual.send(html="<p>Hello</p>")
    page = page_of(manual, f"/mail/{manual.emulator.emails[0].id}").text
    assert "Links in this email" not in page


def test_links_in_text_can_be_followed_without_nh3(manual, monkeypatch):
    monkeypatch.setitem(sys.modules, "nh3", None)
    manual.send(html="<p>x</p>", text="Reset: https://shop.example/reset/MQ/x-1/?a&b.")
    page = page_of(manual, f"/mail/{manual.emulator.emails[0].id}").text
    assert f"Reset: {RESET_LINK}." in page


def test_the_newest_event_is_on_top_with_its_seconds(manual):
    manual.send(to="bounce@example.com")
    email = manual.emulator.emails[0]
    page = page_of(manual, f"/mail/{email.id}").text
    shown = re.findall(r">(?:[\d-]+ )?\d\d:\d\d:\d\d</time></span> <b>(\w+)</b>", page)
    assert shown == [event.type for event in reversed(email.events)]
    assert (shown[0], shown[-1]) == ("bounced", "queued")


def test_without_nh3_the_html_is_not_shown(manual, monkeypatch):
    monkeypatch.setitem(sys.modules, "nh3", None)
    manual.send(html="<h1>Hello</h1>")

    frame = page_of(manual, f"/mail/{manual.emulator.emails[0].id}/html").text

    assert "truncus-django[preview]" in frame
    assert "Hello" not in frame


def test_attachment_is_only_ever_downloaded(manual):
    name = '../<b>"x"\r\nSet-Cookie: a=1.html'
    content = base64.b64encode(b"<script>alert(1)</script>").decode()
    hostile = {"filename": name, "content": content, "content_type": "text/html"}
    manual.send(attachments=[hostile])
    path = f"/mail/{manual.emulator.emails[0].id}"
    assert "<b>" not in page_of(manual, path).text.replace("<b>delivered", "").replace(
        "<b>sent", ""
    ).replace("<b>queued", "")
    answer = page_of(manual, f"{path}/attachments/0")
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "/" not in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    missing = manual.session.get(f"{manual.emulator.url}{path}/attachments/1", timeout=PATIENCE_S)
    assert missing.status_code == 404


def test_international_filename_is_kept(manual):
    content = base64.b64encode(b"x").decode()
    manual.send(attachments=[{"filename": "Größe.pdf", "content": content}])
    path = f"/mail/{manual.emulator.emails[0].id}/attachments/0"
    assert "Gr%C3%B6%C3%9Fe.pdf" in page_of(manual, path).headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("path", "name"), [("", "links_of"), ("", "mail_page"), ("/html", "preview_page")]
)
def test_emails_are_taken_while_a_page_is_made(manual, monkeypatch, path, name):
    make = getattr(inbox, name)
    answers = []

    def slow(*arguments, **options):
        answers.append(manual.send(subject="Meanwhile").status_code)
        return make(*arguments, **options)

    manual.send()
    path = f"/mail/{manual.emulator.emails[0].id}{path}"
    monkeypatch.setattr(inbox, name, slow)

    page_of(manual, path)

    assert answers == [200]


def test_text_that_is_no_unicode_is_shown_all_the_same(manual):
    manual.send(subject="\ud800 broken", html="\ud800", tenant_id="\ud800", text="\ud800")
    path = f"/mail/{manual.emulator.emails[0].id}"
    for shown in ("/", path, f"{path}/html"):
        page_of(manual, shown)


@pytest.mark.parametrize("path", ["/mail/unknown", "/mail/unknown/html", "/nothing"])
def test_unknown_page_is_not_found(manual, path):
    assert manual.session.get(manual.emulator.url + path, timeout=PATIENCE_S).status_code == 404


def test_inbox_takes_nothing_but_get(manual):
    assert manual.session.post(manual.emulator.url + "/", timeout=PATIENCE_S).status_code == 405


@pytest.mark.parametrize("path", ["/", "/mail/x"])
def test_other_host_names_are_refused(manual, path):
    headers = {"Host": "evil.example"}
    answer = manual.session.get(manual.emulator.url + path, headers=headers, timeout=PATIENCE_S)
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8025", "127.0.0.1", "[::1]:8025"])
def test_names_of_this_machine_are_trusted(manual, host):
    answer = manual.session.get(manual.emulator.url, headers={"Host": host}, timeout=PATIENCE_S)
    assert answer.status_code == 200


def test_api_key_is_on_no_page(manual):
    manual.send()
    api_key = manual.session.headers["Authorization"].split()[1]
    message_id = manual.emulator.emails[0].id
    for path in ("/", f"/mail/{message_id}"):
        assert api_key not in page_of(manual, path).text
