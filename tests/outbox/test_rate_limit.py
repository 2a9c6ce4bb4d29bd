"""The pace: workers together use what the account allows, and no more.

``python -m tests.chaos --pace`` measures the same with processes, for minutes in real time.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NoReturn

import pytest
from django.db import OperationalError, connection

from tests.chaos.pace import PER_MINUTE, PER_SECOND, use_of
from tests.chaos.sliding import Arrival, SlidingServer
from tests.outbox.processes import Site, other_database, shared_database, site  # noqa: F401
from tests.servers import serving
from truncus_django import rate_limit
from truncus_django.api.transport import Transport
from truncus_django.db.clock import unix_of
from truncus_django.emulator import Emulator
from truncus_django.models import Email, OutboxAccount, OutboxEntry, SuppressedAddress
from truncus_django.outbox.answers import DispatchResult
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.idle import Idle
from truncus_django.testing import run_emulator, use_emulator

pytestmark = pytest.mark.django_db(transaction=True)

START = 1_800_000_012.0
"""In the middle of a minute."""


@dataclass
class Time:
    """Unix seconds that pass when a test says so, and while a request is on its way."""

    present: float = START
    on_its_way_s: float = 0.0
    using: str = "default"
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def now(self) -> float:
        return self.present

    def at_truncus(self) -> float:
        return self.present + self.on_its_way_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def limited(settings: Any, time: Time, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A local Truncus with the limits of a real account, which answers when a request arrives."""
    settings.TRUNCUS = {"API_KEY": "tr_test_pace", "DELIVERY": "outbox"}
    respond = Transport._respond

    def respond_in_time(self: Transport, request: Any) -> Any:
        response = respond(self, request)
        time.present = time.at_truncus()
        return response

    monkeypatch.setattr(Transport, "_respond", respond_in_time)
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
    # Each goes alone for its key: a request for each email.
    TruncusBackend().send_messages(
        [message(number, idempotency_key=f"alone-{number}") for number in range(wanted)]
    )
    free_at = dict.fromkeys(workers(4), START)
    while any(moment < float("inf") for moment in free_at.values()):
        dispatcher = min(free_at, key=free_at.__getitem__)
        time.present = max(time.present, free_at[dispatcher])
        time.on_its_way_s = time.chance.choice([0.001, 0.002, 0.1])
        step = dispatcher.step()
        if isinstance(step, DispatchResult):
            free_at[dispatcher] = time.present + time.chance.uniform(0.05, 0.4)
        else:
            late_s = time.chance.uniform(0.0, 0.02)
            free_at[dispatcher] = float("inf") if step.due_at is None else step.due_at + late_s
    arrivals = [Arrival(told.at, told.status == 429) for told in limited.requests]
    use = use_of(arrivals, seconds=full_minutes * 60)
    assert limited.accepted == wanted
    assert use.used >= 0.95, use
    assert use.refused == 0, use
    for span_s, limit in (1, PER_SECOND), (60, PER_MINUTE):
        gaps = [b.at - a.at for a, b in zip(arrivals, arrivals[limit:], strict=False)]
        assert min(gaps) >= span_s


def limit_to(settings: Any, count: int) -> None:
    """Let a second hold so many requests, and a minute any number."""
    limits = {"REQUESTS_PER_SECOND": count, "REQUESTS_PER_MINUTE": 0}
    settings.TRUNCUS = settings.TRUNCUS | limits


def allowed_at(dispatcher: Dispatcher) -> float:
    """Return when a worker that the limits hold back may make its next request."""
    idle = dispatcher.step()
    assert isinstance(idle, Idle)
    assert idle.is_pace
    assert idle.due_at is not None
    return idle.due_at


def test_a_request_may_have_arrived_as_late_as_its_answer(
    limited: Emulator, workers: Any, time: Time, put: Any, settings: Any
) -> None:
    limit_to(settings, 2)
    for key in ("one", "two", "three"):
        put(1, idempotency_key=key)
    [worker] = workers(1)
    time.on_its_way_s = 0.5
    worker.step()
    time.on_its_way_s = 0.0
    worker.step()
    assert allowed_at(worker) >= START + 0.5 + 1.0
    time.present = allowed_at(worker)
    assert isinstance(worker.step(), DispatchResult)


def test_a_request_under_way_counts_for_as_long_as_it_may_arrive(
    limited: Emulator, workers: Any, time: Time, put: Any, settings: Any
) -> None:
    limit_to(settings, 1)
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    first, second = workers(2)
    respond, patch, allowed = Transport._respond, pytest.MonkeyPatch(), []

    def respond_late(self: Transport, request: Any) -> Any:
        patch.undo()
        time.present += 1.5
        allowed.append(allowed_at(second))
        return respond(self, request)

    patch.setattr(Transport, "_respond", respond_late)
    assert isinstance(first.step(), DispatchResult)
    assert allowed[0] >= START + 1.5 + 1.0
    assert START + 1.5 + 1.0 <= allowed_at(second) < START + 1.5 + 1.1


