"""Logs trouble once, and not each time that it is met."""

import logging
from collections.abc import Mapping

logger = logging.getLogger("truncus_django")


class TroubleLog:
    """Logs each kind of trouble once, until it is over.

    What fails for each email would fill the log. And a log handler may send email, which meets the
    same trouble again, without end.
    """

    def __init__(self) -> None:
        self._logged: dict[str, object] = {}

    def error(self, kind: str, message: str, *args: object, extra: Mapping[str, object]) -> None:
        """Log an error, unless one of its kind was logged since trouble was last over.

        Args:
            kind: what makes it the same trouble, such as the name of an exception's class.
            message, args, extra: as :meth:`logging.Logger.error` takes them.
        """
        mine = object()
        if self._logged.setdefault(kind, mine) is mine:  # of several threads, one logs it
            logger.error(message, *args, extra=extra)

    def failed(self, exc: Exception, message: str, *, event: str) -> None:
        """Log that something failed, as :meth:`error` does.

        What the exception says is not logged: it may hold anything.

        Args:
            exc: what was raised.
            message: holds ``%s`` where the name of the exception's class goes.
            event: the ``truncus_event`` of the line.
        """
        kind = type(exc).__name__
        extra = {"truncus_event": event, "truncus_error": kind}
        self.error(kind, message, kind, extra=extra)

    def clear(self) -> bool:
        """Note that all is well again; return whether there was trouble."""
        if not self._logged:
            return False
        self._logged.clear()
        return True
