"""The pages: who may see them, what they show, and that looking sends and stores nothing."""

from base64 import b64encode
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.mail import EmailMessage
from django.test import Client
from django.utils.html import escape

from tests.conftest import FakeTruncus
from tests.previews.conftest import LIST
from tests.previews.gallery import email_previews as gallery
from truncus_django.api.errors import SendCancelled
from truncus_django.html_preview import LINKS_HEADERS
from truncus_django.models import Email
from truncus_django.signals import pre_send

pytestmark = pytest.mark.django_db

CONFIRMATION = f"{LIST}gallery/OrderPreviews/confirmation/"
PAGES = [LIST, CONFIRMATION, f"{CONFIRMATION}html/"]


# Who may see them --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_in_development_everybody_sees_the_pages(client, path):
    response = client.get(path)

    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("is_asked_for", [False, True])
@pytest.mark.parametrize("who", ["nobody", "user", "staff"])
def test_elsewhere_staff_sees_them_where_that_is_asked_for(
    client, settings, path, who, is_asked_for
):
    settings.DEBUG = False
    settings.TRUNCUS = {**settings.TRUNCUS, "PREVIEWS_FOR_STAFF": is_asked_for}
    if who != "nobody":
        client.force_login(User.objects.create_user("mira", is_staff=who == "staff"))

    expected = 200 if who == "staff" and is_asked_for else 404
    assert client.get(path).status_code == expected


@pytest.mark.parametrize("method", ["get", "head", "post", "put", "options"])
def test_who_may_not_see_them_gets_the_answer_of_a_page_that_is_not_there(settings, method):
    settings.DEBUG = False
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    stranger = Client(enforce_csrf_checks=True)

    answers = [getattr(stranger, method)(path) for path in ("/nowhere/", *PAGES)]

    assert {answer.status_code for answer in answers} == {404}
    # Django's page quotes no path where DEBUG is off.
    assert len({answer.content for answer in answers}) == 1


def test_a_project_without_users_sees_them_in_development_alone(client, settings):
    settings.MIDDLEWARE = []

    assert client.get(CONFIRMATION).status_code == 200
    settings.DEBUG = False
    assert client.get(CONFIRMATION).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "gallery/OrderPreviews/_helper/",
        "gallery/OrderPreviews/__init__/",
        "gallery/OrderPreviews/with_argument/html/",
        "gallery/..%2f..%2fetc/passwd/",
        "%2e%2e/OrderPreviews/confirmation/",
        "gallery/%3Cscript%3E/confirmation/",
        "os/path/join/",
        "gallery/OrderPreviews/%00/",
    ],
)
def test_hostile_names_lead_nowhere(client, path):
    response = client.get(LIST + path)

    assert response.status_code == 404
    assert b"<script>" not in response.content


# What they show ----------------------------------------------------------------------------------


def test_the_list_names_the_previews_of_each_app(client):
    page = client.get(LIST).content.decode()

    assert f'href="{CONFIRMATION}"' in page
    assert "What a customer hears of an order." in page
    assert escape("At once, <b>with</b> the invoice.") in page


def test_without_previews_the_list_says_how_to_write_one(client, settings):
    settings.INSTALLED_APPS = settings.INSTALLED_APPS[:-1]

    assert b"class OrderPreviews(EmailPreviews)" in client.get(LIST).content


def test_a_broken_module_is_shown_with_its_traceback_beside_the_others(client, settings):
    settings.INSTALLED_APPS = ["tests.previews.broken", *settings.INSTALLED_APPS]

    for path in (LIST, f"{LIST}broken/OrderPreviews/confirmation/"):
        page = client.get(path).content.decode()
        assert escape("LookupError: <script>this module is broken</script>") in page
    assert CONFIRMATION in client.get(LIST).content.decode()


