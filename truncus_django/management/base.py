"""What the commands share."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from truncus_django.api.errors import ConfigurationError


class CommandWithExamples(BaseCommand):
    """A command whose ``--help`` ends with examples.

    Attributes:
        examples: shown as they are written.
    """

    examples = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return a parser that keeps the lines of the examples."""
        kwargs.setdefault("epilog", self.examples)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command; wrong settings end it with a message instead of a traceback."""
        try:
            return super().execute(*args, **options)
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
