"""System checks: each kind of wrong setting has an id of its own."""

import sys
from pathlib import Path

import django
import pytest
from django.core import checks
from django.test import override_settings

from truncus_django.api.errors import ConfigurationError
from truncus_django.backend import TruncusBackend
from truncus_django.checks import check_deployment, check_settings
from truncus_django.conf import BACKEND
from truncus_django.mailers import get_mailer

LIVE = "tr_live_" + "a1" * 32


pytestmark = pytest.mark.usefixtures("truncus_mailer")


def ids(**truncus):
    with override_settings(TRUNCUS=truncus):
        return [found.id for found in check_settings()]


def test_good_settings_pass():
    assert ids(API_KEY="tr_test_unit") == []


@pytest.mark.parametrize(("truncus", "expected"), [
    ({"API_KEY": LIVE, "TENANT": "acme"}, "truncus.E001"),
    ({"API_KEY": LIVE, "TIMEOUT": "30"}, "truncus.E002"),
    ({"API_KEY": 5}, "truncus.E002"),
    ({}, "truncus.W007"),
    ({"API_KEY": "sk_live_1"}, "truncus.E003"),
    ({"API_KEY": LIVE, "BASE_URL": "http://truncus.co"}, "truncus.E004"),
    ({"API_KEY": LIVE, "BASE_URL": "truncus.co"}, "truncus.E004"),
    ({"API_KEY": LIVE, "BASE_URL": "https://truncus.co/api/v1"}, "truncus.E004"),
    ({"API_KEY": LIVE, "DATABASE": "nowhere"}, "truncus.E008"),
    ({"API_KEY": LIVE, "INLINE_IMAGES": "hosted", "INLINE_IMAGES_STORAGE": "x"}, "truncus.E011"),
    ({"API_KEY": LIVE, "INLINE_IMAGES_BASE_URL": "www.example.com"}, "truncus.E002"),
    ({"API_KEY": LIVE, "INLINE_IMAGES": "link"}, "truncus.E002"),
    ({"API_KEY": LIVE, "UNSUBSCRIBE_BASE_URL": "https://example.com"}, "truncus.W009"),
])  # fmt: skip
def test_what_is_wrong_has_its_id(truncus, expected):
    assert ids(**truncus) == [expected]


def test_inline_css_without_css_inline_has_its_id(monkeypatch):
    assert ids(API_KEY=LIVE, INLINE_CSS=True) == []
    monkeypatch.setitem(sys.modules, "css_inline", None)
    assert ids(API_KEY=LIVE, INLINE_CSS=True) == ["truncus.E010"]
    assert ids(API_KEY=LIVE, INLINE_IMAGES="hosted") == []


def test_each_wrong_value_is_told():
    assert ids(TIMEOUT="x", SANDBOX="x", COLOUR="x") == [
        "truncus.E001", "truncus.E002", "truncus.E002",
    ]  # fmt: skip


def test_a_setting_that_is_no_dict_is_told():
    with override_settings(TRUNCUS=[]):
        assert [found.id for found in check_settings()] == ["truncus.E002"]


def test_unknown_key_says_which_was_meant():
    with override_settings(TRUNCUS={"API_KEY": LIVE, "TENANT": "acme"}):
        (found,) = check_settings()
    assert "did you mean 'TENANT_ID'" in found.msg


def test_a_key_in_place_of_a_name_is_not_shown():
    with override_settings(TRUNCUS={LIVE: 1}):
        (found,) = check_settings()
    assert (found.id, found.msg) == ("truncus.E001", "TRUNCUS['tr_…'] is unknown.")


@pytest.mark.parametrize("mailers", [
    ["default"], "default", {"default": BACKEND}, {"default": None},
    {"default": {"BACKEND": BACKEND, "OPTIONS": ["api_key"]}},
    {"default": {"BACKEND": BACKEND, "OPTIONS": LIVE}},
])  # fmt: skip
def test_mailers_of_another_form_are_told(settings, mailers):
    settings.MAILERS = mailers
    with override_settings(TRUNCUS={"API_KEY": LIVE}):
        (found,) = check_settings()
        assert found.id == "truncus.E002"
        assert LIVE not in found.msg
        with pytest.raises(ConfigurationError, match="must be"):
            get_mailer("default")


