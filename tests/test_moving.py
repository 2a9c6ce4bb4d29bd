"""What docs/moving.md says of Anymail is so in Anymail's installed source, and complete."""

import inspect
import re
from pathlib import Path

import anymail
import pytest
from anymail import exceptions, message, signals
from django.core.mail import EmailMessage

from truncus_django import conf
from truncus_django import signals as own_signals
from truncus_django.api import errors
from truncus_django.message import TruncusStatus
from truncus_django.models import Email, EmailEvent

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "moving.md").read_text()
_, *_SECTIONS = re.split(r"^### ", PAGE, flags=re.M)
SECTIONS = {section.partition("\n")[0]: section for section in _SECTIONS}

NO_SERVICE = {
    "AnymailImproperlyInstalled",  # of a service's library
    "AnymailInvalidMailer",  # an AnymailConfigurationError
    "AnymailRequestsAPIError",  # an AnymailAPIError
}


def columns(section: str) -> tuple[set[str], set[str]]:
    """Return the names in the first and in the second column of a section's table."""
    rows = [line.split(" | ") for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    left, right = zip(*rows[2:], strict=True)
    return names(" ".join(left)), names(" ".join(right))


def names(text: str) -> set[str]:
    return set(re.findall(r"`([A-Za-z_]+)(?: = [^`]+)?`", text))


def test_every_setting_of_anymail_is_told():
    files = Path(anymail.__file__).parent.glob("**/base*.py")
    source = "".join(file.read_text() for file in files)
    known = set(re.findall(r'get_anymail_setting\(\s*"(\w+)"', source))
    left, right = columns("Settings")

    assert {name.upper() for name in known} <= left
    assert right <= {name.upper() for name in conf.SETTING_NAMES} | {
        "OPTIONS",
        "EmailRefused",
        "pre_send",
    }
    assert {"METADATA", "UNSUPPORTED", "TIMEOUT", "WEBHOOK_SECRETS"} <= right


def test_every_option_of_anymail_is_told():
    mixin = inspect.getsource(message.AnymailMessageMixin)
    left, _ = columns("Messages")

    assert set(re.findall(r'kwargs\.pop\("(\w+)"', mixin)) <= left


def test_every_attribute_of_anymails_status_is_told():
    left, right = columns("Status")

    assert vars(message.AnymailStatus()).keys() <= left
    assert right <= set(TruncusStatus.__dataclass_fields__) | {"str"}


def test_every_exception_of_anymail_is_told():
    known = {
        name
        for name, kind in vars(exceptions).items()
        if name.startswith("Anymail") and issubclass(kind, Exception)
    }
    left, right = columns("Exceptions")

    assert {name for name in known if not name.endswith("Warning")} - NO_SERVICE <= left
    assert right <= set(errors.__all__)


def test_every_signal_of_anymail_is_told():
    known = {name for name, it in vars(signals).items() if type(it) is signals.Signal}
    left, right = columns("Signals")

    assert known == {"pre_send", "post_send", "tracking", "inbound"} <= left
    assert right <= {*own_signals.__all__, "message", "payload", "status", "alias", "error"} | {
        "email",
        "event",
        "old_state",
        "new_state",
    }


def test_every_attribute_of_anymails_tracking_event_is_told():
    left, right = columns("Tracking events")

    assert vars(signals.AnymailTrackingEvent(event_type="sent")).keys() <= left
    own = {field.name for model in (Email, EmailEvent) for field in model._meta.get_fields()}
    assert right <= own


@pytest.mark.django_db
def test_a_message_of_anymails_class_is_sent_with_its_options(truncus_emulator):
    sent = message.AnymailMessage("Hello", "Text", to=["ann@example.org"], metadata={"order": 42})
    sent.track_opens = False
    sent.send()

    (email,) = truncus_emulator.emails
    assert email.payload["metadata"] == {"order": "42"}
    assert email.payload["track_opens"] is False
    assert sent.truncus_status.is_accepted
    assert sent.anymail_status.status is None


# From SMTP ----------------------------------------------------------------------------------------


def with_a_file() -> EmailMessage:
    bare = EmailMessage("Hello", to=["ann@example.org"])
    bare.attach("hello.txt", "Hello", "text/plain")
    return bare


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(EmailMessage("", "Text", to=["ann@example.org"]), id="empty-subject"),
        pytest.param(with_a_file(), id="attachment-without-a-body"),
        pytest.param(EmailMessage("Hello", "Text", cc=["ann@example.org"]), id="cc-alone"),
        pytest.param(EmailMessage("Hello", "Text", bcc=["ann@example.org"]), id="bcc-alone"),
    ],
)
def test_what_smtp_takes_and_the_api_does_not_is_refused_before_the_request(
    refused, truncus_emulator
):
    with pytest.raises(errors.MessageError):
        refused.send()

    assert truncus_emulator.requests == []
    assert refused.message()  # Django's own backends would take it
