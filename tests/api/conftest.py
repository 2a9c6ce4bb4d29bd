"""The client under test."""

import pytest

from tests.conftest import API_KEY, FakeTruncus
from truncus_django.api import TruncusClient


@pytest.fixture
def client(truncus: FakeTruncus, naps: list[float]) -> TruncusClient:
    """A client of the fake Truncus that never really waits."""
    return TruncusClient(API_KEY)
