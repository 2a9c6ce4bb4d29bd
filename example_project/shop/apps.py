"""The Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """``shop`` in ``INSTALLED_APPS``."""

    name = "shop"
    verbose_name = "Leaf & Kettle"

    def ready(self) -> None:
        """Connect the receivers."""
        from shop import receivers  # noqa: F401  it needs the models
