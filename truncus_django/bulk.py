"""Many rows, each with values of its own, in one statement that is cheap to make.

Django's ``bulk_update()`` builds and resolves an expression for each value of each row, which
costs more than asking Truncus about the e-mail.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Combinable, Expression
from django.db.models.functions import Cast
from django.db.models.sql.compiler import SQLCompiler

_BATCH_SIZE = 100

_Row = TypeVar("_Row", bound=models.Model)


def update_each(queryset: models.QuerySet[_Row], rows: Iterable[_Row], names: Sequence[str]) -> int:
    """Write fields of ``rows`` that are in ``queryset``; return how many rows were written.

    One query for each 100 rows.
    """
    using = queryset.db
    cast = connections[using].features.requires_casted_case_in_updates
    fields = [queryset.model._meta.get_field(name) for name in names]
    todo = list(rows)
    written = 0
    for start in range(0, len(todo), _BATCH_SIZE):
        batch = todo[start : start + _BATCH_SIZE]
        values: dict[str, Combinable] = {}
        for field in fields:
            if not isinstance(field, models.Field):
                raise TypeError(f"{field.name} is no column.")
            chosen: Combinable = _ByKey(
                field, [(row.pk, getattr(row, field.attname)) for row in batch]
            )
            values[field.name] = Cast(chosen, output_field=field) if cast else chosen
        ids = [row.pk for row in batch]
        written += queryset.using(using).filter(pk__in=ids).update(**values)
    return written


class _ByKey(Expression):
    """``CASE id WHEN … THEN … END`` as one expression, however many rows there are."""

    def __init__(self, field: "models.Field[Any, Any]", values: Sequence[tuple[Any, Any]]) -> None:
        super().__init__(output_field=field)
        self._field = field
        self._values = values

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> tuple[str, tuple[Any, ...]]:
        key: models.Field[Any, Any] = self._field.model._meta.pk
        parameters: list[Any] = []
        for pk, value in self._values:
            parameters.append(key.get_db_prep_value(pk, connection))
            parameters.append(self._field.get_db_prep_save(value, connection))
        cases = "WHEN %s THEN %s " * len(self._values)
        return f"CASE {connection.ops.quote_name(str(key.column))} {cases}END", tuple(parameters)