def test_an_alias_that_is_no_string_is_told(settings):
    settings.MAILERS = {5: {"BACKEND": BACKEND}}
    with override_settings(TRUNCUS={"API_KEY": LIVE}):
        (found,) = check_settings()
    assert found.id == "truncus.E002"
    assert found.msg == "MAILERS[5]: the alias of a mailer must be a string."
    with pytest.raises(ConfigurationError, match="must be a string"):
        TruncusBackend(alias=5)


@pytest.mark.parametrize(("name", "shown"), [(1, "1"), (LIVE, "'tr_…'")])
def test_options_with_impossible_names_are_told(settings, name, shown):
    settings.MAILERS = {"default": {"BACKEND": BACKEND, "OPTIONS": {name: 2}}}
    with override_settings(TRUNCUS={"API_KEY": LIVE}):
        (found,) = check_settings()
    told = f"The option {shown} (mailer 'default') is unknown."
    assert (found.id, found.msg) == ("truncus.E001", told)


@pytest.mark.parametrize(("name", "value"), [
    ("database", "default"), ("retention_days", 30), ("webhook_secrets", ["whsec_1"]),
    ("previews_for_staff", True), ("health_token", "probe-of-the-load"), ("health_max_age", 60),
])  # fmt: skip
def test_a_setting_of_the_project_is_no_option_of_a_mailer(settings, name, value):
    settings.MAILERS = {"default": {"BACKEND": BACKEND, "OPTIONS": {name: value}}}
    with override_settings(TRUNCUS={"API_KEY": LIVE}):
        (found,) = check_settings()
    assert (found.id, found.msg.split("'")[1]) == ("truncus.E005", name)


def test_an_option_in_upper_case_is_told_with_the_one_that_was_meant(settings):
    settings.MAILERS = {"default": {"BACKEND": BACKEND, "OPTIONS": {"TENANT_ID": "acme"}}}
    with override_settings(TRUNCUS={"API_KEY": LIVE}):
        (found,) = check_settings()
    assert found.msg.endswith("is unknown; did you mean 'tenant_id'?")


def test_plain_http_is_fine_on_this_machine_and_where_it_is_asked_for():
    assert ids(API_KEY="tr_test_1", BASE_URL="http://localhost:8025") == []
    hosts = ["mail.internal"]
    base_url = "http://mail.internal"
    assert ids(API_KEY="tr_test_1", BASE_URL=base_url, PLAIN_HTTP_HOSTS=hosts) == []


@pytest.mark.parametrize(("debug", "truncus", "expected"), [
    (True, {"API_KEY": LIVE}, ["truncus.W001"]),
    (True, {"API_KEY": LIVE, "SANDBOX": True}, []),
    (True, {"API_KEY": LIVE, "BASE_URL": "http://localhost:8025"}, []),
    (True, {"API_KEY": "tr_test_1"}, []),
    (False, {"API_KEY": LIVE}, []),
])  # fmt: skip
def test_a_live_key_under_debug_without_sandbox_is_a_warning(debug, truncus, expected):
    with override_settings(DEBUG=debug):
        assert ids(**truncus) == expected


SITE, LOG = ({"ENGINE": "django.db.backends.sqlite3", "NAME": f"{name}.db"} for name in ("a", "b"))
SERVER = {"ENGINE": "django.db.backends.postgresql", "NAME": "site"}
MEMORY = {**SITE, "NAME": ":memory:"}


@pytest.mark.parametrize(
    ("default", "log", "alias", "expected"),
    [
        (SITE, SITE, "log", ["truncus.W003"]),
        (SITE, {**SITE, "NAME": Path("x/../a.db")}, "log", ["truncus.W003"]),
        (SITE, {**SITE, "NAME": "file:a.db?mode=rwc"}, "log", ["truncus.W003"]),
        (SITE, LOG, "log", []),
        (SITE, SITE, "default", []),
        (SITE, SITE, None, []),
        (SITE, LOG, "nowhere", ["truncus.E008"]),
        (MEMORY, MEMORY, "log", []),  # each has a memory of its own
        (SERVER, SERVER, "log", []),  # its second connection is what survives a rollback
    ],
)
def test_a_second_alias_of_one_sqlite_file_is_a_warning(
    settings, monkeypatch, default, log, alias, expected
):
    monkeypatch.setitem(settings.DATABASES, "default", default)
    monkeypatch.setitem(settings.DATABASES, "log", log)
    assert ids(API_KEY="tr_test_unit", DATABASE=alias) == expected


