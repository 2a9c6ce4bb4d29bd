"""The shop's emails, to be looked at under ``/emails/``: made of an order that nobody placed.

The previews call the functions that send: what they send is shown, and what they store is undone.
"""

from datetime import timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from shop import emails
from shop.models import Order
from truncus_django.previews import EmailPreviews


def _customer() -> User:
    return User.objects.create_user(
        "ada.lindqvist", "ada.lindqvist@example.com", "only for previews", first_name="Ada"
    )


def _order() -> Order:
    return Order.place(_customer(), {"sencha": 2, "kettle": 1})


class OrderPreviews(EmailPreviews):
    """What a customer hears of an order."""

    def confirmation(self) -> None:
        """At once, with the invoice."""
        emails.send_order_confirmation(_order())

    def delay(self) -> None:
        """To all whose tea is still at sea."""
        emails.send_delay_notices([_order()], timezone.localdate() + timedelta(days=9))


class AccountPreviews(EmailPreviews):
    """What comes with an account."""

    def welcome(self) -> None:
        """The link to choose a password, after signing up."""
        emails.welcome_message(_customer()).send()


class NewsletterPreviews(EmailPreviews):
    """What all customers get."""

    is_bulk = True

    def digest(self) -> None:
        """Every Monday."""
        emails.schedule_weekly_digest(_customer(), emails.next_monday_morning(timezone.now()))
