"""Request limits and sending quotas, as the vendor's API summary tells them.

Requests are counted in windows of the clock's whole seconds and minutes. A refused request does
not count, so that a client which waits as told always gets in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from truncus_django.api import contract
from truncus_django.emulator.options import Options
from truncus_django.emulator.refusals import Refusal

_TIER_CODE = "rate_limit_exceeded"


@dataclass
class _Window:
    number: int = -1
    count: int = 0


class RequestLimits:
    """How many requests each API key made in this second and in this minute."""

    def __init__(self, options: Options) -> None:
        """Begin with nothing counted."""
        self._limits = (
            (1, options.requests_per_second, "RATE_LIMIT_SECOND", "second"),
            (60, options.requests_per_minute, "RATE_LIMIT_MINUTE", "minute"),
        )
        self._windows: dict[tuple[str, int], _Window] = {}

    def count(self, api_key: str, *, now: float) -> None:
        """Count one request.

        Raises:
            Refusal: 429 with ``Retry-After`` in whole seconds; the request is not counted.
        """
        open_windows = []
        for length_s, limit, code, unit in self._limits:
            if not limit:
                continue
            window = self._windows.setdefault((api_key, length_s), _Window())
            number = int(now // length_s)
            if window.number != number:
                window.number, window.count = number, 0
            if window.count >= limit:
                ends_at = (number + 1) * length_s
                raise too_many_requests(code, unit, limit=limit, ends_at=ends_at, now=now)
            open_windows.append(window)
        for window in open_windows:
            window.count += 1


def too_many_requests(
    code: str, unit: str, *, limit: int, ends_at: float, now: float, retry_after: int | None = None
) -> Refusal:
    """Return the 429 of ``limit`` requests per ``unit``, whose window ends at ``ends_at``."""
    wait_s = retry_after if retry_after is not None else max(1, math.ceil(ends_at - now))
    return Refusal(
        429,
        (_TIER_CODE, code),
        f"Tier limit of {limit} requests per {unit} exceeded. Retry after {wait_s} seconds.",
        retry_after=wait_s,
        headers={
            contract.RATE_LIMIT_HEADER: str(limit),
            contract.RATE_REMAINING_HEADER: "0",
            contract.RATE_RESET_HEADER: str(math.ceil(ends_at)),
        },
    )


class Quotas:
    """How many emails each API key sent this month, and each domain today (UTC)."""

    def __init__(self, options: Options) -> None:
        """Begin with nothing counted."""
        self._monthly_limit = options.monthly_limit
        self._daily_limit = options.daily_limit
        self._sent_by_key: dict[tuple[str, str], int] = {}
        self._sent_by_domain: dict[tuple[str, str], int] = {}

    def check(self, api_key: str, domain: str, *, now: float) -> None:
        """Return quietly if one more email may be sent.

        Raises:
            Refusal: 429 whose ``Retry-After`` reaches to the next month or day.
        """
        moment = datetime.fromtimestamp(now, UTC)
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if self._monthly_limit and self._sent_this_month(api_key, now) >= self._monthly_limit:
            next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
            raise _quota_spent(
                "MONTHLY_LIMIT_EXCEEDED", "Monthly limit", self._monthly_limit, next_month, moment
            )
        sent_today = self._sent_by_domain.get((domain, _day(now)), 0)
        if self._daily_limit and sent_today >= self._daily_limit:
            tomorrow = midnight + timedelta(days=1)
            what = f"Daily limit of {domain}"
            raise _quota_spent("WARMUP_CAP_EXCEEDED", what, self._daily_limit, tomorrow, moment)

    def count(self, api_key: str, domain: str, *, now: float) -> None:
        """Count one email that was accepted."""
        by_key, by_domain = (api_key, _month(now)), (domain, _day(now))
        self._sent_by_key[by_key] = self._sent_by_key.get(by_key, 0) + 1
        self._sent_by_domain[by_domain] = self._sent_by_domain.get(by_domain, 0) + 1

    def headers(self, api_key: str, *, now: float) -> Mapping[str, str]:
        """Return the ``X-Monthly-*`` headers of an answer; none without a monthly limit."""
        if not self._monthly_limit:
            return {}
        sent = self._sent_this_month(api_key, now)
        return {
            contract.MONTHLY_LIMIT_HEADER: str(self._monthly_limit),
            contract.MONTHLY_SENT_HEADER: str(sent),
            contract.MONTHLY_REMAINING_HEADER: str(max(0, self._monthly_limit - sent)),
        }

    def _sent_this_month(self, api_key: str, now: float) -> int:
        return self._sent_by_key.get((api_key, _month(now)), 0)


def _quota_spent(
    code: str, what: str, limit: int, renewed_at: datetime, moment: datetime
) -> Refusal:
    wait_s = math.ceil((renewed_at - moment).total_seconds())
    message = f"{what} of {limit} emails reached. Retry after {wait_s} seconds."
    headers = {
        contract.RATE_LIMIT_HEADER: str(limit),
        contract.RATE_REMAINING_HEADER: "0",
        contract.RATE_RESET_HEADER: str(math.ceil(renewed_at.timestamp())),
    }
    return Refusal(429, (_TIER_CODE, code), message, retry_after=wait_s, headers=headers)


def _month(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m")


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
