"""The settings: one place reads them all.

A value comes from the backend's keyword or ``MAILERS`` ``OPTIONS`` (lower case), else from the
``TRUNCUS`` dict, else from the environment (``TRUNCUS_API_KEY``, …), else it is the default.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, cast

import django
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from truncus_django.api import contract, errors, readers
from truncus_django.api.errors import redacted
from truncus_django.api.settings import ClientSettings, setting, variable_of
from truncus_django.validation import did_you_mean

BACKEND = "truncus_django.backend.TruncusBackend"


_THIRTY_DAYS: int | None = 30


class ConfigurationError(errors.ConfigurationError, ImproperlyConfigured):
    """What a setting of the project is wrong about, for ``except ImproperlyConfigured``, too."""


@dataclass(frozen=True, kw_only=True)
class Settings(ClientSettings):
    """What a backend goes by. The names in ``TRUNCUS`` are these in upper case."""

    tenant_id: str | None = setting(None, readers.optional_text)
    track_opens: bool | None = setting(None, readers.optional_boolean)
    """``None`` leaves it to the API, which tracks."""
    track_clicks: bool | None = setting(None, readers.optional_boolean)
    metadata: Mapping[str, str] = setting(MappingProxyType({}), readers.strings_by_name)
    """Stored with every email; a message's own values win."""
    unsupported: str = setting("error", readers.one_of("error", "warn"))
    """``"error"``, or ``"warn"``: drop what the API cannot carry, fill in what it demands, and log
    both."""
    inline_css: bool = setting(False, readers.boolean)
    """Whether the CSS of HTML bodies is written into their ``style`` attributes."""
    inline_images: str = setting("error", readers.one_of("error", "hosted"))
    """``"error"``, or ``"hosted"``: images inside the HTML go into a storage."""
    inline_images_storage: str = setting("default", readers.text)
    """The alias of that storage in ``STORAGES``."""
    inline_images_base_url: str | None = setting(None, readers.optional_url)
    """What the storage's URLs are joined to where they are not absolute."""
    message_id_domain: str = setting("email.amazonses.com", readers.text)
    """Of the ``Message-ID`` of sent emails, for ``in_reply_to``. Amazon SES makes it of its own id
    and this in us-east-1, or ``<region>.amazonses.com`` elsewhere."""
    requests_per_second: int = setting(contract.REQUESTS_PER_SECOND, readers.count, scope="account")
    """The account's limit, which long jobs keep within ahead of time; 0 for none."""
    requests_per_minute: int = setting(contract.REQUESTS_PER_MINUTE, readers.count, scope="account")
    """The account's limit, as above."""
    quota_reserve: float = setting(0.0, readers.count_or_share, scope="account")
    """What the outbox keeps of the monthly quota for emails of normal and high priority: a number
    of emails, or below 1 a part of the plan's limit; 0 for nothing."""

    fallback_mailer: str | None = setting(None, readers.optional_text, scope="account")
    """Which mailer sends what Truncus certainly did not take: an alias of ``MAILERS``; before
    Django 6.1, and without ``MAILERS``, the dotted path of a backend."""

    delivery: str = setting("direct", readers.one_of("direct", "outbox"))
    """``"direct"``, or ``"outbox"``: sending is a part of the caller's database transaction."""
    dispatcher: str = setting("worker", readers.one_of("worker", "celery", "tasks"))
    """``"worker"``, ``"celery"`` or ``"tasks"``: who is notified to send what is in the outbox."""

    accounts: Callable[..., Any] | str | None = setting(  # noqa: RUF009  None does not change
        None, readers.optional_callable, scope="project"
    )
    """Which account the emails of a tenant go by: a callable, or its dotted path, from a tenant's
    id and a mailer's alias to settings, or to ``None`` for the mailer's own account."""

    record: bool = setting(True, readers.boolean)
    """Whether emails are recorded, where ``truncus_django`` is in ``INSTALLED_APPS``."""
    store_bodies: bool = setting(False, readers.boolean)
    """Whether bodies are recorded, too: they hold reset links."""
    retention_days: int | None = setting(None, readers.optional_days, scope="project")
    """For how many days ``truncus_purge`` keeps finished emails where it is not told."""
    failed_payload_days: int | None = setting(_THIRTY_DAYS, readers.optional_days, scope="project")
    """For how many days the outbox keeps what it could send again of an email that was not sent;
    ``None`` for as long as the email is in the log."""
    database: str | None = setting(None, readers.optional_text, scope="project")
    """The alias of the log's database; with one of its own, a record survives a rollback."""
    webhook_secrets: tuple[str, ...] = setting((), readers.secrets, scope="project", repr=False)
    """Any of them verifies a webhook, so that a secret can be rotated; none refuses all."""
    health_token: str | None = setting(None, readers.optional_secret, scope="project", repr=False)
    """Whoever brings it may read the health endpoint; without one, staff users alone."""
    health_max_age: float = setting(900.0, readers.positive_number, scope="project")
    """Seconds that an email of the outbox may wait while the endpoint says that it is healthy."""
    redirect_to: tuple[str, ...] = setting((), readers.addresses, scope="project", repr=False)
    """Who gets all emails of a staging site, instead of those they are for."""
    allow_recipients: tuple[str, ...] = setting(
        (), readers.address_patterns, scope="project", repr=False
    )
    """Who gets their own emails there: addresses, ``@domain``, or patterns with ``*``."""
    suppress: str = setting("off", readers.one_of("learn", "manual", "off"), scope="project")
    """``"learn"``: bounces and complaints put recipients into the table of suppressed addresses;
    ``"manual"``: people alone do; ``"off"``: it is not looked at."""
    on_suppressed: str = setting("error", readers.one_of("error", "drop"), scope="project")
    """``"error"``, or ``"drop"``: send to the other recipients, and say so in the record."""
    unsubscribe_base_url: str | None = setting(None, readers.optional_link_base, scope="project")
    """What unsubscribe links begin with: ``https://www.example.com``."""
    unsubscribe_mailto: str | None = setting(None, readers.optional_address, scope="project")
    """An address that takes requests to unsubscribe by email, too."""
    previews_for_staff: bool = setting(False, readers.boolean, scope="project")
    """Whether the email previews answer staff users where ``DEBUG`` is off."""

    @cached_property
    def of_client(self) -> ClientSettings:
        """Those of the client that sends. Each call says itself whether it is for the sandbox."""
        names = [declared.name for declared in fields(ClientSettings)]
        own = {name: getattr(self, name) for name in names if name != "sandbox"}
        return ClientSettings(**own)


