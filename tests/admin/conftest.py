"""The admin's pages show the log: what its tests share."""

from tests.log.conftest import (
    count_queries,
    emulator,
    in_threads,
    messages,
    other_database,
    recording,
    sent,
    shared_database,
)
from tests.people import may

__all__ = [
    "count_queries",
    "emulator",
    "in_threads",
    "may",
    "messages",
    "other_database",
    "recording",
    "sent",
    "shared_database",
]
