"""A column for ids, in which two that differ in case are two on every database."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

_Set = TypeVar("_Set", contravariant=True)
_Get = TypeVar("_Get", covariant=True)

if TYPE_CHECKING:

    class _CharField(models.CharField[_Set, _Get]): ...

else:  # Django's fields take no type arguments at run time

    class _CharField(models.CharField, Generic[_Set, _Get]): ...


class ExactCharField(_CharField[_Set, _Get]):
    """Text that is compared letter by letter.

    MySQL and MariaDB compare text without case unless a column says otherwise, so that a second
    id would pass there for the first. A ``db_collation`` would name one database's collation to
    all of them; a site may keep its log on one and try it on another.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return what Django's field does, on MySQL and MariaDB with the binary collation."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters
