"""Options of a message in its payload, and the settings that are their defaults."""

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.core.mail import EmailMessage
from django.utils import timezone as django_timezone
from django.utils.functional import lazystr

from tests.sending.payloads import DROPPING, NOW, a_message, email_of, payload_of, refused
from truncus_django.api.errors import MessageError, UnsupportedFeature
from truncus_django.conf import Settings


def test_options_of_the_message_are_carried():
    payload = payload_of(
        a_message(
            tenant_id="acme",
            metadata={"order": 42, "total": Decimal("9.90"), "placed": date(2026, 3, 1)},
            track_opens=False,
            track_clicks=True,
            idempotency_key="order-42",
            sandbox=True,
        )
    )
    assert payload.email["tenant_id"] == "acme"
    assert payload.email["metadata"] == {"order": "42", "total": "9.90", "placed": "2026-03-01"}
    assert payload.email["track_opens"] is False
    assert payload.email["track_clicks"] is True
    assert payload.idempotency_key == "order-42"
    assert payload.is_sandbox is True


def test_options_are_read_from_any_django_message():
    message = EmailMessage("Subject", "Text", "a@example.com", ["b@example.com"])
    message.tenant_id = "acme"
    message.track_opens = False
    email = email_of(message)
    assert (email["tenant_id"], email["track_opens"]) == ("acme", False)


DEFAULTS = Settings(
    tenant_id="acme",
    track_opens=False,
    track_clicks=True,
    sandbox=True,
    metadata={"site": "shop", "order": "none"},
)


def test_settings_are_the_default_of_every_message():
    payload = payload_of(a_message(), DEFAULTS)
    assert payload.is_sandbox is True
    assert payload.email["tenant_id"] == "acme"
    assert payload.email["track_opens"] is False
    assert payload.email["track_clicks"] is True
    assert payload.email["metadata"] == {"site": "shop", "order": "none"}


def test_the_message_wins_over_the_settings():
    message = a_message(
        tenant_id="other",
        track_opens=True,
        track_clicks=False,
        sandbox=False,
        metadata={"order": "42"},
    )
    payload = payload_of(message, DEFAULTS)
    assert payload.is_sandbox is False
    assert payload.email["tenant_id"] == "other"
    assert payload.email["track_opens"] is True
    assert payload.email["track_clicks"] is False
    assert payload.email["metadata"] == {"site": "shop", "order": "42"}


def test_settings_are_not_changed_by_a_message():
    payload_of(a_message(metadata={"order": "42"}), DEFAULTS)
    assert DEFAULTS.metadata == {"site": "shop", "order": "none"}


@pytest.mark.parametrize("name", ["variables", "merge_global_data"])
def test_template_needs_no_body(name):
    message = a_message(body="", template_id="welcome", **{name: {"first": "Ann", "count": 3}})
    email = email_of(message)
    assert email["template_id"] == "welcome"
    assert email["variables"] == {"first": "Ann", "count": "3"}
    assert email.keys().isdisjoint({"html", "text", "merge_global_data"})


def test_html_beside_a_template_is_unsupported():
    message = a_message(html="<p>", template_id="welcome")
    assert "leave one of them out" in refused(message, UnsupportedFeature)
    payload = payload_of(message, DROPPING)
    assert "html" not in payload.email
    assert payload.email["text"] == "Text"
    assert payload.dropped == ("An HTML body beside template_id",)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"variables": {"a": "1"}}, "no template_id"),
        ({"template_id": "t", "variables": {"a": 1}, "merge_global_data": {"a": 1}}, "two names"),
        ({"template_id": "t", "variables": {"a": None}}, "strings or numbers"),
        ({"template_id": ""}, "template_id must be"),
        ({"tenant_id": ""}, "tenant_id must be"),
        ({"tenant_id": ["acme"]}, "tenant_id must be"),
        ({"tenant_id": "a\nb"}, "tenant_id has a line break"),
        ({"metadata": ["a"]}, "metadata must be a dict"),
        ({"metadata": {1: "a"}}, "not int to str"),
        ({"metadata": {"a": ["b"]}}, "not str to list"),
        ({"metadata": {"a": "\ud800"}}, "metadata holds half a character"),
        ({"track_opens": "no"}, "track_opens must be True, False or None"),
        ({"track_clicks": 1}, "track_clicks must be True, False or None"),
        ({"sandbox": "yes"}, "sandbox must be True, False or None"),
        ({"idempotency_key": ""}, "idempotency_key must be a string that is not empty"),
        ({"idempotency_key": True}, "idempotency_key must be a string"),
        ({"idempotency_key": "schlüssel"}, "1 to 255 printable ASCII"),
        ({"idempotency_key": "x" * 256}, "1 to 255 printable ASCII"),
        ({"esp_extra": ["a"]}, "esp_extra must be a dict"),
        ({"esp_extra": {1: "a"}}, "esp_extra must be a dict"),
    ],
)
def test_impossible_option_is_refused(options, reason):
    assert reason in refused(a_message(**options))


