"""Every mail of the shop: one function each, in ordinary Django calls.

Only those that use :class:`TruncusMessage` know that Truncus sends the mails. All of them
raise :class:`truncus_django.api.TruncusError` where a mail was not accepted; only Django's own
password mails do not, because its form logs the error instead.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.core.mail import (
    EmailMessage,
    get_connection,
    mail_admins,
    send_mass_mail,
)
from django.template.loader import render_to_string
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from shop.catalogue import PRODUCTS
from shop.invoice import invoice
from shop.models import Order
from truncus_django.message import TruncusMessage
from truncus_django.quota.overview import Quota


def welcome_message(user: User) -> TruncusMessage:
    """Return the welcome to a new customer, with the link to choose a password.

    The sign-up view, which is async, sends it by ``asend()``.
    """
    site = urlsplit(settings.SITE_URL)
    context = {
        "user": user,
        "uid": urlsafe_base64_encode(force_bytes(user.pk)),
        "token": default_token_generator.make_token(user),
        "protocol": site.scheme,
        "domain": site.netloc,
    }
    return TruncusMessage.from_template("shop/emails/welcome", context, to=[user.email])


def send_order_confirmation(order: Order) -> None:
    """Confirm an order in the customer's language: text, HTML and the invoice as a PDF."""
    message = TruncusMessage.from_template(
        "shop/emails/order",
        {"order": order, "url": settings.SITE_URL + order.get_absolute_url()},
        to=[order.customer.email],
        reply_to=["orders@example.com"],
        language=order.language,
    )
    message.attach(f"invoice-{order.number}.pdf", invoice(order), "application/pdf")
    message.send()


def send_delay_notices(orders: Iterable[Order], arrives_on: date) -> int:
    """Tell the customers of ``orders`` that they wait longer; return how many were accepted.

    A list of messages goes out in batches of 100, so that 250 customers take three requests.
    """
    return send_mass_mail(
        (
            f"Your order {order.number} is late",
            render_to_string(
                "shop/emails/delay.txt",
                {"order": order, "arrives_on": arrives_on},
            ),
            None,
            [order.customer.email],
        )
        for order in orders
    )


def send_news(customers: Iterable[User]) -> int:
    """Send each customer the news in an email of their own; return how many were accepted.

    One message with merge data: the texts are common, and each recipient's name is filled in.
    """
    names = {
        customer.email: {"name": customer.first_name} if customer.first_name else {}
        for customer in customers
    }
    message = TruncusMessage.from_template(
        "shop/emails/digest",
        _digest_context("{{ name }}"),
        subject="New in the shop, {{ name }}",
        to=list(names),
        merge_global_data={"name": "tea lover"},
        merge_data=names,
        importance="low",
        unsubscribe="news",
    )
    return message.send()


def answer_question(to: str, message_id: str, answer: str) -> None:
    """Answer a customer's email, in one conversation with it.

    Args:
        message_id: the ``Message-ID`` of the customer's email.
    """
    message = TruncusMessage("Re: your question", answer, to=[to], in_reply_to=message_id)
    message.send()


def report_unsent_confirmation(order: Order, error: Exception) -> None:
    """Tell the admins that a customer got no confirmation, and why."""
    mail_admins(
        f"No confirmation for {order.number}",
        f"The confirmation of {order.number} was not sent.\n\n{type(error).__name__}: {error}\n\n"
        f"The order: {settings.SITE_URL}/admin/shop/order/{order.pk}/change/\n",
    )


def warn_of_quota(share: float, quota: Quota) -> None:
    """Tell the admins how much of the quota is used, by the mailer that needs none of it."""
    fallback = settings.TRUNCUS["FALLBACK_MAILER"]
    subject = f"{share:.0%} of this month's emails are used"
    text = f"{quota.left} of {quota.limit} are left until {quota.renewed_at:%d %B}.\n"
    if django.VERSION >= (6, 1):
        mail_admins(subject, text, using=fallback)
    else:
        mail_admins(subject, text, connection=get_connection(fallback))


def schedule_weekly_digest(user: User, send_at: datetime) -> None:
    """Have Truncus send the digest at ``send_at``; once a week, however often this is called."""
    message = TruncusMessage(
        "New in the shop this week",
        render_to_string("shop/emails/digest.txt", _digest_context(user.first_name)),
        to=[user.email],
        html=render_to_string("shop/emails/digest.html", _digest_context(user.first_name)),
        send_at=send_at,
        metadata={"campaign": f"digest-{send_at:%G-W%V}"},
        idempotency_key=f"digest-{send_at:%G-W%V}-{user.pk}",
        unsubscribe="digest",
    )
    _send_through("newsletter", message)


def tea_letters(customers: Iterable[User]) -> Iterator[EmailMessage]:
    """Yield this week's letter to each customer, for ``send_bulk()``."""
    for customer in customers:
        context = _digest_context(customer.first_name)
        yield TruncusMessage(
            "Your week in tea",
            render_to_string("shop/emails/digest.txt", context),
            to=[customer.email],
            html=render_to_string("shop/emails/digest.html", context),
            unsubscribe="letters",
        )


def rehearse_weekly_digest() -> None:
    """Have Truncus check the digest before anybody gets it: sent in the sandbox, to ourselves."""
    message = TruncusMessage(
        "New in the shop this week",
        render_to_string("shop/emails/digest.txt", _digest_context("reader")),
        to=["owner@example.com"],
        html=render_to_string("shop/emails/digest.html", _digest_context("reader")),
        unsubscribe="digest",
    )
    _send_through("rehearsal", message)


def next_monday_morning(now: datetime) -> datetime:
    """Return eight o'clock on the Monday after ``now``, in its time zone."""
    monday = now + timedelta(days=7 - now.weekday())
    return monday.replace(hour=8, minute=0, second=0, microsecond=0)


def _digest_context(name: str) -> dict[str, object]:
    return {"name": name, "products": list(PRODUCTS.values())[:3], "url": settings.SITE_URL}


def _send_through(mailer: str, message: EmailMessage) -> None:
    """Send with a mailer other than the default; Django 6.1 knows them by name."""
    if django.VERSION >= (6, 1):
        message.send(using=mailer)
    else:
        message.connection = get_connection(**settings.MAILER_OPTIONS[mailer])
        message.send()
