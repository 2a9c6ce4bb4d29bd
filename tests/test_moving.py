"""The tables of docs/moving.md: complete by the other packages' source, and true of this one."""

import ast
import inspect
import re
from pathlib import Path

import anymail
import mailer
import post_office
import pytest
from anymail import exceptions, message, signals
from django.conf import global_settings
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends import smtp
from django.core.management import get_commands, load_command_class

from truncus_django import conf
from truncus_django import signals as own_signals
from truncus_django.api import errors
from truncus_django.message import TruncusMessage, TruncusStatus
from truncus_django.models import Email, EmailEvent

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "moving.md").read_text()
_, *_SECTIONS = re.split(r"^##+ ", PAGE, flags=re.M)
SECTIONS = {section.partition("\n")[0]: section for section in _SECTIONS}
SETTINGS = {name.upper() for name in conf.SETTING_NAMES}
OPTIONS = set(inspect.signature(TruncusMessage).parameters) | {
    "cc",
    "bcc",
    "headers",
    "attachments",
}

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


def source(package: object) -> str:
    """Return the code of an installed package, whose modules import only where it is in use."""
    folder = Path(inspect.getfile(package)).parent  # type: ignore[arg-type]
    return "".join(file.read_text() for file in sorted(folder.glob("**/*.py")))


def test_every_setting_of_anymail_is_told():
    files = Path(anymail.__file__).parent.glob("**/base*.py")
    code = "".join(file.read_text() for file in files)
    known = set(re.findall(r'get_anymail_setting\(\s*"(\w+)"', code))
    left, right = columns("Settings of Anymail")

    assert {name.upper() for name in known} <= left
    assert right <= SETTINGS | {"OPTIONS", "EmailRefused", "pre_send"}
    assert {"METADATA", "UNSUPPORTED", "TIMEOUT", "WEBHOOK_SECRETS"} <= right


def test_every_option_of_anymail_is_told():
    mixin = inspect.getsource(message.AnymailMessageMixin)
    left, _ = columns("Messages of Anymail")

    assert set(re.findall(r'kwargs\.pop\("(\w+)"', mixin)) <= left


def test_every_attribute_of_anymails_status_is_told():
    left, right = columns("Status of Anymail")

    assert vars(message.AnymailStatus()).keys() <= left
    assert right <= set(TruncusStatus.__dataclass_fields__) | {"str"}


def test_every_exception_of_anymail_is_told():
    known = {
        name
        for name, kind in vars(exceptions).items()
        if name.startswith("Anymail") and issubclass(kind, Exception)
    }
    left, right = columns("Exceptions of Anymail")

    assert {name for name in known if not name.endswith("Warning")} - NO_SERVICE <= left
    assert right <= set(errors.__all__)


def test_every_signal_of_anymail_is_told():
    known = {name for name, it in vars(signals).items() if type(it) is signals.Signal}
    left, right = columns("Signals of Anymail")

    assert known == {"pre_send", "post_send", "tracking", "inbound"} <= left
    assert right <= {*own_signals.__all__, "message", "payload", "status", "alias", "error"} | {
        "email",
        "event",
        "old_state",
        "new_state",
    }


def test_every_attribute_of_anymails_tracking_event_is_told():
    left, right = columns("Tracking events of Anymail")

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


def test_every_setting_of_smtp_is_told():
    django = {name for name in dir(global_settings) if name.startswith("EMAIL_")}
    options = set(inspect.signature(smtp.EmailBackend).parameters) - {"fail_silently", "kwargs"}
    left, right = columns("Settings of SMTP")

    assert (django - {"EMAIL_BACKEND", "EMAIL_SUBJECT_PREFIX"}) | options <= left
    assert {"API_KEY", "TIMEOUT"} <= right <= SETTINGS


def test_every_exception_here_for_one_of_smtp_exists():
    _, right = columns("Exceptions of SMTP")

    assert {"EmailRefused", "NetworkError"} <= right <= set(errors.__all__)


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


# From django-post_office --------------------------------------------------------------------------


def test_every_setting_of_post_office_is_told():
    known = set(re.findall(r"get_config\(\)\.get\('(\w+)'", source(post_office)))
    others = set(re.findall(r"getattr\(settings, '(POST_OFFICE_\w+)'", source(post_office)))
    left, right = columns("Settings of post_office")

    assert len(known) > 15
    assert left == known
    assert others <= names(SECTIONS["Settings of post_office"])
    elsewhere = {"EMAIL_BACKEND", "MAILERS", "LOGGING", "truncus_worker", "pre_send"}
    assert right <= SETTINGS | OPTIONS | elsewhere
    assert {"DELIVERY", "DISPATCHER", "SANDBOX", "TIMEOUT", "WEBHOOK_SECRETS"} <= right


def test_every_argument_of_post_office_is_told():
    tree = ast.parse((Path(inspect.getfile(post_office)).parent / "mail.py").read_text())
    send = next(it for it in tree.body if isinstance(it, ast.FunctionDef) and it.name == "send")
    left, right = columns("Calls of post_office")

    assert left == {argument.arg for argument in send.args.args}
    assert {"to", "from_email", "html", "send_at", "template_id", "variables"} <= right
    assert right <= OPTIONS | {"delivery"}


# From django-mailer -------------------------------------------------------------------------------


def test_every_setting_of_django_mailer_is_told():
    known = set(re.findall(r'getattr\(settings, "(MAILER_\w+)"', source(mailer)))
    left, right = columns("Settings of django-mailer")

    assert len(known) > 10
    assert left == known
    elsewhere = {"EMAIL_BACKEND", "MAILERS", "truncus_worker", "email_state_changed"}
    assert right <= SETTINGS | elsewhere
    assert {"DELIVERY", "REQUESTS_PER_SECOND", "STORE_BODIES"} <= right


def test_every_function_of_django_mailer_is_told():
    functions = {
        name
        for name, it in vars(mailer).items()
        if inspect.isfunction(it) and name != "get_priority"
    }
    section = SECTIONS["Calls of django-mailer"]

    assert functions == set(re.findall(r"`(\w+)\(\)`", section))
    assert [name for name in functions - {"send_html_mail"} if not hasattr(mail, name)] == []
    _, right = columns("Calls of django-mailer")
    assert right <= OPTIONS | {"TruncusMessage", "Email", "pre_send"}


# Their commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "section"),
    [(post_office, "Commands of post_office"), (mailer, "Commands of django-mailer")],
)
def test_every_command_is_told(peer, section):
    folder = Path(inspect.getfile(peer)).parent / "management" / "commands"
    known = {file.stem for file in folder.glob("[a-z]*.py")}
    rows = [line.split(" | ") for line in SECTIONS[section].splitlines() if line.startswith("| `")]

    assert {name for left, _ in rows for name in re.findall(r"`(\w+)", left)} == known
    for _, right in rows:
        for name, option in re.findall(r"`(truncus_\w+)(?: (--[\w-]+)[^`]*)?`", right):
            parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
            assert option in parser.format_help()
