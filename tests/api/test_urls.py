"""Base URLs: plain http only where it is safe, or asked for by name."""

import pytest

from truncus_django.api.errors import ConfigurationError
from truncus_django.api.urls import check_base_url, is_loopback


@pytest.mark.parametrize("url", [
    "https://truncus.co", "http://localhost:8025", "http://truncus.localhost", "http://127.0.0.1:1",
    "http://127.9.9.9", "http://[::1]:8025",
])  # fmt: skip
def test_https_and_loopback_are_taken(url):
    assert check_base_url(url) == url


def test_a_slash_at_the_end_is_dropped():
    assert check_base_url("https://truncus.co/") == "https://truncus.co"


@pytest.mark.parametrize("url", [
    "http://truncus.co", "http://10.0.0.1", "http://127.0.0.1.example.com",
    "http://localhost.example.com", "http://2130706433", "http://0.0.0.0",
])  # fmt: skip
def test_plain_http_to_another_host_is_refused(url):
    with pytest.raises(ConfigurationError, match="plain http"):
        check_base_url(url)


def test_plain_http_is_allowed_to_a_host_that_is_named():
    assert check_base_url("http://mail.internal", ("mail.internal",)) == "http://mail.internal"
    with pytest.raises(ConfigurationError):
        check_base_url("http://mail.internal.example.com", ("mail.internal",))


@pytest.mark.parametrize("url", [
    "", "truncus.co", "ftp://truncus.co", "https://", "https://truncus.co:port", "https://[::1",
    "https://user:secret@truncus.co", "https://truncus.co?x=1", "https://truncus.co#x",
    "https://truncus.co\n", " https://truncus.co", "https://truncus.co/a b",
])  # fmt: skip
def test_what_is_no_base_url_is_refused(url):
    with pytest.raises(ConfigurationError):
        check_base_url(url)


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v1/", "/truncus/api/v1"])
def test_a_base_url_with_the_path_of_the_api_is_told_to_leave_it_out(path):
    with pytest.raises(ConfigurationError, match=r"BASE_URL ends in /api.* leave it out"):
        check_base_url(f"https://truncus.co{path}")


def test_secrets_in_a_url_are_not_repeated_in_the_error():
    with pytest.raises(ConfigurationError) as caught:
        check_base_url("https://user:secret@truncus.co")
    assert "secret" not in str(caught.value)


def test_loopback_is_told_by_name_and_address():
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("192.168.0.1")


@pytest.mark.parametrize(
    "url",
    ["https://a..b", f"https://{'x' * 64}.example", "http://evil.com\\.localhost", "https://-a.b"],
)
def test_a_host_that_no_dns_knows_is_refused(url):
    with pytest.raises(ConfigurationError):
        check_base_url(url)
