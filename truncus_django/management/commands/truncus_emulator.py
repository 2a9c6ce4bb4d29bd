"""``manage.py truncus_emulator``: a local Truncus with an inbox in the browser."""

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from truncus_django.emulator import cli


class Command(BaseCommand):
    """Run the emulator until Ctrl-C."""

    help = cli.DESCRIPTION
    requires_system_checks: list[str] = []  # noqa: RUF012 - as Django declares it

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the options of ``python -m truncus_django.emulator``."""
        cli.add_arguments(parser)

    def handle(self, **options: Any) -> None:
        """Run; exit with the emulator's status."""
        status = cli.run(argparse.Namespace(**options))
        if status:
            sys.exit(status)
