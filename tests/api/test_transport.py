"""HTTP: connections, timeouts, retries, and what failures mean."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from threading import Event, Thread

import pytest
import requests
from urllib3.exceptions import MaxRetryError
from urllib3.exceptions import SSLError as PoolSSLError

from tests.conftest import API_KEY
from truncus_django.api import TruncusClient, transport
from truncus_django.api.errors import (
    AnswerLost,
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    ServerError,
    TLSError,
)
from truncus_django.api.retry import RetryPolicy
from truncus_django.api.transport import Request, Transport

EMAIL = {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "text": "Hello"}
NOW = 1_767_225_600.0


# Retries ------------------------------------------------------------------------------------------


def test_lost_answer_is_retried_under_the_same_key(client, truncus, naps):
    truncus.loses_the_answer()
    result = client.send(EMAIL)
    assert result.attempts == 2
    assert truncus.keys[0] == truncus.keys[1]
    assert truncus.seen[0].body == truncus.seen[1].body
    assert naps == [0.25]


@pytest.mark.parametrize("ask", [
    lambda client: client.get_email("m-1"), lambda client: client.validate(EMAIL),
    lambda client: client.cancel("m-1"),
])  # fmt: skip
def test_a_lost_answer_to_what_sends_nothing_is_not_ambiguous(client, truncus, ask):
    truncus.loses_the_answer(times=4)
    with pytest.raises(AnswerLost) as caught:
        ask(client)
    assert caught.value.attempts == 4
    assert not caught.value.ambiguous


@pytest.mark.parametrize(("status", "body"), [
    (408, {"error": "Timeout", "code": "TIMEOUT"}),
    (429, {"error": "rate_limit_exceeded", "message": "Slow down", "retry_after": 1}),
    (429, {"error": "Slow down", "code": "RATE_LIMIT_MINUTE"}),
    (500, {"error": "transient_failure", "message": "Try again"}),
    (502, {"status": "failed", "message_id": "m", "error": "SES", "code": "PROVIDER_ERROR"}),
    (502, "<html>Bad gateway</html>"),
    (503, ""),
    (200, '{"status": "sent", "message'),
    (200, "<html>Welcome</html>"),
])  # fmt: skip
def test_what_may_pass_is_tried_again_under_the_same_key(client, truncus, status, body):
    truncus.answers(status, body)
    assert client.send(EMAIL).status == "sent"
    assert len(truncus.seen) == 2
    assert len(set(truncus.keys)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 301])
def test_what_is_refused_is_not_tried_again(client, truncus, naps, status):
    truncus.always_answers(status, {"error": "No"})
    with pytest.raises(APIError, match=f"HTTP {status}"):
        client.send(EMAIL)
    assert len(truncus.seen) == 1
    assert naps == []


def test_backoff_doubles_until_the_retries_are_used_up(client, truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})
    with pytest.raises(ServerError) as caught:
        client.send(EMAIL)
    assert naps == [0.25, 0.5, 1.0]
    assert caught.value.attempts == 4


def test_retry_after_in_seconds_is_waited(client, truncus, naps):
    truncus.answers(429, {"error": "Slow down", "code": "RATE_LIMIT_MINUTE"}, {"Retry-After": "7"})
    client.send(EMAIL)
    assert naps == [pytest.approx(7, abs=0.1)]


def test_retry_after_as_a_date_is_waited(truncus):
    slept: list[float] = []
    transport = Transport("https://truncus.co", sleep=slept.append, jitter=lambda: 0.0,
                          clock=lambda: NOW)  # fmt: skip
    moment = format_datetime(datetime.fromtimestamp(NOW + 9, UTC), usegmt=True)
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": moment})
    TruncusClient(API_KEY, transport=transport).send(EMAIL)
    assert slept == [9]


def test_retry_after_in_the_body_is_waited(client, truncus, naps):
    truncus.answers(429, {"error": "rate_limit_exceeded", "message": "Wait", "retry_after": 4})
    client.send(EMAIL)
    assert naps == [pytest.approx(4, abs=0.1)]


@pytest.mark.parametrize("asked", [{"Retry-After": "31"}, {"Retry-After": "86400"}])
def test_more_than_the_budget_is_raised_at_once(client, truncus, naps, asked):
    truncus.answers(429, {"error": "rate_limit_exceeded"}, asked)
    with pytest.raises(RateLimited) as caught:
        client.send(EMAIL)
    assert caught.value.retry_after == float(asked["Retry-After"])
    assert caught.value.retryable
    assert naps == []


def test_budget_is_of_all_waiting_together(client, truncus, naps):
    truncus.always_answers(429, {"error": "rate_limit_exceeded"}, **{"Retry-After": "14"})
    with pytest.raises(RateLimited):
        client.send(EMAIL)
    assert len(naps) == 2


@pytest.mark.parametrize("code", ["MONTHLY_LIMIT_EXCEEDED", "WARMUP_CAP_EXCEEDED"])
def test_quotas_are_not_retried_in_the_call(client, truncus, naps, code):
    truncus.answers(429, {"error": "Used up", "code": code}, {"Retry-After": "1"})
    with pytest.raises(QuotaExceeded):
        client.send(EMAIL)
    assert len(truncus.seen) == 1
    assert naps == []


def test_ctrl_c_is_not_swallowed(client, truncus):
    truncus.breaks(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        client.send(EMAIL)
    assert len(truncus.seen) == 1


# What is known when it ends -----------------------------------------------------------------------


def test_lost_answers_leave_the_send_ambiguous(client, truncus):
    truncus.loses_the_answer(times=4)
    with pytest.raises(AnswerLost) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous
    assert caught.value.code == "TIMEOUT"


def test_a_send_stays_ambiguous_where_the_retries_met_a_limit(client, truncus):
    truncus.loses_the_answer()
    truncus.always_answers(429, {"error": "rate_limit_exceeded"})
    with pytest.raises(RateLimited) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous


def test_a_send_is_not_ambiguous_where_the_content_is_refused(client, truncus):
    truncus.loses_the_answer()
    truncus.answers(400, {"error": "invalid_payload", "message": "No"})
    with pytest.raises(InvalidRequest) as caught:
        client.send(EMAIL)
    assert not caught.value.ambiguous


@pytest.mark.parametrize("body", [
    "<html>Request Entity Too Large</html>", {"message": "Request size limit exceeded"}, [], "{",
])  # fmt: skip
def test_a_send_stays_ambiguous_where_a_proxy_refuses_the_size(client, truncus, body):
    truncus.loses_the_answer()
    truncus.answers(413, body or "[]")
    with pytest.raises(InvalidRequest) as caught:
        client.send(EMAIL)
    assert caught.value.ambiguous


@pytest.mark.parametrize(("status", "body", "ambiguous"), [
    (500, {"error": "transient_failure"}, True),
    (502, "<html>", True),
    (502, {"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"}, False),
    (429, {"error": "rate_limit_exceeded"}, False),
    (200, "{", True),
])  # fmt: skip
def test_errors_tell_whether_the_email_may_have_been_accepted(truncus, status, body, ambiguous):
    truncus.answers(status, body)
    with pytest.raises(APIError) as caught:
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)
    assert caught.value.ambiguous is ambiguous


def test_html_502_is_a_server_error_that_says_so(truncus):
    truncus.answers(502, "<html>Bad gateway</html>")
    with pytest.raises(ServerError, match=r"no JSON.*HTTP 502"):
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)


def test_redirects_are_not_followed_so_that_the_key_goes_nowhere_else(client, truncus):
    truncus.answers(302, "", {"Location": "https://evil.example.com/"})
    with pytest.raises(InvalidAnswer):
        client.send(EMAIL)
    assert [seen.path for seen in truncus.seen] == ["/api/v1/emails/send"]


def test_request_id_is_kept_on_the_error(client, truncus):
    truncus.answers(401, {"error": "invalid_api_key"}, {"X-Request-Id": "req-7"})
    with pytest.raises(AuthenticationError) as caught:
        client.send(EMAIL)
    assert caught.value.request_id == "req-7"
    assert "req-7" in str(caught.value)


# Failures of the network, as requests tells them --------------------------------------------------


def pool_error(cause: Exception) -> requests.exceptions.SSLError:
    return requests.exceptions.SSLError(MaxRetryError(None, "/", PoolSSLError(cause)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("failure", "kind", "ambiguous"), [
    (requests.exceptions.ConnectTimeout(), ConnectionFailed, False),
    (requests.exceptions.ReadTimeout(), AnswerLost, True),
    (requests.exceptions.ConnectionError("reset"), AnswerLost, True),
    (requests.exceptions.ChunkedEncodingError(), AnswerLost, True),
    (requests.exceptions.ContentDecodingError(), AnswerLost, True),
    (pool_error(ssl.SSLCertVerificationError("self-signed")), TLSError, False),
    (pool_error(ssl.SSLError("WRONG_VERSION_NUMBER")), TLSError, False),
    (pool_error(ssl.SSLEOFError("EOF")), AnswerLost, True),
    (pool_error(ssl.SSLZeroReturnError("closed")), AnswerLost, True),
    (requests.exceptions.InvalidURL(), ConfigurationError, False),
])  # fmt: skip
def test_failures_say_whether_the_request_went_out(truncus, failure, kind, ambiguous):
    truncus.breaks(failure)
    with pytest.raises(kind) as caught:
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)
    assert type(caught.value) is kind
    assert caught.value.ambiguous is ambiguous


def test_network_errors_show_neither_key_nor_email(truncus):
    truncus.breaks(requests.exceptions.ConnectionError(f"Bearer {API_KEY} ann@example.org"))
    with pytest.raises(AnswerLost) as caught:
        TruncusClient(API_KEY, max_retries=0).send(EMAIL)
    assert API_KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# TLS and routes -----------------------------------------------------------------------------------


def test_certificates_are_verified(truncus, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    TruncusClient(API_KEY).send(EMAIL)
    assert truncus.last.kwargs["verify"] is True


def test_an_own_ca_bundle_is_named_by_the_environment(truncus, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/company.pem")
    TruncusClient(API_KEY).send(EMAIL)
    assert truncus.last.kwargs["verify"] == "/etc/company.pem"


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_no_variable_turns_verification_off(truncus, monkeypatch, value):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", value)
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    TruncusClient(API_KEY).send(EMAIL)
    assert truncus.last.kwargs["verify"] not in {False, None, ""}


def test_proxies_of_the_environment_are_used_but_not_for_this_machine(truncus, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.internal:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.internal:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    TruncusClient(API_KEY).send(EMAIL)
    assert truncus.last.kwargs["proxies"]["https"] == "http://proxy.internal:3128"
    TruncusClient(API_KEY, base_url="http://localhost:1").send(EMAIL)
    assert truncus.last.kwargs["proxies"] == {}


def test_connecting_is_given_up_sooner_than_reading(truncus):
    TruncusClient(API_KEY, timeout_s=60).send(EMAIL)
    assert truncus.last.kwargs["timeout"] == (10, 60)


# Real sockets -------------------------------------------------------------------------------------


def once(url: str) -> TruncusClient:
    return TruncusClient(API_KEY, base_url=url, max_retries=0, timeout_s=5)


@pytest.fixture
def raw_server() -> Iterator[Callable[[bytes], str]]:
    """Start a server that reads one request, answers with these bytes and hangs up."""
    listeners, threads = [], []

    def serve(listener: socket.socket, answer: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    def start(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = Thread(target=serve, args=(listener, answer))
        thread.start()
        listeners.append(listener)
        threads.append(thread)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("answer", [
    b"",
    b"HTTP/1.1 2",
    b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"status": "sent"',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"status"',
    b"SMTP ready\r\n",
])  # fmt: skip
def test_a_connection_that_breaks_after_the_request_leaves_it_ambiguous(raw_server, answer):
    with pytest.raises(AnswerLost) as caught:
        once(raw_server(answer)).send(EMAIL)
    assert caught.value.ambiguous


# Servers that are slow on purpose -------------------------------------------------------------


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
        request += connection.recv(65536)


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
        TruncusClient(API_KEY, base_url=slow_server.url, max_retries=0, timeout_s=0.5).send(EMAIL)
    assert (caught.value.code, caught.value.ambiguous, caught.value.retryable) == (
        "TIMEOUT", True, True
    )  # fmt: skip


def test_a_server_that_takes_the_request_by_sips_is_given_up_when_its_time_is_over(slow_server):
    slow_server.sips(STATUS + LENGTH + b"\r\n" + BODY)
    large = {**EMAIL, "text": "x" * 8_000_000}
    with pytest.raises(AnswerLost) as caught:
        TruncusClient(API_KEY, base_url=slow_server.url, max_retries=0, timeout_s=1).send(large)
    assert caught.value.code == "TIMEOUT"
    assert caught.value.ambiguous


def test_a_proxy_that_drips_is_given_up_when_its_time_is_over(monkeypatch):
    server = SlowServer()
    use_proxy(monkeypatch, server)
    server.drips(b"", STATUS + b"X-Long: " + b"x" * 60, until=b"\r\n\r\n")
    client = TruncusClient(API_KEY, base_url="https://truncus.test", max_retries=0, timeout_s=1)
    with pytest.raises(AnswerLost, match="TIMEOUT"):
        client.send(EMAIL)
    server.close()


def test_an_answer_that_is_slow_and_in_time_is_taken(slow_server):
    slow_server.drips(STATUS + LENGTH + b"\r\n" + BODY[:-5], BODY[-5:])
    assert once(slow_server.url).send(EMAIL).status == "sent"


def test_a_request_that_is_given_up_costs_the_next_one_nothing(slow_server, emulator):
    slow_server.drips(b"", STATUS + b"x" * 60)
    with pytest.raises(AnswerLost):
        TruncusClient(API_KEY, base_url=slow_server.url, max_retries=0, timeout_s=0.3).send(EMAIL)
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


def test_a_server_without_tls_is_a_tls_error(raw_server):
    url = raw_server(b"HTTP/1.1 400 Bad Request\r\n\r\n").replace("http:", "https:")
    with pytest.raises(TLSError):
        once(url).send(EMAIL)


def test_a_closed_port_means_that_nothing_was_sent():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionFailed) as caught:
        once(f"http://127.0.0.1:{port}").send(EMAIL)
    assert not caught.value.ambiguous
    assert caught.value.code == "NETWORK_ERROR"


def test_one_connection_carries_the_sends_of_all_clients(emulator):
    for _ in range(20):
        once(emulator.url).send(EMAIL)
    assert (emulator.accepted, emulator.connections) == (20, 1)


def test_threads_share_a_client_with_at_most_one_connection_each(emulator):
    client = once(emulator.url)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: client.send(EMAIL).status, range(40)))
    assert results == ["delivered"] * 40
    assert emulator.connections <= 4


def test_a_fork_opens_its_own_connection_and_leaves_the_parents_alone(emulator):
    program = f"""
