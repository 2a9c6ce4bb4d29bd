"""Locks on rows, and what stands in for them where a database has none."""

from typing import Any, TypeVar

from django.db import connections, models

_Row = TypeVar("_Row", bound=models.Model)


def take_write_lock(rows: models.QuerySet[Any]) -> None:
    """Lock SQLite's database, which has no locks for rows, before ``rows`` are read and changed.

    A transaction that has read cannot wait for this lock any more: it fails at once.
    """
    if not connections[rows.db].features.has_select_for_update:
        key = rows.model._meta.pk.name
        none = rows.model._default_manager.using(rows.db).filter(pk__isnull=True)
        none.update(**{key: models.F(key)})


def lock_free_rows(rows: models.QuerySet[_Row]) -> models.QuerySet[_Row]:
    """Lock those of ``rows`` that nobody else has locked.

    Where the database cannot leave out the others, whoever evaluates this waits for them.
    """
    skips = connections[rows.db].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=skips)


def read_in_order_of_index(using: str) -> None:
    """Have PostgreSQL read no more rows than a query asks for, until the transaction ends.

    It plans by old statistics, in which a queue was often empty, and would then read and sort all
    that waits to find the first hundred.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off")