def test_an_email_is_shown_with_all_its_fields(shown):
    page = shown("OrderPreviews/confirmation")

    for part in (
        "Your order",
        escape("Shop <shop@example.com>"),
        "ann@example.org",
        "cc@example.org",
        "orders@example.com",
        "boss@example.org",  # of esp_extra, which wins
        "order: 42",
        "acme",
        "2100-01-01T00:00:00Z",
        "order-42",
        "stream",
        "X-Order",
        "invoice.pdf",
        "application/pdf, 8\xa0bytes",
        "Thank you!",
        escape('<a href="https://example.com/">Look</a>'),
    ):
        assert part in page, part
    assert "Warnings" not in page
    assert "The preview failed" not in page


def test_the_frame_shows_the_html_under_a_policy_that_lets_links_open_tabs_alone(client, shown):
    page = shown("OrderPreviews/confirmation")
    assert page.count('sandbox="allow-popups allow-popups-to-escape-sandbox"') == 2
    assert page.count("sandbox=") == 2
    assert page.count(f'src="{CONFIRMATION}html/?language=') == 2

    frame = client.get(f"{CONFIRMATION}html/")
    assert {name: frame[name] for name in LINKS_HEADERS} == LINKS_HEADERS
    assert b"<h1>Thank you!</h1>" in frame.content
    assert b'<a href="https://example.com/"' in frame.content


def test_a_link_in_the_text_can_be_followed(client, monkeypatch, shown):
    text = "Go to https://example.com/?a&b <script>"
    monkeypatch.setattr(
        gallery.OrderPreviews, "greeting", lambda self: EmailMessage("Hi", text, to=["a@b.example"])
    )

    page = shown("OrderPreviews/greeting")

    assert '<a href="https://example.com/?a&amp;b" target="_blank" rel="noopener' in page
    assert "<script>" not in page
    response = client.get(f"{LIST}gallery/OrderPreviews/greeting/")
    assert response["X-DNS-Prefetch-Control"] == "off"


def test_an_email_without_html_has_no_frame(client, shown):
    assert "<iframe" not in shown("OrderPreviews/greeting")
    assert client.get(f"{LIST}gallery/OrderPreviews/greeting/html/").status_code == 404


def test_the_languages_of_the_project_are_offered(shown, settings):
    settings.LANGUAGES = [("en", "English"), ("de", "German")]

    page = shown("OrderPreviews/greeting", "?language=de")
    assert "de: Passwort" in page
    assert '<option value="de" selected>' in page
    assert "en: Password" in shown("OrderPreviews/greeting", "?language=en")
    assert "en-us: Password" in shown("OrderPreviews/greeting")


def test_the_frame_is_in_the_language_of_the_page(shown):
    assert "html/?language=pt-br" in shown("OrderPreviews/confirmation", "?language=pt-br")


@pytest.mark.parametrize("language", ["xx", "", "../de", "<script>"])
def test_other_languages_are_not_there(client, language):
    for path in PAGES[1:]:
        assert client.get(path, {"language": language}).status_code == 404


def test_without_translations_no_language_is_offered(shown, settings):
    settings.USE_I18N = False

    assert 'name="language"' not in shown("OrderPreviews/greeting")


def test_a_hostile_email_is_text_on_the_page_and_inert_in_its_frame(client, shown, truncus):
    page = shown("HostilePreviews/hostile")
    assert "<script" not in page
    assert "<img" not in page
    assert page.count(escape("<script>alert(1)</script>")) >= 5

    frame = client.get(f"{LIST}gallery/HostilePreviews/hostile/html/").content
    assert b"Shown" in frame
    assert b"script" not in frame
    assert b"onerror" not in frame


@pytest.mark.parametrize("name", ["marked_as_safe", "marked_as_safe_and_unsendable"])
def test_what_a_template_has_marked_as_safe_is_text_on_the_page_too(shown, name):
    page = shown(f"HostilePreviews/{name}")

    assert "<script" not in page
    assert page.count(escape("<script>alert(1)</script>")) >= 6
    assert "The preview failed" not in page


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("without_recipient", "has no &#x27;to&#x27; recipient"),
        ("with_line_break", "The subject has a line break"),
    ],
)
def test_an_email_that_cannot_be_sent_says_why_and_is_shown_all_the_same(shown, name, problem):
    page = shown(f"UnsendablePreviews/{name}")

    assert "It cannot be sent." in page
    assert problem in page
    assert "Thank you!" in page
    assert "The preview failed" not in page


