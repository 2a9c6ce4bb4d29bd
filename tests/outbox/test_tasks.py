"""What a task does in any queue, and Django Tasks: at once, and with their database's worker."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.local import Local
from django.core.mail import EmailMessage
from django.db import transaction

from tests.outbox.processes import Site, other_database, shared_database, site
from tests.waiting import PATIENCE_S
from truncus_django import tasks
from truncus_django.api.errors import ConfigurationError
from truncus_django.backend import TruncusBackend
from truncus_django.models import OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.queues.django_tasks import notify as notify_django_tasks

__all__ = ["other_database", "shared_database", "site"]


# One task, in any queue -----------------------------------------------------------------------


class Queue:
    """A queue that holds tasks back, as Celery's does."""

    def __init__(self) -> None:
        self.follow_ups: list[tuple[float, float]] = []

    def put(self, moment: float, wait_s: float) -> None:
        self.follow_ups.append((moment, wait_s))

    def run(self, count: int = 1) -> None:
        """Run tasks that emails queued."""
        for _ in range(count):
            tasks.run(self.put)

    def run_follow_up(self) -> None:
        moment, _ = self.follow_ups.pop(0)
        tasks.run(self.put, moment)


@pytest.fixture
def queue(transactional_db: None, emulator: Any) -> Queue:
    return Queue()


@pytest.fixture
def failing(queue: Queue, emulator: Any, put: Callable[..., Any]) -> None:
    """An email that has failed and is to be tried again, in a minute."""
    emulator.faults.next("error_503", retry_after=60)
    put(1)
    queue.run()
    assert OutboxBatch.objects.count() == 1


def test_a_task_sends_all_that_is_due(queue, put, states):
    put(150)
    queue.run()
    assert set(states()) == {"delivered"}
    assert queue.follow_ups == []


def test_a_task_with_nothing_to_do_leaves_nothing(queue):
    queue.run(3)
    assert queue.follow_ups == []


def test_what_is_due_later_is_followed_up_once_however_many_tasks_run(queue, failing):
    [(moment, wait_s)] = queue.follow_ups
    assert abs(moment - OutboxBatch.objects.get().due_at.timestamp()) <= tasks.SOONEST_S
    assert 0 < wait_s <= tasks.FURTHEST_S
    queue.run(20)
    assert len(queue.follow_ups) == 1


def test_a_follow_up_follows_the_next_one_up(queue, failing, emulator, travel, states):
    emulator.faults.next("error_503", retry_after=60)
    travel(queue.follow_ups[0][1])
    queue.run_follow_up()
    assert len(queue.follow_ups) == 1
    travel(queue.follow_ups[0][1])
    queue.run_follow_up()
    assert states() == ["delivered"]
    assert queue.follow_ups == []
    assert OutboxAccount.objects.get().follow_up_at is None


def test_a_follow_up_that_runs_on_a_fast_clock_is_followed_up_again(queue, failing, states):
    queue.run_follow_up()
    assert states() == ["sending"]
    assert len(queue.follow_ups) == 1


def test_a_lost_follow_up_is_replaced(queue, failing, emulator, travel):
    emulator.faults.next("error_503", retry_after=60)
    queue.follow_ups.clear()
    travel(120)
    queue.run(5)
    assert len(queue.follow_ups) == 1


def test_a_follow_up_that_could_not_be_queued_is_queued_by_the_next_task(queue, put, emulator):
    def fail(moment: float, wait_s: float) -> None:
        raise ConnectionError

    emulator.faults.next("error_503", retry_after=60)
    put(1)
    with pytest.raises(ConnectionError):
        tasks.run(fail)
    queue.run(2)
    assert len(queue.follow_ups) == 1


def test_what_is_due_sooner_gets_a_follow_up_of_its_own(queue, emulator, put):
    emulator.faults.next("rate_limit", retry_after=300)
    put(1)
    queue.run()
    OutboxAccount.objects.update(paused_until=None)
    emulator.faults.next("error_503", retry_after=60)
    put(1)
    queue.run(5)
    first, second = queue.follow_ups
    assert second[1] < first[1]


def test_what_is_due_in_days_is_looked_at_again_in_minutes(queue, failing, travel):
    queue.follow_ups.clear()
    OutboxAccount.objects.update(follow_up_at=None)
    [batch] = OutboxBatch.objects.all()
    OutboxBatch.objects.update(due_at=batch.due_at.replace(year=batch.due_at.year + 1))
    queue.run()
    [(_, wait_s)] = queue.follow_ups
    assert wait_s == pytest.approx(tasks.FURTHEST_S)


def test_no_task_waits_long_for_the_account_s_limits(queue, put, settings, monkeypatch):
    settings.TRUNCUS = {**settings.TRUNCUS, "REQUESTS_PER_MINUTE": 2}
    for number in range(3):
        put(1, idempotency_key=f"key-{number}")
    monkeypatch.setattr("truncus_django.outbox.worker.time.sleep", fail_to_sleep)

    queue.run(3)

    assert OutboxEntry.objects.count() == 1
    assert len(queue.follow_ups) == 1


def fail_to_sleep(seconds: float) -> None:
    raise AssertionError(f"slept for {seconds} s")


def test_a_task_ends_after_a_while_and_is_followed_up(queue, put, monkeypatch):
    monkeypatch.setattr(tasks, "RUN_S", 0.0)
    put(1)
    OutboxAccount.objects.create(account="first")
    queue.run(3)
    assert OutboxEntry.objects.count() == 1
    [(_, wait_s)] = queue.follow_ups
    assert wait_s == pytest.approx(tasks.SOONEST_S)


