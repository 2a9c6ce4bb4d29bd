"""Many rows, each with values of its own, in one query that is cheap to make.

SQL written by hand for its speed; that of other modules does what Django has no call for. Django's
own calls miss targets of ``benchmarks/targets.py``. With ``bulk_create()`` recording took 3.7 times
the CPU of bare requests one by one, and as a list 0.36 times Anymail's; with this module 2.5 to 2.8
and 0.21, where at most 2.5 and 0.3 are wanted. In microseconds for each row:

====================================  ======  ==========  =======================
..                                    SQLite  PostgreSQL  Django's own calls
====================================  ======  ==========  =======================
insert 1 row                             630         190  900, 460
insert 100 rows                           55          19  170, 130
update 13 fields of each of 100 rows      48          26  1450, 1420
====================================  ======  ==========  =======================

On PostgreSQL it counts that values of many rows are one JSON text: as arrays, rows took about half
as long again, and with a parameter for each value several times as long. SQLite takes two thirds
of the time for an update where it runs a prepared statement for each row (:func:`update_rows`).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Expression
from django.db.models.sql.compiler import SQLCompiler

_MAX_ROWS = 500

_Row = TypeVar("_Row", bound=models.Model)


def new_row(model: type[_Row], **values: Any) -> _Row:
    """Return a row that is still to be inserted: ``model(**values)`` in a third of the time.

    Django takes values by position much faster than by name.

    Args:
        values: by the names of columns: ``batch_id``, not ``batch``. Others have their default.

    Raises:
        TypeError: there is no such column.
    """
    own = [
        values.pop(name) if name in values else default if make is None else make()
        for name, make, default in _defaults(model)
    ]
    if values:
        raise TypeError(f"{model.__name__} has no column {', '.join(values)}.")
    return model(*own)


@lru_cache(maxsize=64)
def _defaults(model: type[models.Model]) -> list[tuple[str, Callable[[], Any] | None, Any]]:
    """Return the columns in their order: name, and what makes the default or the default itself."""
    return [
        (field.attname, field.get_default, None)
        if field.has_default() and callable(field.default)
        else (field.attname, None, field.get_default())
        for field in model._meta.concrete_fields
    ]


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
    size = _MAX_ROWS
    if features.max_query_params is not None:
        size = max(1, min(size, features.max_query_params // (2 * len(names) + 1)))
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
            values[field.name] = _ByKey(field, own)
        ids = [row.pk for row in batch]
        written += queryset.using(using).filter(pk__in=ids).update(**values)
    return written


def _is_shared(field: "models.Field[Any, Any]", values: Sequence[Any]) -> bool:
    """Whether all rows have the same in a field."""
    if isinstance(field, models.JSONField) and values[0]:
        return False  # {"paid": 1} equals {"paid": True}, and is not the same
    return values.count(values[0]) == len(values)


def update_rows(
    model: type[models.Model], rows: Sequence[Keyed], names: Sequence[str], *, using: str
) -> int:
    """Write fields of ``rows``; return how many rows were written: without those that are gone.

    Unlike ``save(update_fields=…)`` it compiles its SQL once, and sends no signals.
    """
    connection = connections[using]
    if len(rows) > 1 and connection.vendor != "sqlite":
        return update_each(model._default_manager.using(using), rows, names)
    if not rows:
        return 0
    fields: list[Any] = [model._meta.get_field(name) for name in names]
    columns = [
        *(
            _Column(field, [getattr(row, field.attname) for row in rows], connection)
            for field in fields
        ),
        _Column(model._meta.pk, [row.pk for row in rows], connection),
    ]
    parameters = list(zip(*(column.values for column in columns), strict=True))
    sql = _update_sql(model, using, tuple(names))
    with connection.cursor() as cursor:
        if len(rows) == 1:
            cursor.execute(sql, parameters[0])
        else:  # in one statement SQLite would search for the values of each row
            cursor.executemany(sql, parameters)
        return int(cursor.rowcount)


def locked_row(
    model: type[_Row],
    name: str,
    value: Any,
    *,
    using: str,
    without: Sequence[str] = (),
    waiting: "models.ForeignKey[Any, Any]",
) -> tuple[_Row | None, bool]:
    """Return the row with a value in a unique field, locked, and whether others wait for it.

    Args:
        without: fields that are not read now.
        waiting: a foreign key to ``model`` that is empty in rows that wait; they have the same
            value in a field of the same name.

    Returns:
        the row, or ``None`` if there is none, and whether any wait.
    """
    sql = _select_sql(model, using, name, tuple(without), waiting)
    value = _adapted(model._meta.get_field(name), value, connections[using])  # type: ignore[arg-type]
    for row in model._default_manager.using(using).raw(sql, [value, value]):
        return row, bool(vars(row)["others_wait"])
    return None, False


def insert_new(rows: Sequence[models.Model], *, using: str) -> int:
    """Insert ``rows`` except those whose unique values are stored already; return how many.

    ``bulk_create(ignore_conflicts=True)`` does not return how many. See :func:`insert`.
    """
    return insert(rows, using=using, ignore_conflicts=True)


def insert(rows: Sequence[models.Model], *, using: str, ignore_conflicts: bool = False) -> int:
    """Insert ``rows``, all of one model and with their primary keys; return how many.

    ``bulk_create()`` compiles its SQL anew, and adapts each value of each row.
    """
    connection, model = connections[using], type(rows[0])
    fields = model._meta.concrete_fields
    size = len(rows)
    if connection.features.max_query_params is not None:
        size = max(1, min(size, connection.features.max_query_params // len(fields)))
    inserted = 0
    with transaction.atomic(using=using) if size < len(rows) else nullcontext():
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            table = model._meta.db_table
            if len(chunk) == 1:
                sql = _insert_values_sql(model, table, using, 1, ignore_conflicts)
                row = chunk[0].__dict__
                parameters = [_adapted(field, row[field.attname], connection) for field in fields]
                with connection.cursor() as cursor:
                    cursor.execute(sql, parameters)
                    inserted += cursor.rowcount
                continue
            if connection.vendor == "postgresql":
                sql, parameters = _insert_records(chunk, using, ignore_conflicts)
            else:
                columns = [
                    _Column(field, [row.__dict__[field.attname] for row in chunk], connection)
                    for field in fields
                ]
                sql = _insert_values_sql(model, table, using, len(chunk), ignore_conflicts)
                in_rows = zip(*(column.values for column in columns), strict=True)
                parameters = [value for row in in_rows for value in row]
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters)
                inserted += cursor.rowcount
    return inserted


_TEXT = (models.CharField, models.TextField)


class _Column:
    """Values of rows in one field, as the driver takes them.

    Most of an email's many fields are the same in all rows of a batch, and adapted once.
    """

    def __init__(
        self, field: "models.Field[Any, Any]", own: Sequence[Any], connection: BaseDatabaseWrapper
    ) -> None:
        self.is_shared = _is_shared(field, own)
        adapted = [_adapted(field, value, connection) for value in own[: self.is_shared or None]]
        self.values = adapted * len(own) if self.is_shared else adapted


def _adapted(field: "models.Field[Any, Any]", value: Any, connection: BaseDatabaseWrapper) -> Any:
    if value is None or (type(value) is str and isinstance(field, _TEXT)):
        return value
    return field.get_db_prep_save(value, connection)


@lru_cache(maxsize=64)
def _insert_values_sql(
    model: type[models.Model], table: str, using: str, count: int, ignore_conflicts: bool
) -> str:
    # The table is the model's own; it is part of what is cached by, as tests give a model another.
    places = ", ".join(["%s"] * len(model._meta.concrete_fields))
    values = f"VALUES {', '.join([f'({places})'] * count)}"
    return _insert_sql(model, table, using, values, ignore_conflicts)


def _insert_records(
    rows: Sequence[models.Model], using: str, ignore_conflicts: bool
) -> tuple[str, list[Any]]:
    """Return an INSERT for PostgreSQL, and its parameters.

    What all rows share is a parameter for each column; the rest is one JSON text for all rows. So
    many parameters, or arrays, are slow to make for the driver.
    """
    connection, model = connections[using], type(rows[0])
    own: list[models.Field[Any, Any]] = []
    shared: list[models.Field[Any, Any]] = []
    for field in model._meta.concrete_fields:
        values = [row.__dict__[field.attname] for row in rows]
        (shared if _is_shared(field, values) else own).append(field)
    first = rows[0].__dict__
    parameters = [_adapted(field, first[field.attname], connection) for field in shared]
    names = [field.attname for field in own]
    records = [dict(zip(names, map(row.__dict__.get, names), strict=True)) for row in rows]
    sql = _insert_records_sql(model, using, tuple(names), ignore_conflicts)
    return sql, [*parameters, json.dumps(records, default=str)]


@lru_cache(maxsize=64)
def _insert_records_sql(
    model: type[models.Model], using: str, own: tuple[str, ...], ignore_conflicts: bool
) -> str:
    quote = connections[using].ops.quote_name
    # Without a length, so that a value that is too long is refused and not cut off.
    types = {
        field.attname: str(field.db_type(connections[using])).partition("(")[0]
        for field in model._meta.concrete_fields
    }
    chosen = [
        f"given.{quote(name)}" if name in own else f"(%s)::{type_}" for name, type_ in types.items()
    ]
    columns = ", ".join(f"{quote(name)} {types[name]}" for name in own)
    records = f"json_to_recordset((%s)::json) AS given({columns})"
    selected = f"SELECT {', '.join(chosen)} FROM {records}"  # noqa: S608  names of our own
    return _insert_sql(model, model._meta.db_table, using, selected, ignore_conflicts)


def _insert_sql(
    model: type[models.Model], table: str, using: str, rows: str, ignore_conflicts: bool
) -> str:
    connection = connections[using]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in model._meta.concrete_fields)
    is_mysql = connection.vendor == "mysql"
    verb = "INSERT IGNORE INTO" if ignore_conflicts and is_mysql else "INSERT INTO"
    suffix = " ON CONFLICT DO NOTHING" if ignore_conflicts and not is_mysql else ""
    return f"{verb} {quote(table)} ({columns}) {rows}{suffix}"


@lru_cache(maxsize=64)
def _update_sql(model: type[models.Model], using: str, names: tuple[str, ...]) -> str:
    quote, meta = connections[using].ops.quote_name, model._meta
    columns = ", ".join(f"{quote(str(meta.get_field(name).column))} = %s" for name in names)  # type: ignore[union-attr]
    return f"UPDATE {quote(meta.db_table)} SET {columns} WHERE {quote(str(meta.pk.column))} = %s"  # noqa: S608  names of our own


@lru_cache(maxsize=64)
def _select_sql(
    model: type[models.Model],
    using: str,
    name: str,
    without: tuple[str, ...],
    waiting: "models.ForeignKey[Any, Any]",
) -> str:
    quote, meta, others = connections[using].ops.quote_name, model._meta, waiting.model._meta
    fields = [field for field in meta.concrete_fields if field.name not in without]
    columns = ", ".join(quote(str(field.column)) for field in fields)
    place, same = (quote(str(each.get_field(name).column)) for each in (meta, others))  # type: ignore[union-attr]
    wait = f"{same} = %s AND {quote(str(waiting.column))} IS NULL"
    exists = f"EXISTS (SELECT 1 FROM {quote(others.db_table)} WHERE {wait}) AS others_wait"  # noqa: S608  names of our own
    lock = " FOR UPDATE" if connections[using].features.has_select_for_update else ""
    return f"SELECT {columns}, {exists} FROM {quote(meta.db_table)} WHERE {place} = %s{lock}"  # noqa: S608


class _ByKey(Expression):
    """The value of each row by its key, as one expression, however many rows there are."""

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
        """Pass one JSON object: so many parameters are slow to parse, for its driver and itself."""
        key: models.Field[Any, Any] = self._field.model._meta.pk
        values = json.dumps({str(pk): value for pk, value in self._values}, default=str)
        kind = str(self._field.db_type(connection)).partition("(")[0]
        quote = connection.ops.quote_name
        own_key = f"{quote(self._field.model._meta.db_table)}.{quote(str(key.column))}"
        return f"((%s)::jsonb ->> {own_key}::text)::{kind}", (values,)
