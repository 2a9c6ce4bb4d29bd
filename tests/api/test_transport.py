"""HTTP: connections, certificates, proxies, and what failures of the network mean."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import requests
from urllib3.exceptions import MaxRetryError
from urllib3.exceptions import SSLError as PoolSSLError

from tests.api.conftest import EMAIL, once
from tests.conftest import API_KEY
from truncus_django.api import TruncusClient
from truncus_django.api.errors import (
    AnswerLost,
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    TLSError,
)
from truncus_django.api.retry import RetryPolicy
from truncus_django.api.transport import Request, Transport

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


def test_connecting_is_given_up_sooner_than_reading(truncus):
    TruncusClient(API_KEY, timeout_s=60).send(EMAIL)
    assert truncus.last.kwargs["timeout"] == (10, 60)


def test_redirects_are_not_followed_so_that_the_key_goes_nowhere_else(client, truncus):
    truncus.answers(302, "", {"Location": "https://evil.example.com/"})
    with pytest.raises(InvalidAnswer):
        client.send(EMAIL)
    assert [seen.path for seen in truncus.seen] == ["/api/v1/emails/send"]


def test_a_transport_needs_no_client(truncus):
    truncus.answers(200, {"hello": "world"})
    transport = Transport("https://truncus.co", policy=RetryPolicy(max_retries=0))
    answer = transport.send(Request("GET", "/api/v2/new", headers={}))
    assert (answer.status, answer.attempts, answer.body) == (200, 1, {"hello": "world"})


# Real sockets -------------------------------------------------------------------------------------


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