def test_of_an_email_by_merge_data_the_first_recipients_is_shown(client, shown):
    page = shown("NewsletterPreviews/merged")

    assert "<bdi>Ann &amp; Co, your points</bdi></h1>" in page
    assert "It is 2 emails by merge data; the first one is shown." in page
    assert "customer: 7" in page
    assert "bob@example.org" not in page
    frame = client.get(f"{LIST}gallery/NewsletterPreviews/merged/html/").content
    assert b"<p>Ann &amp; Co</p>" in frame


def test_wrong_merge_data_is_told(shown):
    page = shown("NewsletterPreviews/merged_for_a_stranger")

    assert "It cannot be sent." in page
    assert "merge_data has an address that is not in &#x27;to&#x27;" in page


def test_an_attachment_that_cannot_be_sent_says_why(shown):
    page = shown("UnsendablePreviews/without_recipient")

    assert "Attachment 1 has content of type object" in page
    assert escape("<p>Seen</p>") in page


def test_what_the_api_cannot_carry_is_named(shown, settings, monkeypatch):
    settings.TRUNCUS = {**settings.TRUNCUS, "UNSUPPORTED": "warn"}
    monkeypatch.setattr(gallery, "message", _with_calendar)

    page = shown("OrderPreviews/greeting")
    assert "Dropped or replaced: An alternative of type text/calendar." in page


def _with_calendar(**options: Any) -> mail.EmailMultiAlternatives:
    found = mail.EmailMultiAlternatives("Meeting", "Thank you!", to=["ann@example.org"])
    found.attach_alternative("BEGIN:VCALENDAR", "text/calendar")
    return found


def test_bulk_email_is_warned_of_where_nobody_can_unsubscribe(shown):
    assert "List-Unsubscribe header" in shown("NewsletterPreviews/digest")
    assert "List-Unsubscribe header" not in shown("NewsletterPreviews/with_unsubscribe")
    assert "List-Unsubscribe header" not in shown("OrderPreviews/greeting")


# Previews that fail ------------------------------------------------------------------------------


def test_a_preview_that_raises_shows_its_own_traceback_escaped(shown):
    page = shown("FailingPreviews/raises")

    assert escape("LookupError: </pre><script>alert(1)</script>") in page
    assert "<script" not in page
    assert "in raises" in page
    assert "rendering.py" not in page  # the page's own frames
    assert "Send me this" not in page


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("returns_none", "returns_none() returned None, and sent nothing. Return an EmailMessage"),
        ("returns_text", "returns_text() returned a str. Return an EmailMessage"),
        ("is_async", "is_async() is asynchronous; write it with def."),
        ("queries_a_broken_transaction", "IntegrityError"),
    ],
)
def test_a_preview_that_returns_no_email_says_what_to_do(client, shown, name, told):
    assert told in unescape(shown(f"FailingPreviews/{name}"))
    assert client.get(f"{LIST}gallery/FailingPreviews/{name}/html/").status_code == 404
    assert User.objects.count() == 0


def test_wrong_settings_are_told_by_the_preview(shown, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "TRACK_OPENS": "perhaps"}

    assert "ConfigurationError: TRACK_OPENS must be True or False." in shown(
        "OrderPreviews/greeting"
    )


# Nothing is sent or stored by looking ------------------------------------------------------------


@pytest.fixture
def recording(settings: Any, truncus: FakeTruncus) -> FakeTruncus:
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": True}
    return truncus


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
@pytest.mark.parametrize(
    ("name", "subject", "others"),
    [
        ("sends_one", "Sent by code", 0),
        ("sends_many", "Number 1", 2),
        ("sends_and_returns", "Returned", 1),
        ("returns_what_it_sent", "Your order", 0),
    ],
)
def test_what_a_preview_sends_is_shown_and_not_sent(
    shown, settings, recording, delivery, name, subject, others
):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}

    page = shown(f"SendingPreviews/{name}")

    assert f"<bdi>{subject}</bdi></h1>" in page
    more = "1 more email, which is" if others == 1 else f"{others} more emails, which are"
    assert (f"The preview sent {more} not shown" in page) == (others > 0)
    assert recording.seen == []
    assert Email.objects.count() == 0