def test_importing_the_module_needs_no_queue(tmp_path):
    code = (
        "import sys\n"
        "for name in ('celery', 'django.tasks', 'django_tasks'): sys.modules[name] = None\n"
        "from truncus_django import tasks\n"
        "assert tasks.dispatch is None\n"
        "assert not hasattr(tasks, 'anything')\n"
        "try: tasks.dispatch_outbox\n"
        "except tasks.ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "truncus-django[tasks]"' in done.stdout


# Django Tasks ---------------------------------------------------------------------------------

_, BACKENDS = tasks._django_tasks()
IMMEDIATE = BACKENDS.__class__.__module__ + ".backends.immediate.ImmediateBackend"


@pytest.fixture
def django_tasks(settings: Any) -> Iterator[Callable[..., None]]:
    """Return a function that sets ``TASKS``, with emails that notify Django Tasks."""
    settings.TRUNCUS = {**settings.TRUNCUS, "DISPATCHER": "tasks"}

    def configure(**backends: Any) -> None:
        settings.TASKS = {"default": {"BACKEND": IMMEDIATE}, **backends}
        forget_backends()

    configure()
    yield configure
    forget_backends()


def forget_backends() -> None:
    """Read ``TASKS`` anew, which Django does by itself from 6.0."""
    BACKENDS._settings = BACKENDS.settings = BACKENDS.configure_settings(None)
    BACKENDS._connections = Local()


def test_an_immediate_backend_sends_after_the_commit(queue, django_tasks, put, states):
    with transaction.atomic():
        TruncusBackend().send_messages(
            [EmailMessage("Hello", "Hello", "shop@example.com", ["ann@example.org"])]
        )
        assert OutboxEntry.objects.count() == 1
    assert OutboxEntry.objects.count() == 0
    assert states() == ["delivered"]


def test_an_immediate_backend_leaves_what_is_due_later(queue, django_tasks, put, emulator, states):
    emulator.faults.next("error_503", retry_after=60)
    put(1)
    assert states() == ["sending"]
    assert OutboxAccount.objects.get().follow_up_at is None


def test_workers_find_the_task_by_its_path(django_tasks):
    task = tasks.dispatch_outbox
    assert task.module_path == "truncus_django.tasks.dispatch_outbox"
    assert (task.backend, task.queue_name) == ("default", "default")


def test_a_backend_of_its_own_is_used(django_tasks):
    django_tasks(truncus={"BACKEND": IMMEDIATE, "QUEUES": ["mail"]})
    task = tasks.dispatch_outbox
    assert (task.backend, task.queue_name) == ("truncus", "mail")


def test_wrong_settings_of_tasks_harm_no_sender(queue, django_tasks, put, caplog):
    django_tasks(truncus={"BACKEND": "nowhere.Backend"})
    put(1)
    assert OutboxEntry.objects.get().is_waiting
    assert "(DISPATCHER 'tasks') could not be notified" in caplog.text


def test_without_django_tasks_it_is_said_what_to_install(monkeypatch):
    for name in ("django.tasks", "django_tasks"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=r"truncus-django\[tasks\]"):
        notify_django_tasks("default")


@pytest.fixture
def site_with_tasks(site: Site, tmp_path: Any) -> Site:
    """A site with tasks in its database, which is a file of its own."""
    site.given["database"] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
    site.given["apps"] = ["django_tasks_db"]
    site.given["tasks"] = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    site.given["truncus"]["DISPATCHER"] = "tasks"
    assert site.manage("migrate", "--verbosity", "0").status() == 0
    return site


SEND = """
import django; django.setup()
from django.core.mail import EmailMessage
from truncus_django.backend import TruncusBackend
TruncusBackend().send_messages(
    [EmailMessage(f"Order {n}", "Hello", "shop@example.com", ["ann@example.org"]) for n in range(3)]
)
"""
SHOW = """
import django; django.setup()
from django_tasks_db.models import DBTaskResult
from truncus_django.models import Email
print(*sorted(Email.objects.values_list("state", flat=True)))
print(*[(task.status, len(task.args_kwargs['args'])) for task in DBTaskResult.objects.all()])
"""


def test_the_worker_of_a_database_backend_sends(site_with_tasks, emulator):
    site = site_with_tasks
    assert site.start("-c", SEND).status() == 0
    assert emulator.accepted == 0

    worker = site.start("-m", "django", "db_worker", "--batch", "--no-startup-delay")
    assert worker.status() == 0, worker.output

    assert emulator.accepted == 3
    shown = site.start("-c", SHOW)
    assert shown.status() == 0
    assert shown.lines == ["delivered delivered delivered", "('SUCCESSFUL', 0)"]


def test_what_is_due_later_waits_in_a_database_backend(site_with_tasks, emulator):
    site = site_with_tasks
    emulator.faults.next("error_503", retry_after=5)  # later than a slow machine needs to end
    assert site.start("-c", SEND).status() == 0
    worker = site.start("-m", "django", "db_worker", "--batch", "--no-startup-delay")
    assert worker.status() == 0, worker.output

    shown = site.start("-c", SHOW)
    assert shown.status() == 0
    assert "('READY', 1)" in shown.output

    follow_up = site.start("-m", "django", "db_worker", "--interval", "0.05")
    emulator.wait_for(lambda emulator: emulator.accepted == 3, timeout_s=PATIENCE_S)
    assert not follow_up.has_ended
