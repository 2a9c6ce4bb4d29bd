"""A payload for Truncus → the message that another mailer sends."""

import copy

from django.core import mail

from tests.fallback import message
from truncus_django.message import TruncusMessage
from truncus_django.sending.rebuilt import rebuilt
from truncus_django.signals import pre_send


def test_the_payload_is_what_is_sent(down, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "INLINE_CSS": True, "METADATA": {"site": "shop"}}
    one = message(
        to=["Ann Lee <ann@example.org>", "bob@example.org"],
        html="<style>p { color: red }</style><p>Text</p>",
        cc=["cc@example.org"],
        bcc=["bcc@example.org"],
        reply_to=['"Help, desk" <help@example.com>', "other@example.com"],
        headers={"X-Order": "7"},
        in_reply_to="<1@example.com>",
        track_opens=False,
        tenant_id="acme",
    )
    one.attach("réport.csv", "größe;1\n", "text/csv")
    one.attach("data.bin", b"\0\xff", "application/x-data")
    one.attach("meeting.ics", "BEGIN:VCALENDAR", "text/calendar; method=REQUEST")

    def change(payload, **kwargs):
        payload["subject"] = "Changed"

    pre_send.connect(change)
    try:
        one.send()
    finally:
        pre_send.disconnect(change)
    [sent] = mail.outbox
    assert sent.subject == "Changed"
    assert sent.to == ["Ann Lee <ann@example.org>", "bob@example.org"]
    assert (sent.cc, sent.bcc) == (["cc@example.org"], ["bcc@example.org"])
    assert sent.reply_to == ['"Help, desk" <help@example.com>', "other@example.com"]
    assert sent.extra_headers["X-Order"] == "7"
    assert sent.extra_headers["In-Reply-To"] == "<1@example.com>"
    assert 'style="color: red' in sent.alternatives[0][0]
    parts = {part.get_filename(): part for part in sent.message().walk() if part.get_filename()}
    assert parts["réport.csv"].get_payload(decode=True).decode().strip() == "größe;1"
    assert parts["data.bin"].get_payload(decode=True) == b"\0\xff"
    assert parts["meeting.ics"].get_param("method") == "REQUEST"
    assert parts["meeting.ics"].get_content_charset() == "utf-8"


def test_html_alone_and_text_that_is_no_unicode(down):
    one = TruncusMessage("Order", "", "shop@example.com", ["ann@example.org"], html="<p>Text")
    one.attach("old.txt", "größe".encode("latin-1"), "text/plain")
    one.send()
    [sent] = mail.outbox
    assert (sent.body, sent.content_subtype) == ("<p>Text", "html")
    [part] = [part for part in sent.message().walk() if part.get_filename()]
    assert part.get_payload(decode=True) == "größe".encode("latin-1")


def test_the_rebuilt_message_needs_no_list(fallback):
    email = {"from": "a@example.com", "to": "b@example.org", "subject": "S", "text": "T"}
    before = copy.deepcopy(email)
    assert rebuilt(email).to == ["b@example.org"]
    assert email == before
