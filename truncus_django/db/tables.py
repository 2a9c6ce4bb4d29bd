"""Whether an error of the database is about tables that are not there yet."""

from django.db import ProgrammingError
from django.db.transaction import TransactionManagementError


def lacks_tables(exc: BaseException) -> bool:
    """Return whether ``manage.py migrate`` may help."""
    if isinstance(exc, TransactionManagementError):  # a ProgrammingError, too
        return False
    # On SQLite a table that is missing is the same kind of error as one that is locked.
    return isinstance(exc, ProgrammingError) or "no such" in str(exc)
