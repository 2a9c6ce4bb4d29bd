"""What is known of an account's quota, and what an answer changes about it: pure, nothing else.

Moments are unix seconds. Months and days are those of UTC, as Truncus counts them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from truncus_django.api.results import MonthlyQuota

DAY_S = 24 * 60 * 60.0
THRESHOLDS = (80, 95, 100)
"""Of a hundred; the signal tells each once in a month."""
STALE_S = DAY_S
"""Figures that are older than this are not relied upon: others may send with the same key."""
RATE_MEMORY_S = 2 * DAY_S
"""What was sent so long ago counts for about a third in the present rate. Less would take the hour
of a newsletter for the usual pace."""
CLOCK_TOLERANCE_S = 300.0
"""What was told later than now by more than this was told before the clock was set back. For so
long after a month has begun, an answer may be of the one before: it was under way, or the clock is
ahead of Truncus's."""
OUT_OF_ORDER_S = 60.0
"""Fewer emails than were told a moment ago are told by an answer that was slow."""
MOST = 10**12
"""No plan has as many emails."""
MAX_DOMAINS = 100


@dataclass(frozen=True, slots=True)
class Told:
    """What one answer, or several at once, told of an account.

    Attributes:
        quota: of the headers, where they can be true.
        is_used_up: whether an email was refused for the month's quota.
        capped_domains: whose emails were refused for a daily cap.
    """

    quota: MonthlyQuota | None = None
    is_used_up: bool = False
    capped_domains: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.quota is not None or self.is_used_up or bool(self.capped_domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of an account.

    Attributes:
        month: the first day of the month that the figures are of; ``None`` where none are known.
        limit: of the plan; ``None`` where only an error has told of the quota.
        sent, remaining: in that month; ``None`` where that was not told.
        told_at: when they were told.
        emails_per_day: the present rate, in which what was sent long ago counts for less.
        told_percent: the highest of :data:`THRESHOLDS` that was reached in the month.
        capped: until when the daily cap of each domain is taken to be used up.
    """

    month: date | None = None
    limit: int | None = None
    sent: int | None = None
    remaining: int | None = None
    told_at: float | None = None
    emails_per_day: float = 0.0
    told_percent: int = 0
    capped: Mapping[str, float] = field(default_factory=dict)

    @property
    def used(self) -> int | None:
        """How many emails of the month are used up, by whichever figure says more."""
        if self.sent is None or self.limit is None or self.remaining is None:
            return self.sent
        return max(self.sent, self.limit - self.remaining)

    @property
    def share(self) -> float | None:
        """The used part of the limit, 0 to 1; ``None`` where it is not known."""
        if self.remaining == 0:
            return 1.0
        if self.used is None or not self.limit:
            return None
        return min(1.0, self.used / self.limit)

    @property
    def percent_reached(self) -> int:
        """The highest of :data:`THRESHOLDS` that is reached; 0 where none is."""
        if self.remaining == 0:
            return THRESHOLDS[-1]
        if self.used is None or not self.limit:
            return 0
        reached = [each for each in THRESHOLDS if 100 * self.used >= each * self.limit]
        return max(reached, default=0)


def month_of(now: float) -> date:
    """Return the first day of the month."""
    return datetime.fromtimestamp(now, UTC).date().replace(day=1)


def month_begins_at(now: float) -> float:
    """Return when the month began."""
    return _midnight(month_of(now))


def month_ends_at(now: float) -> float:
    """Return when the month ends, and the quota is renewed."""
    return _midnight((month_of(now) + timedelta(days=32)).replace(day=1))


def day_ends_at(now: float) -> float:
    """Return when the day ends, and daily caps are renewed."""
    return _midnight(datetime.fromtimestamp(now, UTC).date() + timedelta(days=1))


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def is_plausible(quota: MonthlyQuota) -> bool:
    """Return whether a quota can be true; an unlimited plan may be told as 0 or -1."""
    return (
        0 < quota.limit <= MOST and 0 <= quota.sent <= MOST and 0 <= quota.remaining <= quota.limit
    )


def is_stale(known: Figures, *, now: float) -> bool:
    """Return whether figures are too old to be relied upon, or from before a clock was set back."""
    told_at = known.told_at
    return told_at is None or not now - STALE_S <= told_at <= now + CLOCK_TOLERANCE_S


def in_month(known: Figures, *, now: float) -> Figures:
    """Return what is known of the present month: of another one, only limit and rate remain."""
    if known.month == month_of(now):
        return known
    return replace(known, month=month_of(now), sent=None, remaining=None, told_percent=0)


# What an answer changes ---------------------------------------------------------------------------


def updated(known: Figures, told: Told, *, now: float) -> Figures:
    """Return what is known after an answer.

    What is told later is believed, also where there are fewer emails than before or the limit is
    smaller; but for fewer emails that are told within a moment, as answers come out of order, and
    for no fewer as a month begins.

    Args:
        known: before it.
        told: the answer.
        now: when it came.
    """
    capped = {domain: until for domain, until in known.capped.items() if until > now}
    for domain in sorted(told.capped_domains):
        if len(capped) < MAX_DOMAINS:
            capped[domain] = day_ends_at(now)
    known = replace(known, capped=capped)
    if not (told.quota or told.is_used_up):
        return known
    if _is_out_of_order(known, told, now) or _is_of_last_month(known, told, now):
        return known
    current = in_month(known, now=now)
    if told.quota is not None:
        current = replace(
            current,
            limit=told.quota.limit,
            sent=told.quota.sent,
            remaining=told.quota.remaining,
            emails_per_day=_rate(known, told.quota.sent, now),
        )
    if told.is_used_up:
        current = replace(current, remaining=0)
    percent = max(current.told_percent, current.percent_reached)
    return replace(current, told_at=now, told_percent=percent)


def _is_out_of_order(known: Figures, told: Told, now: float) -> bool:
    if known.told_at is None or not now - OUT_OF_ORDER_S < known.told_at <= now + CLOCK_TOLERANCE_S:
        return False
    if now < known.told_at:
        return True
    return (
        told.quota is not None
        and not told.is_used_up
        and (known.month, known.limit) == (month_of(now), told.quota.limit)
        and told.quota.sent < (known.sent or 0)
    )


def _is_of_last_month(known: Figures, told: Told, now: float) -> bool:
    """Return whether an answer that comes as a month begins goes on with the one before.

    Else a threshold of the new month would be told at its first second, and no more in all of it.
    """
    begun_at = month_begins_at(now)
    if known.month is None or known.month >= month_of(now) or now - begun_at >= CLOCK_TOLERANCE_S:
        return False
    return told.is_used_up or (
        told.quota is not None and known.sent is not None and told.quota.sent >= known.sent
    )


def _rate(known: Figures, sent: int, now: float) -> float:
    """Return the emails per day: a mean in which what was sent long ago counts for less."""
    if known.told_at is None or known.sent is None:
        # Within the first day, one burst would make a rate that cannot be.
        return sent * DAY_S / max(now - month_begins_at(now), DAY_S)
    if known.month == month_of(now):
        count, begun_at = sent - known.sent, known.told_at
    else:
        count, begun_at = sent, max(month_begins_at(now), known.told_at)
    seconds = now - begun_at
    if count < 0 or seconds <= 0:
        return known.emails_per_day  # which that says nothing about
    weight = -math.expm1(-seconds / RATE_MEMORY_S)
    return known.emails_per_day * (1 - weight) + count * DAY_S / seconds * weight


# What follows from it -----------------------------------------------------------------------------


def runs_out_at(known: Figures, *, now: float) -> float | None:
    """Return when the quota is used up at the present rate.

    ``None`` where it lasts until the month ends, where it is used up already, and where that is
    not known.
    """
    known = in_month(known, now=now)
    if not known.remaining or known.told_at is None or is_stale(known, now=now):
        return None
    if known.emails_per_day <= 0:
        return None
    moment = known.told_at + known.remaining * DAY_S / known.emails_per_day
    return max(now, moment) if moment < month_ends_at(now) else None


def reserved_emails(reserve: float, limit: int | None) -> int:
    """Return how many emails a reserve keeps: it is a number of them, or below 1 a share."""
    return math.ceil(reserve * (limit or 0)) if reserve < 1 else int(reserve)


def low_priority_left(known: Figures, reserve: float, *, now: float) -> int | None:
    """Return how many emails of low priority may be sent; ``None`` for any number.

    Where the reserve is reached and the figures are stale, 1: its answer tells whether the quota
    has grown.

    Args:
        known: the figures.
        reserve: a number of emails, or below 1 a part of the limit; 0 for none.
        now: the present.
    """
    if not reserve or known.month != month_of(now) or known.remaining is None:
        return None
    left = known.remaining - reserved_emails(reserve, known.limit)
    return max(left, 1 if is_stale(known, now=now) else 0)


def held_back_until(known: Figures, *, now: float) -> float:
    """Return when emails of low priority go on at the latest: a new month, or one that asks."""
    asks_at = now if known.told_at is None else known.told_at + STALE_S
    return min(max(asks_at, now), month_ends_at(now))
