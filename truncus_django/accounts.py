"""Accounts of tenants: the setting ``ACCOUNTS`` tells whose account an email goes by.

``ACCOUNTS`` is a callable from a tenant and a mailer to settings. What is kept of them is the name
to ask by, a mailer and a tenant, and never a key::

    direct send     the payload's tenant_id  → ACCOUNTS → the client of the request
    outbox          the payload's tenant_id  → OutboxEntry.tenant  → a worker: ACCOUNTS → its client
    sync, admin     Email.tenant_id          → ACCOUNTS → the client of the question

Nothing is remembered from one send to the next, so that a key which was replaced is used at once.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.views.decorators.debug import sensitive_variables

from truncus_django.api.errors import TruncusError, clear_frames, redacted
from truncus_django.conf import (
    ACCOUNT_SETTINGS,
    ConfigurationError,
    get_settings,
    imported_accounts,
)
from truncus_django.mailers import Mailer, get_mailer, own_options
from truncus_django.sending.fallback import fallback_of
from truncus_django.validation import did_you_mean

__all__ = ["AccountUnavailable", "Accounts", "account_of", "get_account", "get_own_account"]


class AccountUnavailable(ConfigurationError):
    """``ACCOUNTS`` does not tell by which account the emails of a tenant go.

    Its text names neither the tenant nor a key.
    """


def get_account(mailer: str, tenant: str) -> Mailer:
    """Return what the emails of a tenant go by, as rows name it: by a mailer and a tenant.

    Raises:
        AccountUnavailable: ``ACCOUNTS`` does not tell.
        ConfigurationError: the mailer is gone, or its settings are wrong.
    """
    return account_of(get_mailer(mailer), tenant)


def get_own_account(mailer: str, tenant: str) -> Mailer:
    """Return what emails go by that were written to go by a tenant's own account.

    Raises:
        AccountUnavailable: ``ACCOUNTS`` does not tell, or is not set any more.
        ConfigurationError: as :func:`get_account`.
    """
    if tenant and get_settings().accounts is None:
        raise AccountUnavailable(
            "ACCOUNTS is not set, and the email is for a tenant's own account. Set it here, too; "
            "where it returns None, the mailer's own account sends."
        )
    return get_account(mailer, tenant)


def account_of(mailer: Mailer, tenant: str) -> Mailer:
    """Return the mailer with the settings of a tenant's own account; as it is where it has none.

    Args:
        mailer: whose settings hold where the account has none of its own.
        tenant: empty for emails of no tenant.

    Raises:
        AccountUnavailable: ``ACCOUNTS`` does not tell.
    """
    given = get_settings().accounts if tenant else None
    if given is None:
        return mailer
    return _asked(imported_accounts(given), mailer, tenant)


@dataclass(slots=True)
class Accounts:
    """The accounts that the emails of one call go by; each tenant's is asked for once.

    Attributes:
        mailer: the one that sends.
        is_for_outbox: whether a worker asks again, who may find what is not to be had now.
    """

    mailer: Mailer
    is_for_outbox: bool
    _found: dict[str, Mailer | TruncusError]

    def __init__(self, mailer: Mailer, *, is_for_outbox: bool) -> None:
        self.mailer = mailer
        self.is_for_outbox = is_for_outbox
        self._found = {"": mailer}

    @property
    def are_told(self) -> bool:
        """Whether tenants may have accounts of their own."""
        return get_settings().accounts is not None

    def of(self, tenant: str) -> Mailer:
        """Return what the emails of a tenant go by; raises :class:`AccountUnavailable`."""
        if tenant not in self._found:
            try:
                self._found[tenant] = account_of(self.mailer, tenant)
            except TruncusError as error:
                clear_frames(error)
                self._found[tenant] = error
        found = self._found[tenant]
        if isinstance(found, TruncusError):
            raise copy.copy(found)
        return found

    def name_for(self, tenant: str) -> str:
        """Return the name by which to ask for the account; empty for the mailer's own.

        Raises:
            AccountUnavailable: ``ACCOUNTS`` does not tell, and nobody asks again.
        """
        try:
            found = self.of(tenant)
            _ = found.client  # a mailer may have no key of its own
        except TruncusError:
            if tenant and self.is_for_outbox:
                return tenant
            raise
        return found.tenant

    def digest_for(self, tenant: str) -> str:
        """Return the account's digest, as its client tells it; raises as :meth:`of`."""
        return self.of(tenant).client.account


@sensitive_variables()
def _asked(accounts: Callable[..., Any], mailer: Mailer, tenant: str) -> Mailer:
    """Return what ``ACCOUNTS`` says of a tenant. Its errors may hold anything, and are not told."""
    try:
        told = accounts(tenant, mailer.name)
        if isinstance(told, Mapping):
            told = {str(name).lower(): value for name, value in told.items()}
    except Exception as exc:  # noqa: BLE001  whatever the project's code raises
        raise AccountUnavailable(
            f"ACCOUNTS raised {type(exc).__name__} when it was asked for a tenant's account. It "
            "must return a dict of settings, or None for the mailer's own account."
        ) from None
    if told is None:
        return mailer
    if not isinstance(told, dict):
        raise AccountUnavailable(
            "ACCOUNTS must return a dict of settings, or None for the mailer's own account, not "
            f"{type(told).__name__}."
        )
    for name in told.keys() - ACCOUNT_SETTINGS:
        hint = did_you_mean(name, ACCOUNT_SETTINGS)
        shown = redacted(repr(name))  # a key may stand where a name belongs
        raise AccountUnavailable(f"ACCOUNTS returned {shown}, which no account has{hint}")
    if "api_key" in told and not told["api_key"]:
        raise AccountUnavailable("ACCOUNTS returned no API key for a tenant's account.")
    try:
        own = {**mailer.options, **own_options(told)}
        found = replace(mailer, settings=get_settings(own), options=own, tenant=tenant)
        _ = found.client  # which checks the key and the URL
        fallback_of(found.settings)
    except TruncusError as error:
        raise AccountUnavailable(
            f"ACCOUNTS returned a setting that cannot be used: {error.message}"
        ) from None
    return found
