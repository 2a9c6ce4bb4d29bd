"""Suppressed addresses for the screenshots: one for each reason, and what a person may decide."""

from datetime import datetime, timedelta

from django.utils import timezone

from truncus_django.models import Email, SuppressedAddress
from truncus_django.sending.forgotten import digests_of

Reason, Source = SuppressedAddress.Reason, SuppressedAddress.Source


def write_suppressed(*, now: datetime | None = None) -> None:
    """Record who must not be mailed."""
    moment = now or timezone.now()
    bounced = Email.objects.filter(to=["old-address@example.net"]).first()
    for hours, address, reason, source, fields in (
        (0, "old-address@example.net", Reason.HARD_BOUNCE, Source.WEBHOOK,
         {"note": "mailbox_does_not_exist", "email_id": bounced and bounced.pk}),
        (1, "rosa.ferreira@example.org", Reason.COMPLAINT, Source.WEBHOOK,
         {"tenant_id": "newsletter"}),
        (3, "julia.schmidt@example.org", Reason.UNSUBSCRIBED, Source.LINK,
         {"tenant_id": "newsletter", "list_name": "digest"}),
        (9, "quentin.dubois@example.net", Reason.BLOCKED, Source.ANSWER,
         {"note": "suppression_list"}),
        (26, "press@a-very-long-name-of-a-publishing-house.example.com", Reason.BY_HAND,
         Source.ADMIN, {"note": "asked by phone", "expires_at": moment + timedelta(days=90)}),
        (50, digests_of("gone@example.org")[0], Reason.COMPLAINT, Source.WEBHOOK, {}),
        (75, "tom.becker@example.com", Reason.UNSUBSCRIBED, Source.LINK,
         {"list_name": "digest", "expires_at": moment - timedelta(days=1)}),
    ):  # fmt: skip
        SuppressedAddress.objects.create(
            address=address,
            reason=reason,
            source=source,
            created_at=moment - timedelta(hours=hours, minutes=9),
            **fields,
        )
