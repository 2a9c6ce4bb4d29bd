"""Addresses that must not be mailed, for a project's own code.

Each function knows an address in any case, with or without a name.
"""

from datetime import datetime

from truncus_django.db.text import storable_text
from truncus_django.log import suppression
from truncus_django.models import SuppressedAddress
from truncus_django.sending.addresses import mailbox
from truncus_django.unsubscribe import Subscription, read_token

__all__ = ["allow_again", "is_suppressed", "suppress", "unsubscribe"]


def suppress(
    address: str,
    *,
    list_name: str | None = "",
    tenant_id: str | None = "",
    reason: str = SuppressedAddress.Reason.BY_HAND,
    note: str | None = "",
    expires_at: datetime | None = None,
) -> bool:
    """Let nobody mail an address; return whether that is new.

    Args:
        address: whose.
        list_name: only emails of this unsubscribe list; empty or ``None`` for all emails.
        tenant_id: only emails of this tenant; empty or ``None`` for all.
        reason: a value of :class:`SuppressedAddress.Reason`.
        note: for whoever reads it in the admin.
        expires_at: until when; aware. ``None`` for ever.

    Raises:
        InvalidAddress: it is malformed.
        ValueError: there is no such reason, or the name of the list or tenant is none.
    """
    entry = SuppressedAddress(
        address=mailbox(address, "address"),
        list_name=_checked("list_name", _name(list_name)),
        tenant_id=_checked("tenant_id", tenant_id or ""),
        reason=SuppressedAddress.Reason(reason),
        source=SuppressedAddress.Source.CODE,
        note=storable_text(note)[:300],
        expires_at=expires_at,
    )
    return bool(suppression.suppress([entry]))


def allow_again(address: str, *, list_name: str | None = None, tenant_id: str | None = None) -> int:
    """Let an address be mailed again, as when it subscribes anew; return how many entries went.

    Args:
        address: whose.
        list_name, tenant_id: only entries of these; ``None`` for all, ``""`` for those that hold
            for all lists or tenants.

    Raises:
        InvalidAddress: it is malformed.
    """
    name = None if list_name is None else _name(list_name)
    return suppression.allow(address, list_name=name, tenant_id=tenant_id)


def is_suppressed(address: str, *, list_name: str | None = "", tenant_id: str | None = "") -> bool:
    """Return whether an email would be refused: one of this list and tenant, or of none.

    Raises:
        InvalidAddress: it is malformed.
    """
    return (
        SuppressedAddress.objects.in_force()
        .filter(
            address__in=suppression.stored_forms(address),
            list_name__in={"", _name(list_name)},
            tenant_id__in={"", tenant_id or ""},
        )
        .exists()
    )


def _name(of_list: str | None) -> str:
    """Return the name of a list as emails have it."""
    return (of_list or "").strip()


def _checked(name: str, value: str) -> str:
    """Return what fits into a column; raise :class:`ValueError` for what no email can have."""
    most: int = SuppressedAddress._meta.get_field(name).max_length  # type: ignore[union-attr, assignment]
    if len(value) > most or "\x00" in value:
        raise ValueError(f"{name} may have {most} characters, and no NUL.")
    return value


def unsubscribe(token: str) -> Subscription | None:
    """Do what a click on the link with this token does, and return what it ended.

    For requests that come by email to ``UNSUBSCRIBE_MAILTO``, whose subject is ``unsubscribe`` and
    the token. ``None`` if this site made no such token.
    """
    subscription = read_token(token.strip())
    if subscription is not None:
        suppression.unsubscribe_address(subscription)
    return subscription
