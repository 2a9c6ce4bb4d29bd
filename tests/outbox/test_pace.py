"""The pace: workers together use what the account allows, and no more.

``python -m tests.outbox.chaos --pace`` measures the same with processes and in real time.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.outbox.chaos.pace import PER_MINUTE, PER_SECOND, use_of
from truncus_django.api.transport import Transport
from truncus_django.emulator import Emulator
from truncus_django.models import Email, OutboxAccount
from truncus_django.outbox.claim import Rest
from truncus_django.outbox.clock import unix_of
from truncus_django.outbox.dispatch import Delivered, Dispatcher
from truncus_django.testing import run_emulator, use_emulator

pytestmark = pytest.mark.django_db(transaction=True)

START = 1_800_000_012.0
"""In the middle of a minute."""


@dataclass
class Time:
    """Unix seconds that pass when a test says so; a request is on its way for a moment."""

    present: float = START
    on_its_way_s: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def now(self) -> float:
        return self.present

    def at_truncus(self) -> float:
        return self.present + self.on_its_way_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def limited(settings: Any, time: Time) -> Iterator[Emulator]:
    """A local Truncus with the limits of a real account."""
    settings.TRUNCUS = {"API_KEY": "tr_test_pace", "DELIVERY": "outbox"}
    limits = {"requests_per_second": PER_SECOND, "requests_per_minute": PER_MINUTE}
    with run_emulator(clock=time.at_truncus, **limits) as emulator, use_emulator(emulator):
        yield emulator


@pytest.fixture
def workers(limited: Emulator, time: Time) -> Callable[[int], list[Dispatcher]]:
    """Return a function that makes workers that share the time."""

    def make(count: int) -> list[Dispatcher]:
        made = [Dispatcher(jitter=lambda: 0.5) for _ in range(count)]
        for dispatcher in made:
            dispatcher.clock = time  # type: ignore[assignment]
        return made

    return make


def test_four_workers_use_the_limits_and_are_hardly_ever_refused(
    limited: Emulator, workers: Any, time: Time, message: Any
) -> None:
    from truncus_django.backend import TruncusBackend

    full_minutes = 4
    wanted = (full_minutes + 1) * PER_MINUTE
    # Each goes alone for its key: a request for each e-mail.
    TruncusBackend().send_messages(
        [message(number, idempotency_key=f"alone-{number}") for number in range(wanted)]
    )
    free_at = dict.fromkeys(workers(4), START)
    while any(moment < float("inf") for moment in free_at.values()):
        dispatcher = min(free_at, key=free_at.__getitem__)
        time.present = max(time.present, free_at[dispatcher])
        time.on_its_way_s = time.chance.uniform(0.0, 0.03)
        step = dispatcher.step()
        if isinstance(step, Delivered):
            free_at[dispatcher] = time.present + time.chance.uniform(0.05, 0.4)
        else:
            late_s = time.chance.uniform(0.0, 0.02)
            free_at[dispatcher] = float("inf") if step.until is None else step.until + late_s
    use = use_of([{"at": told.at, "status": told.status} for told in limited.requests])
    assert limited.accepted == wanted
    assert len(use.minutes) >= full_minutes - 1
    assert use.used >= 0.95, use
    assert use.refused_share < 0.01, use


def test_all_workers_wait_when_one_is_told_to(
    limited: Emulator, workers: Any, time: Time, put: Any
) -> None:
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    limited.faults.next("rate_limit", retry_after=30)
    first, *others = workers(4)
    assert isinstance(first.step(), Delivered)
    for other in others:
        rest = other.step()
        assert isinstance(rest, Rest)
        assert rest.until is not None
        assert rest.until >= START + 30
        assert rest.paused
    assert len(limited.requests) == 1
    assert "retry after 30 s" in Email.objects.get(error__gt="").error
    time.present = rest.until
    for other in others:
        other.step()
    assert limited.accepted == 2


def meanwhile_told_to_wait(limited: Emulator, other: Any) -> None:
    """Let the other worker be told to wait while the next request is still answered."""
    respond, patch = Transport._respond, pytest.MonkeyPatch()

    def respond_late(self: Transport, request: Any) -> Any:
        patch.undo()
        response = respond(self, request)
        limited.faults.next("rate_limit", retry_after=30)
        other.step()
        return response

    patch.setattr(Transport, "_respond", respond_late)


def test_success_of_a_request_under_way_does_not_end_a_pause(
    limited: Emulator, workers: Any, put: Any
) -> None:
    """A worker is told to wait while another one's request, made before, is still answered."""
    first, second = workers(2)
    limited.faults.next("error_503", retry_after=0)
    put(1, idempotency_key="zero")
    first.step()  # so that the next success is news
    OutboxAccount.objects.update(paused_until=None)
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    meanwhile_told_to_wait(limited, second)
    first.step()
    assert [told.status for told in limited.requests] == [503, 200, 429]
    account = OutboxAccount.objects.get()
    assert account.paused_until is not None
    assert unix_of(account.paused_until) >= START + 30
    assert isinstance(first.step(), Rest)


def test_shorter_pause_does_not_take_the_place_of_a_longer_one(
    limited: Emulator, workers: Any, put: Any
) -> None:
    first, second = workers(2)
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    meanwhile_told_to_wait(limited, second)
    limited.faults.next("rate_limit", retry_after=2)
    first.step()
    account = OutboxAccount.objects.get()
    assert account.paused_until is not None
    assert unix_of(account.paused_until) >= START + 30
