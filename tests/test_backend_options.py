"""TruncusBackend: its options, those of mailers, and its client."""

import copy
import pickle
import warnings
from contextlib import contextmanager

import django
import pytest
from django.core import mail
from django.test import override_settings

from tests.conftest import API_KEY
from tests.messages import message
from truncus_django.api.errors import ServerError
from truncus_django.backend import TruncusBackend

pytestmark = pytest.mark.usefixtures("naps")


@contextmanager
def every_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_options_come_before_the_settings(truncus):
    backend = TruncusBackend(api_key="tr_live_other", sandbox=True, tenant_id="acme")
    backend.send_messages([message()])
    assert truncus.last.headers["Authorization"] == "Bearer tr_live_other"
    assert truncus.last.headers["X-Truncus-Sandbox"] == "true"
    assert truncus.last.body["tenant_id"] == "acme"


def test_backends_with_the_same_settings_share_a_client():
    assert TruncusBackend().client is TruncusBackend().client
    assert TruncusBackend(api_key="tr_live_other").client is not TruncusBackend().client


def test_a_worker_has_a_client_that_does_not_wait_for_retries(truncus, naps):
    truncus.always_answers(500, {"error": "transient_failure"})

    with pytest.raises(ServerError):
        TruncusBackend().mailer.client_without_retries.send(
            {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "text": "T"}
        )
    assert (len(truncus.seen), naps) == (1, [])


def test_options_of_djangos_smtp_backend_are_ignored_without_a_warning(truncus):
    backend = TruncusBackend(
        host="localhost",
        port=25,
        username="shop",
        password=None,
        use_tls=True,
        use_ssl=False,
        ssl_keyfile=None,
        ssl_certfile=None,
    )
    assert backend.send_messages([message()]) == 1


@pytest.mark.parametrize(("given", "in_force"), [(5, 5), (None, 30)])
def test_smtps_timeout_is_that_of_requests_and_none_as_the_settings_say(given, in_force):
    assert TruncusBackend(timeout=given).settings.timeout == in_force


def test_a_mailer_without_a_timeout_of_its_own_has_that_of_the_settings():
    assert TruncusBackend(alias="default", timeout=None).settings.timeout == 30


def test_an_unknown_option_is_ignored_with_a_warning_of_what_was_meant(truncus):
    with every_warning() as caught:
        backend = TruncusBackend(tenant="acme", port=25)
    assert [str(each.message) for each in caught] == [
        "TruncusBackend ignores the unknown option 'tenant'; did you mean 'tenant_id'?"
    ]
    assert caught[0].filename == __file__
    assert backend.send_messages([message()]) == 1
    assert "tenant_id" not in truncus.last.body


def test_a_key_in_the_place_of_an_option_shows_in_no_warning():
    with every_warning() as caught:
        TruncusBackend(**{API_KEY: True})
    assert "tr_…" in str(caught[0].message)
    assert not [each for each in caught if API_KEY in str(each.message)]


def test_representation_and_pickle_carry_no_key():
    backend = TruncusBackend(api_key=API_KEY)
    assert API_KEY not in repr(backend)
    assert API_KEY not in repr(backend.settings)
    assert API_KEY.encode() not in pickle.dumps(backend)


def test_a_copied_message_keeps_the_backend_with_its_key():
    backend = TruncusBackend(api_key=API_KEY)
    assert copy.deepcopy(backend) is copy.copy(backend) is backend


if django.VERSION >= (6, 1):
    from django.utils.deprecation import RemovedInDjango2028Warning

    MAILERS = {
        "default": {"BACKEND": "truncus_django.backend.TruncusBackend"},
        "acme": {
            "BACKEND": "truncus_django.backend.TruncusBackend",
            "OPTIONS": {"api_key": "tr_live_acme", "tenant_id": "acme", "sandbox": True},
        },
        "typo": {
            "BACKEND": "truncus_django.backend.TruncusBackend",
            "OPTIONS": {"tenant": "acme"},
        },
    }

    @override_settings(MAILERS=MAILERS)
    def test_each_mailer_has_its_own_key_tenant_and_sandbox(truncus):
        message().send()
        message().send(using="acme")
        first, second = truncus.seen
        assert first.headers["Authorization"] == "Bearer tr_test_unit"
        assert second.headers["Authorization"] == "Bearer tr_live_acme"
        assert "X-Truncus-Sandbox" not in first.headers
        assert second.headers["X-Truncus-Sandbox"] == "true"
        assert second.body["tenant_id"] == "acme"

    @override_settings(MAILERS=MAILERS)
    def test_alias_of_the_mailer_is_kept():
        assert mail.mailers["acme"].alias == "acme"

    @override_settings(MAILERS=MAILERS)
    def test_unknown_options_are_djangos_own_error():
        with pytest.raises(mail.InvalidMailer, match="'tenant'"):
            mail.mailers["typo"]

    @pytest.mark.parametrize("name", ["host", API_KEY])
    def test_a_mailer_takes_no_other_backends_options_and_shows_no_key(name):
        config = {**MAILERS["default"], "OPTIONS": {name: "x"}}
        with (
            override_settings(MAILERS={"default": config}),
            pytest.raises(mail.InvalidMailer, match="Unknown options") as caught,
        ):
            mail.mailers["default"]
        assert API_KEY not in str(caught.value)

    @override_settings(MAILERS=MAILERS)
    def test_get_connection_takes_what_it_passes_to_any_backend(truncus):
        with pytest.warns(RemovedInDjango2028Warning, match="get_connection"):
            connection = mail.get_connection(host="localhost", timeout=5, nonsense=1)
        assert connection.settings.timeout == 5
        assert connection.send_messages([message()]) == 1

else:

    def test_get_connection_takes_djangos_own_keywords(truncus):
        connection = mail.get_connection(username=None, password=None, fail_silently=True)
        assert connection.fail_silently
        assert connection.send_messages([message()]) == 1
