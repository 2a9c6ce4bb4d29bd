"""System checks of the settings. They run where a mailer of the project is Truncus.

====================  ==========================================================================
``truncus.E001``      an unknown name in ``TRUNCUS`` or a mailer's ``OPTIONS``
``truncus.E002``      a value of the wrong type, or out of its range; ``MAILERS`` that is no dict
``truncus.E003``      no API key, or one that cannot be Truncus's
``truncus.E004``      ``BASE_URL`` is no URL, or plain http to a host that is not this machine
``truncus.E005``      ``database`` in a mailer's ``OPTIONS``: there is one log for all mailers
``truncus.W001``      a live key with ``DEBUG = True`` and no sandbox: real e-mails from a test
``truncus.W002``      ``DEFAULT_FROM_EMAIL`` or ``SERVER_EMAIL`` at a domain that nobody can verify
====================  ==========================================================================
"""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core import checks

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, redacted
from truncus_django.api.keys import check_api_key
from truncus_django.api.urls import check_base_url
from truncus_django.conf import (
    SETTING_NAMES,
    Problem,
    get_settings,
    mailer_problems,
    mailers,
    problems,
)
from truncus_django.texts import did_you_mean

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
    return [*malformed, *found, *_check_senders()]


def _error(problem: Problem, where: str = "") -> checks.CheckMessage:
    return checks.Error(problem.text + where, id=_IDS[problem.kind])


def _check_senders() -> Iterator[checks.CheckMessage]:
    """Find senders of Django's own that are still as Django has them: at ``localhost``."""
    for name in ("DEFAULT_FROM_EMAIL", "SERVER_EMAIL"):
        sender = str(getattr(django_settings, name, ""))
        if sender.rstrip("> ").endswith("@localhost"):
            yield checks.Warning(
                f"{name} is at localhost, and Truncus refuses e-mails from there.",
                hint=f"Set {name} to an address at a domain that is verified in Truncus.",
                id="truncus.W002",
            )


def _check_mailer(alias: str | None, options: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    where = "" if alias is None else f" (mailer {redacted(repr(alias))})"
    known = {name: value for name, value in options.items() if name in SETTING_NAMES}
    for name in options.keys() - SETTING_NAMES - {"fail_silently"}:
        hint = did_you_mean(str(name), SETTING_NAMES)
        shown = redacted(repr(name))  # a key may stand where a name belongs
        yield checks.Error(f"The option {shown}{where} is unknown{hint}", id="truncus.E001")
    if "database" in known:
        yield checks.Error(
            f"The option 'database'{where} belongs in TRUNCUS: all mailers share one log.",
            id="truncus.E005",
        )
    wrong = list(problems(known))
    for problem in wrong:
        yield _error(problem, where)
    if wrong:
        return
    settings = get_settings(known)
    try:
        check_api_key(settings.api_key or "")
    except ConfigurationError as error:
        yield checks.Error(error.message + where, id="truncus.E003")
    try:
        check_base_url(settings.base_url, settings.plain_http_hosts)
    except ConfigurationError as error:
        yield checks.Error(error.message + where, id="truncus.E004")
    is_live = (settings.api_key or "").startswith(contract.LIVE_KEY_PREFIX)
    real = settings.base_url.rstrip("/") == contract.DEFAULT_BASE_URL
    if django_settings.DEBUG and is_live and real and not settings.sandbox:
        yield checks.Warning(
            f"DEBUG is on and the API key is a live one{where}: tests send real e-mails.",
            hint="Set TRUNCUS['SANDBOX'] = True, or use the emulator.",
            id="truncus.W001",
        )
