"""The option ``unsubscribe``: headers for one-click unsubscribe (RFC 8058), and links in bodies."""

from typing import Any
from urllib.parse import quote

from django.core.mail import EmailMessage

from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import InvalidHeader, MessageError
from truncus_django.conf import ConfigurationError, Settings
from truncus_django.message import option
from truncus_django.sending.addresses import RECIPIENT_FIELDS, listed, mailbox
from truncus_django.sending.screening import LIST_FIELD, is_on
from truncus_django.unsubscribe import PLACEHOLDER, Subscription, link_of
from truncus_django.validation import LONGEST_HEADER, checked_line

HEADERS = ("List-Unsubscribe", "List-Unsubscribe-Post")
_BODIES = ("text", "html")
_LONGEST_LIST_NAME = 100


def add_unsubscribe(message: EmailMessage, email: EmailFields, settings: Settings) -> bool:
    """Add the headers and links that the message asks for; return whether there are any.

    Args:
        message: it has the option or not.
        email: its final fields, which are changed.

    Raises:
        MessageError: the option is no name of a list, there is more than one recipient, whose link
            would be the others', too, the message has such headers of its own, or a body has a
            link and the message no list.
        ConfigurationError: the project lacks the setting or the page for links, or does not look
            at suppressed addresses.
    """
    given = option(message, "unsubscribe")
    if given is None:
        _refuse_links(email)
        return False
    list_name = _list_name(given)
    if not is_on(settings):
        raise ConfigurationError(
            "An email has the option unsubscribe, and nobody who unsubscribes would be left out: "
            "set TRUNCUS['SUPPRESS'] to 'learn' or 'manual', with 'truncus_django' in "
            "INSTALLED_APPS."
        )
    recipients = [each for name in RECIPIENT_FIELDS for each in listed(email.get(name))]
    if len(recipients) != 1:
        raise MessageError(
            "The message has the option unsubscribe and more than one recipient, who would get "
            "one link. Send one message to each, or set merge_data={}."
        )
    tenant_id = str(email.get("tenant_id") or "")
    link = link_of(Subscription(mailbox(recipients[0], "to"), list_name, tenant_id), settings)
    email["headers"] = {**_own_headers(email), **_headers(link, settings)}
    for name in _BODIES:
        if isinstance(email.get(name), str):
            email[name] = email[name].replace(PLACEHOLDER, link)
    if isinstance(email.get("variables"), dict):
        email["variables"] = {
            name: value.replace(PLACEHOLDER, link) if isinstance(value, str) else value
            for name, value in email["variables"].items()
        }
    email[LIST_FIELD] = list_name
    return True


def _list_name(given: Any) -> str:
    if not isinstance(given, str) or not 0 < len(given.strip()) <= _LONGEST_LIST_NAME:
        raise MessageError(
            "unsubscribe must be the name of a list, such as 'digest', with at most "
            f"{_LONGEST_LIST_NAME} characters."
        )
    checked_line(given, "unsubscribe", MessageError)
    return given.strip()


def _headers(link: str, settings: Settings) -> dict[str, str]:
    links = [f"<{link}>"]
    if settings.unsubscribe_mailto is not None:
        token = link.rstrip("/").rpartition("/")[2]
        address = quote(settings.unsubscribe_mailto, safe="@+")
        links.append(f"<mailto:{address}?subject=unsubscribe%20{token}>")
    text = ", ".join(links)
    if len(text) > LONGEST_HEADER:
        raise InvalidHeader("The unsubscribe link is too long; use a shorter tenant_id.")
    return {"List-Unsubscribe": text, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def _own_headers(email: EmailFields) -> dict[str, Any]:
    headers = email.get("headers")
    own = dict(headers) if isinstance(headers, dict) else {}
    unwanted = {name.lower() for name in HEADERS}
    if any(str(name).lower() in unwanted for name in own):
        raise InvalidHeader(
            "The message has the option unsubscribe and a List-Unsubscribe header of its own; "
            "leave one of them out."
        )
    return own


def _refuse_links(email: EmailFields) -> None:
    """Refuse a body with a link that would lead nowhere."""
    for name in _BODIES:  # a loop, as every email of a long list is asked
        body = email.get(name)
        if isinstance(body, str) and PLACEHOLDER in body:
            raise MessageError(
                "A body has an unsubscribe link, and the message no list: set the option "
                "unsubscribe."
            )
    variables = email.get("variables")
    if isinstance(variables, dict) and any(
        isinstance(value, str) and PLACEHOLDER in value for value in variables.values()
    ):
        raise MessageError(
            "A variable has an unsubscribe link, and the message no list: set the option "
            "unsubscribe."
        )
