"""An email's page in the admin, and the frame that shows its HTML."""

import json
import re
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.pages import LOG, confirm, make, page_of, store
from tests.conftest import FakeTruncus
from truncus_django.api.errors import TruncusError
from truncus_django.log.ingest import ingest
from truncus_django.log.sync import SyncJob
from truncus_django.log.webhook_payload import read_event
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_shows_ids_to_copy_events_and_facts(admin_client):
    email = make(
        message_id="msg_1",
        global_message_id="gm_1",
        provider_message_id="ses_1",
        idempotency_key="order-42",
        cc=["cleo@example.org"],
        tenant_id="acme",
        metadata={"order": "42"},
        attachments=[{"filename": "a.pdf", "content_type": "application/pdf", "size": 2048}],
        attachment_count=1,
        open_count=1,
        first_opened_at=timezone.now(),
    )
    EmailEvent.objects.create(
        email=email,
        message_id="msg_1",
        event_id="e",
        type="clicked",
        occurred_at=timezone.now(),
        source="webhook",
        payload={"url": "https://example.com/"},
    )

    page = admin_client.get(page_of(email)).text

    for value in (str(email.pk), "msg_1", "gm_1", "ses_1", "order-42"):
        assert f'<code class="truncus-id">{value}</code>' in page
    for text in ("clicked", "https://example.com/", "cleo@example.org", "acme", "42"):
        assert text in page
    assert "a.pdf" in page
    assert "2.0\xa0KB" in page


def test_tells_what_to_do_about_an_error(admin_client):
    email = make(
        state=State.FAILED,
        error_code="DOMAIN_NOT_FOUND",
        error="No such domain (DOMAIN_NOT_FOUND, HTTP 403). Add the sender's domain "
        "(DEFAULT_FROM_EMAIL) in Truncus and verify it.",
    )

    page = admin_client.get(page_of(email)).text

    assert "Truncus did not send it: it does not know the domain of the sender." in page
    assert "Ask a developer to add the domain in Truncus and to verify it. Then send" in page
    assert "Error message: <bdi>No such domain (DOMAIN_NOT_FOUND, HTTP 403).</bdi>" in page
    assert "DEFAULT_FROM_EMAIL" not in page


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (State.BOUNCED, "ask for another address"),
        (State.COMPLAINED, "Do not write to this address again"),
        (State.UNKNOWN, "or “Mark as not sent and send it”, if it is still needed"),
    ],
)
def test_tells_what_to_do_about_a_state(admin_client, state, advice):
    assert advice in admin_client.get(page_of(make(state=state))).text


def test_a_reason_is_told_in_a_sentence_beside_its_word(admin_client):
    page = admin_client.get(page_of(make(state=State.COMPLAINED, reason="abuse"))).text

    assert "<p>The recipient reported it as spam. <code>abuse</code></p>" in page
    assert "Error message:" not in page


def test_what_went_wrong_is_not_told_of_what_still_waits(admin_client):
    email = make(state=State.SENDING, error="HTTP 502.", error_code="PROVIDER_ERROR")

    page = admin_client.get(page_of(email)).text

    assert "Why it still waits" in page
    assert "What went wrong" not in page


@pytest.mark.parametrize(
    ("stores", "attempts", "told"),
    [
        (True, 0, "Its text is not stored, as it was refused before any request."),
        (True, 1, "STORE_BODIES was off when it was sent, or truncus_purge has dropped it since."),
        (False, 0, "TRUNCUS[&#x27;STORE_BODIES&#x27;] stores the texts of later emails"),
    ],
)
def test_nobody_is_advised_to_turn_on_what_is_on(admin_client, settings, stores, attempts, told):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": stores}

    page = admin_client.get(page_of(make(state=State.REJECTED, attempts=attempts))).text

    assert page.count(told) == 2  # below, and why it cannot be sent again


def test_of_a_template_nobody_looks_for_a_text_that_was_never_here(admin_client, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}

    page = admin_client.get(page_of(make(template_id="welcome"))).text

    assert "Truncus makes its text from the template." in page
    assert "STORE_BODIES" not in page


