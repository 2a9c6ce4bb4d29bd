"""The Truncus API, without Django: a client, its answers and its errors.

The names below are imported when they are first used, so that importing the package costs
nothing until something is sent.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from truncus_django.api.client import TruncusClient
    from truncus_django.api.errors import TruncusError

__all__ = ["TruncusClient", "TruncusError"]

_HOMES = {"TruncusClient": "client", "TruncusError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
