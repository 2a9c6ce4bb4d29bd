"""Scratch databases on the PostgreSQL of this machine, dropped when they are done with.

Where it answers is told by ``PGHOST``, ``PGPORT`` and ``PGUSER``, else it is 127.0.0.1:5432 and
``postgres``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PREFIX = "truncus_bench_"
_WAIT_S = 5


def server() -> dict[str, Any]:
    """Return the server's address and user, in the words of libpq."""
    return {
        "host": os.environ.get("PGHOST", "127.0.0.1"),
        "port": os.environ.get("PGPORT", "5432"),
        "user": os.environ.get("PGUSER", "postgres"),
    }


def answers() -> bool:
    """Return whether PostgreSQL is there and lets us in, and its driver is installed."""
    try:
        import psycopg
    except ImportError:
        return False
    try:
        psycopg.connect(**server(), dbname="postgres", connect_timeout=_WAIT_S).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def scratch_database(purpose: str) -> Iterator[dict[str, Any]]:
    """Create a database of this process's own; yield Django's settings for it, and drop it."""
    name = f"{PREFIX}{purpose}_{os.getpid()}"
    _run(f'DROP DATABASE IF EXISTS "{name}"')
    _run(f'CREATE DATABASE "{name}"')
    try:
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            **{key.upper(): value for key, value in server().items()},
        }
    finally:
        _run(f'DROP DATABASE "{name}" WITH (FORCE)')


def _run(sql: str) -> None:
    import psycopg
    from psycopg import sql as composed

    with psycopg.connect(**server(), dbname="postgres", autocommit=True) as connection:
        connection.execute(composed.SQL(sql))