def test_the_title_and_the_breadcrumbs_name_the_email(admin_client):
    email = make(subject="Your order 42", to=["Ann <ann@example.org>"])

    page = admin_client.get(page_of(email)).text

    title = "Your order 42 to Ann &lt;ann@example.org&gt; | Email | Django site admin"
    assert f"<title>{title}</title>" in page
    assert "<bdi>Your order 42</bdi>" in breadcrumbs(page)


def breadcrumbs(page: str) -> str:
    [found] = re.findall(r'class="breadcrumbs">(.*?)</(?:ol|div)>', page, re.DOTALL)
    return found


def test_an_email_without_subject_and_recipients_has_a_title(admin_client):
    page = admin_client.get(page_of(make(subject="", to=[]))).text

    assert "<title>(no subject) | Email | Django site admin</title>" in page
    assert "<bdi>(no subject)</bdi>" in breadcrumbs(page)


def test_a_hostile_subject_is_short_where_it_stands_among_others(admin_client):
    subject = ("\u202e<b>Hi</b>\n" + "W" * 900)[:900]

    page = admin_client.get(page_of(make(subject=subject))).text

    short = "&lt;b&gt;Hi&lt;/b&gt; " + "W" * 49 + "…"
    assert f"<title>{short} to " in page
    assert f"<bdi>{short}</bdi>" in breadcrumbs(page)
    assert "<b>Hi" not in page
    assert page.count("W" * 800) == 1  # among the facts


def test_names_the_fallback_mailer(admin_client):
    why = "The fallback mailer 'smtp' sent it, as Truncus did not take it: TLSError"
    page = admin_client.get(page_of(make(sent_by="smtp", reason=why))).text
    assert "The fallback mailer &#x27;smtp&#x27; sent it" in page

    page = admin_client.get(page_of(make(sent_by="smtp", state=State.UNKNOWN))).text
    assert "Look for it in the logs of that mailer" in page
    assert "Truncus dashboard" not in page


def test_an_unknown_email_shows_no_advice_for_code(admin_client):
    lost = TruncusError("The connection was lost", ambiguous=True)

    page = admin_client.get(page_of(make(state=State.UNKNOWN, error=str(lost)))).text

    assert "The connection was lost." in page
    assert "message object" not in page


def test_buttons_say_what_they_do_and_a_disabled_one_says_why(admin_client):
    page = admin_client.get(page_of(make(state=State.UNKNOWN, message_id=None))).text

    buttons = re.findall(r'value="(\w+)"( disabled[^>]*)?>([^<]*)</button>', page)
    main = page[: page.index("<details")]
    assert re.findall(r'name="action" value="(\w+)">', main) == ["decide_sent", "decide_not_sent"]
    assert {name: text for name, _, text in buttons} == {
        "decide_sent": "Mark as sent",
        "decide_send": "Mark as not sent and send it",
        "decide_not_sent": "Mark as not sent",
        "sync_now": "Sync now",
        "resend": "Resend",
        "export_csv": "Export as CSV",
        "forget": "Forget a recipient",
    }
    why_not = {name: extra for name, extra, _ in buttons if extra}
    assert why_not.keys() == {"decide_send", "sync_now", "resend"}
    for name, extra in why_not.items():
        assert f'aria-describedby="truncus-why-{name}"' in extra
        assert re.search(rf'<span class="truncus-none" id="truncus-why-{name}">\w+', page)


