"""The fields of an e-mail, which keep themselves out of error reports."""

from typing import Any


class EmailFields(dict[str, Any]):
    """A dict of the API's fields that shows only their names.

    Error reports, Django's own e-mails to the admins among them, print the local variables of
    every function on the way: addresses and reset links would be in them.
    """

    def __repr__(self) -> str:
        return f"<e-mail with {', '.join(self)}>"
