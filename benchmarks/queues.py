"""Apps that keep emails in the database until a worker sends them, each as its docs say.

Each has a process of its own and a database of its own. Where a peer can be used in several ways,
it is the quicker one, and it delivers in two: over SMTP, as both were made for, and through this
package's backend (without its log), which keeps one connection and so is the cheapest way to
Truncus that they have.
"""

import abc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from benchmarks.contenders import API_KEY, Mode
from benchmarks.mailer import default_backend, has_mailers, mailer
from benchmarks.mails import SENDER, Mail, mails
from benchmarks.processes import WrongWork
from benchmarks.sink_process import Addresses

Way = Literal["batches", "SMTP", "this backend"]
"""How a queue delivers: with requests of 100, or an email at a time."""

ONE_AT_A_TIME: tuple[Way, ...] = ("SMTP", "this backend")
_BACKENDS: dict[Way, str] = {
    "SMTP": "django.core.mail.backends.smtp.EmailBackend",
    "this backend": "truncus_django.backend.TruncusBackend",
}


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of this process (user and system, all its threads), and of the clock."""

    cpu_s: float
    wall_s: float


class Queue(abc.ABC):
    """One app, in a Django project of its own.

    Args:
        database: Django's settings for it; ``None`` for a new file of SQLite, as Django sets it up.
        sinks: where its emails go.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    app: ClassVar[str]
    ways: ClassVar[tuple[Way, ...]] = ONE_AT_A_TIME

    def __init__(self, database: dict[str, Any] | None, sinks: Addresses) -> None:
        import django
        from django.conf import settings
        from django.core.management import call_command

        self.sinks = sinks
        self._directory = TemporaryDirectory(prefix="truncus_bench_")
        self.directory = Path(self._directory.name)
        settings.configure(
            SECRET_KEY="benchmarks",
            USE_TZ=True,
            INSTALLED_APPS=[self.app],
            DATABASES={"default": database or self._sqlite()},
            TRUNCUS={
                "API_KEY": API_KEY,
                "BASE_URL": sinks.http_url,
                "REQUESTS_PER_SECOND": 0,
                "REQUESTS_PER_MINUTE": 0,
            }
            | self.truncus(),
            **self.settings(),
        )
        django.setup()
        call_command("migrate", verbosity=0)

    def _sqlite(self) -> dict[str, Any]:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": self.directory / "queue.sqlite3",
        }

    def truncus(self) -> dict[str, Any]:
        """Return settings of this package that are the app's own."""
        return {}

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the app's settings."""

    def prepare(self, mode: Mode, chosen: Sequence[Mail]) -> Callable[[], None]:
        """Build the messages; return what puts them into the queue."""
        from django.core.mail import EmailMultiAlternatives

        messages = []
        for mail in chosen:
            message = EmailMultiAlternatives(mail.subject, mail.text, SENDER, [mail.recipient])
            message.attach_alternative(mail.html, "text/html")
            messages.append(message)

        def send_each() -> None:
            for message in messages:
                message.send()

        return send_each if mode == "one by one" else lambda: self.send_list(messages)

    def send_list(self, messages: Sequence[Any]) -> None:
        """Put messages into the queue with one call."""
        self.connection().send_messages(messages)

    def connection(self) -> Any:
        """Return the backend that Django sends through."""
        return default_backend()

    @abc.abstractmethod
    def drain(self, way: Way) -> None:
        """Deliver all that is in the queue, with one worker."""

    def clear(self) -> None:
        """Forget all emails."""
        from django.core.management import call_command

        call_command("flush", interactive=False, verbosity=0)


class ThisOutbox(Queue):
    """``DELIVERY = "outbox"``; its worker's ``drain()``, in requests of 100."""

    name, title, app = "truncus", "this outbox", "truncus_django"
    ways = ("batches",)

    def truncus(self) -> dict[str, Any]:
        """Return what turns the outbox on."""
        return {"DELIVERY": "outbox"}

    def settings(self) -> dict[str, Any]:
        """Return a mailer with this backend."""
        return mailer("truncus_django.backend.TruncusBackend", {}, {})

    def drain(self, way: Way) -> None:
        """Deliver as ``truncus_worker --once`` does."""
        from truncus_django.outbox.dispatcher import Dispatcher

        Dispatcher().drain()


