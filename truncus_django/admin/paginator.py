"""Counting emails without reading all of them."""

from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

from truncus_django.db.large_tables import estimated_count
from truncus_django.models import Email

COUNT_LIMIT = 10_000
"""Beyond this, emails are not counted."""
SEARCH_COUNT_LIMIT = 1_000
"""The same of those that a search finds: each must be read, from all over the table."""

if TYPE_CHECKING:
    PaginatorBase = Paginator[Any]
else:
    PaginatorBase = Paginator


class LogPaginator(PaginatorBase):
    """Pages of emails, of which there may be a million.

    Up to ``COUNT_LIMIT`` the count is exact. Beyond, the count of the whole log is an estimate from
    the statistics of the database, and a filtered list has pages for the first ``COUNT_LIMIT``, or
    one that was searched for the first ``SEARCH_COUNT_LIMIT``.

    Args:
        is_search: whether the emails were searched for.
    """

    is_estimate = False
    """Whether the count is an estimate."""
    is_capped = False
    """Whether there are more emails than the pages show."""

    def __init__(self, *args: Any, is_search: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = SEARCH_COUNT_LIMIT if is_search else COUNT_LIMIT

    @cached_property
    def count(self) -> int:
        """How many emails the pages show."""
        queryset: QuerySet[Email] = self.object_list  # type: ignore[assignment]
        limit = self._limit
        counted = int(queryset.order_by()[: limit + 1].count())
        if counted <= limit:
            return counted
        if not queryset.query.where:
            estimate = estimated_count(Email.objects.all())
            if estimate is None:
                return int(queryset.order_by().count())
            if estimate > limit:
                self.is_estimate = True
                return estimate
        self.is_capped = True
        return limit
