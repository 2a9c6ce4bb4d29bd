"""Lets time run faster in the processes that are killed, so that a run takes minutes."""

from django.apps import AppConfig
from django.conf import settings


class ChaosConfig(AppConfig):
    """Shortens pauses, and lets the limits count in a faster time, as ``settings.CHAOS`` says."""

    name = "tests.outbox.chaos"

    def ready(self) -> None:
        """Set what no setting of a project can."""
        from truncus_django.api import retry
        from truncus_django.outbox import pace, policy

        retry.FIRST_BACKOFF_S = settings.CHAOS.get("first_backoff_s", retry.FIRST_BACKOFF_S)
        policy.LONGEST_RETRY_S = settings.CHAOS.get("longest_retry_s", policy.LONGEST_RETRY_S)
        speed = settings.CHAOS.get("clock_speed", 1.0)
        pace.SPANS = 1 / speed
        pause_s = policy.account_pause_s
        # What an answer asks for is told in the faster time, too.
        policy.account_pause_s = lambda error, **known: pause_s(error, **known) / speed
