"""The shop's pages."""

import logging
from contextlib import suppress
from typing import cast

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import translation

from shop.catalogue import PRODUCTS
from shop.emails import report_unsent_confirmation, send_order_confirmation, welcome_message
from shop.forms import OrderForm, SignUpForm
from shop.models import Order
from truncus_django.api import TruncusError

logger = logging.getLogger(__name__)


def front(request: HttpRequest) -> HttpResponse:
    """Show the shelf."""
    return _front(request, OrderForm())


@login_required
def place_order(request: HttpRequest) -> HttpResponse:
    """Store the order and confirm it by email."""
    if request.method != "POST":  # back from the log-in
        return redirect("front")
    form = OrderForm(request.POST)
    if not form.is_valid():
        return _front(request, form)
    language = translation.get_language_from_request(request)
    new_order = Order.place(cast("User", request.user), form.quantities, language=language)
    if _confirm(new_order):
        messages.success(request, "Thank you! A confirmation is on its way to you.")
    else:
        messages.warning(
            request, "Thank you! We could not email the confirmation; please print this page."
        )
    return redirect(new_order)


@login_required
def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Show customers their own order."""
    found = get_object_or_404(Order, pk=pk, customer=cast("User", request.user))
    return render(request, "shop/order.html", {"order": found})


async def sign_up(request: HttpRequest) -> HttpResponse:
    """Make an account; the mail with the link to choose a password is all the rest."""
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and await sync_to_async(form.is_valid)():
        message = await sync_to_async(lambda: welcome_message(form.save()))()
        try:
            await message.asend()
        except TruncusError as error:
            logger.warning("The welcome of a new customer was not sent: %s", error)
        return redirect("password_reset_done")
    return await sync_to_async(render)(request, "shop/sign_up.html", {"form": form})


def _front(request: HttpRequest, form: OrderForm) -> HttpResponse:
    shelf = [(product, form[slug]) for slug, product in PRODUCTS.items()]
    return render(request, "shop/front.html", {"form": form, "shelf": shelf})


def _confirm(new_order: Order) -> bool:
    """Return whether Truncus accepted the confirmation; the order stands either way."""
    try:
        send_order_confirmation(new_order)
    except TruncusError as error:
        logger.warning("The confirmation of %s was not sent: %s", new_order.number, error)
        if not error.retryable:
            with suppress(TruncusError):
                report_unsent_confirmation(new_order, error)
        return False
    return True
