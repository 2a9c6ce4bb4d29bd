"""The emulator for test suites: a context manager, and a pytest fixture with Django's settings.

This module is loaded in every pytest run of a project that has the package installed, so it
imports nothing but the standard library until it is used: Django and this package are imported in
the functions that need them. It works without pytest, which is optional, as well.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import pytest

    from truncus_django.emulator import Emulator

API_KEY = "tr_test_emulator"
BACKEND = "truncus_django.backend.TruncusBackend"
_IN_MEMORY = "django.core.mail.backends.locmem.EmailBackend"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _fixture(scope: Literal["session", "function"]) -> Callable[[_Function], Any]:
    """Return pytest's decorator, or one that does nothing where there is no pytest."""
    try:
        import pytest
    except ImportError:
        return lambda function: function
    return pytest.fixture(scope=scope)


_in_use: "list[Emulator]" = []
"""Those that `use_emulator` has pointed Django at, the innermost last."""


def emulator_in_use() -> "Emulator | None":
    """Return the emulator that Django sends through, of nested ones the innermost."""
    return _in_use[-1] if _in_use else None


@contextmanager
def run_emulator(**options: Any) -> "Iterator[Emulator]":
    """Run a local Truncus for the length of a ``with`` block and yield it.

    The keyword arguments are those of `truncus_django.emulator.Emulator`. Django's settings stay
    as they are; see `use_emulator`.

    Raises:
        EmulatorMissesWerkzeug: ``pip install "truncus-django[emulator]"`` is missing.
        ValueError: an option has a wrong value.
    """
    # Here, because it needs werkzeug, which is optional.
    from truncus_django.emulator import Emulator

    with Emulator(**options) as emulator:
        yield emulator


@contextmanager
def use_emulator(emulator: "Emulator") -> Iterator[None]:
    """Let Django send every email through ``emulator`` for the length of a ``with`` block.

    ``TRUNCUS`` keeps what it has, but its key and base URL; every one of ``MAILERS``, or
    ``EMAIL_BACKEND`` where a project has no ``MAILERS``, becomes the Truncus backend. Test
    runners put Django's in-memory backend there, and it comes back afterwards. A fallback mailer
    writes into ``django.core.mail.outbox``.
    """
    from django.test.utils import override_settings

    override = override_settings(**_overrides(emulator))
    _forget_earlier()
    with _without_warning():
        override.enable()
    _in_use.append(emulator)
    try:
        yield
    finally:
        _in_use.pop()
        with _without_warning():
            override.disable()


def _overrides(emulator: "Emulator") -> dict[str, Any]:
    """Return the settings by which every email goes through ``emulator``."""
    import django
    from django.conf import settings

    own = {**(getattr(settings, "TRUNCUS", None) or {}), "API_KEY": API_KEY}
    overrides: dict[str, Any] = {"TRUNCUS": {**own, "BASE_URL": emulator.url}}
    fallback = own.get("FALLBACK_MAILER")
    if django.VERSION >= (6, 1) and hasattr(settings, "MAILERS"):
        mailers = {"default": {}, **settings.MAILERS}
        overrides["MAILERS"] = {
            alias: {"BACKEND": _IN_MEMORY} if alias == fallback else _mailer(config)
            for alias, config in mailers.items()
        }
    else:
        # Django 6.1 allows no EMAIL_* setting beside MAILERS, so a project that still has them
        # keeps them; the warning about that is the project's own, not this fixture's.
        overrides["EMAIL_BACKEND"] = BACKEND
        if fallback is not None:
            overrides["TRUNCUS"]["FALLBACK_MAILER"] = _IN_MEMORY
    return overrides


def _forget_earlier() -> None:
    """Forget what this process has learned from the emulator of the test before."""
    # Here, because pytest loads this module in every run, and the client brings requests along.
    from truncus_django.api.capabilities import forget_capabilities

    forget_capabilities()  # it may have spoken another dialect
    keeping = sys.modules.get("truncus_django.quota.keeping")
    if keeping is not None:
        keeping.forget_noted()  # its rows were rolled back, or wait for a commit that never comes


@contextmanager
def _without_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The EMAIL_BACKEND setting is deprecated")
        yield


def send_outbox() -> int:
    """Send what is due in the outbox, as a worker would, and return how many were accepted.

    For projects with ``DELIVERY = "outbox"``, whose tests have no worker. It keeps within the
    account's limits; set them to 0 in tests that send much. What fails for now is tried again
    after half a second at the earliest: by a later call, unless this one takes as long.

    Raises:
        django.db.DatabaseError: the outbox has no tables, or its database failed.
    """
    # Here, because its models need the app, which is optional.
    from truncus_django.outbox.dispatcher import Dispatcher

    # The longest wait: a shorter one, by chance, would let some calls try again and others not.
    return Dispatcher(jitter=lambda: 1.0).drain().accepted


def _mailer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mailer that sends to the emulator, with the Truncus options it had before."""
    if config.get("BACKEND") != BACKEND:
        return {"BACKEND": BACKEND}
    own = {
        name: value
        for name, value in config.get("OPTIONS", {}).items()
        if name not in {"api_key", "base_url"}
    }
    return {"BACKEND": BACKEND, "OPTIONS": own}


@_fixture("session")
def _truncus_emulator_server() -> "Iterator[Emulator]":
    """One server for the whole run; each test finds it fresh."""
    with run_emulator() as emulator:
        yield emulator


@_fixture("function")
def truncus_emulator(
    request: "pytest.FixtureRequest", _truncus_emulator_server: "Emulator"
) -> "Iterator[Emulator]":
    """A fresh local Truncus; where Django is configured, its email goes there.

    ``truncus_emulator.reset(dialect="sdk")`` changes options for the rest of the test.
    """
    emulator = _truncus_emulator_server
    emulator.reset()
    if not _django_is_configured():
        yield emulator
        return
    if not request.config.pluginmanager.hasplugin("django"):
        with use_emulator(emulator):
            yield emulator
        return
    # By pytest-django's own fixture: what it and another override change in turns is put back in
    # the wrong order, and the tests after this one would send to the emulator, too.
    settings = request.getfixturevalue("settings")
    _forget_earlier()
    with _without_warning():
        for name, value in _overrides(emulator).items():
            setattr(settings, name, value)
    _in_use.append(emulator)
    yield emulator
    _in_use.pop()


def _django_is_configured() -> bool:
    """Return whether there are Django settings, without making Django look for them."""
    conf = sys.modules.get("django.conf")
    return conf is not None and bool(conf.settings.configured)
