"""The tests of metrics share fixtures with those of the outbox."""

from tests.log.conftest import other_database, shared_database  # noqa: F401  fixtures
from tests.outbox.conftest import (  # noqa: F401  fixtures
    dispatcher,
    emulator,
    message,
    no_trouble,
    outbox,
    put,
)
