"""``manage.py serve_admin``: the demo's log in Django's admin, with a local Truncus behind it."""

import argparse
import logging
import socket
from io import StringIO
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from shop import demo, history
from shop.demo_database import use_demo_database, use_fresh_demo_database
from shop.models import Order
from truncus_django.emulator import Emulator, EmulatorMissesWerkzeug
from truncus_django.models import Email, SuppressedAddress

LOGIN, PASSWORD = "admin", "admin"


class Command(BaseCommand):
    """Fill the log, start a local Truncus that tells what happens, and serve the site."""

    help = """\
Serve the shop and its admin on this machine, with the log that "make demo" has filled.

A local Truncus runs beside it: mails that the shop sends now go there, and what becomes of them
comes back by webhook. The mails of the demo are sent once more at the start, so that it knows
some. Ctrl-C stops both."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the line breaks of the help."""
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        """One option."""
        parser.add_argument("--port", type=int, default=8000, help="of the site (default: 8000)")

    def handle(self, *, port: int, **options: Any) -> None:
        """Serve until Ctrl-C."""
        reason = _why_unusable(port)
        if reason:
            raise CommandError(
                f"Port {port} cannot be used: {reason}. Choose another one with --port 8001, or "
                'make admin ARGS="--port 8001".'
            )
        webhook_url = f"http://127.0.0.1:{port}/truncus/webhook/"
        emulator = Emulator(
            webhook_url=webhook_url,
            webhook_secret=demo.WEBHOOK_SECRET,
            revoked_keys=[demo.REVOKED_KEY],  # and a plan that leaves mails to whoever plays
        )
        try:
            emulator.start()
        except EmulatorMissesWerkzeug as error:
            raise CommandError(str(error)) from error
        with emulator, demo.site_of(emulator):
            self._fill(emulator)
            self.stdout.write(
                f"\nAdmin  http://127.0.0.1:{port}/admin/truncus_django/email/\n"
                f"Login  {LOGIN}, password {PASSWORD}\n"
                f"Shop   http://127.0.0.1:{port}/\n"
                f"Emails http://127.0.0.1:{port}/emails/\n"
                f"Inbox  {emulator.inbox_url}\n\nCtrl-C stops them.\n"
            )
            self.stdout.flush()
            # Hundreds of webhooks would push the lines above out of sight.
            logging.getLogger("django.server").addFilter(_is_of_interest)
            # What it says itself is said above, and names the settings, which are overridden here.
            call_command("runserver", f"127.0.0.1:{port}", "--noreload", stdout=StringIO())

    def _fill(self, emulator: Emulator) -> None:
        use_demo_database()
        if not Email.objects.exists():
            use_fresh_demo_database()
            history.write(days=60)
        # The customers and orders anew; the log stays. Who unsubscribed then gets mail again.
        Order.objects.all().delete()
        customers = User.objects.exclude(is_superuser=True)
        SuppressedAddress.objects.filter(address__in=customers.values("email")).delete()
        customers.delete()
        self.stdout.write("Sending the demo's mails through the local Truncus …")
        demo.run(emulator)
        if not User.objects.filter(username=LOGIN).exists():
            User.objects.create_superuser(LOGIN, "owner@example.com", PASSWORD)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return int(getattr(record, "status_code", 500)) >= 500


def _why_unusable(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as exc:
            return getattr(exc, "strerror", None) or str(exc)
    return None
