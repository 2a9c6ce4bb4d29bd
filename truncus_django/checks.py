"""System checks of the settings. They run where a mailer of the project is Truncus.

====================  ==========================================================================
``truncus.E001``      an unknown name in ``TRUNCUS`` or a mailer's ``OPTIONS``
``truncus.E002``      a value of the wrong type, or out of its range; ``MAILERS`` that is no dict
``truncus.E003``      an API key that cannot be Truncus's; with ``check --deploy``, none
``truncus.E004``      ``BASE_URL`` is no URL, ends in ``/api/v1``, or is plain http elsewhere
``truncus.E005``      a setting of the project, such as ``database``, in a mailer's ``OPTIONS``
``truncus.E006``      ``DISPATCHER`` names something that is not installed
``truncus.E007``      a mailer's alias is longer than its column in the log
``truncus.E008``      ``DATABASE`` is no alias of ``DATABASES``
``truncus.E009``      the log and the outbox are in a database with ``AUTOCOMMIT`` off
``truncus.E010``      ``INLINE_CSS`` is on, and css-inline is not installed
``truncus.E011``      ``INLINE_IMAGES_STORAGE`` is no alias of ``STORAGES``
``truncus.E012``      ``FALLBACK_MAILER`` names no mailer, or one of Truncus
``truncus.E013``      ``ACCOUNTS`` cannot be imported, or is no callable
``truncus.W001``      a live key with ``DEBUG = True`` and no sandbox: real emails from a test
``truncus.W002``      ``DEFAULT_FROM_EMAIL`` or ``SERVER_EMAIL`` at a domain that nobody can verify
``truncus.W003``      ``DATABASE`` names a second alias of one SQLite file: it waits for itself
``truncus.W004``      ``DATABASE`` keeps the outbox out of the transactions of the default database
``truncus.W005``      ``RECORD`` is off, though the outbox cannot do without its records
``truncus.W006``      the outbox is in an SQLite whose ``transaction_mode`` is not ``IMMEDIATE``
``truncus.W007``      no API key: all but sending works
``truncus.W008``      ``MAILERS`` names Truncus, and this Django does not read it
====================  ==========================================================================
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import django
from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, router

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, redacted
from truncus_django.api.keys import check_api_key
from truncus_django.api.settings import variable_of
from truncus_django.api.urls import check_base_url
from truncus_django.conf import (
    BACKEND,
    PROJECT_SETTINGS,
    SETTING_NAMES,
    Problem,
    Settings,
    comes_from_environment,
    fallback_problem,
    get_settings,
    imported_accounts,
    mailer_problems,
    mailers,
    problems,
)
from truncus_django.validation import did_you_mean

_LONGEST_ALIAS = 100
"""Of a mailer, in characters: the length of its columns, without importing the models."""
_IDS = {"unknown": "truncus.E001", "type": "truncus.E002"}


@checks.register("truncus")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Return everything that is wrong with the settings of the project's Truncus mailers."""
    configured = list(mailers())
    malformed = [_error(problem) for problem in mailer_problems()]
    if not configured:
        return malformed
    found: list[checks.CheckMessage] = [_error(problem) for problem in problems()]
    if not found:
        for alias, options in configured:
            found += _check_mailer(alias, options)
        found += _check_accounts()
        found += _check_database()
        found += _check_outbox(configured)
        found += _check_unsubscribe(get_settings())
    return [*malformed, *found, *_check_senders(), *_check_mailers_are_read()]


