"""Servers that tests run beside themselves, on a port that is free."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer
from threading import Thread
from typing import TypeVar

_Server = TypeVar("_Server", bound=BaseServer)


class LocalServer(ThreadingHTTPServer):
    """A server on this machine that ends with the test."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Stay silent."""


@contextmanager
def serving(server: _Server) -> Iterator[_Server]:
    """Answer requests from a thread, until the block ends."""
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
