"""Who sends: each contender as its own documentation says to use it.

Only what a contender needs is imported, in its own process and before anything is measured. With
``prepare()`` it builds its emails, sends a few others to open the first connection and to warm
up, and returns what is to be measured.
"""

import abc
import atexit
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

from benchmarks.mailer import default_backend, mailer
from benchmarks.mails import MERGED, SENDER, Mail, merge_data
from benchmarks.processes import without_extras
from benchmarks.scratch import scratch_database
from benchmarks.sink_process import Addresses

API_KEY = "tr_live_" + "0123456789abcdef" * 4
BATCH_SIZE = 100

Mode = Literal["one by one", "as a list"]
BOTH: tuple[Mode, ...] = ("one by one", "as a list")


@dataclass
class Job:
    """What is measured, and what is left to do after it.

    ``send()`` returns how many emails it says were accepted.
    """

    send: Callable[[], int]
    finish: Callable[[], None] = field(default=lambda: None)


class Contender(abc.ABC):
    """One way to send emails."""

    name: ClassVar[str]
    title: ClassVar[str]
    modes: ClassVar[tuple[Mode, ...]] = BOTH
    arrives: ClassVar[bool] = True
    """Whether its emails leave the process."""
    is_http: ClassVar[bool] = True

    def __init__(self, sinks: Addresses) -> None:
        self.sinks = sinks

    @abc.abstractmethod
    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        """Build ``mails``, send ``warm_up``, and return the job of sending ``mails``."""


# Without Django ---------------------------------------------------------------------------------


def _as_dict(mail: Mail, **more: str) -> dict[str, Any]:
    return {
        "to": mail.recipient,
        "subject": mail.subject,
        "html": mail.html,
        "text": mail.text,
        **more,
    }


class BareRequests(Contender):
    """One ``Session``, ready-made dicts, and a look at the answer: the least one can do."""

    name, title, modes = "requests", "bare requests", ("one by one",)

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        post, close = bare_post(self.sinks)
        for mail in warm_up:
            post(_as_dict(mail, **{"from": SENDER}))
        emails = [_as_dict(mail, **{"from": SENDER}) for mail in mails]
        return Job(lambda: sum(map(post, emails)), close)


def bare_post(sinks: Addresses) -> tuple[Callable[[dict[str, Any]], bool], Callable[[], None]]:
    """Return what makes a request and says whether it was accepted, and what closes it."""
    import requests

    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {API_KEY}"
    url = f"{sinks.http_url}/api/v1/emails/send"

    def post(email: dict[str, Any]) -> bool:
        response = session.post(
            url, json=email, headers={"Idempotency-Key": str(uuid.uuid4())}, timeout=30
        )
        response.raise_for_status()
        return bool(response.json()["status"] == "sent")

    return post, session.close


class SDK(Contender):
    """The official SDK: ``send()``, and ``batch()`` of 100 ready-made dicts."""

    name, title = "sdk", "truncus SDK 0.4.0"

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        from truncus import Truncus

        client = Truncus(API_KEY, base_url=self.sinks.http_url)

        def send(emails: list[dict[str, Any]]) -> int:
            return sum(client.send(**email).status == "sent" for email in emails)

        def send_batches(emails: list[dict[str, Any]]) -> int:
            return sum(
                client.batch(
                    emails[start : start + BATCH_SIZE], idempotency_key=str(uuid.uuid4())
                ).sent
                for start in range(0, len(emails), BATCH_SIZE)
            )

        chosen = send if mode == "one by one" else send_batches
        chosen([_as_dict(mail, from_=SENDER) for mail in warm_up])
        emails = [_as_dict(mail, from_=SENDER) for mail in mails]
        return Job(lambda: chosen(emails))


# Django's backends ------------------------------------------------------------------------------


