"""A deadline for the exchange of a request and its answer, however slowly either goes.

The timeout of a socket begins anew with each byte. So a server that sends or takes one byte now
and then would hold whoever waits for it for ever. The connections here give each read and each
write of an exchange the time that is left of it. This works within the thread that makes the
request: it needs no other thread, and no signal.

What is bounded here begins when there is a connection; urllib3 itself bounds making one.
"""

import io
import time
from functools import cache
from http.client import HTTPResponse
from threading import local
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import PoolManager

_RECORD_BYTES = 16 * 1024
"""A larger write over TLS is several, and each would have a timeout of its own."""


class _Exchange(local):
    """The exchange of this thread; a thread makes one at a time."""

    timeout_s = 0.0
    ends_at = 0.0  # monotonic seconds
    is_late = False

    def start(self) -> None:
        self.ends_at = time.monotonic() + self.timeout_s

    def limit(self, sock: Any) -> None:
        """Give the next read or write of ``sock`` the time that is left, or raise that none is."""
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            self.is_late = True
            raise TimeoutError
        sock.settimeout(left_s)


_exchange = _Exchange()


def begin(timeout_s: float) -> None:
    """Give this thread's next exchange so many seconds, from when there is a connection."""
    _exchange.timeout_s, _exchange.is_late = timeout_s, False
    _exchange.start()


def is_over() -> bool:
    """Return whether this thread's last exchange was broken off because its time was over."""
    return _exchange.is_late


class BoundedAdapter(HTTPAdapter):
    """An adapter of requests whose connections keep to the deadline of :func:`begin`."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Bound what goes to the server directly."""
        super().init_poolmanager(*args, **options)
        _bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Bound what goes through a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        _bound(manager)
        return manager


def _bound(manager: PoolManager) -> None:
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: _bounded_pool(pool) for scheme, pool in classes.items()
    }


@cache
def _bounded_pool(pool: Any) -> Any:
    """Return a class of pools whose connections are bounded; of SOCKS proxies, too."""
    if issubclass(pool.ConnectionCls, _BoundedConnection):
        return pool
    connection = type("BoundedConnection", (_BoundedConnection, pool.ConnectionCls), {})
    return type("BoundedPool", (pool,), {"ConnectionCls": connection})


class _Answer(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(_Readable(sock), *args, **options)  # type: ignore[arg-type]


class _BoundedConnection:
    """What connections of urllib3 do besides."""

    sock: Any
    response_class = _Answer

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _exchange.start()

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:
            _exchange.start()
        super().request(*args, **options)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        for part in _parts(data):
            if self.sock is not None:
                _exchange.limit(self.sock)
            try:
                super().send(part)  # type: ignore[misc]
            except TimeoutError:
                _exchange.is_late = True
                raise


def _parts(data: Any) -> list[Any]:
    if not isinstance(data, bytes) or len(data) <= _RECORD_BYTES:
        return [data]
    view = memoryview(data)
    return [view[start : start + _RECORD_BYTES] for start in range(0, len(data), _RECORD_BYTES)]


class _Readable:
    """A socket as far as an answer of :mod:`http.client` knows it."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReader(self._sock))


class _BoundedReader(io.RawIOBase):
    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._keeps_it_open = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _exchange.limit(self._sock)
        try:
            count: int = self._sock.recv_into(buffer)
        except TimeoutError:
            _exchange.is_late = True
            raise
        return count

    def close(self) -> None:
        self._keeps_it_open.close()
        super().close()
