"""A log for the screenshots: 90 days of a past, and a present with an email of each fate."""

from datetime import datetime, timedelta

from django.utils import timezone

from example_project.shop import history
from truncus_django.log.search_text import search_text
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State


def write_past() -> None:
    """Record what a busy shop sent in 90 days."""
    history.write(days=90, per_day=72)


def write_present(*, now: datetime | None = None) -> Email:
    """Record the last hours, one email of each fate, and return the one to show in full."""
    moment = now or timezone.now()
    shown = None
    for minutes, to, subject, fields in _PRESENT:
        at = moment - timedelta(minutes=minutes)
        email = Email(
            message_id=f"msg_7f3a{minutes:04d}c1d9e2",
            from_email="Leaf & Kettle <tea@example.com>",
            to=to,
            subject=subject,
            search_text=search_text(to, subject, fields.get("metadata", {})),
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
    """Record the events of an email that was opened twice and clicked."""
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


HTML = """<!doctype html><html><body style="margin:0;background:#f3efe6;font-family:Georgia,serif">
<div style="max-width:560px;margin:0 auto;padding:28px 32px;background:#fff;color:#333">
<p style="letter-spacing:.12em;color:#5d7a4a;margin:0 0 18px">LEAF &amp; KETTLE</p>
<h1 style="font-weight:normal;font-size:26px;margin:0 0 14px">Your tea is on its way</h1>
<p>Dear Ada, we have just handed over order <b>48213</b>: 100 g of Darjeeling first flush and
a kettle in enamel. It should be with you on Thursday.</p>
<p><a href="https://shop.example.com/orders/48213" style="display:inline-block;padding:11px 22px;
background:#5d7a4a;color:#fff;text-decoration:none;border-radius:4px">Follow your order</a></p>
<p style="color:#777;font-size:14px">Steep for three minutes, at 85 degrees.</p>
</div></body></html>"""
TEXT = """Dear Ada, we have just handed over order 48213: 100 g of Darjeeling first flush
and a kettle in enamel. It should be with you on Thursday."""

_PRESENT: tuple[tuple[int, list[str], str, dict], ...] = (
    (1, ["lena.bauer@example.org"], "Your order 48217 is on its way", {"state": State.SENT}),
    (4, ["team@example.com", "ben.okafor@example.com", "hana.sato@example.net"],
     "Stock report: 3 teas are running low", {"tenant_id": "", "open_count": 2}),
    (6, ["ada.lindqvist@example.com"], "Your order 48213 is on its way", {
        "open_count": 2, "click_count": 1, "html_body": HTML, "text_body": TEXT,
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