class DjangoContender(Contender):
    """A Django backend: ``message.send()`` for each, or one ``send_messages(list)``.

    For the list, the connection is opened before and has sent the warm-up.
    """

    def __init__(self, sinks: Addresses) -> None:
        super().__init__(sinks)
        import django
        from django.conf import settings

        without_extras()
        settings.configure(SECRET_KEY="benchmarks", USE_TZ=True, **self.settings())
        django.setup()

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the Django settings that choose the backend."""

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        others, messages = _as_messages(warm_up), _as_messages(mails)
        if mode == "one by one":
            _send_each(others)
            return Job(lambda: _send_each(messages))
        connection = default_backend()
        connection.open()
        connection.send_messages(others)
        return Job(lambda: int(connection.send_messages(messages) or 0), connection.close)


def _as_messages(mails: Iterable[Mail]) -> list[Any]:
    from django.core.mail import EmailMultiAlternatives

    messages = []
    for mail in mails:
        message = EmailMultiAlternatives(mail.subject, mail.text, SENDER, [mail.recipient])
        message.attach_alternative(mail.html, "text/html")
        messages.append(message)
    return messages


def _as_merged(mails: Sequence[Mail]) -> Any:
    from truncus_django.message import TruncusMessage

    series = mails[0].recipient.split("-")[1]
    return TruncusMessage(
        MERGED.subject,
        MERGED.text,
        SENDER,
        [mail.recipient for mail in mails],
        html=MERGED.html,
        merge_data=merge_data(len(mails), series),
    )


def _send_each(messages: Sequence[Any]) -> int:
    accepted = 0
    for message in messages:
        accepted += message.send() or 0
    return accepted


class ThisBackend(DjangoContender):
    """``TruncusBackend``, installed as an app, with the log off."""

    name, title = "truncus", "this backend"
    records: ClassVar[bool] = False

    def settings(self) -> dict[str, Any]:
        """Return a mailer with this backend."""
        options = {"api_key": API_KEY, "base_url": self.sinks.http_url, "record": self.records}
        return {
            "INSTALLED_APPS": ["truncus_django"],
            **mailer(
                "truncus_django.backend.TruncusBackend",
                options,
                {"TRUNCUS": {name.upper(): value for name, value in options.items()}},
            ),
        }


class ThisBackendMerging(ThisBackend):
    """One message with merge data, whose texts are filled in for each recipient."""

    name, title, modes = "merge", "this backend, merge data", ("as a list",)

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        """Take the parts that differ out of the emails; what arrives is to be the same."""
        others, message = _as_messages(warm_up), _as_merged(list(mails))
        connection = default_backend()
        connection.send_messages(others)
        return Job(lambda: int(connection.send_messages([message])))


class ThisBackendRecording(ThisBackend):
    """The same with the log on, into a file of SQLite that is new in each round.

    SQLite is as Django sets it up: every write is a transaction that reaches the disk.
    """

    name, title = "recording", "this backend, recording"
    records = True
    database_options: ClassVar[dict[str, Any]] = {}

    def settings(self) -> dict[str, Any]:
        """Return the mailer and a database of this process's own."""
        return {**super().settings(), "DATABASES": {"default": self._database()}}

    def _database(self) -> dict[str, Any]:
        self._directory = TemporaryDirectory(prefix="truncus_bench_")
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(self._directory.name) / "log.sqlite3",
            "OPTIONS": self.database_options,
        }

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        """Make the tables anew; afterwards look that each email is recorded once, as sent."""
        own, others = list(mails), list(warm_up)
        self._make_tables()
        job = super().prepare(mode, own, others)

        def finish() -> None:
            job.finish()
            _check_recorded(own + others)

        return Job(job.send, finish)

    def _make_tables(self) -> None:
        from django.core.management import call_command
        from django.db import connection

        connection.close()
        for file in Path(self._directory.name).iterdir():
            file.unlink()
        call_command("migrate", verbosity=0)


def _check_recorded(mails: Sequence[Mail]) -> None:
    from truncus_django.models import Email
    from truncus_django.states import State

    recorded = Email.objects.filter(state=State.SENT).values_list("to", flat=True)
    if sorted(to for [to] in recorded) != sorted(mail.recipient for mail in mails):
        raise AssertionError("the log does not hold each email once")


class ThisBackendRecordingWAL(ThisBackendRecording):
    """The same with SQLite as sites in production set it up: a write does not wait for the disk."""

    name, title = "recording-wal", "this backend, recording (WAL)"
    database_options: ClassVar[dict[str, Any]] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"
    }


class ThisBackendRecordingPostgreSQL(ThisBackendRecording):
    """The same on PostgreSQL, whose own work is not counted."""

    name, title = "recording-pg", "this backend, recording (PostgreSQL)"

    def _database(self) -> dict[str, Any]:
        database = scratch_database(self.name.replace("-", "_"))
        atexit.register(database.__exit__, None, None, None)
        return database.__enter__()

    def _make_tables(self) -> None:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        call_command("flush", interactive=False, verbosity=0)


class Floor(ThisBackendRecording):
    """The least that recording can take: a bare request, and a ready-made INSERT of the same row.

    The INSERT is this backend's own, with other values for each email, executed by the driver.
    """

    name, title, modes = "floor", "bare requests and INSERTs", ("one by one",)

    def prepare(self, mode: Mode, mails: Iterable[Mail], warm_up: Iterable[Mail]) -> Job:
        """Let this backend record the warm-up, and make the rows of the others after it."""
        from django.db import connection

        own, others = list(mails), list(warm_up)
        self._make_tables()
        inserts: list[tuple[str, Sequence[Any]]] = []

        def note(execute: Any, sql: str, values: Any, many: bool, context: Any) -> Any:
            if sql.startswith("INSERT"):
                inserts.append((sql, values))
            return execute(sql, values, many, context)

        with connection.execute_wrapper(note):
            _send_each(_as_messages(others))
        post, close = bare_post(self.sinks)
        post(_as_dict(others[0], **{"from": SENDER}))
        sql, template = inserts[-1]
        emails = [_as_dict(mail, **{"from": SENDER}) for mail in own]
        rows = [_row_like(template, mail) for mail in own]
        execute: Callable[[str, Sequence[Any]], Any] = connection.connection.execute
        if connection.vendor == "sqlite":
            sql = sql.replace("%s", "?")

        def send() -> int:
            accepted = 0
            for email, row in zip(emails, rows, strict=True):
                accepted += post(email)
                execute(sql, row)
            return accepted

        def finish() -> None:
            close()
            _check_recorded(own + others)

        return Job(send, finish)