_READERS = {declared.name: declared.metadata["read"] for declared in fields(Settings)}
SETTING_NAMES = frozenset(_READERS)
ACCOUNT_SETTINGS, PROJECT_SETTINGS = (
    frozenset(found.name for found in fields(Settings) if found.metadata["scope"] == scope)
    for scope in ("account", "project")
)
"""Settings of a mailer, which a backend's keyword sets for direct sends alone; and settings of the
project, which no mailer has for itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the settings; ``kind`` names the system check."""

    kind: str
    name: str
    text: str


def get_settings(options: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings in force, with ``options`` (lower-case names) before all others.

    Raises:
        ConfigurationError: something is unknown or of the wrong type.
    """
    key = _cache_key(options)
    found = _cache.get(key) if key is not None else None
    if found is None:
        found = _resolve(options or {})
        if key is not None:
            if len(_cache) >= _MAX_CACHED:
                _cache.clear()
            _cache[key] = found
    return found


def problems(options: Mapping[str, Any] | None = None) -> Iterator[Problem]:
    """Yield everything that is wrong with the settings, for the system checks."""
    own = getattr(django_settings, "TRUNCUS", {})
    if not isinstance(own, Mapping):
        yield Problem("type", "TRUNCUS", "TRUNCUS must be a dict.")
        own = {}
    known = {name.upper() for name in SETTING_NAMES}
    for name in own:
        if name not in known:
            # A key may stand where a name belongs.
            hint = did_you_mean(str(name).upper(), known)
            shown = redacted(repr(name))
            yield Problem("unknown", redacted(name), f"TRUNCUS[{shown}] is unknown{hint}")
    for name, value in _raw_values(options or {}, own):
        try:
            _READERS[name](value)
        except ValueError as exc:
            is_variable = isinstance(value, readers.FromEnvironment)
            shown = f"The environment variable {variable_of(name)}" if is_variable else name.upper()
            yield Problem("type", name, f"{shown} {exc}")


def comes_from_environment(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a setting has its value from a variable, and from no dict before that."""
    raw = dict(_raw_values(options, getattr(django_settings, "TRUNCUS", {})))
    return isinstance(raw.get(name), readers.FromEnvironment)


def mailers() -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Yield alias and options of each mailer of the project that is Truncus.

    Without ``MAILERS`` (before Django 6.1, or where a project has none) the one mailer is
    ``EMAIL_BACKEND``, and its alias ``None``.
    """
    configured = getattr(django_settings, "MAILERS", None)
    if configured is None:
        if getattr(django_settings, "EMAIL_BACKEND", None) == BACKEND:
            yield None, {}
        return
    for alias, config in configured.items() if isinstance(configured, Mapping) else ():
        if isinstance(config, Mapping) and config.get("BACKEND") == BACKEND:
            options = config.get("OPTIONS")
            yield alias, options if isinstance(options, Mapping) else {}


def fallback_problem(name: str) -> str | None:
    """Return what is wrong with ``FALLBACK_MAILER``; ``None`` where it names a mailer to use."""
    configured = configured_mailers()
    if configured is None:
        backend = _imported(name)
        if not isinstance(backend, type):
            return (
                f"FALLBACK_MAILER must be the dotted path of an email backend, such as {_SMTP!r}."
            )
    else:
        config = configured.get(name)
        if not isinstance(config, Mapping):
            return f"FALLBACK_MAILER is no alias of MAILERS{did_you_mean(name, configured)}"
        if (config.get("OPTIONS") or {}).get("fail_silently"):
            return (
                "FALLBACK_MAILER names a mailer with fail_silently, which does not tell whether "
                "an email was sent. Remove that option."
            )
        backend = _imported(config.get("BACKEND", _SMTP))
        if not isinstance(backend, type):
            return (
                "FALLBACK_MAILER names a mailer whose BACKEND cannot be imported. It must be the "
                f"dotted path of an email backend, such as {_SMTP!r}."
            )
    # A project's own backend may be made of this package's, and would come back here without end.
    if any(f"{each.__module__}.{each.__qualname__}" == BACKEND for each in backend.__mro__):
        return (
            "FALLBACK_MAILER names a mailer of Truncus. Name one that sends another way, such as "
            "by SMTP."
        )
    return None


def imported_accounts(given: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return the callable that ``ACCOUNTS`` is or names.

    Raises:
        ConfigurationError: there is none.
    """
    found: Any = given
    if isinstance(given, str):
        try:
            found = import_string(given)
        except Exception as exc:  # noqa: BLE001  a module may raise anything when it is imported
            raise ConfigurationError(
                f"ACCOUNTS cannot be imported ({type(exc).__name__}): {redacted(repr(given))}."
            ) from None
    if not callable(found):
        raise ConfigurationError(f"ACCOUNTS names no callable, but a {type(found).__name__}.")
    return cast("Callable[..., Any]", found)


def configured_mailers() -> Mapping[str, Any] | None:
    """Return ``MAILERS``; ``None`` where there is none, or this Django does not read it."""
    configured = getattr(django_settings, "MAILERS", None)
    if django.VERSION < (6, 1) or not isinstance(configured, Mapping):
        return None
    return configured


_SMTP = "django.core.mail.backends.smtp.EmailBackend"
"""What Django takes for a mailer without ``BACKEND``."""


def _imported(path: object) -> object:
    """Return what a dotted path names; ``None`` where it is no such path."""
    try:
        return import_string(path) if isinstance(path, str) else None
    except Exception:  # noqa: BLE001  a module may raise anything, and no email of Truncus's needs it
        return None


def mailer_problems() -> Iterator[Problem]:
    """Yield what in ``MAILERS`` is not of the form that Django reads."""
    configured = getattr(django_settings, "MAILERS", None)
    if configured is None:
        return
    if not isinstance(configured, Mapping):
        yield Problem("type", "MAILERS", "MAILERS must be a dict.")
        return
    for alias, config in configured.items():
        name = f"MAILERS[{redacted(repr(alias))}]"
        if not isinstance(alias, str):
            yield Problem("type", "MAILERS", f"{name}: the alias of a mailer must be a string.")
        if not isinstance(config, Mapping):
            yield Problem("type", "MAILERS", f"{name} must be a dict.")
        elif config.get("BACKEND") == BACKEND and not isinstance(
            config.get("OPTIONS", {}), Mapping
        ):
            yield Problem("type", "MAILERS", f"{name}['OPTIONS'] must be a dict.")


def _resolve(options: Mapping[str, Any]) -> Settings:
    found = next(problems(options), None)
    if found is not None:
        raise ConfigurationError(found.text)
    own = getattr(django_settings, "TRUNCUS", {})
    return Settings(**{name: _READERS[name](value) for name, value in _raw_values(options, own)})


def _raw_values(options: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each setting that is given anywhere, first come first."""
    for name in _READERS:
        variable = os.environ.get(variable_of(name))
        if name in options:
            yield name, options[name]
        elif name.upper() in own:
            yield name, own[name.upper()]
        elif variable:
            yield name, readers.FromEnvironment(variable)


# Each send_mail() makes a backend, and each backend asks for its settings. Bounded, because a
# project may make backends for each of its tenants.
_MAX_CACHED = 256
_NO_OPTIONS: frozenset[tuple[str, type, Any]] = frozenset()
_cache: dict[frozenset[tuple[str, type, Any]], Settings] = {}


def _cache_key(options: Mapping[str, Any] | None) -> frozenset[tuple[str, type, Any]] | None:
    if not options:  # of most
        return _NO_OPTIONS
    try:  # with the type, because 1 == True
        return frozenset((name, type(value), value) for name, value in options.items())
    except TypeError:  # an option that cannot be hashed, such as metadata
        return None


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TRUNCUS":
        forget_settings()


def forget_settings() -> None:
    """Read settings and environment anew at the next send; for tests that change the environment.

    ``override_settings(TRUNCUS=…)`` and pytest-django's ``settings`` need no such call.
    """
    _cache.clear()


setting_changed.connect(_forget, dispatch_uid="truncus_django.conf")


# What errors advise, by the names that a Django project knows.
_CHECK_KEY = "Check TRUNCUS['API_KEY'] (or TRUNCUS_API_KEY)."
errors.set_hints(
    {
        "invalid_api_key": _CHECK_KEY,
        "MISSING_API_KEY": _CHECK_KEY,
        "INVALID_API_KEY": _CHECK_KEY,
        "API_KEY_REVOKED": (
            "Create a new API key in the Truncus dashboard and set TRUNCUS['API_KEY']."
        ),
        "domain_not_verified": (
            "Verify the domain of the sender (DEFAULT_FROM_EMAIL, SERVER_EMAIL) in Truncus."
        ),
        "DOMAIN_NOT_FOUND": (
            "Add the sender's domain (DEFAULT_FROM_EMAIL) in Truncus and verify it."
        ),
    }
)
