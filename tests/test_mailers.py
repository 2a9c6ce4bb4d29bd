"""Mailers: from an alias to settings and a client."""

import subprocess
import sys

import pytest

from tests.conftest import API_KEY, BACKEND
from truncus_django.backend import TruncusBackend
from truncus_django.conf import ConfigurationError
from truncus_django.mailers import get_mailer


@pytest.fixture
def news(settings):
    settings.TRUNCUS = {"API_KEY": API_KEY, "TENANT_ID": "shop", "TIMEOUT": 7}
    options = {"tenant_id": "news", "timeout": None, "host": "smtp.example.com"}
    settings.MAILERS = {"news": {"BACKEND": BACKEND, "OPTIONS": options}}


@pytest.mark.usefixtures("news")
def test_mailer_has_its_own_options_before_the_settings_of_all():
    mailer = get_mailer("news")
    assert (mailer.name, mailer.settings.tenant_id, mailer.settings.timeout) == ("news", "news", 7)
    assert mailer.options == {"tenant_id": "news"}


@pytest.mark.usefixtures("news")
def test_the_empty_name_is_that_of_the_settings_alone():
    assert get_mailer("").settings.tenant_id == "shop"


@pytest.mark.usefixtures("news")
def test_mailers_and_backends_with_the_same_account_share_a_client():
    assert get_mailer("news").client is get_mailer("").client is TruncusBackend().client
    assert get_mailer("").client_without_retries is not get_mailer("").client


@pytest.mark.usefixtures("news")
def test_a_mailer_that_is_gone_is_named():
    with pytest.raises(ConfigurationError, match="no mailer 'old' any more"):
        get_mailer("old")


def test_the_key_is_in_no_representation():
    assert API_KEY not in repr(TruncusBackend(api_key=API_KEY).mailer)


def test_importing_mailers_brings_no_http_client_into_every_process():
    program = """
import sys, django.conf
django.conf.settings.configure()
import truncus_django.mailers
assert "requests" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.stderr == b""
