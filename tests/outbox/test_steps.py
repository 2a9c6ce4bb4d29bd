"""A worker is killed between every two steps of a dispatch, one by one; nothing is lost or twice.

The steps are statements of SQL, commits and requests. Each scenario is played once for each gap
between two of them: the worker dies in that gap by SIGKILL, its lease runs out, and another worker
goes on.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from tests.log.conftest import other_database, shared_database
from tests.outbox.bulk_messages import three_letters
from tests.waiting import PATIENCE_S
from truncus_django.api import contract
from truncus_django.backend import TruncusBackend
from truncus_django.bulk import send_bulk
from truncus_django.emulator.refusals import Refusal
from truncus_django.emulator.service import Service
from truncus_django.models import BulkEmail, Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.states import State

__all__ = ["other_database", "shared_database"]

SURVIVES = 1_000_000
"""More gaps than any life has."""
READINGS = ["first", "duplicate"] if connection.vendor == "sqlite" else ["first"]
"""What a repeated batch key answers: the first answer again, or one ``duplicate`` for all. Which of
them makes no difference to a database."""
_UNSYNCED = {
    "sqlite": {"init_command": "PRAGMA synchronous = OFF"},
    "postgresql": {"options": "-c synchronous_commit=off"},
}


@dataclass
class Victim:
    """The process whose children are killed; see :mod:`tests.chaos.victim`."""

    process: subprocess.Popen[str]
    emulator: Any
    gaps: list[str] = field(default_factory=list)

    def lives(self, task: str = "drain", *, dies: int | str = SURVIVES) -> str | None:
        """Do a task; return what the gap was before that it died in, ``None`` if it did not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"task": task, "dies": dies}) + "\n")
        self.process.stdin.flush()
        last: str | None = json.loads(self.process.stdout.readline())
        return last

    def dies_everywhere(
        self,
        before: Callable[[], Any],
        after: Callable[[Any], None],
        *,
        task: str = "drain",
        meanwhile: Callable[[], Any] = lambda: None,
    ) -> None:
        """Play a scenario once for each gap.

        Args:
            before: sets the scene.
            after: is given what ``before`` returned; what must hold when all is over.
            task: what the process does that dies.
            meanwhile: what happens between its death and another worker.
        """
        for gap in range(SURVIVES):
            _forget_all()
            self.emulator.reset(**vars(self.emulator.options))
            scene = before()
            last = self.lives(task, dies=gap)
            self.gaps.append(last or "")
            meanwhile()
            if task == "bulk":
                _run_leases_out()  # the next run goes on, not a worker
            else:
                _go_on()
            after(scene)
            if last is None:
                return


@pytest.fixture
def fallback() -> dict[str, Any]:
    """The fallback mailer's part of ``MAILERS``; there is none."""
    return {}


@pytest.fixture
def victim(
    shared_database: str, emulator: Any, settings: Any, fallback: dict[str, Any]
) -> Iterator[Victim]:
    """A process that works on the same outbox, and can be killed again and again."""
    options = connections[shared_database].settings_dict["OPTIONS"]
    before = dict(options)
    # A process that dies loses nothing that it has written; only a machine would.
    options |= _UNSYNCED.get(connections[shared_database].vendor, {})
    connections[shared_database].close()
    settings.TRUNCUS = {**settings.TRUNCUS, "BASE_URL": emulator.url, "API_KEY": "tr_test_steps"}
    own = {name: value for name, value in settings.TRUNCUS.items() if name != "DATABASE"}
    chaos = {"database": _reachable(shared_database), "truncus": own, "fallback": fallback}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.victim"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "CHAOS": json.dumps(chaos),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Victim(process, emulator)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
    options.clear()
    options |= before
    connections[shared_database].close()


def _reachable(alias: str) -> dict[str, Any]:
    """Return what another process needs to open the same database."""
    wanted = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    known = connections[alias].settings_dict
    found = {name: known[name] for name in wanted if known.get(name)}
    return {**found, "NAME": str(found["NAME"])}


def _forget_all() -> None:
    for model in (OutboxEntry, OutboxBatch, OutboxAccount, Email):
        model.objects.all().delete()


def _run_leases_out() -> None:
    """Let time pass: leases, waits and pauses are over."""
    past = timezone.now() - timedelta(seconds=1)
    OutboxBatch.objects.update(due_at=past)
    OutboxAccount.objects.update(paused_until=None)


def _go_on() -> None:
    """Let a healthy worker finish. The server may notice a moment later that the other died."""
    dispatcher = Dispatcher(jitter=lambda: 0.0)
    deadline = time.monotonic() + PATIENCE_S
    while OutboxBatch.objects.exists() or OutboxEntry.objects.filter(is_waiting=True).exists():
        assert time.monotonic() < deadline, list(OutboxBatch.objects.values())
        _run_leases_out()
        dispatcher.drain()


