"""Keeps a part of the monthly quota for what is urgent: ``QUOTA_RESERVE``.

Once no more than the reserve is left, emails of low priority wait until the month ends or the quota
grows; the others still go. Whether it has grown, the answer to any email tells. Where a day passes
without one, a single email of low priority asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet, Sum

from truncus_django.accounts import get_account
from truncus_django.api.errors import ConfigurationError
from truncus_django.db.clock import moment_of
from truncus_django.mailers import mailers_by_account
from truncus_django.models import AccountQuota, OutboxBatch, OutboxEntry, Priority
from truncus_django.outbox.waiting import QueueName
from truncus_django.quota.figures import Figures, held_back_until, reserved_emails
from truncus_django.quota.figures import low_priority_left as left_by_figures
from truncus_django.quota.overview import figures_of

MAX_UNDER_WAY = 10_000
"""Where so many more are left, it does not matter what requests that are under way use up."""

MAY_WAIT = Q(priority=Priority.LOW, is_ambiguous=False)
"""Batches that a reserve holds back. One that may have been accepted is repeated in time."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many emails of low priority a mailer may send now.

    Attributes:
        left: so many; ``None`` for any number.
        until: unix seconds when that changes at the latest, where the reserve is reached.
        why: the reason, as logs may say it; empty where the reserve is not reached.
    """

    left: int | None = None
    until: float | None = None
    why: str = ""

    @property
    def is_reserve_reached(self) -> bool:
        """Whether emails of low priority are held back."""
        return self.until is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """Emails of low priority that wait because of ``QUOTA_RESERVE``.

    Attributes:
        mailer: whose; empty for the settings in ``TRUNCUS`` alone.
        tenant: whose own account it is; empty for the mailer's own.
        emails: how many, as far as is counted.
        left: emails that the account may send in this month.
        reserved: those of them that the reserve keeps, if there are so many.
        until: when one of them asks whether the quota has grown, or the month ends.
    """

    mailer: str
    emails: int
    left: int
    reserved: int
    until: datetime
    tenant: str = ""


def allowance(account: str, reserve: float, *, now: float) -> Allowance:
    """Return how many emails of low priority may be sent; no query without a reserve.

    Args:
        account: its row in :class:`OutboxAccount` is locked, so that nobody else claims a request.
        reserve: the setting.
        now: unix seconds, by the database's clock.
    """
    if not reserve:
        return Allowance()
    row = AccountQuota.objects.filter(pk=account).first()
    known = Figures() if row is None else figures_of(row)
    left = left_by_figures(known, reserve, now=now)
    if left is None:
        return Allowance()
    if left == 0:
        return Allowance(0, held_back_until(known, now=now), _why(known, reserve))
    if left < MAX_UNDER_WAY:
        # They use the quota up, and their answers have not told so yet, or never came.
        under_way = OutboxBatch.objects.filter(account=account, is_ambiguous=True)
        left -= under_way.aggregate(emails=Sum("size"))["emails"] or 0
    return Allowance(max(left, 0))


def _why(known: Figures, reserve: float) -> str:
    reserved = reserved_emails(reserve, known.limit)
    left = f"{known.remaining} emails are left of this month's quota"
    return f"{left}, and QUOTA_RESERVE keeps {reserved}"


def held_back(
    rows: Iterable[AccountQuota], *, now: float, count_up_to: int | None
) -> tuple[HeldBack, ...]:
    """Return what the reserves hold back; queries only where one is reached.

    Args:
        rows: of all accounts.
        now: unix seconds, by the database's clock.
        count_up_to: where to stop counting; ``None`` for nowhere.
    """
    rows, users = list(rows), mailers_by_account()
    queues = [(QueueName(mailer), row) for row in rows for mailer in users.get(row.account, ())]
    of_tenants = [row for row in rows if row.tenant and row.remaining is not None]
    if of_tenants:
        low = _low_priority().filter(tenant__gt="").order_by()
        with_low = set(low.values_list("mailer", "tenant").distinct())
        # Only these are asked for: there may be many tenants, and most send nothing of the kind.
        queues += [
            (QueueName(row.mailer, row.tenant), row)
            for row in of_tenants
            if (row.mailer, row.tenant) in with_low and row.account not in users
        ]
    found = [
        _held_back_of(queue, row.account, figures_of(row), now=now, count_up_to=count_up_to)
        for queue, row in queues
    ]
    return tuple(each for each in found if each is not None and each.emails)


def _low_priority() -> QuerySet[OutboxEntry]:
    return OutboxEntry.objects.filter(
        Q(is_waiting=True) | Q(batch__isnull=False), priority=Priority.LOW
    )


def _held_back_of(
    queue: QueueName, account: str, known: Figures, *, now: float, count_up_to: int | None
) -> HeldBack | None:
    try:
        found = get_account(queue.mailer, queue.tenant)
    except ConfigurationError:
        return None  # it is paused, which is told elsewhere
    if found.client.account != account:
        return None  # its key was replaced
    reserve = found.settings.quota_reserve
    if left_by_figures(known, reserve, now=now) != 0:
        return None
    low = OutboxEntry.objects.filter(queue.of_entries(), priority=Priority.LOW)
    batches = OutboxBatch.objects.filter(MAY_WAIT, queue.of_entries(), lease=None)
    waiting = low.filter(is_waiting=True).order_by()[:count_up_to].count()
    tried = low.filter(batch__in=batches.values("pk")).order_by()[:count_up_to].count()
    return HeldBack(
        mailer=queue.mailer,
        tenant=queue.tenant,
        emails=waiting + tried,
        left=known.remaining or 0,
        reserved=reserved_emails(reserve, known.limit),
        until=moment_of(held_back_until(known, now=now)),
    )
