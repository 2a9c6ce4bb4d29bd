"""The deadline of an exchange holds for each part of a request; the rest: test_slow_servers.py."""

import pytest

from truncus_django.api import deadline
from truncus_django.api.deadline import _BoundedConnection


class Connection:
    """As urllib3's, with a socket that takes whatever it is given."""

    def __init__(self):
        self.sock = self
        self.sent: list[bytes] = []
        self.timeouts: list[float] = []

    def settimeout(self, seconds):
        self.timeouts.append(seconds)

    def send(self, data):
        self.sent.append(bytes(data))


class Bounded(_BoundedConnection, Connection):
    pass


def test_a_large_request_is_given_the_time_that_is_left_for_each_record_of_tls():
    connection, body = Bounded(), bytes(range(250)) * 160
    deadline.begin(10.0)
    connection.send(body)
    assert [len(part) for part in connection.sent] == [16384, 16384, 7232]
    assert b"".join(connection.sent) == body
    assert 10 >= connection.timeouts[0] > connection.timeouts[1] > connection.timeouts[2] > 0


def test_nothing_more_is_sent_when_the_time_is_over():
    connection = Bounded()
    deadline.begin(0.0)
    with pytest.raises(TimeoutError):
        connection.send(b"x" * 40_000)
    assert connection.sent == []
    assert deadline.is_over()
