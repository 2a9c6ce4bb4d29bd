"""Transactions that are committed at their end, and that nobody holds for long."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

IDLE_S = 15
"""A process that stands still inside such a transaction would stop all others; after so long the
database ends it. The longest of them takes a fraction of a second."""
LOCK_S = 10


@contextmanager
def committed(using: str) -> Iterator[None]:
    """Open a transaction that is committed when this ends without an exception.

    Args:
        using: the alias of the outbox's database.

    Raises:
        RuntimeError: a transaction is open already.
    """
    connection = connections[using]
    connection.ensure_connection()
    is_mariadb = connection.vendor == "mysql" and getattr(connection, "mysql_is_mariadb", False)
    if is_mariadb:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION idle_write_transaction_timeout = {IDLE_S}")
    try:
        with transaction.atomic(using=using, durable=True):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_S}s'; "
                        f"SET LOCAL lock_timeout = '{LOCK_S}s'"
                    )
            yield
    finally:
        if is_mariadb and connection.connection is not None and not connection.needs_rollback:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION idle_write_transaction_timeout = DEFAULT")
