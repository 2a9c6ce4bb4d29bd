"""Work on the database that is worth another try: a deadlock, a conflict, an ended connection."""

from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["PASSING", "in_tries"]

PASSING: tuple[type[Error], ...] = (OperationalError, InterfaceError)
"""What may be over by the next try. An ``InterfaceError`` is no ``DatabaseError``."""

_Result = TypeVar("_Result")


def in_tries(
    work: Callable[[], _Result],
    *,
    using: str,
    tries: int = 3,
    worth_another: tuple[type[Error], ...] = PASSING,
) -> _Result:
    """Return what ``work`` returns at the first try that succeeds, or raise what the last raised.

    Args:
        work: all or nothing, so that it can be done again.
        using: the alias of the database. Its connection is made anew if it was ended, as nobody
            else does that outside requests; but not inside a transaction, which ended with it.
    """
    for _ in range(tries - 1):
        try:
            return work()
        except worth_another:
            _close_if_ended(connections[using])
    return work()


def _close_if_ended(connection: BaseDatabaseWrapper) -> None:
    # What asks a connection in a transaction whether it is usable closes it, transaction and all.
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