import os
from truncus_django.api import TruncusClient, transport
client = TruncusClient({API_KEY!r}, base_url={emulator.url!r}, max_retries=0)
email = {EMAIL!r}
client.send(email)
child = os.fork()
if not child:
    client.send(email)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.send(email)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.stderr == b""
    assert (emulator.accepted, emulator.connections) == (3, 2)


def test_a_transport_needs_no_client(truncus):
    truncus.answers(200, {"hello": "world"})
    transport = Transport("https://truncus.co", policy=RetryPolicy(max_retries=0))
    answer = transport.send(Request("GET", "/api/v2/new", headers={}))
    assert (answer.status, answer.attempts, answer.body) == (200, 1, {"hello": "world"})


def test_log_of_a_retry_carries_no_address_and_no_key(client, truncus, caplog):
    caplog.set_level("DEBUG", logger="truncus_django")
    truncus.answers(500, {"error": "transient_failure", "message": "ann@example.org failed"})
    client.send(EMAIL)
    (record,) = caplog.records
    assert "retry 1 of 3" in record.message
    assert "@" not in caplog.text
    assert API_KEY not in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("REQUESTS_CA_BUNDLE", "no-such-file.pem", "REQUESTS_CA_BUNDLE"),
        ("HTTPS_PROXY", "ftp://proxy.example:21", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "http://", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1", "HTTPS_PROXY"),
    ],
)
def test_a_useless_variable_of_the_environment_is_named(variable, value, text, monkeypatch):
    monkeypatch.setenv(variable, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    client = TruncusClient(API_KEY, base_url="https://truncus.invalid", max_retries=0)
    with pytest.raises(ConfigurationError, match=text):
        client.send({"from": "a@example.com", "to": "b@example.org", "subject": "x", "html": "x"})
