"""The fields of an email: out of error reports, and into JSON."""

import json
from collections.abc import Mapping
from typing import Any

from truncus_django.api.errors import MessageError

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class EmailFields(dict[str, Any]):
    """A dict of the API's fields that shows only their names.

    Error reports print the local variables of every function on the way: addresses and reset
    links would be in them.
    """

    def __repr__(self) -> str:
        return f"<email with {', '.join(self)}>"


def encode(body: Mapping[str, Any]) -> bytes:
    """Return ``body`` as JSON in UTF-8.

    Raises:
        MessageError: something in it is not JSON, or not Unicode.
    """
    try:
        return _encode(body).encode()
    except UnicodeEncodeError:
        raise MessageError(
            "The email holds half a character (a lone surrogate); decode its source correctly."
        ) from None
    except (TypeError, ValueError, RecursionError):
        raise MessageError(
            "The email's payload holds a value that JSON cannot carry; use strings, numbers, "
            "lists and dicts."
        ) from None
