"""``manage.py send_digests``: this week's letter to every customer, each once."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.utils import timezone

from shop import emails
from truncus_django.bulk import send_bulk


class Command(BaseCommand):
    """Send the letters of this week; run it again after Ctrl-C or a crash, and it goes on."""

    help = "Sends this week's letter to every customer who has ordered, and nobody a second one."

    def handle(self, **options: Any) -> None:
        """Send."""
        week = f"{timezone.localdate():%G-W%V}"
        customers = User.objects.filter(orders__isnull=False).distinct().order_by("pk")
        letters = emails.tea_letters(customers.iterator(chunk_size=500))
        result = send_bulk(letters, key=f"letter-{week}", progress=True)
        self.stdout.write(f"{result}.")
