"""Sign-up and order."""

from typing import Any

from django import forms
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.utils.crypto import get_random_string

from shop.catalogue import PRODUCTS


class SignUpForm(forms.Form):
    """Name and address; the password is chosen by the link in the mail."""

    name = forms.CharField(max_length=150, label="Your name")
    email = forms.EmailField(max_length=150, label="Email address")

    def save(self) -> User:
        """Return the new customer, or the one that already has this address."""
        email = self.cleaned_data["email"].lower()
        user, _ = User.objects.get_or_create(
            username=email,
            defaults={
                "email": email,
                "first_name": self.cleaned_data["name"],
                # Django sends no reset link to users whose password is unusable.
                "password": make_password(get_random_string(40)),
            },
        )
        return user


class OrderForm(forms.Form):
    """One quantity for each product."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for product in PRODUCTS.values():
            self.fields[product.slug] = forms.IntegerField(
                label=product.name, min_value=0, max_value=99, initial=0, required=False
            )

    def clean(self) -> dict[str, Any]:
        """Refuse an empty basket."""
        cleaned = super().clean() or {}
        if not self.errors and not any(cleaned.values()):
            raise forms.ValidationError("Your basket is empty.")
        return cleaned

    @property
    def quantities(self) -> dict[str, int]:
        """How many of each product, without those that were not ordered."""
        return {slug: quantity for slug, quantity in self.cleaned_data.items() if quantity}
