"""Forget one person, or export what is held about them.

For projects: :func:`forget` and :func:`export`. Inside,

``person``      an address in all the ways that texts spell it: pure
``tables``      where a person may stand, and looking through it
``forgetting``  each row that names them, and what becomes of it
``exporting``   what is held about them, as JSON
"""

from collections.abc import Iterator

from truncus_django.forget import exporting
from truncus_django.forget.forgetting import Forgetting, Found
from truncus_django.forget.person import Person

__all__ = ["Found", "export", "forget"]


def forget(address: str, *, cancel: bool = False, dry_run: bool = False) -> Found:
    """Take a person out of the log, the outbox and the admin's history; return what was found.

    Args:
        address: whose, in any case and with or without a name.
        cancel: whether emails to or from them that wait are cancelled first.
        dry_run: change nothing.

    Raises:
        InvalidAddress: it is malformed.
        django.db.Error: what was done before stays done; a second call does the rest.
    """
    forgetting = Forgetting(person=Person(address), cancels=cancel)
    return forgetting.count() if dry_run else forgetting.run()


def export(address: str) -> Iterator[str]:
    """Yield the parts of a JSON text with all that is held about a person.

    Raises:
        InvalidAddress: it is malformed.
    """
    return exporting.export(Person(address))
