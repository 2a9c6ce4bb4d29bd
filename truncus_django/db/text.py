"""Text and JSON as every database takes them."""

import math
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 20
"""Of JSON. MariaDB takes 32 levels, and drops the row where there are more."""


def storable_text(value: object) -> str:
    """Return a value as text without NUL and half characters; ``None`` is the empty text."""
    if value is None:
        return ""
    text = str(value).replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def storable_json(value: Any, depth: int = 0) -> Any:
    """Return JSON whose texts can be stored, without NaN, and cut off below 20 levels."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, Mapping):
        return {storable_text(key): storable_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable_json(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