def test_after_a_preview_emails_are_sent_as_ever(shown, recording):
    shown("SendingPreviews/sends_one")

    assert mail.send_mail("Hello", "Hello.", None, ["ann@example.org"]) == 1
    assert [seen.subjects for seen in recording.seen] == [["Hello"]]


@pytest.mark.parametrize("name", ["writes", "writes_and_raises"])
def test_what_a_preview_writes_is_undone(shown, name, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        page = shown(f"WritingPreviews/{name}")

    assert ("Hello ada" in page) == (name == "writes")
    assert User.objects.count() == 0
    assert callbacks == gallery.ON_COMMIT == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [False, True])
def test_what_a_preview_writes_is_undone_in_a_transaction_of_its_own_or_of_the_request(
    shown, is_atomic
):
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = is_atomic
    try:
        assert "Hello ada" in shown("WritingPreviews/writes")
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    assert User.objects.count() == 0
    assert gallery.ON_COMMIT == []


def test_what_a_preview_writes_into_another_database_is_undone(shown, other_database):
    alias = other_database()

    assert "1 written" in shown("WritingPreviews/writes_elsewhere")
    assert Email.objects.using(alias).count() == 0


# Send me this ------------------------------------------------------------------------------------


def test_send_me_this_sends_to_who_looks_at_it_and_to_nobody_else(client, staff, recording):
    assert "to mira@example.com" in client.get(CONFIRMATION).content.decode()

    page = client.post(CONFIRMATION).content.decode()

    assert "It was sent to mira@example.com." in page
    [request] = recording.seen
    [email] = request.emails
    assert email["to"] == "mira@example.com"
    assert email["subject"] == "Your order"
    assert not {"cc", "bcc", "send_at"} & email.keys()
    assert email["stream"] == "orders"
    assert request.key != "order-42"
    assert "example.org" not in str(email)
    assert Email.objects.get().to == ["mira@example.com"]


def test_send_me_this_sends_the_language_that_is_shown(client, staff, truncus):
    page = f"{LIST}gallery/OrderPreviews/greeting/"
    assert b'action="?language=de"' in client.get(f"{page}?language=de").content

    client.post(f"{page}?language=de")

    assert truncus.last.subjects == ["de: Passwort"]


def test_send_me_this_sends_what_the_preview_sent_itself(client, staff, truncus):
    client.post(f"{LIST}gallery/SendingPreviews/sends_one/")

    assert truncus.last.emails[0]["to"] == "mira@example.com"
    assert truncus.last.subjects == ["Sent by code"]


def test_send_me_this_sends_one_of_the_emails_by_merge_data(client, staff, truncus):
    client.post(f"{LIST}gallery/NewsletterPreviews/merged/")

    [email] = truncus.last.emails
    assert (email["to"], email["subject"]) == ("mira@example.com", "Ann & Co, your points")


def test_send_me_this_sends_nothing_to_those_in_wrong_merge_data(client, staff, truncus):
    page = client.post(f"{LIST}gallery/NewsletterPreviews/merged_for_a_stranger/").content

    assert b"It was not sent. MessageError" in page
    assert truncus.seen == []


def test_send_me_this_puts_it_into_the_outbox_of_a_project_that_has_one(
    client, staff, settings, recording
):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}

    page = client.post(CONFIRMATION).content.decode()

    assert "It is in the outbox. A worker sends it to mira@example.com." in page
    assert Email.objects.get().to == ["mira@example.com"]
    assert recording.seen == []


