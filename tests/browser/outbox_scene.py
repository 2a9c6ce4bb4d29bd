"""An outbox on a bad morning, for the screenshots: some wait, one is unknown."""

import json
from datetime import datetime, timedelta

from django.utils import timezone

from truncus_django.mailers import get_mailer
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry, Priority
from truncus_django.states import State

_ILL = "Truncus could not hand the email to its provider (PROVIDER_ERROR, HTTP 502)."
_LOST = (
    "It may have been sent, over 24 hours ago; Truncus no longer knows its key. So it was not "
    "tried again; find out in Truncus, then decide in the admin."
)
_LIMITED = "Too many requests: 60 a minute are allowed (RATE_LIMIT_MINUTE, HTTP 429)."


def write_outbox() -> tuple[Email, Email]:
    """Write it; return an email that is tried again, and one that somebody has to decide on."""
    now = timezone.now()
    for number, (to, subject) in enumerate(_WAITING):
        priority = Priority.HIGH if subject.startswith("Your code") else Priority.NORMAL
        _entry(_email(now, 30 + 25 * number, to, subject, State.PENDING), priority=priority)
    batch = OutboxBatch.objects.create(
        idempotency_key="4c1f9d52-outbox",
        mailer="default",
        priority=Priority.NORMAL,
        due_at=now + timedelta(minutes=4),
        attempts=3,
        first_request_at=now - timedelta(minutes=5),
        error_code="PROVIDER_ERROR",
        error=_ILL,
    )
    for number, (to, subject) in enumerate(_TRIED):
        tried = _email(
            now,
            360 + 20 * number,
            to,
            subject,
            State.SENDING,
            error=_ILL,
            error_code="PROVIDER_ERROR",
            attempts=3,
        )
        _entry(tried, is_waiting=False, batch=batch)
    unknown = _email(
        now,
        26 * 3600,
        "oliver.brown@example.net",
        "Your invoice for order 48102",
        State.UNKNOWN,
        error=_LOST,
        attempts=9,
    )
    _entry(unknown, is_waiting=False)
    # Unknown, and of this morning: so that the list shows it, too.
    Email.objects.filter(pk=unknown.pk).update(created_at=now - timedelta(minutes=7))
    OutboxAccount.objects.create(
        account=get_mailer("default").client.account,
        paused_until=now + timedelta(minutes=1),
        failures=3,
        error_code="RATE_LIMIT_MINUTE",
        error=_LIMITED,
        recent_requests=[now.timestamp() - 4],
    )
    return tried, unknown


def _email(
    now: datetime, seconds: int, to: str, subject: str, state: State, **fields: object
) -> Email:
    return Email.objects.create(
        mailer="default",
        tenant_id="accounts" if subject.startswith("Your code") else "shop",
        from_email="Leaf & Kettle <tea@example.com>",
        to=[to],
        subject=subject,
        search_text=f"{to} {subject}".lower(),
        state=state,
        created_at=now - timedelta(seconds=seconds),
        **fields,
    )


def _entry(email: Email, **fields: object) -> OutboxEntry:
    payload = json.dumps({"to": email.to, "subject": email.subject, "text": "Dear customer, …"})
    return OutboxEntry.objects.create(
        email=email,
        payload=payload,
        size=18_204,
        mailer=email.mailer,
        created_at=email.created_at,
        **fields,
    )


_WAITING = (
    ("lena.bauer@example.org", "Your code is 481 203"),
    ("hana.sato@example.net", "Your order 48217 is on its way"),
    ("ben.okafor@example.com", "Your order 48216 is on its way"),
    ("priya.nair@example.com", "Your invoice for order 48216"),
    ("carla.moreno@example.org", "Your order 48215 is on its way"),
)
_TRIED = (
    ("marco.rossi@example.com", "Your invoice for order 48214"),
    ("ada.lindqvist@example.com", "Your order 48213 is on its way"),
)
