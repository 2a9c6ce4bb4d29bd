"""Suppressed recipients: looked up right before each request, whatever way its emails take.

The real recipients are looked up, before the guard of a staging site replaces them. Emails of an
unsubscribe list also heed that list's own entries; all others do not.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.utils import timezone

from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import EmailRefused, MessageError, TruncusError
from truncus_django.conf import ConfigurationError, Settings
from truncus_django.db.retry import is_in_transaction, over_a_live_connection
from truncus_django.db.tables import lacks_tables
from truncus_django.event_loop import off_the_event_loop
from truncus_django.sending.addresses import RECIPIENT_FIELDS, bare_address, listed, mailbox
from truncus_django.sending.forgotten import digests_of, number_of_keys
from truncus_django.trouble_log import TroubleLog

LIST_FIELD = "unsubscribe_list"
"""The list of an email, beside the API's fields until the request is made."""
LEFT_OUT_FIELD = "suppressed_recipients"
"""Those recipients who do not get the email, in the same place. The request leaves them out; if its
answer is lost, the same ones are left out when it is repeated."""
OWN_FIELDS = frozenset({LIST_FIELD, LEFT_OUT_FIELD})
SUPPRESSED_CODE = "recipient_suppressed"

MAX_VALUES = 900
"""In one query: an old SQLite takes no more than 999. An address is one, and so is its digest."""
_COLUMNS = ("address", "tenant_id", "list_name", "reason", "expires_at")
_trouble = TroubleLog()

Entries = Mapping[str, Sequence[tuple[str, str, str]]]
"""By address, the tenant, the list and the reason of each entry."""


@dataclass(frozen=True, slots=True)
class Screened:
    """What the look-up of an email's recipients came to.

    Attributes:
        left_out: the recipients who are dropped, as they stand there.
        error: why it may not be sent at all, or ``None``.
    """

    left_out: tuple[str, ...] = field(default=(), repr=False)
    error: TruncusError | None = None


def screen(
    emails: Sequence[Mapping[str, Any]], settings: Settings, *, has_tables: bool = False
) -> list[Screened]:
    """Look up the recipients of the emails of one request, in one query for up to 450 of them.

    Args:
        has_tables: whether what the caller does next needs the log's tables anyway. Else a
            savepoint keeps a transaction of the caller's whole if they are missing.

    Where the table cannot be read, emails of an unsubscribe list are held back, and others go: a
    password reset must not wait for the log's database. Who was left out before stays left out.
    """
    if not is_on(settings):
        return [Screened()] * len(emails)
    found = [_mailboxes(email) for email in emails]
    wanted = {each for by_name in found for pairs in by_name.values() for each, _ in pairs}
    entries = _entries_or_none(wanted, has_tables)
    return [
        _screened(email, by_name, entries, settings)
        for email, by_name in zip(emails, found, strict=True)
    ]


def is_on(settings: Settings) -> bool:
    """Return whether suppressed addresses are looked up here.

    Raises:
        ConfigurationError: they should be, and there is no table.
    """
    if settings.suppress == "off" or not apps.ready:
        return False
    if not apps.is_installed("truncus_django"):
        raise ConfigurationError(
            f"SUPPRESS is {settings.suppress!r}, which needs 'truncus_django' in INSTALLED_APPS "
            "and manage.py migrate."
        )
    return True


