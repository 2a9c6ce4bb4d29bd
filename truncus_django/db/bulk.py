"""Many rows, each with values of its own, in one statement that is cheap to make.

Django's ``bulk_update()`` builds and resolves an expression for each value of each row, which
costs more than asking Truncus about the email.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.constants import OnConflict
from django.db.models.expressions import Combinable, Expression
from django.db.models.functions import Cast
from django.db.models.sql.compiler import SQLCompiler

_MOST_ROWS = 500

_Row = TypeVar("_Row", bound=models.Model)


class Keyed(Protocol):
    """A row, or what has the primary key and some fields of one, under their names."""

    @property
    def pk(self) -> Any:
        """The primary key."""


def update_each(
    queryset: models.QuerySet[_Row], rows: Iterable[Keyed], names: Sequence[str]
) -> int:
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
            if not field.is_relation and _is_shared(field, [value for _, value in own]):
                values[field.name] = own[0][1]  # the database need not look for each row's
                continue
            chosen: Combinable = _ByKey(field, own)
            values[field.name] = Cast(chosen, output_field=field) if cast else chosen
        ids = [row.pk for row in batch]
        written += queryset.using(using).filter(pk__in=ids).update(**values)
    return written


def _is_shared(field: "models.Field[Any, Any]", values: Sequence[Any]) -> bool:
    """Whether all rows have the same in a field."""
    if isinstance(field, models.JSONField) and values[0]:
        return False  # {"paid": 1} equals {"paid": True}, and is not the same
    return values.count(values[0]) == len(values)


def insert_new(rows: Sequence[models.Model], *, using: str) -> int:
    """Insert ``rows``, all of one model, but for those whose unique values are there already.

    Returns how many were inserted.

    What ``bulk_create(ignore_conflicts=True)`` does, without compiling its SQL for every email;
    the rows bring their keys along.
    """
    return insert(rows, using=using, on_conflict=OnConflict.IGNORE)


def insert(
    rows: Sequence[models.Model], *, using: str, on_conflict: OnConflict | None = None
) -> int:
    """Insert ``rows``, all of one model, as ``bulk_create()`` does; the rows bring their keys.

    Returns how many were inserted.
    """
    connection, model = connections[using], type(rows[0])
    fields = model._meta.concrete_fields
    size = len(rows)
    if connection.features.max_query_params is not None:
        size = max(1, min(size, connection.features.max_query_params // len(fields)))
    several = size < len(rows)
    inserted = 0
    with transaction.atomic(using=using) if several else nullcontext():
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            if len(chunk) == 1:  # of which each sent email is one: no more work than need be
                row = chunk[0].__dict__
                sql = _insert_sql(model, model._meta.db_table, using, 1, on_conflict)
                is_plain = _PLAIN_TYPES.get(connection.vendor, frozenset())
                values = [
                    value
                    if (value := row[name]) is None or (type(value) in is_plain and plain)
                    else _prepared(field, value, connection)
                    for name, field, plain in _columns(model)
                ]
                with connection.cursor() as cursor:
                    cursor.execute(sql, values)
                    inserted += cursor.rowcount
                continue
            columns = [_Column(field, chunk, connection) for field in fields]
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    shared = tuple(column.is_shared for column in columns)
                    sql = _insert_arrays_sql(
                        model, model._meta.db_table, using, shared, on_conflict
                    )
                    cursor.execute(sql, _array_parameters(columns))
                else:
                    sql = _insert_sql(model, model._meta.db_table, using, len(chunk), on_conflict)
                    in_rows = zip(*(column.values for column in columns), strict=True)
                    cursor.execute(sql, [value for row in in_rows for value in row])
                inserted += cursor.rowcount
    return inserted


_PLAIN_TYPES = {"sqlite": frozenset({str, int, bool}), "mysql": frozenset({str, int, bool})}
"""What these drivers take as it is; psycopg is told the width of a number by Django."""


@lru_cache(maxsize=16)
def _columns(model: type[models.Model]) -> list[tuple[str, "models.Field[Any, Any]", bool]]:
    """Return attribute, field, and whether its values may go to the driver as they are."""
    plain = (*_TEXT, models.IntegerField, models.BooleanField)
    return [
        (str(field.attname), field, isinstance(field, plain))
        for field in model._meta.concrete_fields
    ]


class _Column:
    """What rows have in a field, as the database takes it; prepared once where all have the same.

    Of an email's many fields most are the same in all of a batch, usually empty.
    """

    def __init__(
        self,
        field: "models.Field[Any, Any]",
        rows: Sequence[models.Model],
        connection: BaseDatabaseWrapper,
    ) -> None:
        own = [row.__dict__[field.attname] for row in rows]
        self.is_shared = _is_shared(field, own)
        if self.is_shared:
            self.values = [_prepared(field, own[0], connection)] * len(own)
        else:
            self.values = [_prepared(field, value, connection) for value in own]


def _prepared(field: "models.Field[Any, Any]", value: Any, connection: BaseDatabaseWrapper) -> Any:
    """Return what the driver is given; most columns of a new email are empty, or text already."""
    if value is None or (type(value) is str and isinstance(field, _TEXT)):
        return value
    is_empty = not value and type(value) in _EMPTY_JSON and connection.vendor in _PLAIN_TYPES
    if is_empty and isinstance(field, models.JSONField):  # most lists of an email are empty
        return _EMPTY_JSON[type(value)]
    return field.get_db_prep_save(value, connection)


_EMPTY_JSON: Mapping[type, str] = {list: "[]", dict: "{}"}
_TEXT = (models.CharField, models.TextField)


def _array_parameters(columns: Sequence[_Column]) -> list[Any]:
    """Return the parameters of :func:`_insert_arrays_sql`."""
    shared = [column.values[0] for column in columns if column.is_shared]
    return [*shared, *(column.values for column in columns if not column.is_shared)]


@lru_cache(maxsize=64)
def _insert_arrays_sql(
    model: type[models.Model],
    table: str,
    using: str,
    shared: tuple[bool, ...],
    on_conflict: OnConflict | None,
) -> str:
    """Return an INSERT for PostgreSQL that takes a value or an array of values for each column.

    So many parameters as one for each value of each row are slow to parse, for its driver and for
    itself. Values of ``shared`` columns come first.
    """
    connection = connections[using]
    operations, fields = connection.ops, model._meta.concrete_fields
    columns = ", ".join(operations.quote_name(str(field.column)) for field in fields)
    # Without a length, so that what is too long is refused and not cut off.
    types = [str(field.db_type(connection)).partition("(")[0] for field in fields]
    kinds = list(zip(types, shared, strict=True))
    chosen = ", ".join(
        f"%s::{kind}" if is_shared else f"c{place}" for place, (kind, is_shared) in enumerate(kinds)
    )
    names = ", ".join(f"c{place}" for place, (_, is_shared) in enumerate(kinds) if not is_shared)
    arrays = ", ".join(f"(%s)::{kind}[]" for kind, is_shared in kinds if not is_shared)
    suffix = operations.on_conflict_suffix_sql(fields, on_conflict, [], [])
    return (
        f"{operations.insert_statement(on_conflict=on_conflict)} "  # noqa: S608  names of our own
        f"{operations.quote_name(table)} ({columns}) "
        f"SELECT {chosen} FROM unnest({arrays}) AS given({names}) {suffix}"
    )


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

    def as_postgresql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper
    ) -> tuple[str, tuple[Any, ...]]:
        """Pass two arrays: so many parameters are slow to parse, for its driver and for itself."""
        key: models.Field[Any, Any] = self._field.model._meta.pk
        keys = [key.get_db_prep_value(pk, connection) for pk, _ in self._values]
        values = [self._field.get_db_prep_save(value, connection) for _, value in self._values]
        kinds = [str(field.db_type(connection)).partition("(")[0] for field in (key, self._field)]
        quote = connection.ops.quote_name
        own_key = f"{quote(self._field.model._meta.db_table)}.{quote(str(key.column))}"
        arrays = f"unnest((%s)::{kinds[0]}[], (%s)::{kinds[1]}[])"
        sql = f"(SELECT given.value FROM {arrays} AS given(key, value) WHERE given.key = {own_key})"  # noqa: S608  names of our own
        return sql, (keys, values)
