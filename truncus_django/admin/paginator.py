"""Counting emails without reading them all."""

from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.db import connections
from django.db.models import QuerySet
from django.utils.functional import cached_property

from truncus_django.models import Email

COUNT_LIMIT = 10_000
"""So many are counted, one by one; of more it is told that they are more."""

_ESTIMATES = {
    "postgresql": "SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)",
    "mysql": "SELECT table_rows FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name = %s",
}


if TYPE_CHECKING:
    PaginatorBase = Paginator[Any]
else:
    PaginatorBase = Paginator


class LogPaginator(PaginatorBase):
    """Pages of a queryset of emails, which may be a million.

    Up to ``COUNT_LIMIT`` the count is exact. Beyond, the whole log is estimated where the database
    keeps statistics, and of a filtered list the first ``COUNT_LIMIT`` can be leafed through.
    """

    is_estimate = False
    """Whether the count is what the database's statistics say."""
    is_capped = False
    """Whether there are more than the count says."""

    @cached_property
    def count(self) -> int:
        """How many emails can be leafed through."""
        queryset: QuerySet[Email] = self.object_list  # type: ignore[assignment]
        counted = int(queryset.order_by()[: COUNT_LIMIT + 1].count())
        if counted <= COUNT_LIMIT:
            return counted
        if not queryset.query.where:
            estimate = _estimated_total()
            if estimate is None:
                return int(queryset.order_by().count())
            if estimate > COUNT_LIMIT:
                self.is_estimate = True
                return estimate
        self.is_capped = True
        return COUNT_LIMIT


def _estimated_total() -> int | None:
    """Return how many emails the database believes it holds; ``None`` where it has no idea."""
    connection = connections[Email.objects.db]
    sql = _ESTIMATES.get(connection.vendor)
    if sql is None:
        return None
    name = Email._meta.db_table
    if connection.vendor == "postgresql":
        name = connection.ops.quote_name(name)
    with connection.cursor() as cursor:
        cursor.execute(sql, [name])
        row = cursor.fetchone()
    return int(row[0]) if row and row[0] is not None else 0
