"""The HTTP server: keep-alive, one thread per connection, no log, faults at the real socket.

Werkzeug's own handler closes the connection after each answer. Clients of Truncus keep theirs,
so the handler here reads each body to its end and leaves the connection open.
"""

import io
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from truncus_django.emulator.wire import ResetConnection, TruncatedResponse

MAX_BODY_BYTES = 64 * 1024 * 1024
"""More than any request that the API accepts, so that limits are answered and not cut off."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Respond = Callable[[Request], Response]


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True  # or each answer waits up to 40 ms for the client's ACK
    server: "EmulatorServer"

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        body_is_read = False

        def read_body() -> bytes:
            nonlocal body_is_read
            body_is_read = True
            return self._read_body()

        environ["wsgi.input"] = _LazyBody(read_body)
        environ["wsgi.input_terminated"] = True
        try:
            response = self.server.respond(Request(environ))
            if not body_is_read:
                read_body()
        except ResetConnection:
            self.server.reset(self.connection)
            self.close_connection = True
            return
        self._write(response)

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        is_chunked = "Transfer-Encoding" in self.headers  # as no client of Truncus sends it
        if is_chunked or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            return b""
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionAbortedError  # the client went away while it was sending
        return body

    def _write(self, response: Response) -> None:
        body = response.get_data()
        response.headers["Content-Length"] = str(len(body))
        truncated = isinstance(response, TruncatedResponse)
        self.close_connection = self.close_connection or truncated
        response.headers.setdefault("Date", self.date_time_string())
        self.send_response_only(response.status_code)
        self.send_header("Server", self.version_string())
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.wfile.flush()

    def version_string(self) -> str:
        return "truncus-emulator"

    def log(self, *_args: Any) -> None:
        """Log nothing: lines of requests would hold addresses."""

    def log_request(self, *_args: Any) -> None:
        """Log nothing."""


class _LazyBody(io.RawIOBase):
    """The request's body, read from the connection when the application first asks for it."""

    def __init__(self, read_body: Callable[[], bytes]) -> None:
        self._read_body = read_body
        self._body: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._body is None:
            self._body = io.BytesIO(self._read_body())
        return self._body.readinto(buffer)


class EmulatorServer(ThreadedWSGIServer):
    """Listens on one address and gives each request to ``respond``."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, respond: Respond) -> None:
        """Listen on ``host`` and ``port`` (0: any free one).

        Raises:
            OSError: the address cannot be used.
        """
        self.respond = respond
        self.connections = 0
        """TCP connections taken so far."""
        self._open: set[socket.socket] = set()
        self._to_reset: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        listener = _listen(host, port)
        with listener:  # werkzeug works on a duplicate of the descriptor
            super().__init__(host, port, _no_wsgi, handler=_Handler, fd=listener.fileno())

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def get_request(self) -> tuple[Any, Any]:
        """Take one connection and count it."""
        connection, address = super().get_request()
        with self._open_lock:
            self.connections += 1
            self._open.add(connection)
        return connection, address

    def reset(self, connection: socket.socket) -> None:
        """Let a connection end with a TCP RST instead of a proper close."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        with self._open_lock:
            self._to_reset.add(connection)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; one to be reset without the FIN of a shutdown before."""
        with self._open_lock:
            self._open.discard(request)
            is_reset = request in self._to_reset
            self._to_reset.discard(request)
        if is_reset:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close every connection, so that idle keep-alive threads end."""
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet about clients that went away; report everything else."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _no_wsgi(_environ: Any, _start_response: Any) -> list[bytes]:
    """Stand in for the WSGI application that werkzeug asks for; the handler never calls it."""
    return []
