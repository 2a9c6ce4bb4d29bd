"""The demo's own database, so that a shop that somebody plays with stays as it is."""

from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection

PATH = Path(str(settings.DATABASES["default"]["NAME"])).with_name("demo.sqlite3")


def use_demo_database() -> None:
    """Let this process work on the demo's database, with all tables."""
    connection.close()
    connection.settings_dict["NAME"] = str(PATH)
    call_command("migrate", verbosity=0)


def use_fresh_demo_database() -> None:
    """The same, with nothing in it."""
    connection.close()
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{PATH}{suffix}").unlink(missing_ok=True)
    use_demo_database()
