"""A past for the demo's log, so that its dashboard has something to show."""

import random
from datetime import datetime, timedelta

from django.utils import timezone

from truncus_django.models import Email
from truncus_django.states import State

_SUBJECTS = (
    ("Your order LK-{number:05} ", "shop", 0.62, 0.18),
    ("New in the shop this week", "newsletter", 0.34, 0.07),
    ("Choose your password", "shop", 0.81, 0.66),
)
_REASONS = (
    "mailbox_does_not_exist",
    "mailbox_does_not_exist",
    "mailbox_full",
    "no_mx_record",
    "connection_timeout",
)


def write(*, days: int, seed: int = 7) -> int:
    """Record made-up e-mails of the last ``days`` days, the same for a seed; return how many."""
    chance = random.Random(seed)
    now = timezone.now()
    emails = [
        _email(chance, moment, number)
        for day in range(1, days + 1)
        for number, moment in enumerate(_moments(chance, now - timedelta(days=day)), day * 100)
    ]
    Email.objects.bulk_create(emails, batch_size=200)
    return len(emails)


def _moments(chance: random.Random, day: datetime) -> list[datetime]:
    """Return when e-mails went out on a day: fewer at the week-end."""
    count = chance.randint(8, 14) if day.weekday() >= 5 else chance.randint(18, 34)
    morning = day.replace(hour=8, minute=0, second=0, microsecond=0)
    return [morning + timedelta(minutes=chance.randint(0, 720)) for _ in range(count)]


def _email(chance: random.Random, sent_at: datetime, number: int) -> Email:
    subject, tenant, open_rate, click_rate = chance.choice(_SUBJECTS)
    recipient = f"customer{number}@example.org"
    state = chance.choices(
        [State.DELIVERED, State.BOUNCED, State.COMPLAINED, State.REJECTED], [957, 27, 2, 14]
    )[0]
    arrived = state in {State.DELIVERED, State.COMPLAINED}
    opened = arrived and chance.random() < open_rate
    clicked = opened and chance.random() < click_rate
    first_open = sent_at + timedelta(minutes=chance.randint(1, 2000)) if opened else None
    subject = subject.format(number=number)
    return Email(
        message_id=f"msg_history_{number}_{chance.getrandbits(40):x}",
        mailer="newsletter" if tenant == "newsletter" else "default",
        state=state,
        reason=chance.choice(_REASONS) if state == State.BOUNCED else "",
        from_email="Leaf & Kettle <tea@example.com>",
        to=[recipient],
        subject=subject,
        search_text=f"{recipient} {subject}".lower(),
        tenant_id=tenant,
        created_at=sent_at,
        sent_at=None if state == State.REJECTED else sent_at,
        delivered_at=sent_at + timedelta(seconds=3) if arrived else None,
        bounced_at=sent_at + timedelta(seconds=9) if state == State.BOUNCED else None,
        complained_at=sent_at + timedelta(hours=5) if state == State.COMPLAINED else None,
        first_opened_at=first_open,
        last_opened_at=first_open,
        open_count=chance.randint(1, 4) if opened else 0,
        click_count=chance.randint(1, 2) if clicked else 0,
        attempts=1,
    )
