"""The databases that the tests run on, and which of them answer on this machine.

``python -m tests.databases`` prints the names of those that answer besides SQLite.
"""

import os
import sys
from typing import Any

SERVERS = ("postgresql", "mariadb")
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
            # No test is about a crash of the server, and to wait for the disk takes long.
            "OPTIONS": {"options": "-c synchronous_commit=off"},
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
    return [name for name in SERVERS if _answers(name)]


def _answers(name: str) -> bool:
    """Whether the server is there and lets the tests in, as they would log in."""
    settings = database(name)
    try:
        if name == "postgresql":
            import psycopg

            psycopg.connect(
                host=settings["HOST"], user=settings["USER"], dbname="postgres", connect_timeout=30
            ).close()
        else:
            import pymysql

            pymysql.connect(
                host=settings["HOST"],
                user=settings["USER"],
                password=settings["PASSWORD"],
                connect_timeout=30,
            ).close()
    except Exception as exc:  # noqa: BLE001  whatever keeps the tests out keeps them out
        print(f"{name} is left out: {type(exc).__name__}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    print(" ".join(answering()))