def test_an_unknown_database_is_told_with_the_one_that_was_meant():
    with override_settings(TRUNCUS={"API_KEY": LIVE, "DATABASE": "defualt"}):
        (found,) = check_settings()
    assert found.msg == "TRUNCUS['DATABASE'] is no alias of DATABASES; did you mean 'default'?"


@pytest.mark.parametrize(("name", "value"), [("API_KEY", "'tr_live_1'"), ("BASE_URL", "truncus")])
def test_what_comes_from_the_environment_is_told_to_be_from_there(monkeypatch, name, value):
    monkeypatch.setenv("TRUNCUS_API_KEY", LIVE)
    monkeypatch.setenv(f"TRUNCUS_{name}", value)
    with override_settings(TRUNCUS={}):
        (found,) = check_settings()
    assert f"environment variable TRUNCUS_{name}" in found.hint
    with override_settings(TRUNCUS={"API_KEY": LIVE, name: value}):
        (found,) = check_settings()
    assert found.hint is None


def test_no_check_shows_the_key():
    with override_settings(TRUNCUS={"API_KEY": LIVE + "\n", "SANDBOX": "x"}, DEBUG=True):
        assert LIVE not in str(check_settings())


@pytest.mark.django_db
def test_checks_run_with_djangos_own(settings):
    settings.TRUNCUS = {"API_KEY": "sk_live_1"}
    assert "truncus.E003" in {found.id for found in checks.run_checks()}


@pytest.mark.django_db
def test_a_missing_key_is_an_error_of_a_deployment_only(settings):
    settings.TRUNCUS = {}
    assert all(found.level < checks.ERROR for found in checks.run_checks())
    deployed = checks.run_checks(include_deployment_checks=True)
    assert [found.id for found in deployed if found.level >= checks.ERROR] == ["truncus.E003"]


@pytest.mark.parametrize("truncus", [{"API_KEY": LIVE}, {"API_KEY": "sk_live_1"}, {"SANDBX": 1}])
def test_a_deployment_is_not_told_twice_of_what_every_check_tells(truncus):
    with override_settings(TRUNCUS=truncus):
        assert check_deployment() == []


if django.VERSION >= (6, 1):

    def test_a_project_with_other_mailers_is_not_checked(settings):
        settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}}
        assert ids() == []

    def test_each_mailer_is_checked_by_its_own_options(settings):
        settings.MAILERS = {
            "default": {"BACKEND": BACKEND, "OPTIONS": {"api_key": "tr_test_1"}},
            "typo": {"BACKEND": BACKEND, "OPTIONS": {"api_key": "tr_test_1", "tenant": "acme"}},
            "keyless": {"BACKEND": BACKEND},
            "wrong": {"BACKEND": BACKEND, "OPTIONS": {"api_key": "tr_test_1", "timeout": "x"}},
        }
        with override_settings(TRUNCUS={}):
            found = check_settings()
            (deployed,) = check_deployment()
        assert deployed.msg == "There is no API key (mailer 'keyless')."
        assert [(one.id, one.msg.partition("(mailer ")[2].partition(")")[0]) for one in found] == [
            ("truncus.E001", "'typo'"), ("truncus.W007", "'keyless'"), ("truncus.E002", "'wrong'"),
        ]  # fmt: skip

else:

    def test_a_project_with_another_backend_is_not_checked(settings):
        settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
        assert ids() == []

    def test_mailers_that_this_django_does_not_read_are_a_warning(settings):
        settings.MAILERS = {"default": {"BACKEND": BACKEND}}
        assert ids(API_KEY=LIVE) == []
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        assert ids(API_KEY=LIVE) == ["truncus.W008"]
