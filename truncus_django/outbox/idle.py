"""Why nothing is to be sent now, and until when: a queue's, and that of tenants by the thousand."""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.db.models import Q

from truncus_django import rate_limit
from truncus_django.accounts import get_own_account
from truncus_django.api.errors import ConfigurationError, kind_of, log_text_of_code
from truncus_django.db.clock import moment_of, unix_of
from truncus_django.models import OutboxAccount
from truncus_django.outbox.retry_policy import LONGEST_RETRY_S
from truncus_django.outbox.waiting import QueueName, is_placeholder

SHORTEST_WAIT_S = 0.005
LONGEST_PACE_S = 70.0
"""No pace holds a request for longer; what seems to was noted before a clock was set back."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is to be sent now.

    Attributes:
        due_at: unix seconds, by the database's clock, when something may be; ``None`` where
            nothing waits at all.
        is_pace: whether something would be sent now but for the account's limits.
        paused: queues whose account makes no request at present, by their labels, and why, as logs
            may say it. The label of a mailer is its alias.
        held_back: queues whose emails of low priority wait, and why, as logs may say it.
    """

    due_at: float | None = None
    is_pace: bool = False
    paused: dict[str, str] = field(default_factory=dict)
    held_back: dict[str, str] = field(default_factory=dict)

    def wait_s(self, now: float) -> float:
        """Return for how many seconds nothing is to be sent; a moment where it is over already."""
        return math.inf if self.due_at is None else max(self.due_at - now, SHORTEST_WAIT_S)


def is_paused(account: OutboxAccount, now: float) -> bool:
    # A pause that seems longer was noted before the clock was set back.
    return now < rate_limit.paused_until(account, now=now) <= now + LONGEST_RETRY_S


@dataclass(frozen=True, slots=True)
class HeldTenant:
    """What the rows of accounts say of a tenant, before anybody is asked.

    Attributes:
        account: the account's name.
        idle: why nothing of it is to be sent now.
        needs_a_person: whether another key, or a tenant that is known again, ends it.
    """

    account: str
    idle: Idle
    needs_a_person: bool = False


def held_tenants(queues: Iterable[QueueName], now: float) -> Mapping[QueueName, HeldTenant]:
    """Return the tenants that are paused, or whose pace lets nothing go now; 1 query for all.

    So a thousand of them cost others nothing: neither they nor ``ACCOUNTS`` are asked.
    """
    with_work = {name for name in queues if name.tenant}
    if not with_work:
        return {}
    present = moment_of(now)
    is_paced = Q(free_at__gt=present, free_at__lte=moment_of(now + LONGEST_PACE_S))
    is_held = is_paced | Q(paused_until__gt=present)
    accounts = OutboxAccount.objects.filter(is_held, tenant__gt="").defer(
        "recent_requests", "capabilities", "error"
    )
    found: dict[QueueName, HeldTenant] = {}
    for account in accounts:
        name = QueueName(account.mailer, account.tenant)
        if name not in with_work:
            continue
        is_unavailable = is_placeholder(account.pk)
        if is_unavailable and not is_paused(account, now):
            continue  # it is time to ask again
        if account.paused_until is not None and account.paused_until > present:
            if account.allows_fallback:
                continue  # another mailer may send meanwhile
            why = {name.label: log_text_of_code(account.error_code)}
            kind = kind_of(account.error_code)
            needs_a_person = is_unavailable or (kind is not None and kind.is_misconfiguration)
            idle = Idle(unix_of(account.paused_until), paused=why)
            found[name] = HeldTenant(account.pk, idle, needs_a_person=needs_a_person)
        elif account.free_at is not None:
            idle = Idle(unix_of(account.free_at), is_pace=True)
            found[name] = HeldTenant(account.pk, idle)
    return found


def with_new_account(held: Mapping[QueueName, HeldTenant]) -> QueueName | None:
    """Return a paused tenant that has another account now; ``None`` where none is found.

    One of them is asked for, by chance, so that a key which a person replaced is soon used, and the
    others cost nothing.
    """
    paused = [name for name, each in held.items() if each.needs_a_person]
    if not paused:
        return None
    name = random.choice(paused)  # noqa: S311
    try:
        account = get_own_account(*name).client.account
    except ConfigurationError:
        return None
    return name if account != held[name].account else None
