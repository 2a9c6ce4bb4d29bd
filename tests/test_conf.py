"""Settings: keyword, then TRUNCUS, then environment, then default."""

import pickle
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from truncus_django import conf
from truncus_django.api.errors import ConfigurationError
from truncus_django.backend import TruncusBackend
from truncus_django.conf import Settings, get_settings, problems
from truncus_django.mailers import get_mailer
from truncus_django.message import TruncusMessage


def environment(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(f"TRUNCUS_{name}", value)
    conf.forget_settings()


@override_settings(TRUNCUS={})
def test_defaults():
    settings = get_settings()
    assert settings.api_key is None
    assert settings.base_url == "https://truncus.co"
    assert (settings.timeout, settings.max_retries, settings.retry_budget) == (30, 3, 30)
    assert settings.sandbox is False
    assert (settings.tenant_id, settings.track_opens, settings.track_clicks) == (None, None, None)
    assert (dict(settings.metadata), settings.plain_http_hosts) == ({}, ())
    assert (settings.dialect, settings.unsupported) == ("auto", "error")


def test_keyword_comes_before_dict_before_environment_before_default(monkeypatch):
    environment(monkeypatch, TENANT_ID="environment")
    with override_settings(TRUNCUS={"TENANT_ID": "dict"}):
        assert get_settings({"tenant_id": "keyword"}).tenant_id == "keyword"
        assert get_settings().tenant_id == "dict"
    with override_settings(TRUNCUS={}):
        assert get_settings().tenant_id == "environment"
        monkeypatch.delenv("TRUNCUS_TENANT_ID")
        conf.forget_settings()
        assert get_settings().tenant_id is None


@override_settings(TRUNCUS={})
def test_environment_has_a_text_for_every_type(monkeypatch):
    environment(
        monkeypatch, API_KEY="tr_live_1", BASE_URL="https://eu.truncus.co", TIMEOUT="2.5",
        MAX_RETRIES="5", RETRY_BUDGET="0", SANDBOX="yes", TRACK_OPENS="off", TRACK_CLICKS="1",
        METADATA='{"app": "shop"}', DIALECT="sdk", UNSUPPORTED="warn",
        PLAIN_HTTP_HOSTS="a.internal, b.internal",
    )  # fmt: skip
    assert get_settings() == Settings(
        api_key="tr_live_1", base_url="https://eu.truncus.co", timeout=2.5, max_retries=5,
        retry_budget=0.0, sandbox=True, track_opens=False, track_clicks=True,
        metadata={"app": "shop"}, dialect="sdk", unsupported="warn",
        plain_http_hosts=("a.internal", "b.internal"),
    )  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [
    ("TIMEOUT", "soon"), ("TIMEOUT", "nan"), ("MAX_RETRIES", "2.5"), ("MAX_RETRIES", "-1"),
    ("SANDBOX", "maybe"), ("METADATA", "shop"), ("DIALECT", "latin"),
])  # fmt: skip
@override_settings(TRUNCUS={})
def test_environment_is_checked_too(monkeypatch, name, value):
    environment(monkeypatch, **{name: value})
    with pytest.raises(ConfigurationError, match=f"^The environment variable TRUNCUS_{name} "):
        get_settings()


@pytest.mark.parametrize(("value", "reserve"), [
    (0, 0), (500, 500), (0.05, 0.05), (2.0, 2),
])  # fmt: skip
def test_a_reserve_is_a_number_or_a_share(monkeypatch, value, reserve):
    with override_settings(TRUNCUS={"QUOTA_RESERVE": value}):
        assert get_settings().quota_reserve == reserve
    with override_settings(TRUNCUS={}):
        environment(monkeypatch, QUOTA_RESERVE=str(value))
        assert get_settings().quota_reserve == reserve


@override_settings(TRUNCUS={})
def test_metadata_that_is_no_json_is_told_to_be_none(monkeypatch):
    environment(monkeypatch, METADATA="{'site': 'secret'}")
    told = r"must be JSON like .*error at character 2"
    with pytest.raises(ConfigurationError, match=told) as caught:
        get_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("value", "text"), [
    (42, "42"), (1.5, "1.5"), (Decimal("9.90"), "9.90"), (date(2026, 3, 1), "2026-03-01"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"), ("shop", "shop"),
])  # fmt: skip
def test_metadata_holds_what_that_of_a_message_holds(truncus, value, text):
    with override_settings(TRUNCUS={"API_KEY": "tr_test_1", "METADATA": {"default": value}}):
        TruncusMessage("Hello", "Text", to=["ann@example.org"], metadata={"own": value}).send()
    assert truncus.last.body["metadata"] == {"default": text, "own": text}


@override_settings(TRUNCUS={})
def test_metadata_of_the_environment_may_hold_numbers(monkeypatch):
    environment(monkeypatch, METADATA='{"site": 3, "share": 0.5}')
    assert get_settings().metadata == {"site": "3", "share": "0.5"}


@override_settings(TRUNCUS={})
def test_empty_variables_count_as_not_set(monkeypatch):
    environment(monkeypatch, TENANT_ID="", SANDBOX="")
    assert (get_settings().tenant_id, get_settings().sandbox) == (None, False)


