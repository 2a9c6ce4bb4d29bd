"""Many rows, each with values of its own, in one statement that is cheap to make.

Django's ``bulk_update()`` builds and resolves an expression for each value of each row, which
costs more than asking Truncus about the e-mail.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict
from django.db.models.expressions import Combinable, Expression
from django.db.models.functions import Cast
from django.db.models.sql.compiler import SQLCompiler

_MOST_ROWS = 500

_Row = TypeVar("_Row", bound=models.Model)


def update_each(queryset: models.QuerySet[_Row], rows: Iterable[_Row], names: Sequence[str]) -> int:
    """Write fields of ``rows`` that are in ``queryset``; return how many rows were written.

    One query for up to 500 rows; on an old SQLite for fewer, as it takes few values.
    """
    using = queryset.db
    features = connections[using].features
    size = _MOST_ROWS
    if features.max_query_params is not None:
        size = max(1, min(size, features.max_query_params // (2 * len(names) + 1)))
    cast = features.requires_casted_case_in_updates
    fields = [queryset.model._meta.get_field(name) for name in names]
    todo = list(rows)
    written = 0
    for start in range(0, len(todo), size):
        batch = todo[start : start + size]
        values: dict[str, Any] = {}
        for field in fields:
            if not isinstance(field, models.Field):
                raise TypeError(f"{field.name} is no column.")
            own = [(row.pk, getattr(row, field.attname)) for row in batch]
            _, first = own[0]
            if all(value == first for _, value in own) and not field.is_relation:
                values[field.name] = first  # the database need not look for each row's
                continue
            chosen: Combinable = _ByKey(field, own)
            values[field.name] = Cast(chosen, output_field=field) if cast else chosen
        ids = [row.pk for row in batch]
        written += queryset.using(using).filter(pk__in=ids).update(**values)
    return written


def insert_new(rows: Sequence[models.Model], *, using: str) -> None:
    """Insert ``rows``, all of one model, but for those whose unique values are there already.

    What ``bulk_create(ignore_conflicts=True)`` does, without compiling its SQL for every e-mail;
    the rows bring their keys along.
    """
    insert(rows, using=using, on_conflict=OnConflict.IGNORE)


def insert(
    rows: Sequence[models.Model], *, using: str, on_conflict: OnConflict | None = None
) -> None:
    """Insert ``rows``, all of one model, as ``bulk_create()`` does; the rows bring their keys."""
    connection, model = connections[using], type(rows[0])
    fields = model._meta.concrete_fields
    size = len(rows)
    if connection.features.max_query_params is not None:
        size = max(1, min(size, connection.features.max_query_params // len(fields)))
    several = size < len(rows)
    with transaction.atomic(using=using) if several else nullcontext():
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            parameters = [
                _prepared(field, row.__dict__[field.attname], connection)
                for row in chunk
                for field in fields
            ]
            with connection.cursor() as cursor:
                cursor.execute(
                    _insert_sql(model, model._meta.db_table, using, len(chunk), on_conflict),
                    parameters,
                )


def _prepared(field: "models.Field[Any, Any]", value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return what the driver is given; most columns of a new e-mail are empty, or text already."""
    if value is None or (type(value) is str and isinstance(field, _TEXT)):
        return value
    return field.get_db_prep_save(value, connection)


_TEXT = (models.CharField, models.TextField)


@lru_cache(maxsize=64)
def _insert_sql(
    model: type[models.Model], table: str, using: str, count: int, on_conflict: OnConflict | None
) -> str:
    operations = connections[using].ops
    fields = model._meta.concrete_fields
    columns = ", ".join(operations.quote_name(str(field.column)) for field in fields)
    row = f"({', '.join(['%s'] * len(fields))})"
    suffix = operations.on_conflict_suffix_sql(fields, on_conflict, [], [])
    return (
        f"{operations.insert_statement(on_conflict=on_conflict)} "
        f"{operations.quote_name(table)} ({columns}) "
        f"VALUES {', '.join([row] * count)} {suffix}"
    )


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
