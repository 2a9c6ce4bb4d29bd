"""Queues the task of Django Tasks."""

from truncus_django import tasks


def notify(using: str) -> None:
    """Queue the task.

    Raises:
        ConfigurationError: there are no Django Tasks.
        Exception: whatever their backend raises.
    """
    tasks.dispatch_outbox.enqueue()
