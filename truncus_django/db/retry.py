"""Work on the database that is worth another try: a deadlock, a conflict, an ended connection."""

from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["PASSING", "in_tries", "is_in_transaction", "over_a_live_connection"]

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


def over_a_live_connection(work: Callable[[], _Result], *, using: str) -> _Result:
    """Return what ``work`` returns, at the second try if the first met a deadlock or the like.

    It goes over a new connection where this one was ended. What was raised in a transaction of the
    caller's, which ended with it, is raised.

    Args:
        work: all or nothing, so that it can be done again.
        using: the alias of the database.
    """
    connection = connections[using]
    if is_in_transaction(connection):
        return work()
    try:
        return in_tries(work, using=using, tries=2)
    except PASSING:
        _close_if_ended(connection)  # the caller has more to do with it
        raise


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a transaction is open, also one after ``set_autocommit(False)``."""
    return connection.in_atomic_block or not connection.get_autocommit()


def _close_if_ended(connection: BaseDatabaseWrapper) -> None:
    # What asks a connection in a transaction whether it is usable closes it, transaction and all.
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
