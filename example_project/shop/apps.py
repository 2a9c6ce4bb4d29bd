"""The Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """``shop`` in ``INSTALLED_APPS``."""

    name = "shop"
    verbose_name = "Leaf & Kettle"
