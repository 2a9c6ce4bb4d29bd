"""A worker that dies by SIGKILL in the n-th gap between two steps, forked anew for each n.

A step is a statement of SQL, a commit or a request. Each line on standard input, JSON, is one
life: ``{"task": "drain", "dies": 7}``, or the name of a step to die before. The answer is a line
with the step that it died before; ``null`` where the life was over first.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django
from django.db import connections


def main() -> None:
    """Live and die, once for each line."""
    django.setup()
    _prepare()
    for line in sys.stdin:
        life = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _live(life["task"], life["dies"], writer)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reader) as told:
            last = told.read()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            raise SystemExit("A life ended otherwise than it should have.")
        print(json.dumps(last if killed else None), flush=True)


def _prepare() -> None:
    """Import once what each life needs, instead of once in each life."""
    import requests  # noqa: F401

    from truncus_django.backend import TruncusBackend
    from truncus_django.outbox import dispatcher  # noqa: F401

    TruncusBackend().mailer.client_without_retries  # noqa: B018
    for connection in connections.all(initialized_only=False):
        connection.features  # noqa: B018


def _live(task: str, dies: int | str, writer: int) -> None:
    gaps = 0

    def gap(before: str) -> None:
        nonlocal gaps
        if dies in {gaps, before}:
            os.write(writer, before.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        gaps += 1

    status = 1
    try:
        _watch(gap)
        _TASKS[task]()
        gap("the end")
        status = 0
    finally:
        os._exit(status)


def _watch(gap: Callable[[str], None]) -> None:
    """Call ``gap`` before each statement, commit and request; what follows one precedes another."""
    from django.db import connection

    from truncus_django.api.transport import Transport

    def before_statement(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        gap(sql[:60])
        return execute(sql, params, many, context)

    connection.execute_wrappers.append(before_statement)
    commit, respond = connection._commit, Transport._respond

    def before_commit() -> None:
        gap("COMMIT")
        commit()

    def before_request(self: Transport, request: Any) -> Any:
        gap("the request")
        response = respond(self, request)
        gap("the use of its answer")
        return response

    connection._commit = before_commit  # type: ignore[method-assign]
    Transport._respond = before_request  # type: ignore[method-assign]
    _watch_fallback(gap)


def _watch_fallback(gap: Callable[[str], None]) -> None:
    from django.core.mail.backends.smtp import EmailBackend

    send = EmailBackend.send_messages

    def before_handover(self: EmailBackend, messages: Any) -> Any:
        gap("the handover")
        count = send(self, messages)
        gap("the use of its end")
        return count

    EmailBackend.send_messages = before_handover  # type: ignore[method-assign]


def _drain() -> None:
    from truncus_django.outbox.dispatcher import Dispatcher

    Dispatcher(jitter=lambda: 0.0).drain()


def _enqueue() -> None:
    from django.core.mail import EmailMessage
    from django.db import transaction

    from truncus_django.backend import TruncusBackend

    alias = "default" if django.VERSION >= (6, 1) else None
    with transaction.atomic():
        for number in range(2):
            message = EmailMessage(
                f"Order {number}", "Paid.", "shop@example.com", ["a@example.org"]
            )
            TruncusBackend(alias=alias).send_messages([message])


def _bulk() -> None:
    from django.conf import settings

    from tests.outbox.bulk_messages import three_letters
    from truncus_django.bulk import reader, send_bulk
    from truncus_django.conf import forget_settings

    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
    forget_settings()
    reader.CHUNK = 2  # so that three are two requests
    send_bulk(three_letters(), key="letters")


_TASKS = {"drain": _drain, "enqueue": _enqueue, "bulk": _bulk}

if __name__ == "__main__":
    main()