def _row_like(template: Sequence[Any], mail: Mail) -> list[Any]:
    """Return the values of a recorded email, changed to those of another one."""
    from django.db import connection

    from truncus_django.models import Email

    pk = uuid.uuid4()
    own = {"id": pk, "message_id": f"msg_{pk.hex}", "to": [mail.recipient], "subject": mail.subject}
    own["search_text"] = f"{mail.recipient} {mail.subject}".lower()
    return [
        field.get_db_prep_save(own[field.attname], connection) if field.attname in own else value
        for field, value in zip(Email._meta.concrete_fields, template, strict=True)
    ]


class FloorWAL(Floor):
    """The same, into SQLite as sites in production set it up."""

    name, title = "floor-wal", "bare requests and INSERTs (WAL)"
    database_options = ThisBackendRecordingWAL.database_options


class FloorPostgreSQL(Floor, ThisBackendRecordingPostgreSQL):
    """The same on PostgreSQL."""

    name, title = "floor-pg", "bare requests and INSERTs (PostgreSQL)"


class AnymailResend(DjangoContender):
    """Anymail's Resend backend; Resend's API is the one most like Truncus's."""

    name, title = "anymail", "Anymail (Resend)"

    def settings(self) -> dict[str, Any]:
        """Return a mailer with Anymail's backend."""
        return {
            "INSTALLED_APPS": ["anymail"],
            **mailer(
                "anymail.backends.resend.EmailBackend",
                {"api_key": API_KEY, "api_url": self.sinks.http_url},
                {"ANYMAIL": {"RESEND_API_KEY": API_KEY, "RESEND_API_URL": self.sinks.http_url}},
            ),
        }


class DjangoSMTP(DjangoContender):
    """Django's own backend: a connection for each ``send()``, or one for the list."""

    name, title, is_http = "smtp", "Django's SMTP", False

    def settings(self) -> dict[str, Any]:
        """Return a mailer with Django's backend."""
        return mailer(
            "django.core.mail.backends.smtp.EmailBackend",
            {"host": "127.0.0.1", "port": self.sinks.smtp_port},
            {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": self.sinks.smtp_port},
        )


class FluxMail(DjangoContender):
    """FluxMail's Django backend over SMTP, with what it takes to have it run at all.

    It passes ``fail_silently`` where ``MAILERS`` forbids it, so that it has to have the deprecated
    settings; ``EMAIL_TIMEOUT`` must be set, since it cannot take Django's default; and its
    pylogshield calls a function that Python 3.13 took away from ``logging``.
    """

    name, title, is_http = "fluxmail", "FluxMail 0.3.3", False

    def settings(self) -> dict[str, Any]:
        """Return the settings that Django deprecates."""
        if not hasattr(logging, "_acquireLock"):
            lock: Any = logging._lock  # type: ignore[attr-defined]
            logging._acquireLock = lock.acquire  # type: ignore[attr-defined]
            logging._releaseLock = lock.release  # type: ignore[attr-defined]
        return {
            "EMAIL_BACKEND": "fluxmail.backends.django.FluxMailBackend",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": self.sinks.smtp_port,
            "EMAIL_TIMEOUT": 30,
        }


class DjangoAlone(DjangoContender):
    """Django's dummy backend: what ``send()`` costs before any backend does its work."""

    name, title, arrives, is_http = "dummy", "Django alone (dummy)", False, False

    def settings(self) -> dict[str, Any]:
        """Return a mailer that throws emails away."""
        return mailer("django.core.mail.backends.dummy.EmailBackend", {}, {})


CONTENDERS: dict[str, type[Contender]] = {
    contender.name: contender
    for contender in (
        ThisBackend,
        ThisBackendMerging,
        ThisBackendRecording,
        ThisBackendRecordingWAL,
        ThisBackendRecordingPostgreSQL,
        Floor,
        FloorWAL,
        FloorPostgreSQL,
        BareRequests,
        SDK,
        AnymailResend,
        DjangoSMTP,
        FluxMail,
        DjangoAlone,
    )
}
