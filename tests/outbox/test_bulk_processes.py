"""Bulks that are killed, and bulks that run twice at once: by Truncus's books, each gets one."""

import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from tests.outbox.bulk_messages import COUNT, customers
from tests.outbox.conftest import NO_LIMITS
from tests.outbox.processes import Process, Site, other_database, shared_database, site
from truncus_django.models import Email, OutboxAccount, OutboxBatch

__all__ = ["other_database", "shared_database", "site"]

EVERYONE = customers(COUNT)


@pytest.fixture
def start(site: Site) -> Callable[[str], Process]:
    """Return a function that starts the same bulk, with the delivery that is given."""

    def start(delivery: str) -> Process:
        site.given["truncus"]["DELIVERY"] = delivery
        path = "tests.outbox.bulk_messages.letters"
        return site.manage("truncus_send_bulk", path, "--key", "letters", "--no-progress")

    return start


def run_leases_out() -> None:
    """Let time pass for what dead processes have left."""
    past = timezone.now() - timedelta(seconds=1)
    OutboxBatch.objects.update(due_at=past)
    OutboxAccount.objects.update(paused_until=None)


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_killed_anywhere_and_run_again_it_reaches_everyone_once(start, emulator, delivery):
    emulator.reset(latency_s=0.03, **NO_LIMITS)
    chance = random.Random(delivery)
    kills = 0
    while True:
        written = Email.objects.count()
        process = start(delivery)
        # Once it is at work, at any moment.
        while Email.objects.count() == written and not process.has_ended:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.12))
        if kills < 5 and not process.has_ended:
            process.signal(signal.SIGKILL)
        status = process.status()
        run_leases_out()
        if status == 0:
            break
        assert status == -signal.SIGKILL, process.output
        kills += 1
