"""Tells workers that there is work. Losing it costs a delay, never an e-mail."""

from truncus_django.conf import Settings

CHANNEL = "truncus_outbox"
"""Of PostgreSQL's NOTIFY."""


def wake_after_commit(using: str, settings: Settings) -> None:
    """Wake whoever sends once the open transaction is committed; once for each transaction.

    Args:
        using: the alias of the outbox's database.
        settings: ``dispatcher`` says who is to be woken.
    """
