"""What waits in the outbox, looked at without reading it all."""

from collections.abc import Iterator

from truncus_django.models import OutboxEntry

HELD_BACK = "held_back"
"""The code of emails that Truncus does not want to schedule, and that wait here for their time."""


def waiting_mailers() -> Iterator[str]:
    """Yield the mailers of waiting emails, each by one step through the index."""
    waiting = OutboxEntry.objects.filter(is_waiting=True).order_by("mailer")
    names = waiting.values_list("mailer", flat=True)
    name = names.first()
    while name is not None:
        yield name
        name = names.filter(mailer__gt=name).first()