def test_a_request_of_a_worker_that_died_counts_for_seconds_only(
    limited: Emulator, workers: Any, time: Time, put: Any, settings: Any
) -> None:
    limit_to(settings, 1)
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    [worker] = workers(1)
    assert isinstance(claim(time), Claim)  # type: ignore[arg-type]
    time.present += 1.5
    assert isinstance(worker.step(), Idle)
    time.present = START + 10
    assert isinstance(worker.step(), DispatchResult)


def _suppress(email: Email, settings: Any) -> None:
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "manual"}
    SuppressedAddress.objects.create(address="customer-0@example.org")


def _spoil(email: Email, settings: Any) -> None:
    OutboxEntry.objects.filter(pk=email.pk).update(payload="{")


def _guard(email: Email, settings: Any) -> None:
    settings.TRUNCUS = {**settings.TRUNCUS, "ALLOW_RECIPIENTS": ["@example.com"]}


@pytest.mark.parametrize("stop", [_suppress, _spoil, _guard])
def test_a_request_that_was_not_made_does_not_count(
    limited: Emulator, workers: Any, put: Any, settings: Any, stop: Any
) -> None:
    limit_to(settings, 1)
    [email] = put(1, idempotency_key="one")
    stop(email, settings)
    [worker] = workers(1)
    assert worker.step().failed == 1
    assert limited.accepted == 0
    assert OutboxAccount.objects.get().recent_requests == []


def test_a_request_that_was_given_back_does_not_count(
    limited: Emulator, workers: Any, put: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_to(settings, 1)
    put(1)
    [worker] = workers(1)
    with monkeypatch.context() as patch:
        patch.setattr(Claim, "has_time_for_request", False)
        assert worker.step() == DispatchResult(requests=0)
    assert worker.step() == DispatchResult(accepted=1)


def test_an_answer_that_could_not_be_counted_is_written_down_all_the_same(
    limited: Emulator, workers: Any, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [email] = put(1, idempotency_key="one")
    [worker] = workers(1)
    respond = Transport._respond

    def fail(*arguments: Any, **options: Any) -> NoReturn:
        raise OperationalError

    def respond_and_fail(self: Transport, request: Any) -> Any:
        monkeypatch.setattr(rate_limit, "locked_account", fail)
        return respond(self, request)

    monkeypatch.setattr(Transport, "_respond", respond_and_fail)
    assert worker.step() == DispatchResult(accepted=1)
    email.refresh_from_db()
    assert email.message_id


def test_all_workers_wait_when_one_is_told_to(
    limited: Emulator, workers: Any, time: Time, put: Any
) -> None:
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    limited.faults.next("rate_limit", retry_after=30)
    first, *others = workers(4)
    assert isinstance(first.step(), DispatchResult)
    for other in others:
        idle = other.step()
        assert isinstance(idle, Idle)
        assert idle.due_at is not None
        assert idle.due_at >= START + 30
        assert idle.paused == {"": "rate_limit_exceeded"}
    assert len(limited.requests) == 1
    assert "retry after 30 s" in Email.objects.get(error__gt="").error
    time.present = idle.due_at
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
    first.step()  # so that the next success changes the row
    OutboxAccount.objects.update(paused_until=None)
    put(1, idempotency_key="one")
    put(1, idempotency_key="two")
    meanwhile_told_to_wait(limited, second)
    first.step()
    assert [told.status for told in limited.requests] == [503, 200, 429]
    account = OutboxAccount.objects.get()
    assert account.paused_until is not None
    assert unix_of(account.paused_until) >= START + 30
    assert isinstance(first.step(), Idle)


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


@pytest.mark.skipif(
    connection.vendor != "sqlite",
    reason="a busy machine knows a server's clock less exactly; make chaos has it on PostgreSQL",
)
def test_processes_keep_within_a_second_of_arrivals(site: Site, put: Any) -> None:  # noqa: F811
    """In real time: some requests take longer to arrive than those that are made after them."""
    for number in range(40):
        put(1, idempotency_key=f"alone-{number}")
    ways_s = cycle([0.15, *[0.0] * PER_SECOND])
    server = SlidingServer({1.0: PER_SECOND}, way_there_s=lambda: next(ways_s))
    site.given["truncus"] |= {"BASE_URL": server.url, "REQUESTS_PER_SECOND": PER_SECOND}
    with serving(server):
        workers = [site.worker("--once") for _ in range(3)]
        assert [worker.status() for worker in workers] == [0, 0, 0]
    assert len(server.arrivals) == 40
    assert server.refused == 0