def test_idempotency_key_may_be_a_uuid():
    key = uuid.UUID(int=1)
    assert payload_of(a_message(idempotency_key=key)).idempotency_key == str(key)


def test_esp_extra_is_added_to_the_fields_of_the_api():
    email = email_of(esp_extra={"react": "<Welcome/>", "track_opens": False})
    assert (email["react"], email["track_opens"]) == ("<Welcome/>", False)


@pytest.mark.parametrize("name", ["tags", "envelope_sender"])
def test_anymail_option_that_truncus_lacks_is_unsupported(name):
    message = a_message()
    setattr(message, name, ["Geheimnis"])
    text = refused(message, UnsupportedFeature)
    assert f"The option {name!r} cannot be sent through Truncus" in text
    assert "Geheimnis" not in text
    assert payload_of(message, DROPPING).dropped == (f"The option {name!r}",)


@pytest.mark.parametrize("settings", [Settings(), DROPPING])
@pytest.mark.parametrize("value", [{}, {"ann@example.org": {"name": "Ann"}}])
@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_one_payload_is_never_an_email_to_recipients_that_are_to_get_one_each(
    name, value, settings
):
    message = a_message()
    message.to = ["ann@example.org", "bob@example.org"]
    setattr(message, name, value)
    text = refused(message, MessageError, settings)
    assert text.startswith(f"{name} makes one email for each recipient")
    assert "@" not in text


@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_anymail_none_of_a_merge_option_is_no_option(name):
    message = a_message()
    setattr(message, name, None)
    assert email_of(message).keys() == {"from", "to", "subject", "text"}


def test_anymail_unset_is_no_option():
    message = a_message()
    message.metadata = message.tags = message.send_at = type("UNSET", (), {})
    message.merge_data = message.merge_metadata = message.merge_headers = message.tags
    assert email_of(message).keys() == {"from", "to", "subject", "text"}


# send_at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("send_at", "sent"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), "2026-07-01T12:00:00Z"),
        (datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-5))), "2026-07-01T17:00:00Z"),
        (datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC), "2026-07-01T12:00:00.250Z"),
        (datetime(2026, 7, 1, 12), "2026-07-01T10:00:00Z"),  # summer in Berlin
        (datetime(2026, 12, 1, 12), "2026-12-01T11:00:00Z"),  # winter in Berlin
        (date(2026, 7, 1), "2026-06-30T22:00:00Z"),
        ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
        ("2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00Z"),
        (lazystr("2026-07-01 12:00"), "2026-07-01T10:00:00Z"),
        (1782907200, "2026-07-01T12:00:00Z"),
        (1782907200.5, "2026-07-01T12:00:00.500Z"),
    ],
)
def test_send_at_is_sent_as_utc(send_at, sent):
    assert email_of(send_at=send_at)["send_at"] == sent


def test_naive_send_at_is_in_the_current_time_zone():
    with django_timezone.override("Asia/Tokyo"):
        email = email_of(send_at=datetime(2026, 7, 1, 12))
    assert email["send_at"] == "2026-07-01T03:00:00Z"


@pytest.mark.parametrize("send_at", [NOW, NOW - timedelta(seconds=1), date(2026, 3, 1), 0])
def test_send_at_in_the_past_is_refused(send_at):
    assert "leave it out to send now" in refused(a_message(send_at=send_at))


@pytest.mark.parametrize("send_at", ["tomorrow", "", True, float("nan"), 1e20, datetime.max, ["x"]])
def test_impossible_send_at_is_refused(send_at):
    with django_timezone.override("America/New_York"):
        assert "must be a datetime" in refused(a_message(send_at=send_at))
