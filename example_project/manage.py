#!/usr/bin/env python
"""``python example_project/manage.py demo`` and all other commands of Django."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command on the command line."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    # In a fresh clone truncus_django is not installed: it is the neighbouring folder.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
