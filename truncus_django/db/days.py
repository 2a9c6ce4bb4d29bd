"""Grouping rows by day in a time zone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import Case, Expression, F, Func, IntegerField, QuerySet, Value, When


def day_number(rows: QuerySet[Any], field_name: str, midnights: Sequence[datetime]) -> Expression:
    """Return an expression for the place of a moment among days, from 0.

    ``TruncDate`` needs tables of time zones on MariaDB and MySQL, which most of them lack. Of
    80,000 emails on PostgreSQL, ``WIDTH_BUCKET`` finds their days in two thirds of the time.

    Args:
        rows: to be grouped.
        field_name: of the moment, which lies after the first midnight.
        midnights: when each day begins.
    """
    if connections[rows.db].vendor == "postgresql":
        place = Func(
            F(field_name),
            Value(list(midnights)),
            template="WIDTH_BUCKET(%(expressions)s::timestamptz[])",
            output_field=IntegerField(),
        )
        return place - 1
    days = [
        When(**{f"{field_name}__gte": midnight}, then=Value(number))
        for number, midnight in enumerate(midnights)
    ]
    return Case(*reversed(days), output_field=IntegerField())
