"""The client under test, and an email for it to send."""

from collections.abc import Iterator

import pytest

from tests.conftest import API_KEY, FakeTruncus
from truncus_django.api import TruncusClient
from truncus_django.emulator import Emulator
from truncus_django.testing import run_emulator

EMAIL = {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "text": "Hello"}


def once(url: str) -> TruncusClient:
    """Return a client of the server at ``url`` that makes each request once."""
    return TruncusClient(API_KEY, base_url=url, max_retries=0, timeout_s=5)


@pytest.fixture
def client(truncus: FakeTruncus, naps: list[float]) -> TruncusClient:
    """A client of the fake Truncus that never really waits."""
    return TruncusClient(API_KEY)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server to which this process has no connection yet."""
    with run_emulator() as emulator:
        yield emulator