@contextmanager
def _provider_fails(subject: str, times: int = 1) -> Iterator[None]:
    """Let the emulator's provider refuse an email for as many times."""
    left = [times]
    take = Service._take

    def failing(self: Service, payload: Any, submission: Any, now: float, **place: Any) -> Any:
        if payload["subject"] == subject and left[0]:
            left[0] -= 1
            code = contract.PROVIDER_ERROR_CODE
            raise Refusal(502, (code, code), "The provider did not take it")
        return take(self, payload, submission, now, **place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "_take", failing)
        yield


def _accepted(emulator: Any) -> Counter[str]:
    return Counter(email.subject for email in emulator.emails)


def _states() -> dict[str, str]:
    """Return what became of each: Truncus may say at once that it has delivered."""
    told = dict(Email.objects.values_list("subject", "state"))
    return {
        subject: State.SENT if state == State.DELIVERED else state
        for subject, state in told.items()
    }


def _assert_all_agree(emulator: Any, *, sent: int) -> None:
    """Every email that is sent was accepted once, and the row has its id, if it has one."""
    accepted = {email.subject: email for email in emulator.emails}
    assert set(_accepted(emulator).values()) <= {1}, "sent twice"
    rows = list(Email.objects.all())
    agreed = [row for row in rows if row.state in {State.SENT, State.DELIVERED}]
    assert {row.subject for row in agreed} == set(accepted)
    assert len(agreed) == sent
    for row in agreed:
        assert row.message_id in {None, accepted[row.subject].id}
        assert row.idempotency_key == accepted[row.subject].idempotency_key
    sent_rows = OutboxEntry.objects.filter(email__in=agreed)
    assert not sent_rows.exists(), "a payload was left behind"


# What a fresh start meets -------------------------------------------------------------------------


@pytest.mark.parametrize("reading", READINGS)
def test_fresh_batch(victim: Victim, emulator: Any, put: Any, reading: str) -> None:
    emulator.reset(batch_replay=reading)

    def after(scene: Any) -> None:
        _assert_all_agree(emulator, sent=3)

    victim.dies_everywhere(lambda: put(3), after)
    # The proof is worth something only if it went through the whole of a dispatch.
    assert {"COMMIT", "the request", "the use of its answer"} <= set(victim.gaps)
    assert len(victim.gaps) > 15


def test_single_message_with_its_own_key(victim: Victim, emulator: Any, put: Any) -> None:
    def after(scene: Any) -> None:
        _assert_all_agree(emulator, sent=1)
        assert emulator.emails[0].idempotency_key == "receipt-7"

    victim.dies_everywhere(lambda: put(1, idempotency_key="receipt-7"), after)


def test_each_message_with_a_key_of_its_own_goes_alone(
    victim: Victim, emulator: Any, put: Any, message: Any
) -> None:
    def before() -> None:
        TruncusBackend().send_messages([message(9, idempotency_key="first")])
        put(2)

    def after(scene: Any) -> None:
        keys = Counter(email.idempotency_key for email in emulator.emails)
        assert keys["first"] == 1
        assert sorted(keys.values()) == [1, 2]
        assert len(emulator.emails) == 3

    victim.dies_everywhere(before, after)


# Retries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reading"),
    [
        ("reset_after", "first"),
        ("reset_before", "first"),
        ("error_500_after", "duplicate"),
    ],
)
def test_retry_of_an_ambiguous_batch(
    victim: Victim, emulator: Any, put: Any, fault: str, reading: str
) -> None:
    emulator.reset(batch_replay=reading)

    def before() -> None:
        put(3)
        emulator.faults.next(fault)
        Dispatcher(jitter=lambda: 0.0).step()
        assert OutboxBatch.objects.get().is_ambiguous
        _run_leases_out()

    def after(scene: Any) -> None:
        _assert_all_agree(emulator, sent=3)
        assert len({request.headers["idempotency-key"] for request in emulator.requests}) == 1

    victim.dies_everywhere(before, after)


@pytest.mark.parametrize("fault", ["rate_limit", "truncated", "provider_502"])
def test_request_that_fails(victim: Victim, emulator: Any, put: Any, fault: str) -> None:
    def before() -> None:
        put(2)
        emulator.faults.next(fault)

    victim.dies_everywhere(before, lambda scene: _assert_all_agree(emulator, sent=2))


def test_killed_twice(victim: Victim, emulator: Any, put: Any) -> None:
    """The one who takes over dies, too: each time right after the request was accepted."""

    def before() -> None:
        put(2)
        assert victim.lives(dies="the use of its answer")
        assert emulator.accepted == 2
        _run_leases_out()

    victim.dies_everywhere(before, lambda scene: _assert_all_agree(emulator, sent=2))


