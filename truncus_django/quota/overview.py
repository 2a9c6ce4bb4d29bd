"""What is known of the quotas of all accounts, for pages and programs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from truncus_django.db.clock import Clock, moment_of, unix_of
from truncus_django.mailers import mailers_by_account, name_of
from truncus_django.models import AccountQuota, database
from truncus_django.quota.figures import (
    Figures,
    day_ends_at,
    in_month,
    is_stale,
    month_ends_at,
    runs_out_at,
)

__all__ = ["Quota", "quotas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much of an account's plan is used up at one moment. Months are those of UTC.

    Attributes:
        account: its name in :class:`~truncus_django.models.AccountQuota`.
        mailers: which mailers send through it; the empty name is that of ``TRUNCUS`` alone.
        tenant: whose own account it is; empty for a mailer's own.
        at: that moment, by the database's clock.
        limit: emails of a month; ``None`` where only a refusal has told of the quota.
        used, left: of this month; ``None`` where Truncus has not told in this month.
        share: the used part of the limit, 0 to 1; ``None`` where it is not known.
        told_at: when Truncus told it last.
        is_stale: whether that is more than a day ago.
        emails_per_day: the present rate: a mean over about two days.
        runs_out_at: when all is used up at this rate; ``None`` where it lasts until the month ends,
            is used up, or where that is not known.
        renewed_at: when the month ends.
        capped_domains: senders whose daily cap of the warm-up seems to be used up: emails were
            refused for it today. Truncus tells no figures of these caps.
        capped_until: when the day ends, where there are such domains.
    """

    account: str
    mailers: tuple[str, ...]
    at: datetime
    limit: int | None
    used: int | None
    left: int | None
    share: float | None
    told_at: datetime | None
    is_stale: bool
    emails_per_day: float
    runs_out_at: datetime | None
    renewed_at: datetime
    capped_domains: tuple[str, ...] = ()
    capped_until: datetime | None = None
    tenant: str = ""

    @property
    def name(self) -> str:
        """The mailers' names; ``TRUNCUS`` where its settings alone are what it is known by.

        With the tenant, where the account is a tenant's own.
        """
        return name_of(self.mailers, self.tenant)

    @property
    def is_used_up(self) -> bool:
        """Whether no email is left in this month."""
        return self.left == 0


def quotas() -> tuple[Quota, ...]:
    """Return the quotas of the accounts that mailers use, by the mailers' names.

    One query, and on a database server one more, for its time.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    return quotas_of(AccountQuota.objects.all(), now=Clock(database()).now())


def quotas_of(rows: Iterable[AccountQuota], *, now: float) -> tuple[Quota, ...]:
    """Return the quotas of those rows whose account a mailer or a tenant uses."""
    users = mailers_by_account()
    found: list[Quota] = []
    of_tenants: dict[tuple[str, str], AccountQuota] = {}
    for row in rows:
        if row.account in users:
            mailers = users[row.account]
            found.append(quota_of(row.account, figures_of(row), mailers, now=now))
        elif row.tenant:
            # Of a key that was replaced, the row tells no more.
            name = row.mailer, row.tenant
            of_tenants[name] = max(of_tenants.get(name, row), row, key=_told_at)
    for (mailer, tenant), row in of_tenants.items():
        found.append(quota_of(row.account, figures_of(row), [mailer], now=now, tenant=tenant))
    return tuple(sorted(found, key=lambda quota: (quota.mailers, quota.tenant)))


def _told_at(row: AccountQuota) -> float:
    return 0.0 if row.told_at is None else unix_of(row.told_at)


def quota_of(
    account: str, figures: Figures, mailers: Iterable[str], *, now: float, tenant: str = ""
) -> Quota:
    """Return what figures say at a moment, in unix seconds."""
    current = in_month(figures, now=now)
    end = runs_out_at(current, now=now)
    domains = tuple(sorted(name for name, until in current.capped.items() if until > now))
    return Quota(
        account=account,
        mailers=tuple(mailers),
        at=moment_of(now),
        limit=current.limit,
        used=current.used,
        left=current.remaining,
        share=current.share,
        told_at=None if current.told_at is None else moment_of(current.told_at),
        is_stale=is_stale(current, now=now),
        emails_per_day=current.emails_per_day,
        runs_out_at=None if end is None else moment_of(end),
        renewed_at=moment_of(month_ends_at(now)),
        capped_domains=domains,
        capped_until=moment_of(day_ends_at(now)) if domains else None,
        tenant=tenant,
    )


def figures_of(row: AccountQuota) -> Figures:
    """Return what a row says, whatever somebody wrote into it."""
    capped = row.capped if isinstance(row.capped, dict) else {}
    return Figures(
        month=row.month,
        limit=row.limit,
        sent=row.sent,
        remaining=row.remaining,
        told_at=None if row.told_at is None else unix_of(row.told_at),
        emails_per_day=row.emails_per_day,
        told_percent=row.told_percent,
        capped={
            domain: float(until)
            for domain, until in capped.items()
            if isinstance(until, int | float) and not isinstance(until, bool)
        },
    )
