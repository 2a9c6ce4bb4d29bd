"""How much waits in the outbox, since when, and what keeps it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Count, Min, Q, Subquery

from truncus_django.api.errors import ConfigurationError
from truncus_django.conf import SETTING_NAMES, get_settings, mailers
from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.mailers import mailers_by_account, name_of
from truncus_django.models import (
    AccountQuota,
    Email,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    Priority,
    database,
)
from truncus_django.outbox.reserve import MAY_WAIT, HeldBack, held_back
from truncus_django.outbox.waiting import (
    AWAITS_SEND_AT,
    QueueName,
    is_placeholder,
    waiting_mailers,
    waiting_of_tenants,
)
from truncus_django.quota.overview import Quota, quotas_of
from truncus_django.rate_limit import recent_requests
from truncus_django.states import State

__all__ = ["HeldBack", "OutboxHealth", "PausedAccount", "health"]

COUNT_UP_TO = 10_000
"""Counting more would cost more than it tells."""
LEASE_GRACE_S = 60.0
"""A lease that ran out longer ago than this has not been taken over: no worker runs."""
UNATTENDED_S = 300.0
"""Where something could be sent and no request was made for so long, no worker runs either."""


@dataclass(frozen=True, slots=True)
class PausedAccount:
    """An account that makes no request at present.

    Attributes:
        account: its name in :class:`~truncus_django.models.OutboxAccount`.
        mailers: which mailers send through it; the empty name is that of ``TRUNCUS`` alone.
        tenant: whose own account it is, or was to be; empty for a mailer's own.
        until: when it goes on by itself.
        reason: the error that it met; says nothing of its emails.
    """

    account: str
    mailers: tuple[str, ...]
    until: datetime
    error_code: str
    reason: str
    tenant: str = ""

    @property
    def name(self) -> str:
        """The mailers' names; ``TRUNCUS`` where its settings alone are what it is known by.

        With the tenant, where the account is a tenant's own.
        """
        return name_of(self.mailers, self.tenant)

    @property
    def is_misconfigured(self) -> bool:
        """Whether it stands for a mailer or a tenant whose settings lead to no account."""
        return is_placeholder(self.account)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxHealth:
    """What the outbox looked like at one moment.

    Attributes:
        at: that moment, by the database's clock.
        pending: emails that wait for their first request, or for another after a retry by hand.
        sending: emails in a request that is under way, or waits for its next try.
        unknown: emails that may have been sent, and wait for a person's decision.
        failed: emails that failed and can be retried: their payload is stored.
        counted_up_to: where counting ended; a count of so many may be more. ``None``: nowhere.
        oldest_age_s: seconds for which the oldest email waits, since it was written or put back by
            hand; one that awaits its ``send_at``, or that ``QUOTA_RESERVE`` holds back, does not
            count. ``None``: none waits.
        next_attempt_at: the earliest of the next tries of what waits for one; ``None``: none does.
        last_request_at: when a request was last made, by any worker; ``None`` where nobody noted.
        last_error: what keeps emails that wait for another try; empty where nothing does.
        overdue_leases: requests whose worker died over a minute ago and that nobody took over,
            though their account is not paused.
        is_unattended: whether no worker seems to run, though something could be sent; what waits
            for a paused account could not.
        paused: the accounts that make no request at present.
        held_back: emails of low priority that ``QUOTA_RESERVE`` keeps waiting. They count as
            pending, and nowhere else.
        quotas: how much of each account's plan is used up, as far as Truncus has told.
    """

    at: datetime
    pending: int
    sending: int
    unknown: int
    failed: int
    counted_up_to: int | None
    oldest_age_s: float | None
    next_attempt_at: datetime | None
    last_request_at: datetime | None
    last_error: str
    overdue_leases: int
    is_unattended: bool = False
    paused: tuple[PausedAccount, ...] = field(default=())
    held_back: tuple[HeldBack, ...] = field(default=())
    quotas: tuple[Quota, ...] = field(default=())

    def is_healthy(self, *, max_age_s: float = 900.0) -> bool:
        """Return whether emails leave: none waits too long, and workers take over from dead ones.

        Args:
            max_age_s: seconds that an email may wait.
        """
        return self.overdue_leases == 0 and (self.oldest_age_s or 0.0) <= max_age_s

    def as_dict(self) -> dict[str, float]:
        """Return numbers by name, as Prometheus and its like take them; times in unix seconds."""
        numbers = asdict(self)
        del numbers["last_error"], numbers["counted_up_to"], numbers["at"], numbers["quotas"]
        del numbers["is_unattended"]
        numbers["held_back"] = sum(each.emails for each in self.held_back)
        numbers["quota_share"] = max((quota.share or 0.0 for quota in self.quotas), default=0.0)
        return {f"truncus_outbox_{name}": _number(value) for name, value in numbers.items()}


def health(*, count_up_to: int | None = COUNT_UP_TO) -> OutboxHealth:
    """Return how the outbox is.

    About ten queries, which cost the same for 1,000 emails that wait and for 100,000.

    Args:
        count_up_to: where to stop counting; ``None`` counts all, and costs accordingly.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    now = Clock(database()).now()
    accounts = list(OutboxAccount.objects.all())
    paused = paused_accounts(now, accounts)
    account_quotas = list(AccountQuota.objects.all())
    held = held_back(account_quotas, now=now, count_up_to=count_up_to)
    waits_for_quota = MAY_WAIT & Q(lease=None) & _of_queues(held)
    died = Q(lease__isnull=False, due_at__lt=moment_of(now - LEASE_GRACE_S))
    died &= ~Q(account__in=[account.account for account in paused])
    batches = OutboxBatch.objects.order_by().values_list("mailer", "tenant")
    requested = [
        _Requested(QueueName(mailer, tenant), *found)
        for mailer, tenant, *found in batches.annotate(
            oldest=Min("created_at", filter=~Q(error_code=AWAITS_SEND_AT) & ~waits_for_quota),
            next_attempt_at=Min("due_at", filter=Q(lease=None) & ~waits_for_quota),
            overdue=Count("pk", filter=died),
        )
    ]
    waiting = list(_oldest_waiting(held))
    since = [moment for _, moment in waiting] + [each.oldest for each in requested]
    oldest = min(filter(None, since), default=None)
    next_tries = [each.next_attempt_at for each in requested]
    next_attempt_at = min(filter(None, next_tries), default=None)
    overdue = sum(each.overdue for each in requested)
    recent = [recent_requests(account, now=now) for account in accounts]
    last_request = max((min(moments[-1], now) for moments in recent if moments), default=None)
    open_queues = _open_queues(
        {queue for queue, _ in waiting} | {each.queue for each in requested}, accounts, paused
    )
    return OutboxHealth(
        at=moment_of(now),
        pending=_count(State.PENDING, count_up_to),
        sending=_count(State.SENDING, count_up_to),
        unknown=_count(State.UNKNOWN, count_up_to),
        failed=_count_retryable(count_up_to),
        counted_up_to=count_up_to,
        oldest_age_s=None if oldest is None else max(0.0, now - unix_of(oldest)),
        next_attempt_at=next_attempt_at,
        last_request_at=None if last_request is None else moment_of(last_request),
        last_error=_last_error(accounts, paused) if next_attempt_at else "",
        overdue_leases=overdue,
        is_unattended=bool(overdue)
        or _waits_for_worker(
            [moment for queue, moment in waiting if queue in open_queues],
            [each.next_attempt_at for each in requested if each.queue in open_queues],
            last_request=last_request,
            now=now,
        ),
        paused=paused,
        held_back=held,
        quotas=quotas_of(account_quotas, now=now),
    )