@pytest.mark.parametrize(
    ("state", "is_stored", "expected"),
    [
        (State.PENDING, True, ["cancel"]),
        (State.SCHEDULED, False, ["cancel", "sync_now"]),
        (State.UNKNOWN, True, ["decide_sent", "decide_send"]),
        (State.FAILED, True, ["retry", "resend"]),
        (State.FAILED, False, ["resend"]),
        (State.BOUNCED, False, ["sync_now", "resend"]),
        (State.BOUNCED, True, ["sync_now", "resend"]),
        (State.COMPLAINED, True, ["sync_now"]),
        (State.DELIVERED, True, ["resend", "sync_now"]),
    ],
)
def test_there_are_at_most_two_main_buttons(admin_client, state, is_stored, expected):
    email = make(state=state)
    if is_stored:
        store(email)

    context = admin_client.get(page_of(email)).context

    assert [button.name for button in context["main_buttons"]] == expected
    others = {button.name for button in context["more_buttons"]}
    assert others.isdisjoint(expected)
    assert others | {*expected} == {button.name for button in context["buttons"]}


def test_html_is_framed_without_any_permission(admin_client):
    email = make(html_body="<h1>Hello</h1>")
    url = reverse("admin:truncus_django_email_html", args=[email.pk])

    page = admin_client.get(page_of(email)).text
    framed = admin_client.get(url)

    assert f'sandbox="" referrerpolicy="no-referrer" src="{url}"' in page
    assert "<h1>Hello</h1>" not in page
    assert "<h1>Hello</h1>" in framed.text
    policy = framed["Content-Security-Policy"]
    for rule in ("sandbox;", "default-src 'none'", "img-src data:", "form-action 'none'"):
        assert rule in policy
    assert framed["X-Content-Type-Options"] == "nosniff"
    assert framed["X-Frame-Options"] == "SAMEORIGIN"
    assert framed["Referrer-Policy"] == "no-referrer"
    assert framed["Cache-Control"].startswith("no-store")


def test_nothing_that_loads_or_leads_anywhere_is_left_in_the_frame(admin_client):
    email = make(
        html_body='<link rel=preconnect href="//a.example"><svg><a href="//b.example">svg</a></svg>'
        '<a href="//c.example">Grüße 😀</a><img src="/logo.png" alt="Logo">'
    )

    framed = admin_client.get(reverse("admin:truncus_django_email_html", args=[email.pk])).text

    assert '<a>Grüße 😀</a><img alt="Logo">' in framed
    assert "example" not in framed


def test_without_nh3_the_frame_says_what_to_install_and_the_text_is_shown(
    admin_client, monkeypatch
):
    monkeypatch.setitem(sys.modules, "nh3", None)
    email = make(html_body="<h1>Hello</h1>", text_body="Plain words")

    framed = admin_client.get(reverse("admin:truncus_django_email_html", args=[email.pk])).text

    assert "truncus-django[preview]" in framed
    assert "Hello" not in framed
    assert "Plain words" in admin_client.get(page_of(email)).text


def test_without_html_there_is_no_frame(admin_client):
    email = make()
    url = reverse("admin:truncus_django_email_html", args=[email.pk])

    assert "<iframe" not in admin_client.get(page_of(email)).text
    assert admin_client.get(url).status_code == 404
    other = reverse("admin:truncus_django_email_html", args=[uuid.uuid4()])
    assert admin_client.get(other).status_code == 404


def test_queries_do_not_grow_with_events(admin_client):
    email = make(html_body="<p>x")
    admin_client.get(page_of(email))

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(page_of(email)).status_code == 200
        return len(captured)

    few = queries()
    now = timezone.now()
    EmailEvent.objects.bulk_create(
        EmailEvent(
            email=email,
            message_id="m",
            event_id=f"e{number}",
            type="opened",
            occurred_at=now - timedelta(minutes=number),
            source="sync",
        )
        for number in range(300)
    )

    assert queries() == few
    page = admin_client.get(page_of(email))
    assert len(page.context["timeline"]) == 203  # also sent, delivered, recorded
    assert "There are older events" in page.text


def test_opens_are_cut_off_and_not_when_it_was_delivered(admin_client):
    email = make(delivered_at=None)
    now = timezone.now()
    EmailEvent.objects.bulk_create(
        EmailEvent(
            email=email,
            message_id="m",
            event_id=f"e{number}",
            type="opened" if number else "delivered",
            occurred_at=now - timedelta(hours=1) + timedelta(seconds=number),
            source="sync",
        )
        for number in range(250)
    )

    page = admin_client.get(page_of(email))

    [delivered] = [entry for entry in page.context["timeline"] if entry.title == "delivered"]
    assert delivered.at == now - timedelta(hours=1)
    assert "There are older events" in page.text


