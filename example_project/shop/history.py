"""A past for a log, so that it has something to show: made-up people, three tenants."""

import random
from datetime import datetime, timedelta

from django.utils import timezone

from truncus_django.models import Email
from truncus_django.states import State

_NAMES = (
    "ada.lindqvist", "ben.okafor", "carla.moreno", "dmitri.volkov", "eva.novak", "farid.haddad",
    "greta.jansen", "hana.sato", "ivan.petrov", "julia.schmidt", "kofi.mensah", "lena.bauer",
    "marco.rossi", "nadia.karim", "oliver.brown", "priya.nair", "quentin.dubois", "rosa.ferreira",
)  # fmt: skip
_DOMAINS = ("example.com", "example.org", "example.net")
_KINDS = (
    # subject, tenant, template, share of opens, share of clicks among them
    ("Your order {number} is on its way", "shop", "", 0.64, 0.35),
    ("Your invoice for order {number}", "shop", "", 0.58, 0.12),
    ("New teas this week: first flush Darjeeling", "newsletter", "weekly", 0.36, 0.19),
    ("Choose your password", "accounts", "", 0.86, 0.8),
    ("How was your order {number}?", "shop", "survey", 0.33, 0.21),
)
_REASONS = (
    ("mailbox_does_not_exist",) * 5 + ("mailbox_full",) * 3 + ("no_mx_record", "spam_refused")
)


def write(*, days: int, per_day: int = 22, seed: int = 4) -> int:
    """Record made-up emails of the last ``days`` days, the same for a seed; return how many.

    The last hour is left to others.

    Args:
        per_day: about how many a working day had at first; there are ever more.
    """
    chance = random.Random(seed)
    now = timezone.now()
    emails = [
        _email(chance, at, now)
        for day in range(days, -1, -1)
        for at in _moments(chance, now - timedelta(days=day), per_day * (1.35 - 0.35 * day / days))
        if at < now - timedelta(hours=1)
    ]
    Email.objects.bulk_create(emails, batch_size=200)
    return len(emails)


def _moments(chance: random.Random, day: datetime, usual: float) -> list[datetime]:
    """Return when emails went out on a day: fewer at the week-end, most of them at noon."""
    morning = day.replace(hour=0, minute=10)
    count = round((usual * 0.6 if day.weekday() >= 5 else usual) * chance.uniform(0.83, 1.17))
    return [morning + timedelta(minutes=chance.triangular(0, 1400, 700)) for _ in range(count)]


def _email(chance: random.Random, at: datetime, now: datetime) -> Email:
    subject, tenant, template, opens, clicks = chance.choice(_KINDS)
    to = f"{chance.choice(_NAMES)}@{chance.choice(_DOMAINS)}"
    state = chance.choices(
        [State.DELIVERED, State.BOUNCED, State.COMPLAINED, State.REJECTED, State.SENT],
        [950, 24, 2, 8, 6],
    )[0]
    opened = state == State.DELIVERED and chance.random() < opens
    clicked = opened and chance.random() < clicks
    seen = min(at + timedelta(minutes=chance.randint(2, 900)), now)
    subject = subject.format(number=chance.randint(10_000, 60_000))
    is_delivered = state in {State.DELIVERED, State.COMPLAINED}
    return Email(
        message_id=f"msg_{chance.getrandbits(64):016x}",
        mailer="newsletter" if tenant == "newsletter" else "default",
        state=state,
        reason=chance.choice(_REASONS) if state == State.BOUNCED else "",
        from_email="Leaf & Kettle <tea@example.com>",
        to=[to],
        subject=subject,
        search_text=f"{to} {subject}".lower(),
        tenant_id=tenant,
        template_id=template,
        sent_at=None if state == State.REJECTED else at,
        delivered_at=at + timedelta(seconds=2) if is_delivered else None,
        bounced_at=at + timedelta(seconds=3) if state == State.BOUNCED else None,
        complained_at=seen if state == State.COMPLAINED else None,
        first_opened_at=seen if opened else None,
        last_opened_at=seen if opened else None,
        open_count=chance.choice([1, 1, 1, 2, 3]) if opened else 0,
        click_count=chance.choice([1, 1, 2]) if clicked else 0,
        attempts=1,
        created_at=at,
    )