def left_out_of(email: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the recipients who are left out of an email, as they stand there."""
    found = email.get(LEFT_OUT_FIELD)
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def with_left_out(email: Mapping[str, Any], left_out: Sequence[str]) -> EmailFields:
    """Return an email that leaves out these recipients, and no others."""
    changed = EmailFields(email)
    changed.pop(LEFT_OUT_FIELD, None)
    if left_out:
        changed[LEFT_OUT_FIELD] = list(left_out)
    return changed


def as_screened(email: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the API's fields of an email, without the recipients who are left out."""
    if OWN_FIELDS.isdisjoint(email):
        return email
    left_out = left_out_of(email)
    changed = EmailFields({name: each for name, each in email.items() if name not in OWN_FIELDS})
    for name, pairs in _mailboxes(email).items() if left_out else ():
        kept = [given for _, given in pairs if str(given) not in left_out]
        if kept:
            changed[name] = kept[0] if name == "to" and len(kept) == 1 else kept
        else:
            changed.pop(name, None)
    return changed


def _screened(
    email: Mapping[str, Any],
    recipients: Mapping[str, Sequence[tuple[str, Any]]],
    entries: Entries | None,
    settings: Settings,
) -> Screened:
    list_name, tenant_id = str(email.get(LIST_FIELD) or ""), str(email.get("tenant_id") or "")
    if entries is None:
        return Screened(left_out_of(email), _unknown() if list_name else None)
    reasons: list[str] = []
    left_out: list[str] = []
    kept: dict[str, list[Any]] = {}
    for name, pairs in recipients.items():
        kept[name] = []
        for address, given in pairs:
            own = [
                reason
                for tenant, of_list, reason in entries.get(address, ())
                if tenant in {"", tenant_id} and of_list in {"", list_name}
            ]
            if own:
                reasons += own[:1]
                left_out.append(str(given))
            else:
                kept[name].append(given)
    if not reasons:
        return Screened()
    if settings.on_suppressed != "drop" or not kept["to"]:
        return Screened(error=_refused(reasons, is_all=not any(kept.values()), kept=kept))
    return Screened(tuple(left_out))


def _refused(
    reasons: Sequence[str], *, is_all: bool, kept: Mapping[str, Sequence[Any]]
) -> EmailRefused:
    told = " and ".join(sorted({_words(reason) for reason in reasons}))
    if is_all:
        text = f"This site's own list suppresses all recipients: {told}"
    elif kept["to"]:
        text = (
            f"This site's own list suppresses {len(reasons)} of the recipients: {told}."
            " Set TRUNCUS['ON_SUPPRESSED'] = 'drop' to mail the others"
        )
    else:
        text = f"This site's own list suppresses everybody in 'to': {told}"
    return EmailRefused(text, code=SUPPRESSED_CODE)


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _unknown() -> MessageError:
    return MessageError(
        "Whether the recipient has unsubscribed could not be looked up; the email was not sent. "
        "Send it again when the database works",
        code="suppression_unknown",
        retryable=True,
    )


# The look-up --------------------------------------------------------------------------------------


def _mailboxes(email: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """Return the recipients by field, each to compare with others and as it stands there."""
    return {
        name: [(_mailbox(each), each) for each in listed(email.get(name))]
        for name in RECIPIENT_FIELDS
    }


def _mailbox(given: Any) -> str:
    try:
        return mailbox(given, "to")
    except MessageError:  # by esp_extra or a receiver of pre_send
        return bare_address(str(given).strip()).lower()


def _entries_or_none(addresses: Iterable[str], has_tables: bool) -> Entries | None:
    try:
        found = off_the_event_loop(lambda: _read_entries(list(addresses), has_tables))
    except Exception as exc:  # noqa: BLE001  whatever it is, what waits for no list must go out
        hint = " Run manage.py migrate, if you have not." if lacks_tables(exc) else ""
        problem = "Suppressed addresses could not be looked up: %s."
        _trouble.failed(
            exc, f"{problem}{hint} Further ones are not logged.", event="suppression_unknown"
        )
        return None
    _trouble.clear()
    return found


def _read_entries(addresses: Sequence[str], has_tables: bool) -> Entries:
    # Here, because its models need the app, which is optional.
    from truncus_django.models import SuppressedAddress

    connection = connections[SuppressedAddress.objects.db]
    needs_savepoint = is_in_transaction(connection) and not has_tables
    with transaction.atomic(using=connection.alias) if needs_savepoint else nullcontext():
        return over_a_live_connection(partial(_entries, addresses), using=connection.alias)


def _entries(addresses: Sequence[str]) -> Entries:
    # Here, because its models need the app, which is optional.
    from truncus_django.models import SuppressedAddress

    found: dict[str, list[tuple[str, str, str]]] = {}
    at_once = MAX_VALUES // (1 + number_of_keys())
    for start in range(0, len(addresses), at_once):
        some = {each: each for each in addresses[start : start + at_once]}
        some |= {digest: each for each in some for digest in digests_of(each)}
        rows = SuppressedAddress.objects.filter(address__in=some).order_by()
        for stored, *entry, expires_at in rows.values_list(*_COLUMNS):
            # Not in the query, which takes half as long again with the condition (to compile).
            if expires_at is None or expires_at > timezone.now():
                found.setdefault(some[stored], []).append((entry[0], entry[1], entry[2]))
    return found
