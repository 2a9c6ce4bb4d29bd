"""A log with a past, for the screenshots: made-up people, three tenants, 90 days."""

import random
from datetime import datetime, timedelta

from django.utils import timezone

from truncus_django.models import Email, EmailEvent
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


def write_past(*, days: int = 90, seed: int = 4, now: datetime | None = None) -> None:
    """Record what a small shop sent in so many days; the same for a seed."""
    chance = random.Random(seed)
    moment = now or timezone.now()
    emails = []
    for day in range(days, -1, -1):
        morning = (moment - timedelta(days=day)).replace(hour=0, minute=10)
        busy = 1.0 + 0.35 * (days - day) / days - (0.45 if morning.weekday() >= 5 else 0)
        for _ in range(round(busy * chance.uniform(60, 85))):
            at = morning + timedelta(minutes=chance.triangular(0, 1400, 700))
            if at > moment - timedelta(hours=1):
                continue
            emails.append(_email(chance, at, moment))
    Email.objects.bulk_create(emails, batch_size=200)


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


def write_present(*, now: datetime | None = None) -> Email:
    """Record the last hours, one e-mail of each fate, and return the one to show in full."""
    moment = now or timezone.now()
    shown = None
    for minutes, to, subject, fields in _PRESENT:
        at = moment - timedelta(minutes=minutes)
        email = Email(
            message_id=f"msg_7f3a{minutes:04d}c1d9e2",
            from_email="Leaf & Kettle <tea@example.com>",
            to=to,
            subject=subject,
            search_text=" ".join([*to, subject]).lower(),
            created_at=at,
            attempts=1,
            **{"mailer": "default", "tenant_id": "shop", "state": State.DELIVERED, **fields},
        )
        if email.state in {State.DELIVERED, State.SENT, State.BOUNCED, State.COMPLAINED}:
            email.sent_at = at
        if email.state in {State.FAILED, State.UNKNOWN}:
            email.message_id = None
        if email.state == State.SCHEDULED:
            email.send_at = moment + timedelta(hours=14)
        if email.open_count:
            email.delivered_at = at + timedelta(seconds=2)
            email.first_opened_at = at + timedelta(minutes=2)
            email.last_opened_at = at + timedelta(minutes=3)
        email.save()
        if email.html_body:
            shown = email
    if shown is None:
        raise AssertionError("One of them is to be shown in full.")
    _write_life(shown)
    return shown


def _write_life(email: Email) -> None:
    """Record the events of an e-mail that was opened twice and clicked."""
    at, to = email.created_at, email.to[0]
    told = (
        ("sent", 0, {}),
        ("delivered", 2, {"smtp": "250 2.0.0 OK"}),
        ("opened", 120, {"user_agent": "Thunderbird/140.0"}),
        ("clicked", 140, {"url": "https://shop.example.com/orders/48213"}),
        ("opened", 180, {"user_agent": "Mobile Mail/18.2"}),
    )
    for number, (kind, seconds, payload) in enumerate(told):
        EmailEvent.objects.create(
            email=email,
            message_id=email.message_id or "",
            event_id=f"evt_{number}_{email.pk}",
            type=kind,
            recipient=to,
            occurred_at=at + timedelta(seconds=seconds),
            source=EmailEvent.Source.WEBHOOK,
            payload=payload,
        )


_HTML = """<!doctype html><html><body style="margin:0;background:#f3efe6;font-family:Georgia,serif">
<div style="max-width:560px;margin:0 auto;padding:28px 32px;background:#fff;color:#333">
<p style="letter-spacing:.12em;color:#5d7a4a;margin:0 0 18px">LEAF &amp; KETTLE</p>
<h1 style="font-weight:normal;font-size:26px;margin:0 0 14px">Your tea is on its way</h1>
<p>Dear Ada, we have just handed over order <b>48213</b>: 100 g of Darjeeling first flush and
a kettle in enamel. It should be with you on Thursday.</p>
<p><a href="https://shop.example.com/orders/48213" style="display:inline-block;padding:11px 22px;
background:#5d7a4a;color:#fff;text-decoration:none;border-radius:4px">Follow your order</a></p>
<p style="color:#777;font-size:14px">Steep for three minutes, at 85 degrees.</p>
</div></body></html>"""
_TEXT = """Dear Ada, we have just handed over order 48213: 100 g of Darjeeling first flush
and a kettle in enamel. It should be with you on Thursday."""

_PRESENT: tuple[tuple[int, list[str], str, dict], ...] = (
    (1, ["lena.bauer@example.org"], "Your order 48217 is on its way", {"state": State.SENT}),
    (4, ["team@example.com", "ben.okafor@example.com", "hana.sato@example.net"],
     "Stock report: 3 teas are running low", {"tenant_id": "", "open_count": 2}),
    (6, ["ada.lindqvist@example.com"], "Your order 48213 is on its way", {
        "open_count": 2, "click_count": 1, "html_body": _HTML, "text_body": _TEXT,
        "metadata": {"order": "LK-48213", "customer": "2041"},
        "global_message_id": "gm_01JD8Q0W5Z7E", "provider_message_id": "0102-ses-93ab41c7",
        "idempotency_key": "order-48213-shipped",
        "attachments": [{"filename": "invoice-LK-48213.pdf", "content_type": "application/pdf",
                         "size": 48_213}],
        "attachment_count": 1, "attachment_bytes": 48_213}),
    (9, ["old-address@example.net"], "Your invoice for order 48190",
     {"state": State.BOUNCED, "reason": "mailbox_does_not_exist"}),
    (12, ["kofi.mensah@example.org"], "Your tea club box ships tomorrow",
     {"state": State.SCHEDULED}),
    (15, ["priya.nair@example.com"], "Choose your password",
     {"tenant_id": "accounts", "open_count": 1, "click_count": 1}),
    (18, ["rosa.ferreira@example.org"], "New teas this week: first flush Darjeeling",
     {"tenant_id": "newsletter", "mailer": "newsletter", "state": State.COMPLAINED}),
    (22, ["marco.rossi@example.com"], "Your order 48201 is on its way", {"state": State.DEFERRED}),
    (25, ["quentin.dubois@example.net"], "How was your order 47755?",
     {"state": State.REJECTED, "error_code": "suppression_list", "reason": "suppression_list"}),
    (31, ["julia.schmidt@example.org"], "New teas this week: first flush Darjeeling",
     {"tenant_id": "newsletter", "mailer": "newsletter", "is_sandbox": True,
      "state": State.SENT}),
    (38, ["ivan.petrov@example.com"], "Your invoice for order 48177",
     {"state": State.FAILED, "error_code": "DOMAIN_NOT_VERIFIED"}),
    (44, ["eva.novak@example.com"], "Your order 48166 is on its way", {"open_count": 1}),
    (52, ["oliver.brown@example.net"], "Choose your password",
     {"tenant_id": "accounts", "state": State.UNKNOWN}),
)  # fmt: skip