def is_in_use() -> bool:
    """Return whether any mailer sends through the outbox, or anything is in it."""
    for _, options in [(None, {}), *mailers()]:
        known = {name: value for name, value in options.items() if name in SETTING_NAMES}
        try:
            if get_settings(known).delivery == "outbox":
                return True
        except ConfigurationError:
            continue
    return OutboxEntry.objects.exists()


def paused_accounts(
    now: float, accounts: Sequence[OutboxAccount] | None = None
) -> tuple[PausedAccount, ...]:
    """Return the accounts that are paused now, by the end of their pause.

    One that no mailer uses any more, as its key was replaced, keeps nothing and is left out.
    """
    found = accounts if accounts is not None else OutboxAccount.objects.all()
    paused = [
        (account.paused_until, account)
        for account in found
        if account.paused_until is not None and unix_of(account.paused_until) > now
    ]
    if not paused:
        return ()
    users = mailers_by_account()
    return tuple(
        PausedAccount(
            account=account.account,
            mailers=names,
            until=until,
            error_code=account.error_code,
            reason=account.error,
            tenant="" if account.account in users else account.tenant,
        )
        for until, account in sorted(paused, key=lambda pair: pair[0])
        if (names := _users(account, users))
    )


# The parts ----------------------------------------------------------------------------------------


class _Requested(NamedTuple):
    """What the batches of a queue tell, as :class:`OutboxHealth` has it of all."""

    queue: QueueName
    oldest: datetime | None
    next_attempt_at: datetime | None
    overdue: int


