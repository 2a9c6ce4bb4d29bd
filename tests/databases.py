"""The databases that the tests run on, and which of them answer on this machine.

``python -m tests.databases`` prints the names of those that answer besides SQLite.
"""

import os
import socket
from typing import Any

SERVERS = {"postgresql": ("127.0.0.1", 5432), "mariadb": ("127.0.0.1", 3306)}
_NAME = os.environ.get("TEST_DATABASE_NAME", "truncus_django")
"""Two runs at once on one server need a name each."""


def database(name: str) -> dict[str, Any]:
    """Return the settings of the test database on ``sqlite``, ``postgresql`` or ``mariadb``."""
    if name == "postgresql":
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "USER": os.environ.get("PGUSER", "postgres"),
            "NAME": _NAME,
        }
    if name == "mariadb":
        _let_pymysql_stand_in()
        return {
            "ENGINE": "django.db.backends.mysql",
            "HOST": "127.0.0.1",
            "USER": os.environ.get("MYSQL_USER", "root"),
            "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
            "NAME": _NAME,
            "OPTIONS": {"charset": "utf8mb4"},
            "TEST": {"CHARSET": "utf8mb4"},
        }
    if name != "sqlite":
        raise ValueError(f"TEST_DATABASE is sqlite, postgresql or mariadb, not {name}.")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        # A writer takes its lock at once and waits for it, as the documentation advises.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }


def _let_pymysql_stand_in() -> None:
    """Use the driver that needs no compiler; Django asks for the version of the other one."""
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()


def answering() -> list[str]:
    """Return the names of the database servers that answer on this machine."""
    return [name for name, address in SERVERS.items() if _answers(address)]


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=2):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    print(" ".join(answering()))
