"""The brokers of Celery that answer on this machine, or else one on the file system."""

import os
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADDRESSES = {
    "redis": os.environ.get("TEST_REDIS", "redis://127.0.0.1:6379/9"),
    "rabbitmq": os.environ.get("TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
}
_PORTS = {"redis": 6379, "rabbitmq": 5672}


def answering() -> list[str]:
    """Return the names of the brokers to test with.

    The one on the file system stands in only where no other answers: kombu may read a message
    there before it is written whole, and loses it.

    Raises:
        RuntimeError: one that ``REQUIRE_BROKERS`` names does not answer.
    """
    found = [name for name in _PORTS if _answers(name)]
    missing = set(os.environ.get("REQUIRE_BROKERS", "").split()).difference(found)
    if missing:
        raise RuntimeError(f"{' and '.join(sorted(missing))} must answer: REQUIRE_BROKERS says so.")
    return found or ["files"]


def _answers(name: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", _PORTS[name]), timeout=30).close()
    except OSError as exc:
        print(f"{name} is left out: {type(exc).__name__}", file=sys.stderr)
        return False
    return True


@contextmanager
def broker(name: str, directory: Path) -> Iterator[dict[str, Any]]:
    """Yield settings of Celery with a queue of their own, and leave nothing of it behind."""
    queue = f"truncus-test-{uuid.uuid4().hex}"
    if name == "files":
        for folder in ("in", "done", "control"):
            (directory / folder).mkdir()
        yield {
            "broker_url": "filesystem://",
            "broker_transport_options": {
                "data_folder_in": str(directory / "in"),
                "data_folder_out": str(directory / "in"),
                "processed_folder": str(directory / "done"),
                "control_folder": str(directory / "control"),
                "polling_interval": 0.1,
            },
            "task_default_queue": queue,
        }
    elif name == "redis":
        yield {
            "broker_url": ADDRESSES[name],
            "broker_transport_options": {"global_keyprefix": f"{queue}:"},
            "task_default_queue": queue,
        }
        _forget_redis(f"{queue}:")
    else:
        yield {"broker_url": ADDRESSES[name], "task_default_queue": queue}
        _forget_rabbitmq(queue)


def _forget_redis(prefix: str) -> None:
    import redis

    with redis.Redis.from_url(ADDRESSES["redis"]) as client:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)


def _forget_rabbitmq(queue: str) -> None:
    from kombu import Connection

    with Connection(ADDRESSES["rabbitmq"]) as connection, connection.channel() as channel:
        channel.queue_delete(queue)
        channel.exchange_delete(queue)
