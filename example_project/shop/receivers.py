"""What the shop does when the package tells it something."""

from typing import Any

from django.dispatch import receiver

from shop import emails
from truncus_django.quota.overview import Quota
from truncus_django.signals import quota_threshold


@receiver(quota_threshold)
def tell_owner(share: float, quota: Quota, **kwargs: Any) -> None:
    """Have the owner think about a larger plan before orders go unconfirmed."""
    emails.warn_of_quota(share, quota)
