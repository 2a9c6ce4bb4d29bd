"""The Django app: registers the system checks, and imports nothing that sends."""

from django.apps import AppConfig


class TruncusConfig(AppConfig):
    """``truncus_django`` in ``INSTALLED_APPS``."""

    name = "truncus_django"
    verbose_name = "Truncus e-mail"

    def ready(self) -> None:
        """Register the system checks."""
        from truncus_django import checks  # noqa: F401
