"""Events of emails, told to the project as Truncus tells them: by a signed webhook."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.apps import apps
from django.core.mail import EmailMessage
from django.test import Client, TestCase
from django.urls import NoReverseMatch, reverse
from django.utils.html import strip_tags

from truncus_django.api import contract
from truncus_django.api.encoding import encode
from truncus_django.api.webhooks import sign
from truncus_django.conf import ConfigurationError, get_settings
from truncus_django.emulator import EmailRecord
from truncus_django.emulator.answers import WEBHOOK_EVENTS
from truncus_django.message import TruncusStatus
from truncus_django.sending.payload import moment_in_utc
from truncus_django.states import EVENT_WORDS, OUTBOX_STATES, usual_word
from truncus_django.testing.sent_email import SentEmail
from truncus_django.validation import did_you_mean

if TYPE_CHECKING:
    from truncus_django.models import Email

_DAY_S = 24 * 60 * 60


def deliver_event(
    email: "Email | EmailMessage | SentEmail | EmailRecord | str",
    event: str,
    *,
    reason: str | None = None,
    at: datetime | float | None = None,
) -> "Email":
    """Post a webhook about an email to the project, signed as Truncus signs it; return its record.

    It goes through the project's own URLs and middleware. Receivers of ``email_state_changed`` and
    ``email_event`` run in a ``TestCase``, too, where nothing is ever committed: do not put it into
    ``captureOnCommitCallbacks(execute=True)``, which would run them again.

    Args:
        email: its record, the message that was sent, what :func:`assert_email_sent` returned, an
            email of the emulator, or Truncus's id.
        event: what happened: ``"delivered"``, ``"bounced"``, ``"complained"``, ``"opened"``,
            ``"clicked"`` or another word of Truncus. Each call is an event of its own.
        reason: why, such as ``"mailbox_full"``.
        at: when, in whole seconds: a datetime, in the current time zone where it has none, or unix
            seconds; now if ``None``.

    Returns:
        the record as it is afterwards. An event that comes late changes no state.

    Raises:
        ConfigurationError: the project has no log, no URL for webhooks or no ``WEBHOOK_SECRETS``.
        ValueError: there is no such event or moment; the email is not recorded, or not sent yet.
        TypeError: ``email`` is none of these.
        AssertionError: the project did not answer with 200.
    """
    if not apps.is_installed("truncus_django"):
        raise ConfigurationError(
            "deliver_event() needs the log: add 'truncus_django' to INSTALLED_APPS."
        )
    word, url, secret, now = _word(event), _url(), _secret(), int(time.time())
    record = _record(email)
    body = encode(
        {
            "event": WEBHOOK_EVENTS.get(word, contract.WEBHOOK_EVENT),
            "message_id": record.message_id,
            "status": word,
            **({} if reason is None else {"reason": reason}),
            "event_id": f"evt_{uuid4().hex}",
            "timestamp": now if at is None else _timestamp(at, now),
        }
    )
    signature = sign(body, secret=secret, timestamp=now)
    headers = {contract.TIMESTAMP_HEADER: str(now), contract.SIGNATURE_HEADER: signature}
    with TestCase.captureOnCommitCallbacks(using=type(record).objects.db, execute=True):
        answer = Client(enforce_csrf_checks=True).post(
            url, body, content_type="application/json", headers=headers, secure=True
        )
    if answer.status_code != 200:
        raise AssertionError(
            f"The project answered the webhook with {answer.status_code}, and Truncus would send "
            f"it again: {_shown(answer)}"
        )
    record.refresh_from_db()
    return record


def _word(event: str) -> str:
    word = usual_word(event)
    if word not in EVENT_WORDS:
        raise ValueError(
            f"There is no event {event!r}{did_you_mean(event, EVENT_WORDS)} The events: "
            f"{', '.join(EVENT_WORDS)}."
        )
    return word


def _url() -> str:
    try:
        return reverse("truncus_django:webhook")
    except NoReverseMatch:
        raise ConfigurationError(
            "The project has no URL for webhooks. Add "
            "path('truncus/', include('truncus_django.urls')) to its urls."
        ) from None


def _secret() -> str:
    secrets = get_settings().webhook_secrets
    if not secrets:
        raise ConfigurationError(
            "Without a secret the project refuses every webhook. Set TRUNCUS['WEBHOOK_SECRETS'], "
            "in tests to any."
        )
    return secrets[0]


def _timestamp(at: datetime | float, now: int) -> int:
    try:
        seconds = int(moment_in_utc(at).timestamp())
    except (ValueError, OverflowError, OSError, TypeError):
        raise ValueError("at must be a datetime or unix seconds.") from None
    if seconds > now + _DAY_S:
        raise ValueError("at is more than a day ahead; such a time is taken for a mistake.")
    return seconds


def _shown(answer: Any) -> str:
    target = answer.headers.get("Location")
    if target:
        return f"a redirect to {target}"
    return " ".join(strip_tags(answer.content.decode(errors="replace")).split())[:200]


# The record of an email ---------------------------------------------------------------------------

_NOT_RECORDED = (
    "The email is not recorded. Emails are where they go through Truncus and TRUNCUS['RECORD'] is "
    "on; Django's test runner keeps them in memory: use the fixture truncus_emulator, or "
    "use_emulator()."
)


def _record(email: Any) -> "Email":
    """Return the record of an email that has an id of Truncus's."""
    # Here, because its models need the app, which is optional.
    from truncus_django.models import Email

    found: Email | None
    if isinstance(email, Email):
        found = email if Email.objects.filter(pk=email.pk).exists() else None
    else:
        message_id, pk = _ids(email)
        known = {"pk": pk} if pk is not None else {"message_id": message_id}
        found = Email.objects.filter(**known).first() if pk or message_id else None
    if found is None:
        raise ValueError(_NOT_RECORDED)
    found.refresh_from_db()
    if found.message_id is None:
        raise ValueError(_why_no_id(found.state))
    return found


def _ids(email: Any) -> tuple[str | None, Any]:
    """Return Truncus's id of an email, and the primary key of its record, as far as it tells."""
    if isinstance(email, str):
        return email, None
    if isinstance(email, EmailRecord):
        return email.id, None
    if isinstance(email, SentEmail):
        return email.message_id, email.email_pk
    if not isinstance(email, EmailMessage):
        raise TypeError(
            "deliver_event() takes a record, a message, what assert_email_sent() returns, an email "
            f"of the emulator or an id, not {type(email).__name__}."
        )
    status: TruncusStatus | None = getattr(email, "truncus_status", None)
    if status is None:
        return None, None
    if status.recipients:
        raise ValueError(
            "The message has merge data and is an email for each recipient: give "
            "message.truncus_status.recipients[address].id."
        )
    return status.id, status.email_pk


def _why_no_id(state: str) -> str:
    if state in OUTBOX_STATES:
        return "The email waits in the outbox, and Truncus knows nothing of it: call send_outbox()."
    return f"Truncus has not accepted the email, which is {state!r}: it has no events."
