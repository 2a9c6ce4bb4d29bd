"""Lets pauses be short in the processes that are killed, so that a run takes minutes."""

from django.apps import AppConfig
from django.conf import settings


class ChaosConfig(AppConfig):
    """Shortens pauses, as ``settings.CHAOS`` says."""

    name = "tests.chaos"

    def ready(self) -> None:
        """Set what no setting of a project can."""
        from truncus_django.api import retry
        from truncus_django.outbox import answers, handover, retry_policy

        retry.FIRST_BACKOFF_S = settings.CHAOS.get("first_backoff_s", retry.FIRST_BACKOFF_S)
        for name in ("LONGEST_RETRY_S", "LONGEST_PAUSE_S"):
            longest_s = settings.CHAOS.get("longest_retry_s", getattr(retry_policy, name))
            setattr(retry_policy, name, longest_s)
        handover.LEASE_S = settings.CHAOS.get("handover_lease_s", handover.LEASE_S)
        answers.OPEN_S = settings.CHAOS.get("fallback_pause_s", answers.OPEN_S)
