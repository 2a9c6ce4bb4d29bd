"""Several processes reach the thresholds together."""

from collections import Counter
from typing import Any

import pytest

from tests.outbox.conftest import outbox
from tests.outbox.processes import Site, other_database, shared_database, site
from truncus_django.models import AccountQuota

__all__ = ["other_database", "outbox", "shared_database", "site"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.processes]


def test_three_processes_tell_each_threshold_once(site: Site, emulator: Any) -> None:
    emulator.reset(monthly_limit=60, requests_per_second=0, requests_per_minute=0)
    site.given["truncus"]["DELIVERY"] = "direct"

    processes = [site.start("-m", "tests.quota.crossing", "20") for _ in range(3)]
    assert [process.status() for process in processes] == [0, 0, 0]

    lines = Counter(line for process in processes for line in process.lines)
    assert lines.pop("sent") == 3
    assert set(lines.values()) == {1}  # a process that stands still may let a lower one be left out
    assert set(lines) <= {"told 80%", "told 95%", "told 100%"}
    assert lines["told 100%"] == 1
    assert AccountQuota.objects.get().remaining == 0
