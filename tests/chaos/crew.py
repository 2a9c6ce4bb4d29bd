"""The crew of a run: workers that are killed, stand still, are replaced and at last ended."""

import os
import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests.chaos.processes import kill, start
from tests.waiting import PATIENCE_S, until

_CELERY = ("celery", "--app=tests.chaos.celery_app")


class _OutboxWorker:
    """A process of ``truncus_worker``.

    Attributes:
        process: which runs it, in a process group of its own.
    """

    def __init__(self, name: str, concurrency: int, folder: Path) -> None:
        self._concurrency = concurrency
        self._output = folder / name
        options = (f"--concurrency={concurrency}", "--poll=0.2")
        self.process = start("django", "truncus_worker", *options, output=self._output)

    def is_up(self) -> bool:
        """Return whether SIGTERM ends it as an operator expects, no longer as any program."""
        return "worker runs" in self._output.read_text()

    def children(self) -> list[psutil.Process]:
        """Return none: it sends in threads."""
        return []

    def sending(self) -> dict[int, int]:
        """Return how many emails each process could be sending at this moment, by their ids."""
        return {self.process.pid: self._concurrency}


class _CeleryWorker:
    """Celery's worker with its children; as an :class:`_OutboxWorker`."""

    def __init__(self, name: str, concurrency: int) -> None:
        self._name = f"{name}@localhost"
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        options = (f"--hostname={self._name}", f"--concurrency={concurrency}", *quiet)
        self.process = start(*_CELERY, "worker", "--loglevel=CRITICAL", *options)

    def is_up(self) -> bool:
        """Return whether it answers: it does not until it has seen all its children started.

        Before, it ends for want of a child that was killed, instead of replacing it.
        """
        from tests.chaos.celery_app import app

        return bool(app.control.ping([self._name], timeout=1.0))

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def sending(self) -> dict[int, int]:
        return {child.pid: 1 for child in self.children()}


class Crew:
    """The workers; and Celery's clock, where there is one.

    Args:
        runner: ``worker`` or ``celery``.
        workers: how many; half of them make one request at a time, the others two.
        seed: of all that is left to chance.
        folder: for what they print.

    Attributes:
        kills: how many workers or children were killed.
        stops: how many stood still.
        killed: processes, by their ids, and how many emails each could be sending at its end.
    """

    def __init__(self, *, runner: str, workers: int, seed: int, folder: Path) -> None:
        self._runner = runner
        self._folder = folder
        self._random = random.Random(seed)
        self.kills = self.stops = 0
        self.killed: dict[int, int] = {}
        self._stopped: list[tuple[float, _OutboxWorker | _CeleryWorker]] = []
        self._workers = [self._hire(number) for number in range(workers)]
        self._beat = None
        if runner == "celery":
            schedule = f"--schedule={folder / 'beat'}"
            self._beat = start(*_CELERY, "beat", "--loglevel=ERROR", schedule)

    def _hire(self, number: int) -> _OutboxWorker | _CeleryWorker:
        name = f"chaos-{os.getpid()}-{number}-{self.kills}"
        concurrency = 1 + number % 2
        if self._runner == "celery":
            return _CeleryWorker(name, concurrency)
        return _OutboxWorker(name, concurrency, self._folder)

    def kill_one(self) -> None:
        """Kill a worker, or of Celery perhaps one of its children only; replace it."""
        number = self._random.randrange(len(self._workers))
        worker = self._workers[number]
        self.kills += 1
        is_one_child = self._random.random() < 0.5 and worker.is_up()
        children = worker.children() if is_one_child else []
        self._see_that_all_live()
        if children:
            child = self._random.choice(children)
            self.killed[child.pid] = 1
            with suppress(psutil.NoSuchProcess):  # one that was killed before, as a zombie
                child.kill()  # Celery replaces it
            return
        self.killed |= worker.sending()
        kill(worker.process)
        self._workers[number] = self._hire(number)

    def stop_one(self, seconds: float) -> None:
        """Let a worker stand still, as a machine that swaps or a laptop that sleeps does."""
        worker = self._random.choice(self._workers)
        os.killpg(worker.process.pid, signal.SIGSTOP)
        self._stopped.append((time.monotonic() + seconds, worker))
        self.stops += 1

    def look_after(self) -> None:
        """Let those go on that have stood still for long enough; nobody may die by himself."""
        for entry in [entry for entry in self._stopped if entry[0] <= time.monotonic()]:
            self._go_on(entry)
        self._see_that_all_live()

    def _see_that_all_live(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is not None:
                raise SystemExit(f"A worker ended by itself with {worker.process.returncode}.")

    def _is_up(self, worker: _OutboxWorker | _CeleryWorker) -> bool:
        self._see_that_all_live()
        return worker.is_up()

    def _go_on(self, entry: tuple[float, _OutboxWorker | _CeleryWorker]) -> None:
        self._stopped.remove(entry)
        process = entry[1].process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End all workers as an operator does: SIGTERM, and they end by themselves."""
        for entry in list(self._stopped):
            self._go_on(entry)
        for worker in self._workers:
            # Until then it dies of SIGTERM as any program does.
            until(partial(self._is_up, worker), "Starting a worker")
        for worker in self._workers:
            worker.process.terminate()
        if self._beat is not None:
            self._beat.terminate()
        for worker in self._workers:
            if worker.process.wait(PATIENCE_S) != 0:
                raise SystemExit(f"A worker ended with {worker.process.returncode} on SIGTERM.")

    def end(self) -> None:
        """Leave no process behind, and nothing at the broker."""
        for worker in self._workers:
            kill(worker.process)
        if self._beat is not None:
            kill(self._beat)
            _delete_queue()


def _delete_queue() -> None:
    """Leave nothing behind at the broker."""
    from redis import Redis

    from tests.chaos.celery_app import app

    with app.connection_for_write() as broker:
        channel = broker.default_channel
        queue = app.amqp.queues[app.conf.task_default_queue].bind(channel)
        queue.declare()
        queue.delete()
        if broker.transport.driver_type == "redis":
            # Its prefix names this run. What killed workers had taken is there, too.
            prefix = app.conf.broker_transport_options["global_keyprefix"]
            with Redis.from_url(app.conf.broker_url) as redis:
                for key in redis.scan_iter(f"{prefix}*"):
                    redis.delete(key)
