"""Our own ids: unique everywhere, made before a row is written, and in the order of time."""

import os
import time
import uuid


def time_ordered_uuid() -> uuid.UUID:
    """Return a version 7 UUID (RFC 9562): milliseconds since 1970, then 74 random bits.

    Made by the client, so that a row's id is known where a database does not tell it (ignored
    conflicts), and ordered, so that an index of a million rows grows at its end.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return uuid.UUID(int=value)
