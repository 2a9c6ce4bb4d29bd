"""The Django app: registers the system checks, and imports nothing that sends."""

from typing import Any

from django.apps import AppConfig


class TruncusConfig(AppConfig):
    """``truncus_django`` in ``INSTALLED_APPS``."""

    name = "truncus_django"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Truncus email"

    def ready(self) -> None:
        """Register the system checks."""
        from truncus_django import checks  # noqa: F401
        from truncus_django.signals import sends_concluded

        sends_concluded.connect(_record, dispatch_uid="truncus_django.log.recording")


def _record(*, outgoing_messages: Any, alias: str | None, settings: Any, **kwargs: Any) -> None:
    if settings.record:
        from truncus_django.log.recording import record  # only where something is sent

        record(outgoing_messages, alias=alias, settings=settings)
