"""Orders and their lines. A customer is a user of ``django.contrib.auth``."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Self

from django.contrib.auth.models import User
from django.db import models, transaction
from django.urls import reverse

from shop.catalogue import PRODUCTS


class Order(models.Model):
    """What a customer ordered."""

    customer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="orders")
    created_at = models.DateTimeField(auto_now_add=True)
    language = models.CharField(max_length=10, default="en")
    """Of the page that the order came from, and so of the emails about it."""

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.number

    def get_absolute_url(self) -> str:
        """Return the path of the order's page."""
        return reverse("order", args=[self.pk])

    @classmethod
    @transaction.atomic
    def place(cls, customer: User, quantities: Mapping[str, int], *, language: str = "en") -> Self:
        """Store and return an order of the products that ``quantities`` names by their slugs."""
        order = cls.objects.create(customer=customer, language=language)
        for slug, quantity in quantities.items():
            product = PRODUCTS[slug]
            OrderLine.objects.create(
                order=order, product=product.name, price=product.price, quantity=quantity
            )
        return order

    @property
    def number(self) -> str:
        """What the customer quotes."""
        return f"LK-{self.pk:05d}"

    @property
    def total(self) -> Decimal:
        """Euros."""
        return sum((line.total for line in self.lines.all()), Decimal(0))


class OrderLine(models.Model):
    """One product of an order, with its name and price (euros) at that time."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    quantity = models.PositiveSmallIntegerField()

    def __str__(self) -> str:
        return f"{self.quantity} × {self.product}"

    @property
    def total(self) -> Decimal:
        """Euros."""
        return self.price * self.quantity