def _open_queues(
    queues: Iterable[QueueName],
    accounts: Iterable[OutboxAccount],
    paused: Sequence[PausedAccount],
) -> Set[QueueName]:
    """Return those of the queues whose account is not paused, as far as is known.

    Several tenants may share an account, and its row names one of them. So while any is paused, a
    tenant that no row names may be waiting for it.
    """
    if not paused:
        return set(queues)
    names = {each.account for each in paused}
    tenants = {
        QueueName(account.mailer, account.tenant): account.account
        for account in accounts
        if account.tenant
    }
    closed = {QueueName(mailer, each.tenant) for each in paused for mailer in each.mailers}
    closed |= {queue for queue, account in tenants.items() if account in names}
    return {
        queue for queue in queues if queue not in closed and (not queue.tenant or queue in tenants)
    }


def _waits_for_worker(
    waiting: Iterable[datetime],
    next_tries: Iterable[datetime | None],
    *,
    last_request: float | None,
    now: float,
) -> bool:
    """Return whether something could have been sent for long, and no worker did."""
    late = moment_of(now - UNATTENDED_S)
    was_none_made = last_request is None or moment_of(last_request) < late
    return any(moment < late for moment in filter(None, next_tries)) or (
        was_none_made and any(moment < late for moment in waiting)
    )


def _count(state: State, limit: int | None) -> int:
    """Count emails in a state, as far as the limit."""
    return Email.objects.filter(state=state).order_by()[:limit].count()


def _count_retryable(limit: int | None) -> int:
    """Count those of the newest failed emails that can be retried: a direct send has no entry."""
    failed = Email.objects.filter(state=State.FAILED).order_by("-created_at")
    counted = failed.values("outbox_entry")[:limit].aggregate(entries=Count("outbox_entry"))
    return int(counted["entries"])


def _of_queues(held: Sequence[HeldBack]) -> Q:
    """Return the condition that entries, or batches, are of one of these queues."""
    # One condition for each mailer: SQLite takes no thousand of them, one for each tenant.
    tenants: dict[str, list[str]] = {}
    for each in held:
        tenants.setdefault(each.mailer, []).append(each.tenant)
    found = Q(pk__in=[])
    for mailer, of_mailer in tenants.items():
        found |= Q(mailer=mailer, tenant__in=of_mailer)
    return found


def _oldest_waiting(held: Sequence[HeldBack]) -> Iterator[tuple[QueueName, datetime]]:
    """Yield since when the first of each queue waits; of a mailer's, of each priority.

    For mailers, each is a step into the index.

    One query for a mailer, and one for all tenants with accounts of their own, as there may be
    many.
    """
    of_tenants = waiting_of_tenants()
    if any(each.tenant for each in held):
        of_tenants = of_tenants.exclude(_of_queues(held), priority=Priority.LOW)
    firsts_of_tenants = of_tenants.values_list("mailer", "tenant").annotate(Min("created_at"))
    for mailer, tenant, moment in firsts_of_tenants:
        yield QueueName(mailer, tenant), moment
    left_out = {(each.mailer, Priority.LOW) for each in held if not each.tenant}
    waiting = OutboxEntry.objects.filter(is_waiting=True, tenant="")
    for mailer in waiting_mailers():
        of_mailer = waiting.filter(mailer=mailer)
        moments = of_mailer.order_by("created_at").values("created_at")
        firsts = [
            Subquery(moments.filter(priority=priority)[:1])
            for priority in Priority
            if (mailer, priority) not in left_out
        ]
        for row in of_mailer.values_list(*firsts)[:1]:
            for moment in filter(None, row):
                yield QueueName(mailer), moment


def _last_error(accounts: Sequence[OutboxAccount], paused: Sequence[PausedAccount]) -> str:
    """Return what requests that wait for another try met last."""
    if paused:
        return paused[0].reason
    users = mailers_by_account()
    # Of an account that no mailer uses any more, as its key was replaced, nothing waits.
    failing = [
        account.error
        for account in accounts
        if account.failures and account.error and (account.account in users or account.tenant)
    ]
    if failing:
        return failing[0]
    troubled = OutboxBatch.objects.filter(lease=None).exclude(error="").order_by("-created_at")
    return troubled.values_list("error", flat=True).first() or ""


def _users(account: OutboxAccount, users: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    is_named = is_placeholder(account.account) or account.tenant
    return users.get(account.account, (account.mailer,) if is_named else ())


def _number(value: Any) -> float:
    if isinstance(value, datetime):
        return unix_of(value)
    return float(len(value) if isinstance(value, tuple) else value or 0)
