"""The different values of an indexed column, found without reading the table.

A ``DISTINCT`` reads a million rows to find three tenants. This asks the index for the smallest
value, then for the smallest after that, and so on: as many steps as there are values.
"""

from django.db import connections

from truncus_django.models import Email

_SQL = """
WITH RECURSIVE found(value, steps) AS (
    SELECT MIN({column}), 1 FROM {table}
    UNION ALL
    SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > found.value), found.steps + 1
    FROM found WHERE found.value IS NOT NULL AND found.steps < %s
)
SELECT value FROM found WHERE value IS NOT NULL
"""
_VENDORS = frozenset({"postgresql", "sqlite", "mysql"})


def distinct_values(field_name: str, *, limit: int) -> list[str]:
    """Return the values of an indexed column of the log in their order, at most ``limit``.

    The column is named as its field.
    """
    using = Email.objects.db
    connection = connections[using]
    if connection.vendor not in _VENDORS:
        values = Email.objects.order_by(field_name).values_list(field_name, flat=True)
        return list(values.distinct()[:limit])
    quote = connection.ops.quote_name
    column = quote(field_name)
    sql = _SQL.format(column=column, table=quote(Email._meta.db_table))
    with connection.cursor() as cursor:
        cursor.execute(sql, [limit])
        return [value for (value,) in cursor.fetchall()]