@pytest.mark.parametrize("subject", ["", "   ", "\u200f\u200b \u200f"])
def test_a_subject_that_nobody_can_see_has_words_instead(admin_client, subject):
    email = make(subject=subject)

    page = admin_client.get(page_of(email))

    assert page.context["heading"] == page.context["title"] == "(no subject)"
    assert "(no subject)" in admin_client.get(LOG).text


@pytest.mark.parametrize("name", ["00000000-0000-7000-8000-000000000000", "x", "1"])
def test_what_does_not_exist_leads_back(admin_client, name):
    assert admin_client.get(f"{LOG}{name}/change/").status_code == 302


def test_nothing_can_be_changed_here(admin_client):
    email = make()

    assert admin_client.post(page_of(email), {"subject": "Other"}).status_code == 405
    assert admin_client.get(f"{LOG}add/").status_code == 403
    email.refresh_from_db()
    assert email.subject == "Order 0"


# Moments that no time zone can show --------------------------------------------------------------


def _sync(truncus: FakeTruncus, answer: dict[str, Any]) -> None:
    make(state=State.SENT, message_id="m-1", next_sync_at=timezone.now())
    truncus.answers(200, {"id": "m-1", "status": "delivered", **answer})
    assert SyncJob().run().failed == 0


def _event_by_sync(truncus: FakeTruncus, at: Any) -> None:
    words = ("sent", "delivered", "opened")
    events = [{"id": f"e-{word}", "type": word, "created_at": at} for word in words]
    _sync(truncus, {"events": events, "updated_at": at})


def _counts_by_sync(truncus: FakeTruncus, at: Any) -> None:
    names = ("opened_at", "created_at", "updated_at", "scheduled_at", "retry_at")
    _sync(truncus, {"open_count": 1, **dict.fromkeys(names, at)})


def _webhook(truncus: FakeTruncus, at: Any) -> None:
    make(state=State.SENT, message_id="m-1")
    for word in ("opened", "bounced"):
        body = {"event": "email.delivery", "status": word, "message_id": "m-1", "timestamp": at}
        ingest([read_event(json.dumps(body).encode(), signed_at=1_790_000_000)])


def _answer_to_the_send(truncus: FakeTruncus, at: Any) -> None:
    moments = dict.fromkeys(("send_at", "retry_at", "created_at"), at)
    truncus.answers(200, {"status": "queued", "message_id": "m-1", **moments})
    TruncusMessage("Hello", "x", "shop@example.com", ["a@example.org"]).send()


def _own_send_at(truncus: FakeTruncus, at: Any) -> None:
    truncus.answers(200, {"status": "scheduled", "message_id": "m-1", "send_at": at})
    extra = {"send_at": str(at)}
    TruncusMessage("Hello", "x", "shop@example.com", ["a@example.org"], esp_extra=extra).send()


@pytest.mark.parametrize(
    "at",
    [
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        253_402_300_799,
        -62_135_596_800,
        10**30,
        float("nan"),
    ],
)
@pytest.mark.parametrize(
    "tell",
    [_event_by_sync, _counts_by_sync, _webhook, _answer_to_the_send, _own_send_at],
)
def test_a_moment_that_no_time_zone_can_show_breaks_no_page(
    admin_client, truncus: FakeTruncus, settings, tell: Callable[..., None], at: Any
):
    settings.TIME_ZONE = "Europe/Berlin"
    tell(truncus, at)
    email = Email.objects.get()

    for settings.TIME_ZONE in ("Etc/GMT-14", "Etc/GMT+12"):
        for page in (page_of(email), LOG, reverse("admin:truncus_django_email_dashboard")):
            assert admin_client.get(page).status_code == 200
        assert b"".join(confirm(admin_client, "export_csv", email)).count(b"\n") == 2