def test_send_me_this_goes_by_whatever_the_default_mailer_is(client, staff):
    page = client.post(CONFIRMATION).content.decode()  # Django's own, in memory

    assert "It was sent to mira@example.com." in page
    [message] = mail.outbox
    assert message.recipients() == ["mira@example.com"]
    assert message.message()["To"] == "mira@example.com"


def test_an_error_is_said_on_the_page(client, staff, truncus):
    truncus.answers(401, {"error": "No such key", "code": "invalid_api_key"})

    page = client.post(CONFIRMATION).content.decode()

    assert "It was not sent. AuthenticationError" in page
    assert "Check TRUNCUS[" in page


def test_an_email_that_a_receiver_cancels_is_not_said_to_be_sent(client, staff, truncus):
    def cancel(**_facts: object) -> None:
        raise SendCancelled

    pre_send.connect(cancel)
    try:
        page = client.post(CONFIRMATION).content.decode()
    finally:
        pre_send.disconnect(cancel)

    assert "It was not sent. A receiver of pre_send cancelled it." in page
    assert truncus.seen == []


def test_in_the_sandbox_it_is_not_said_to_arrive(client, staff, settings, truncus):
    settings.TRUNCUS = {**settings.TRUNCUS, "SANDBOX": True}
    truncus.answers(200, {"status": "sandbox", "message_id": "id-1"})

    assert b"in the sandbox, and delivers nothing" in client.post(CONFIRMATION).content


def test_an_email_that_cannot_be_sent_is_not_sent(client, staff, truncus):
    page = client.post(f"{LIST}gallery/UnsendablePreviews/with_line_break/").content.decode()

    assert "It was not sent. InvalidHeader: The subject has a line break" in page
    assert truncus.seen == []


def test_a_preview_that_fails_sends_nothing(client, staff, truncus):
    page = client.post(f"{LIST}gallery/FailingPreviews/raises/").content.decode()

    assert "The preview failed" in page
    assert truncus.seen == []


def test_it_is_not_offered_to_nobody(client, truncus):
    assert b"Send me this" not in client.get(CONFIRMATION).content
    client.post(CONFIRMATION)

    assert truncus.seen == []


def test_it_is_not_offered_to_somebody_without_an_address(client, staff, truncus):
    staff.email = ""
    staff.save()

    assert b"Send me this" not in client.get(CONFIRMATION).content
    client.post(CONFIRMATION)
    assert truncus.seen == []


def test_another_site_cannot_press_the_button(staff, truncus):
    visitor = Client(enforce_csrf_checks=True)
    visitor.force_login(staff)

    assert visitor.post(CONFIRMATION).status_code == 403
    assert truncus.seen == []


@pytest.mark.parametrize("path", [LIST, f"{CONFIRMATION}html/"])
def test_the_other_pages_take_no_form(client, path):
    assert client.post(path).status_code == 405


def test_an_image_inside_is_in_the_page_and_in_no_storage(client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    page = client.get(f"{LIST}gallery/ImagePreviews/inside/").content.decode()
    assert "INLINE_IMAGES" in page  # the error names the setting

    settings.TRUNCUS = {**settings.TRUNCUS, "INLINE_IMAGES": "hosted"}
    page = client.get(f"{LIST}gallery/ImagePreviews/inside/html/").content.decode()
    assert f"data:image/png;base64,{b64encode(gallery.PNG).decode()}" in page
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["exits", "is_cancelled", "half_a_character_in_an_error"])
def test_whatever_a_preview_raises_its_page_shows_it(shown, name):
    assert "Traceback" in shown(f"OddPreviews/{name}")


def test_half_a_character_is_shown_as_none(shown):
    assert "A ? B" in shown("OddPreviews/half_a_character")


def test_a_preview_may_look_at_the_status_of_what_it_sent(shown):
    assert "Traceback" not in shown("OddPreviews/looks_at_what_it_sent")


@pytest.mark.usefixtures("staff")
def test_send_me_this_is_in_the_chosen_language(client, truncus):
    client.post(f"{LIST}gallery/OddPreviews/in_words_of_a_language/?language=de")
    assert truncus.last.subjects == ["Passwort"]
