"""Orders in the admin, and the notice that they will be late."""

from datetime import timedelta
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from shop.emails import send_delay_notices
from shop.models import Order, OrderLine
from truncus_django.api.errors import MessagesNotSent, TruncusError

if TYPE_CHECKING:
    OrderLineInlineBase = admin.TabularInline[OrderLine, Order]
    OrderAdminBase = admin.ModelAdmin[Order]
else:
    OrderLineInlineBase, OrderAdminBase = admin.TabularInline, admin.ModelAdmin


class OrderLineInline(OrderLineInlineBase):
    """The lines on an order's page."""

    model = OrderLine
    extra = 0


@admin.register(Order)
class OrderAdmin(OrderAdminBase):
    """Orders, newest first."""

    list_display = ("number", "customer", "created_at", "total")
    list_select_related = ("customer",)
    inlines = (OrderLineInline,)
    actions = ("announce_delay",)

    @admin.action(description="Tell the customers that it takes a week longer")
    def announce_delay(self, request: HttpRequest, orders: QuerySet[Order]) -> None:
        """Send the notice and say how many were accepted."""
        arrives_on = timezone.localdate() + timedelta(weeks=1)
        try:
            accepted = send_delay_notices(orders.select_related("customer"), arrives_on)
        except MessagesNotSent as error:
            text = f"{error.accepted} customers were told; {error}"
            self.message_user(request, text, messages.WARNING)
        except TruncusError as error:
            self.message_user(request, f"Nobody was told: {error}", messages.ERROR)
        else:
            self.message_user(request, f"{accepted} customers were told.")
