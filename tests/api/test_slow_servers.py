"""Servers that are slow on purpose: an exchange ends when its time is over."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.api.conftest import EMAIL, once
from tests.conftest import API_KEY
from truncus_django.api import TruncusClient, transport
from truncus_django.api.errors import AnswerLost, InvalidAnswer, ServerError


class SlowServer:
    """Takes one request and answers it, at a pace; over TLS where it has a certificate.

    As a proxy, it is also the server that it is asked to connect to.

    In the end the answer is a good one: whoever waits for long enough is told of success.
    """

    PAUSE_S = 0.1

    def __init__(self, certificate: Path | None = None, *, is_proxy: bool = False) -> None:
        self._is_proxy = is_proxy
        self._closing = Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        scheme = "http" if certificate is None else "https"
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = "https://truncus.test" if is_proxy else f"{scheme}://{self.address}"

    def starts(self, serve: Callable[[socket.socket], None]) -> None:
        """Serve the first connection, until the other side hangs up."""

        def run() -> None:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                if self._is_proxy:
                    _read(connection, until=b"\r\n\r\n")
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    serve(connection)

        self._thread = Thread(target=run)
        self._thread.start()

    def drips(self, at_once: bytes, slowly: bytes, *, until: bytes = b"}") -> None:
        """Read the request; send a part of the answer at once, and the rest byte by byte."""

        def serve(connection: socket.socket) -> None:
            _read(connection, until=until)
            connection.sendall(at_once)
            for place in range(len(slowly)):
                self._closing.wait(self.PAUSE_S)
                connection.sendall(slowly[place : place + 1])

        self.starts(serve)

    def sips(self, answer: bytes) -> None:
        """Read a little of the request now and then, at last all of it, and answer."""

        def serve(connection: socket.socket) -> None:
            for _ in range(50):
                self._closing.wait(self.PAUSE_S)
                connection.recv(4096)
            connection.settimeout(0.5)
            with suppress(TimeoutError):
                while connection.recv(65536):
                    pass
            connection.sendall(answer)

        self.starts(serve)

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        self._thread.join()


def _read(connection: socket.socket, *, until: bytes) -> None:
    request = b""
    while not request.endswith(until):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("The client gave up before it had made its request.")
        request += part


def impatient(url: str) -> TruncusClient:
    """Return a client whose time is enough on a busy machine, and not for these servers."""
    return TruncusClient(API_KEY, base_url=url, max_retries=0, timeout_s=1.5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, with its key."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:truncus.test",
         "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture(params=["http", "https", "https by a proxy"])
def slow_server(
    request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlowServer]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    is_proxy = request.param == "https by a proxy"
    server = SlowServer(None if request.param == "http" else certificate, is_proxy=is_proxy)
    if is_proxy:
        use_proxy(monkeypatch, server)
    yield server
    server.close()


def use_proxy(monkeypatch: pytest.MonkeyPatch, server: SlowServer) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{server.address}")


BODY = b'{"status": "sent", "message_id": "m-1", "warnings": ["it took long"]}'

STATUS = b"HTTP/1.1 200 OK\r\n"

LENGTH = b"Content-Length: %d\r\n" % len(BODY)

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(("at_once", "slowly"), [
    (b"", STATUS + LENGTH + b"\r\n" + BODY),
    (STATUS, b"X-Long: " + b"x" * 60 + b"\r\n" + LENGTH + b"\r\n" + BODY),
    (STATUS + LENGTH + b"\r\n", BODY),
    (STATUS + b"\r\n", BODY),  # up to the end of the connection
    (STATUS + CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    (STATUS + CHUNKED, b"%x;%s\r\n%s\r\n0\r\n\r\n" % (len(BODY), b"x" * 60, BODY)),
    (STATUS + CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY), b"X: " + b"x" * 60 + b"\r\n\r\n"),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + STATUS + LENGTH + b"\r\n" + BODY),
], ids=["status line", "header", "body", "body without an end", "chunk", "size of a chunk",
        "trailer", "interim answers"])  # fmt: skip
def test_an_answer_that_drips_in_is_given_up_when_its_time_is_over(slow_server, at_once, slowly):
    slow_server.drips(at_once, slowly)
    with pytest.raises(AnswerLost) as caught:
        impatient(slow_server.url).send(EMAIL)
    assert (caught.value.code, caught.value.ambiguous, caught.value.retryable) == (
        "TIMEOUT", True, True
    )  # fmt: skip


def test_a_server_that_takes_the_request_by_sips_is_given_up_when_its_time_is_over(slow_server):
    slow_server.sips(STATUS + LENGTH + b"\r\n" + BODY)
    large = {**EMAIL, "text": "x" * 8_000_000}
    with pytest.raises(AnswerLost) as caught:
        impatient(slow_server.url).send(large)
    assert caught.value.code == "TIMEOUT"
    assert caught.value.ambiguous


def test_a_proxy_that_drips_is_given_up_when_its_time_is_over(monkeypatch):
    server = SlowServer()
    use_proxy(monkeypatch, server)
    server.drips(b"", STATUS + b"X-Long: " + b"x" * 60, until=b"\r\n\r\n")
    with pytest.raises(AnswerLost, match="TIMEOUT"):
        impatient("https://truncus.test").send(EMAIL)
    server.close()


def test_an_answer_that_is_slow_and_in_time_is_taken(slow_server):
    slow_server.drips(STATUS + LENGTH + b"\r\n" + BODY[:-5], BODY[-5:])
    assert once(slow_server.url).send(EMAIL).status == "sent"


def test_a_request_that_is_given_up_costs_the_next_one_nothing(slow_server, emulator):
    slow_server.drips(b"", STATUS + b"x" * 60)
    with pytest.raises(AnswerLost):
        impatient(slow_server.url).send(EMAIL)
    assert once(emulator.url).send(EMAIL).status == "delivered"


@pytest.mark.parametrize("head", [LENGTH.split()[0] + b" 200100\r\n\r\n", b"\r\n"],
                         ids=["announced", "without an end"])  # fmt: skip
@pytest.mark.parametrize(("status", "kind"), [(200, InvalidAnswer), (503, ServerError)])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    slow_server, monkeypatch, head, status, kind
):
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 200_000)
    body = b'{"status": "sent", "message_id": "m-1"}'.ljust(200_100)
    slow_server.drips(b"HTTP/1.1 %d Told\r\n%s%s" % (status, head, body), b"")
    with pytest.raises(kind, match=r"JSON") as caught:
        once(slow_server.url).send(EMAIL)
    assert caught.value.ambiguous