WRONG = [
    ("API_KEY", 1), ("API_KEY", ""), ("BASE_URL", None), ("BASE_URL", ""),
    ("TIMEOUT", 0), ("TIMEOUT", -1), ("TIMEOUT", "30"), ("TIMEOUT", True), ("TIMEOUT", None),
    ("QUOTA_RESERVE", -1), ("QUOTA_RESERVE", 1.5), ("QUOTA_RESERVE", True), ("QUOTA_RESERVE", "5%"),
    ("QUOTA_RESERVE", float("nan")), ("QUOTA_RESERVE", float("inf")), ("QUOTA_RESERVE", 10**9),
    ("TIMEOUT", float("inf")), ("MAX_RETRIES", 1.5), ("MAX_RETRIES", -1), ("MAX_RETRIES", True),
    ("RETRY_BUDGET", -1), ("RETRY_BUDGET", "x"), ("SANDBOX", "false"), ("SANDBOX", 1),
    ("SANDBOX", None), ("TENANT_ID", 5), ("TENANT_ID", ""), ("TRACK_OPENS", "yes"),
    ("TRACK_CLICKS", 0), ("METADATA", ["a"]), ("METADATA", {"a": None}), ("METADATA", {"a": []}),
    ("METADATA", {1: "a"}),
    ("DIALECT", "SDK"), ("DIALECT", None), ("UNSUPPORTED", "ignore"),
    ("PLAIN_HTTP_HOSTS", "mail.internal"), ("PLAIN_HTTP_HOSTS", [1]),
]  # fmt: skip


@pytest.mark.parametrize("secret", ["", "whsec_...", "whsec_…"])
def test_a_webhook_secret_that_anybody_knows_is_refused(secret):
    with override_settings(TRUNCUS={"WEBHOOK_SECRETS": ["whsec_1", secret]}):
        [problem] = problems()
    assert (problem.kind, problem.name) == ("type", "webhook_secrets")
    assert "whsec" not in problem.text


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_of_the_wrong_type_is_named(name, value):
    with override_settings(TRUNCUS={name: value}):
        with pytest.raises(ConfigurationError, match=f"^{name} must be"):
            get_settings()
        assert [(found.kind, found.name) for found in problems()] == [("type", name.lower())]


@pytest.mark.parametrize(("name", "meant"), [
    ("APIKEY", "API_KEY"), ("api_key", "API_KEY"), ("TENANT", "TENANT_ID"),
    ("TRACK_OPEN", "TRACK_OPENS"), ("SANBOX", "SANDBOX"),
])  # fmt: skip
def test_an_unknown_key_is_told_with_the_one_that_was_meant(name, meant):
    with (
        override_settings(TRUNCUS={name: "x"}),
        pytest.raises(ConfigurationError, match=f"did you mean '{meant}'"),
    ):
        get_settings()


def test_an_unknown_key_like_no_other_is_told_without_a_guess():
    with override_settings(TRUNCUS={"COLOUR_OF_INK": "blue"}):
        (problem,) = problems()
    assert problem.text == "TRUNCUS['COLOUR_OF_INK'] is unknown."


@pytest.mark.parametrize("value", [None, [], "tr_live_1"])
def test_truncus_itself_must_be_a_dict(value):
    with override_settings(TRUNCUS=value), pytest.raises(ConfigurationError, match="a dict"):
        get_settings()


def test_a_project_without_the_setting_goes_by_the_environment(settings, monkeypatch):
    del settings.TRUNCUS
    environment(monkeypatch, API_KEY="tr_live_1")
    assert get_settings().api_key == "tr_live_1"


def test_the_key_is_in_no_representation_and_no_error():
    with (
        override_settings(TRUNCUS={"API_KEY": "tr_live_secret", "SANDBOX": "x"}),
        pytest.raises(ConfigurationError) as caught,
    ):
        get_settings()
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Settings(api_key="tr_live_secret"))


NO_KEY = {"API_KEY": None}


@pytest.mark.parametrize("wrong", [{"SANDBOX": "x"}, {"TENANT": "x"}, NO_KEY, {"API_KEY": "sk_1"}])
def test_wrong_settings_are_improperly_configured_for_django(wrong):
    with override_settings(TRUNCUS=wrong), pytest.raises(ImproperlyConfigured) as caught:
        TruncusBackend().open()
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, ConfigurationError)
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("mailers", [{}, {"news": {"OPTIONS": ["x"]}}, ["news"]])
def test_unknown_mailer_is_improperly_configured_for_django(mailers):
    with override_settings(MAILERS=mailers), pytest.raises(ImproperlyConfigured):
        get_mailer("news")


def test_settings_follow_override_settings():
    with override_settings(TRUNCUS={"TENANT_ID": "a"}):
        assert get_settings().tenant_id == "a"
    with override_settings(TRUNCUS={"TENANT_ID": "b"}):
        assert get_settings().tenant_id == "b"


def test_settings_are_read_once_for_the_same_options():
    assert get_settings() is get_settings({})
    assert get_settings({"sandbox": True}) is get_settings({"sandbox": True})
    assert get_settings({"sandbox": True}) is not get_settings({"sandbox": False})


def test_options_that_cannot_be_hashed_work_as_well():
    assert get_settings({"metadata": {"a": "b"}}).metadata == {"a": "b"}


def test_metadata_cannot_be_changed_behind_the_settings_back():
    with pytest.raises(TypeError):
        get_settings({"metadata": {"a": "b"}}).metadata["a"] = "c"


def test_every_setting_is_documented():
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    assert [name for name in conf.SETTING_NAMES if f"`{name.upper()}`" not in page] == []


def test_backend_is_made_with_wrong_settings_and_raises_when_it_is_used():
    with override_settings(TRUNCUS={"SANDBOX": "x"}):
        backend = TruncusBackend()
        with pytest.raises(ConfigurationError):
            backend.open()


def test_importing_reads_no_settings():
    program = """
import django.conf
django.conf.settings.configure(TRUNCUS="not even a dict")
import truncus_django.backend, truncus_django.conf, truncus_django.checks, truncus_django.apps
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.stderr == b""


def test_a_number_that_equals_a_boolean_is_still_of_the_wrong_type():
    assert get_settings({"sandbox": True}).sandbox is True
    with pytest.raises(ConfigurationError, match="SANDBOX"):
        get_settings({"sandbox": 1})
