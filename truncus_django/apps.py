"""The Django app: registers the system checks, and imports nothing that sends."""

from django.apps import AppConfig


class TruncusConfig(AppConfig):
    """``truncus_django`` in ``INSTALLED_APPS``."""

    name = "truncus_django"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Truncus email"

    def ready(self) -> None:
        """Register the system checks."""
        from truncus_django import checks  # noqa: F401