@checks.register("truncus", deploy=True)
def check_deployment(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Return the mailers without an API key: an error of ``check --deploy`` alone.

    Elsewhere it is a warning, because commands that send nothing need no key: migrate, for one.
    """
    return [
        checks.Error(f"There is no API key{_where(alias)}.", hint=_KEY_HINT, id="truncus.E003")
        for alias, options in mailers()
        if _needs_own_key()
        and (settings := _settings_in_force(options)) is not None
        and settings.api_key is None
    ]


def _needs_own_key() -> bool:
    """Whether mailers need keys of their own: tenants may have them all."""
    settings = _settings_in_force({})
    return settings is None or settings.accounts is None


_KEY_HINT = "Set TRUNCUS_API_KEY in the environment, or TRUNCUS['API_KEY']."


def _where(alias: str | None) -> str:
    return "" if alias is None else f" (mailer {redacted(repr(alias))})"


def _error(problem: Problem, where: str = "") -> checks.CheckMessage:
    return checks.Error(problem.text + where, id=_IDS[problem.kind])


def _check_senders() -> Iterator[checks.CheckMessage]:
    """Find senders of Django's own that are still as Django has them: at ``localhost``."""
    for name in ("DEFAULT_FROM_EMAIL", "SERVER_EMAIL"):
        sender = str(getattr(django_settings, name, ""))
        if sender.rstrip("> ").endswith("@localhost"):
            yield checks.Warning(
                f"{name} is at localhost, and Truncus refuses emails from there.",
                hint=f"Set {name} to an address at a domain that is verified in Truncus.",
                id="truncus.W002",
            )


def _check_mailers_are_read() -> Iterator[checks.CheckMessage]:
    """Find ``MAILERS`` beside a Django that knows nothing of it, and sends another way."""
    backend = getattr(django_settings, "EMAIL_BACKEND", None)
    if django.VERSION < (6, 1) and hasattr(django_settings, "MAILERS") and backend != BACKEND:
        yield checks.Warning(
            f"Django {django.get_version()} does not read MAILERS: no email goes to Truncus.",
            hint=f"Set EMAIL_BACKEND = {BACKEND!r}, or use Django 6.1 or later.",
            id="truncus.W008",
        )


def _check_accounts() -> Iterator[checks.CheckMessage]:
    given = get_settings().accounts
    if given is None:
        return
    try:
        imported_accounts(given)
    except ConfigurationError as error:
        hint = (
            "Name a function of a tenant's id and a mailer's alias, such as "
            "'shop.mail.account_for'."
        )
        yield checks.Error(error.message, hint=hint, id="truncus.E013")


def _check_database() -> Iterator[checks.CheckMessage]:
    """Find a log without a database, without commits, and one that waits for itself on SQLite.

    A file has one writer at a time. An email that is sent in a transaction of the other alias
    cannot be recorded before that ends, and that ends after the recording.
    """
    alias = _log_alias()
    if alias != DEFAULT_DB_ALIAS and alias not in django_settings.DATABASES:
        meant = did_you_mean(alias, django_settings.DATABASES)
        yield checks.Error(
            f"TRUNCUS['DATABASE'] is no alias of DATABASES{meant}", id="truncus.E008"
        )
        return
    if not django_settings.DATABASES.get(alias, {}).get("AUTOCOMMIT", True):
        yield checks.Error(
            f"The log is in the database {alias!r}, which has AUTOCOMMIT off: nobody would commit "
            "what webhooks, workers and truncus_sync write.",
            hint=f"Leave DATABASES[{alias!r}]['AUTOCOMMIT'] on, or give the log a database of its "
            "own by TRUNCUS['DATABASE'].",
            id="truncus.E009",
        )
    file = _sqlite_file(alias)
    if alias == DEFAULT_DB_ALIAS or file is None:
        return
    for other in sorted(django_settings.DATABASES.keys() - {alias}):
        if _sqlite_file(other) == file:
            yield checks.Warning(
                f"The log's database {alias!r} is the same SQLite file as {other!r}: an email that "
                "is sent in a transaction waits for its own lock, and is not recorded.",
                hint=f"Give {alias!r} a file of its own and run migrate --database={alias}, or "
                "remove TRUNCUS['DATABASE'].",
                id="truncus.W003",
            )


def _check_unsubscribe(settings: Settings) -> Iterator[checks.CheckMessage]:
    """Find links to unsubscribe that would leave nobody out, and are refused with each email."""
    if settings.unsubscribe_base_url is not None and settings.suppress == "off":
        yield checks.Warning(
            "UNSUBSCRIBE_BASE_URL is set and SUPPRESS is 'off': emails with the option unsubscribe "
            "are not sent, because nobody who unsubscribes would be left out.",
            hint="Set TRUNCUS['SUPPRESS'] to 'learn' or 'manual'.",
            id="truncus.W009",
        )


def _log_alias() -> str:
    """Return the alias of the log's database: the setting's, else the one that a router names."""
    log = apps.get_model("truncus_django", "Email")
    return get_settings().database or router.db_for_write(log)


def _sqlite_file(alias: str) -> str | None:
    """Return what tells the file of a SQLite database from others; ``None`` if it has none."""
    database = django_settings.DATABASES.get(alias, {})
    name = str(database.get("NAME") or "")
    if not str(database.get("ENGINE", "")).endswith("sqlite3") or name in {"", ":memory:"}:
        return None
    if name.startswith("file:"):
        name = name.removeprefix("file:").partition("?")[0]
    return os.path.realpath(name)


def _check_outbox(
    configured: Sequence[tuple[str | None, Mapping[str, Any]]],
) -> Iterator[checks.CheckMessage]:
    """Find what keeps the outbox from being what it promises."""
    found = [_settings_in_force(options) for _, options in configured]
    in_outbox = [settings for settings in found if settings and settings.delivery == "outbox"]
    if not in_outbox:
        return
    for name in sorted({settings.dispatcher for settings in in_outbox}):
        if not any(_is_importable(module) for module in _DISPATCHERS.get(name, ("django",))):
            yield checks.Error(
                f"DISPATCHER is {name!r}, and it is not installed.",
                hint=f'Run pip install "truncus-django[{name}]", or remove DISPATCHER to use '
                "manage.py truncus_worker.",
                id="truncus.E006",
            )
    alias = _log_alias()
    if alias != DEFAULT_DB_ALIAS:
        yield checks.Warning(
            f"The outbox is in the database {alias!r}: its emails are no part of transactions of "
            "the default database, and are sent though these are rolled back.",
            hint="Remove TRUNCUS['DATABASE'], or what your database router says of the log, if "
            "your transactions are not all of that database.",
            id="truncus.W004",
        )
    if not all(settings.record for settings in in_outbox):
        yield checks.Warning(
            "RECORD is off, and DELIVERY is 'outbox': each email of the outbox is recorded all "
            "the same, for its record is what is sent.",
            hint="Remove RECORD; TRUNCUS['RETENTION_DAYS'] and truncus_purge forget old emails.",
            id="truncus.W005",
        )
    database: dict[str, Any] = django_settings.DATABASES.get(alias, {})
    mode = str((database.get("OPTIONS") or {}).get("transaction_mode"))
    if str(database.get("ENGINE", "")).endswith("sqlite3") and mode.upper() != "IMMEDIATE":
        yield checks.Warning(
            f"The outbox is in the SQLite database {alias!r}, in which a transaction that has read "
            "before it writes fails at once while another one writes.",
            hint=f"Set DATABASES[{alias!r}]['OPTIONS'] = {{'transaction_mode': 'IMMEDIATE'}}.",
            id="truncus.W006",
        )


_DISPATCHERS = {"celery": ("celery",), "tasks": ("django.tasks", "django_tasks")}


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _settings_in_force(options: Mapping[str, Any]) -> Settings | None:
    """Return a mailer's settings; ``None`` where they are wrong, which other checks tell."""
    try:
        return get_settings(
            {name: value for name, value in options.items() if name in SETTING_NAMES}
        )
    except ConfigurationError:
        return None


def _variable_hint(name: str, options: Mapping[str, Any]) -> str | None:
    """Say where a wrong value is from, if that is not where one looks first."""
    if not comes_from_environment(name, options):
        return None
    return f"It is the value of the environment variable {variable_of(name)}."


def _check_mailer(alias: str | None, options: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    where = _where(alias)
    known = {name: value for name, value in options.items() if name in SETTING_NAMES}
    if isinstance(alias, str) and len(alias) > _LONGEST_ALIAS:
        yield checks.Error(
            f"A mailer's alias has {len(alias)} characters, and the log has room for "
            f"{_LONGEST_ALIAS}: {redacted(repr(alias[:30]))}…",
            hint="Give the mailer a shorter alias in MAILERS.",
            id="truncus.E007",
        )
    for name in options.keys() - SETTING_NAMES - {"fail_silently"}:
        meant = did_you_mean(str(name).lower(), SETTING_NAMES)
        shown = redacted(repr(name))  # a key may stand where a name belongs
        yield checks.Error(f"The option {shown}{where} is unknown{meant}", id="truncus.E001")
    for name in sorted(known.keys() & PROJECT_SETTINGS):
        yield checks.Error(
            f"The option {name!r}{where} belongs in TRUNCUS: it is one for all mailers.",
            id="truncus.E005",
        )
    wrong = list(problems(known))
    for problem in wrong:
        yield _error(problem, where)
    if wrong:
        return
    settings = get_settings(known)
    if settings.api_key is None:
        if _needs_own_key():
            text = f"There is no API key{where}: nothing can be sent."
            yield checks.Warning(text, hint=_KEY_HINT, id="truncus.W007")
    else:
        try:
            check_api_key(settings.api_key)
        except ConfigurationError as error:
            hint = _variable_hint("api_key", known)
            yield checks.Error(error.message + where, hint=hint, id="truncus.E003")
    try:
        check_base_url(settings.base_url, settings.plain_http_hosts)
    except ConfigurationError as error:
        hint = _variable_hint("base_url", known)
        yield checks.Error(error.message + where, hint=hint, id="truncus.E004")
    yield from _check_html(settings, where)
    yield from _check_fallback(settings, where)
    is_live = (settings.api_key or "").startswith(contract.LIVE_KEY_PREFIX)
    real = settings.base_url.rstrip("/") == contract.DEFAULT_BASE_URL
    if django_settings.DEBUG and is_live and real and not settings.sandbox:
        yield checks.Warning(
            f"DEBUG is on and the API key is a live one{where}: tests send real emails.",
            hint="Set TRUNCUS['SANDBOX'] = True, or use the emulator.",
            id="truncus.W001",
        )


def _check_fallback(settings: Settings, where: str) -> Iterator[checks.CheckMessage]:
    name = settings.fallback_mailer
    problem = None if name is None else fallback_problem(name)
    if problem is not None:
        yield checks.Error(problem + where, id="truncus.E012")


def _check_html(settings: Settings, where: str) -> Iterator[checks.CheckMessage]:
    """Find what the work on HTML bodies lacks."""
    if settings.inline_css and not _is_importable("css_inline"):
        yield checks.Error(
            f"INLINE_CSS is on{where}, and css-inline is not installed.",
            hint='Run pip install "truncus-django[css]", or remove INLINE_CSS.',
            id="truncus.E010",
        )
    storage = settings.inline_images_storage
    if settings.inline_images == "hosted" and storage not in django_settings.STORAGES:
        meant = did_you_mean(storage, django_settings.STORAGES)
        yield checks.Error(
            f"INLINE_IMAGES_STORAGE is no alias of STORAGES{where}{meant}", id="truncus.E011"
        )