class PostOffice(Queue):
    """django-post_office: its backend, ``mail.send_many()`` and ``send_queued_mail``.

    ``send_many()`` is what its documentation says to use for many: its backend's own
    ``send_messages()`` saves each email by itself. Five threads send, which is its default. What
    it logs to the console is left out.
    """

    name, title, app = "post_office", "django-post_office", "post_office"

    def settings(self) -> dict[str, Any]:
        """Return its mailer, and those that it delivers through."""
        return {
            **self._mailers(),
            "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
            "LOGGING": {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"none": {"class": "logging.NullHandler"}},
                "loggers": {"post_office": {"handlers": ["none"], "level": "WARNING"}},
            },
        }

    def _mailers(self) -> dict[str, Any]:
        own, host, port = "post_office.EmailBackend", "127.0.0.1", self.sinks.smtp_port
        if not has_mailers():
            return {
                "EMAIL_BACKEND": own,
                "EMAIL_HOST": host,
                "EMAIL_PORT": port,
                "POST_OFFICE": {"BACKENDS": _BACKENDS, "DEFAULT_MAILER": "SMTP"},
            }
        return {
            "MAILERS": {
                "default": {"BACKEND": own},
                "SMTP": {"BACKEND": _BACKENDS["SMTP"], "OPTIONS": {"host": host, "port": port}},
                "this backend": {"BACKEND": _BACKENDS["this backend"]},
            },
            "POST_OFFICE": {"DEFAULT_MAILER": "SMTP"},
        }

    def prepare(self, mode: Mode, chosen: Sequence[Mail]) -> Callable[[], None]:
        """Build the messages, or what ``send_many()`` takes instead."""
        if mode == "one by one":
            return super().prepare(mode, chosen)
        from post_office import mail as post_office

        several = [
            {
                "recipients": [mail.recipient],
                "sender": SENDER,
                "subject": mail.subject,
                "message": mail.text,
                "html_message": mail.html,
            }
            for mail in chosen
        ]

        def send_many() -> None:
            post_office.send_many(several)

        return send_many

    def drain(self, way: Way) -> None:
        """Run its command."""
        from django.conf import settings
        from django.core.management import call_command

        project: Any = settings
        project.POST_OFFICE["DEFAULT_MAILER"] = way
        call_command("send_queued_mail", lockfile=str(self.directory / "lock"))


class DjangoMailer(Queue):
    """django-mailer: its backend, and ``send_all()`` without throttle.

    It asks for its delivery's backend in a way that Django deprecates and ``MAILERS`` forbids.
    """

    name, title, app = "mailer", "django-mailer", "mailer"

    def settings(self) -> dict[str, Any]:
        """Return the settings that Django deprecates."""
        return {
            "EMAIL_BACKEND": "mailer.backend.DbBackend",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": self.sinks.smtp_port,
            "MAILER_LOCK_PATH": str(self.directory / "lock"),
        }

    def connection(self) -> Any:
        """Return its backend, which is the same in every way."""
        from mailer.backend import DbBackend

        return DbBackend()

    def drain(self, way: Way) -> None:
        """Run what its command runs."""
        from django.conf import settings
        from mailer.engine import send_all

        settings.MAILER_EMAIL_BACKEND = _BACKENDS[way]
        send_all()


QUEUES: dict[str, type[Queue]] = {
    queue.name: queue for queue in (ThisOutbox, PostOffice, DjangoMailer)
}


def serve(name: str, database: dict[str, Any] | None, sinks: Addresses) -> Callable[[Any], Any]:
    """Be the process of a queue: return what answers ``fill``, ``drain`` and ``clear``."""
    queue = QUEUES[name](database, sinks)

    def respond(order: tuple[Any, ...]) -> Any:
        match order:
            case ("fill", mode, count, series):
                return timed(queue.prepare(mode, list(mails(count, series))))
            case ("drain", way):
                return timed(lambda: queue.drain(way))
            case ("clear",):
                return queue.clear()
            case _:
                raise WrongWork(f"no such order: {order}")

    return respond


def timed(work: Callable[[], object]) -> Took:
    """Do ``work``; return what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.process_time() - cpu, time.perf_counter() - wall)