def test_a_bulk_that_is_run_again(victim: Victim, emulator: Any, settings: Any) -> None:
    """By the same call, while no worker runs; what it was sending it finishes."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    letters = {f"Letter {number}": 1 for number in range(3)}

    def after(scene: Any) -> None:
        result = send_bulk(three_letters(), key="letters")
        assert result.accepted + result.skipped == 3
        assert _accepted(emulator) == letters
        assert BulkEmail.objects.count() == Email.objects.count() == 3

    victim.dies_everywhere(lambda: None, after, task="bulk")
    assert victim.gaps.count("the request") >= 2  # a statement more or less moves the gaps by one
    assert any("bulkemail" in gap for gap in victim.gaps)


# Emails that are refused -------------------------------------------------------------------------


def test_refused_batch_is_halved(victim: Victim, emulator: Any, put: Any) -> None:
    emulator.reset(batch_refusal="whole")

    def before() -> None:
        entry = OutboxEntry.objects.get(pk=put(2)[1].pk)
        spoilt = json.dumps({**json.loads(entry.payload), "to": "no address"})
        OutboxEntry.objects.filter(pk=entry.pk).update(payload=spoilt)

    def after(scene: Any) -> None:
        assert _states() == {"Order 0": State.SENT, "Order 1": State.FAILED}
        assert _accepted(emulator) == {"Order 0": 1}
        assert "to is not a valid email address" in Email.objects.get(subject="Order 1").error

    victim.dies_everywhere(before, after)
    assert victim.gaps.count("the request") >= 3


@pytest.mark.parametrize("reading", READINGS)
def test_batch_with_a_member_that_the_provider_failed(
    victim: Victim, emulator: Any, put: Any, reading: str
) -> None:
    emulator.reset(batch_replay=reading)

    def before() -> ExitStack:
        put(3)
        scene = ExitStack()
        scene.enter_context(_provider_fails("Order 1"))
        return scene

    def after(scene: ExitStack) -> None:
        with scene:
            if reading == "first" or not _was_replayed(emulator):
                _assert_all_agree(emulator, sent=3)
                return
            # Truncus says of the whole that it was accepted, and of no email that it failed.
            assert set(_states().values()) == {State.SENT}
            assert _accepted(emulator) == {"Order 0": 1, "Order 2": 1}

    victim.dies_everywhere(before, after)


def _was_replayed(emulator: Any) -> bool:
    batches = [request for request in emulator.requests if request.endpoint == "batch"]
    return len(batches) > 1


# Emails that are not sent ------------------------------------------------------------------------


def test_expiry(victim: Victim, emulator: Any, put: Any, message: Any) -> None:
    """One has expired while it waited, one in a batch that was refused for now."""

    def before() -> None:
        put(2, expires_at=timedelta(hours=1))
        emulator.faults.next("rate_limit")
        Dispatcher(jitter=lambda: 0.0).step()
        for number in (2, 3, 4):
            TruncusBackend().send_messages([message(number, expires_at=timedelta(hours=1))])
        past = timezone.now() - timedelta(seconds=1)
        overdue = list(OutboxEntry.objects.order_by("created_at"))
        for entry in (overdue[0], overdue[2]):
            OutboxEntry.objects.filter(pk=entry.pk).update(expires_at=past)
        _run_leases_out()

    def after(scene: Any) -> None:
        counts = Counter(_states().values())
        assert counts == {State.EXPIRED: 2, State.SENT: 3}
        assert sum(_accepted(emulator).values()) == 3
        assert not OutboxEntry.objects.exists()

    victim.dies_everywhere(before, after)


def test_expiry_of_what_may_have_been_sent(victim: Victim, emulator: Any, put: Any) -> None:
    def before() -> None:
        put(2, expires_at=timedelta(hours=1))
        emulator.faults.next("reset_after")
        Dispatcher(jitter=lambda: 0.0).step()
        OutboxEntry.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        _run_leases_out()

    def after(scene: Any) -> None:
        assert set(_states().values()) == {State.UNKNOWN}
        assert set(_accepted(emulator).values()) == {1}
        assert all("has expired" in email.error for email in Email.objects.all())
        assert OutboxEntry.objects.count() == 2, "a person can decide"

    victim.dies_everywhere(before, after)


def test_corrupt_payload(victim: Victim, emulator: Any, put: Any) -> None:
    def before() -> None:
        emails = put(3)
        OutboxEntry.objects.filter(pk=emails[1].pk).update(payload="{")

    def after(scene: Any) -> None:
        told = _states()
        if told["Order 0"] == State.SENT:
            assert told == {
                "Order 0": State.SENT,
                "Order 1": State.FAILED,
                "Order 2": State.SENT,
            }
            assert set(_accepted(emulator).values()) == {1}
            return
        # It died after it took the batch: whoever finds it cannot tell that nothing was sent.
        assert set(told.values()) == {State.UNKNOWN}
        assert emulator.accepted == 0
        assert all(email.error for email in Email.objects.all())

    victim.dies_everywhere(before, after)


# Writers ------------------------------------------------------------------------------------------


def test_caller_that_dies_has_enqueued_all_or_nothing(victim: Victim, emulator: Any) -> None:
    counts = []
    last: str | None = ""
    while last is not None:
        _forget_all()
        last = victim.lives("enqueue", dies=len(counts))
        counts.append(Email.objects.count())
        assert OutboxEntry.objects.count() == counts[-1]
    assert counts == sorted(counts)
    assert set(counts) == {0, 2}
