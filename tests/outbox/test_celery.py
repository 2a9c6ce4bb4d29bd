"""Celery: real workers on each broker that answers, and brokers that are gone."""

import gc
import json
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import _state, current_app
from django.db import transaction
from kombu import pools

from tests.outbox.brokers import answering, broker
from tests.outbox.celery_app import make_app
from tests.outbox.processes import Process, Site, other_database, shared_database, site
from tests.waiting import until
from truncus_django import tasks
from truncus_django.models import OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox.notify import while_sending
from truncus_django.queues import celery as celery_queue

__all__ = ["other_database", "shared_database", "site"]


@pytest.fixture
def app(settings: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that makes the Celery app of this process, as a site's web server has."""
    before = _state._tls.current_app, _state.default_app
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": "celery"}
    made: list[Any] = []

    def make(**configuration: Any) -> Any:
        made.append(make_app(configuration))
        return made[-1]

    yield make
    for each in made:
        each.close()
    pools.reset()
    _state._tls.current_app, _state.default_app = before


@pytest.fixture(params=answering())
def queue(request: Any, app: Any, site: Site, tmp_path: Any) -> Iterator[dict[str, Any]]:
    """Settings of Celery with a broker that runs; this process puts tasks into it."""
    with broker(request.param, tmp_path) as configuration:
        app(**configuration)
        yield configuration
        site.close()  # so that nobody writes into the queue any more
        pools.reset()


def celery(site: Site, queue: dict[str, Any], command: str, *arguments: str) -> Process:
    """Start a worker of Celery, or its schedule."""
    site.given["truncus"]["DISPATCHER"] = "celery"
    return site.start(
        *("-m", "celery", "-A", "tests.outbox.celery_app", command, "--loglevel", "INFO"),
        *arguments,
        CELERY=json.dumps(queue),
    )


def is_all_sent() -> bool:
    return not OutboxEntry.objects.exists()


# A broker that runs ---------------------------------------------------------------------------


def test_a_worker_is_notified_by_a_commit_and_stops_in_good_order(
    site, emulator, put, states, queue
):
    worker = celery(site, queue, "worker", "--pool", "solo")
    worker.says(" ready.")
    put(3)
    until(is_all_sent)
    with transaction.atomic():
        put(150)
    until(is_all_sent)

    worker.signal(signal.SIGTERM)
    assert worker.status() == 0, worker.output
    assert set(states()) == {"delivered"}
    assert emulator.accepted == 153
    assert worker.count(f"Task {tasks.TASK_NAME}[") == 4  # two, received and succeeded
    assert "@example" not in worker.output


def test_what_fails_for_now_is_followed_up_without_a_schedule(site, emulator, put, states, queue):
    emulator.faults.next("error_500")
    worker = celery(site, queue, "worker", "--pool", "solo")
    worker.says(" ready.")
    put(1)
    until(is_all_sent)
    assert states() == ["delivered"]
    assert emulator.faults.struck["error_500"] == 1


def test_a_killed_worker_loses_nothing(site, emulator, put, states, queue):
    emulator.faults.next("delay_after", seconds=600)
    worker = celery(site, queue, "worker", "--pool", "solo")
    worker.says(" ready.")
    put(2)
    until(lambda: emulator.accepted == 2)
    worker.signal(signal.SIGKILL)
    worker.status()
    assert states() == ["sending"] * 2
    OutboxBatch.objects.update(due_at=OutboxBatch.objects.get().created_at)  # the lease is over

    celery(site, queue, "worker", "--pool", "solo")
    celery_queue.notify("default")  # as the schedule does

    until(is_all_sent)
    assert states() == ["delivered"] * 2
    assert emulator.accepted == 2


def test_a_schedule_finds_what_nobody_was_notified_of(site, emulator, put, queue, tmp_path):
    with while_sending():  # so that nobody is notified
        put(2)
    entry = {"task": tasks.TASK_NAME, "schedule": 0.2, "options": {"expires": 55.0}}
    queue["beat_schedule"] = {"truncus-outbox": entry}
    celery(site, queue, "worker", "--pool", "solo")
    celery(site, queue, "beat", "--schedule", str(tmp_path / "schedule"))
    until(is_all_sent)
    assert emulator.accepted == 2


def test_several_processes_of_a_worker_send_each_email_once(site, emulator, put, states, queue):
    worker = celery(site, queue, "worker", "--pool", "prefork", "--concurrency", "3")
    worker.says(" ready.")
    for number in range(20):
        put(1, idempotency_key=f"key-{number}")
    until(is_all_sent)
    worker.signal(signal.SIGTERM)
    assert worker.status() == 0, worker.output
    assert emulator.accepted == 20
    assert set(states()) == {"delivered"}


def test_a_dead_connection_to_the_broker_is_made_again(site, put, queue, caplog):
    put(1)
    shut = 0
    for connection in list(current_app.pool._resource.queue):
        transport = getattr(connection, "_connection", None)
        raw = getattr(getattr(transport, "transport", None), "sock", None)
        if isinstance(raw, socket.socket):  # of RabbitMQ; others look before they write
            raw.shutdown(socket.SHUT_RDWR)
            shut += 1
    assert bool(shut) is queue["broker_url"].startswith("amqp:")
    put(1)
    assert OutboxEntry.objects.count() == 2
    assert [record for record in caplog.records if record.name == "truncus_django"] == []


# A broker that does not -----------------------------------------------------------------------


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port at which somebody answers the telephone and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]
    for thread in threading.enumerate():
        if thread.name == "truncus-notify":
            thread.join(60)
    with warnings.catch_warnings():  # clients of brokers leave it to this to close their sockets
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize(
    "url", ["redis://:secret@127.0.0.1:{}/9", "amqp://shop:secret@127.0.0.1:{}//"]
)
def test_a_broker_that_is_gone_harms_no_sender(
    site, emulator, put, app, closed_port, url, caplog, states
):
    app(broker_url=url.format(closed_port))
    put(2)
    put(1)
    assert states() == ["pending"] * 3
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text

    assert site.worker("--once").status() == 0

    assert states() == ["delivered"] * 3


@pytest.mark.parametrize(
    "url", ["redis://:secret@127.0.0.1:{}/9", "amqp://shop:secret@127.0.0.1:{}//"]
)
def test_a_broker_that_hangs_harms_no_sender(
    shared_database, put, app, mute_port, url, caplog, states, monkeypatch
):
    monkeypatch.setattr(celery_queue, "QUEUE_WITHIN_S", 0.2)
    app(broker_url=url.format(mute_port))
    put(1)
    put(1)
    assert states() == ["pending"] * 2
    assert "could not be notified: TimeoutError" in caplog.text


def test_a_broker_that_is_no_broker_harms_no_sender(shared_database, put, app, states, caplog):
    app(broker_url="nonsense://")
    put(1)
    assert states() == ["pending"]
    assert len(caplog.records) == 1


def test_always_eager_sends_after_the_commit(emulator, shared_database, put, app, states):
    app(task_always_eager=True)
    emulator.faults.next("error_503", retry_after=60)
    put(1)
    assert states() == ["sending"]
    put(1)
    assert sorted(states()) == ["delivered", "sending"]
    assert OutboxAccount.objects.count() == 1


def test_the_task_carries_no_email(shared_database, put, app, tmp_path):
    with broker("files", tmp_path) as configuration:
        app(**configuration)
        put(1)
        [message] = [path.read_text() for path in (tmp_path / "in").iterdir()]
    assert tasks.TASK_NAME in message
    assert "example.org" not in message
